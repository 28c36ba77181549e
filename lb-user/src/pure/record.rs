//! A flow record in plain terms: what `explain` and `flows` tell of one.

use std::net::{IpAddr, SocketAddr};

use lb_common::{
    flow::{
        self, FIN, FlowKey, FlowView, NAT_REPLY, NAT_REQUEST, OPENING, Owner, RST, Ticks, Tuple,
        nat_idle_ticks,
    },
    net::{Be16, Family, UDP},
    slot::ServerId,
};

use super::{
    snapshot::Snapshot,
    status::{EndsStatus, FlowStatus},
};

/// Of a connection, or of all connections of a client with a service. A pair of records is one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// Port 0, as the client's, in the record of a client.
    pub vip: SocketAddr,
    pub protocol: u8,
    pub client: SocketAddr,
    pub of_client: bool,
    pub server: ServerId,
    /// Since the last packet of either direction that the records know of.
    pub silent_ticks: u32,
    /// Bits of the client's direction.
    request: u32,
    pub pair: Option<Pair>,
}

/// What a record of `nat` and `gateway` knows beside.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// The ends that the client's packets get.
    pub source: SocketAddr,
    pub destination: SocketAddr,
    /// Bits of the server's direction; None: that half is gone.
    reply: Option<u32>,
}

impl Record {
    /// `twin`: the other half of a pair. None: the record is itself the server's half.
    pub fn new<F: Family>(
        key: &FlowKey<F>,
        view: &FlowView<F>,
        twin: Option<Owner>,
        now: Ticks,
    ) -> Option<Self> {
        if view.state & NAT_REPLY != 0 {
            return None;
        }
        let (client, vip) = ends(key.tuple());
        let silent = now.since(view.seen);
        let pair = (view.state & NAT_REQUEST != 0).then(|| {
            let (source, destination) = ends(view.rewrite);
            Pair { source, destination, reply: twin.map(|twin| twin.state) }
        });
        Some(Record {
            vip,
            protocol: key.protocol(),
            client,
            of_client: key.is_of_client(),
            server: ServerId(view.server),
            silent_ticks: twin.map_or(silent, |twin| silent.min(now.since(twin.seen))),
            request: view.state,
            pair,
        })
    }

    /// Whether the program would take the record for void.
    pub fn is_void(&self, idle_ticks: u32) -> bool {
        let longest = match &self.pair {
            None => flow::idle_ticks(self.request, idle_ticks),
            Some(Pair { reply: Some(reply), .. }) => nat_idle_ticks(self.request, *reply, idle_ticks),
            Some(Pair { reply: None, .. }) => 0,
        };
        self.silent_ticks >= longest
    }

    /// opening | established | closing | reset
    pub fn state(&self) -> &'static str {
        let reply = self.pair.as_ref().and_then(|pair| pair.reply).unwrap_or(0);
        match self.request | reply {
            bits if bits & RST != 0 => "reset",
            bits if bits & FIN != 0 => "closing",
            _ if self.request & OPENING != 0 => "opening",
            _ => "established",
        }
    }

    pub fn idle_ms(&self) -> u64 {
        u64::from(self.silent_ticks) * NS_PER_TICK / 1_000_000
    }

    pub fn status(&self, snapshot: &Snapshot) -> FlowStatus {
        let shown = |end: SocketAddr| if self.of_client { end.ip().to_string() } else { end.to_string() };
        FlowStatus {
            service: snapshot.service_of(self.server).map(|service| service.name.clone()),
            client: shown(self.client),
            vip: shown(self.vip),
            all_ports: self.of_client,
            protocol: if self.protocol == UDP { "udp" } else { "tcp" }.to_owned(),
            server: snapshot.server_name(self.server),
            state: self.state().to_owned(),
            idle_s: self.idle_ms() / 1_000,
            rewritten: self.pair.as_ref().map(Pair::status),
        }
    }
}

impl Pair {
    pub fn status(&self) -> EndsStatus {
        EndsStatus { source: self.source.to_string(), destination: self.destination.to_string() }
    }
}

fn ends<F: Family>(tuple: Tuple<F>) -> (SocketAddr, SocketAddr) {
    let end = |address: IpAddr, port: Be16| SocketAddr::new(address, port.get());
    (
        end(F::mapped(tuple.source).to_ip(), tuple.source_port),
        end(F::mapped(tuple.destination).to_ip(), tuple.destination_port),
    )
}

const NS_PER_TICK: u64 = 1 << flow::TICK_SHIFT;

#[cfg(test)]
mod tests {
    use lb_common::{
        flow::{CLOSED_TICKS, OPENING_TICKS},
        net::{Be128, TCP, V4, V6},
    };

    use super::*;

    const IDLE: u32 = 6_000;
    const NOW: Ticks = Ticks(100_000);

    fn tuple<F: Family>(address: impl Fn(u8) -> F::Address) -> Tuple<F> {
        Tuple {
            source: address(1),
            destination: address(2),
            source_port: Be16::new(40_000),
            destination_port: Be16::new(80),
        }
    }

    fn view<F: Family>(rewrite: Tuple<F>, state: u32, silent: u32) -> FlowView<F> {
        FlowView {
            seen: Ticks(NOW.0 - silent),
            state,
            rewrite,
            peer_mac: 0,
            own_mac: 0,
            interface: 0,
            tags: 0,
            server: 7,
            nat_source: 0,
        }
    }

    fn v4(last: u8) -> lb_common::net::Be32 {
        std::net::Ipv4Addr::new(10, 0, 0, last).into()
    }

    fn v6(last: u8) -> Be128 {
        std::net::Ipv6Addr::from([0xfd00, 0, 0, 0, 0, 0, 0, last.into()]).into()
    }

    #[test]
    fn a_pair_is_told_once_with_its_ends() {
        let key = FlowKey::<V4>::new(tuple(v4), TCP);
        let rewrite = Tuple { destination: v4(9), ..tuple::<V4>(v4) };
        let twin = Owner { server: 7, seen: Ticks(NOW.0 - 3), state: NAT_REPLY };
        let record = Record::new(&key, &view(rewrite, NAT_REQUEST, 10), Some(twin), NOW).expect("a request");
        assert_eq!(
            (record.client.to_string(), record.vip.to_string()),
            ("10.0.0.1:40000".into(), "10.0.0.2:80".into())
        );
        assert_eq!(record.silent_ticks, 3);
        let pair = record.pair.expect("ends");
        assert_eq!(
            (pair.source.to_string(), pair.destination.to_string()),
            ("10.0.0.1:40000".into(), "10.0.0.9:80".into())
        );
        assert_eq!(Record::new(&key.twin(rewrite), &view(rewrite, NAT_REPLY, 3), None, NOW), None);
    }

    #[test]
    fn states_and_ends_of_life() {
        let key = FlowKey::<V6>::new(tuple(v6), TCP);
        let reply = |state| Owner { server: 7, seen: Ticks(NOW.0 - 500), state };
        for (name, state, twin, silent, expected, void) in [
            ("silent", 0, None, IDLE, "established", true),
            ("established", 0, None, IDLE - 1, "established", false),
            ("opening", OPENING, None, OPENING_TICKS, "opening", true),
            ("closing", FIN, None, 1, "closing", false),
            ("reset", RST, None, 1, "reset", false),
            ("pair", NAT_REQUEST, Some(reply(NAT_REPLY)), IDLE, "established", false),
            ("pair, server closed", NAT_REQUEST, Some(reply(NAT_REPLY | FIN)), 1, "closing", false),
            (
                "pair, both closed",
                NAT_REQUEST | FIN,
                Some(reply(NAT_REPLY | FIN)),
                CLOSED_TICKS,
                "closing",
                true,
            ),
            ("half a pair", NAT_REQUEST, None, 1, "established", true),
        ] {
            let record = Record::new(&key, &view(tuple(v6), state, silent), twin, NOW).expect("a request");
            assert_eq!((record.state(), record.is_void(IDLE)), (expected, void), "{name}");
        }
    }

    #[test]
    fn the_record_of_a_client_names_no_ports() {
        let key = FlowKey::<V6>::of_client(v6(1), v6(2), TCP, 3);
        let record = Record::new(&key, &view(tuple(v6), 0, 8), None, NOW).expect("a request");
        let snapshot =
            Snapshot { services: Vec::new(), flows: 0, flows_max: 0, flows_crowded: false, sweeps: 0 };
        let status = record.status(&snapshot);
        assert_eq!((status.client.as_str(), status.vip.as_str()), ("fd00::1", "fd00::2"));
        assert!(status.all_ports && status.rewritten.is_none() && status.idle_s == 1);
        assert_eq!(status.server, "#7 (no longer configured)");
    }
}

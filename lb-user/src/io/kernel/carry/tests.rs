use std::cell::Cell;

use lb_common::{
    flow::{Flow, Half},
    flow_table::{Tags, WAYS},
    net::TCP,
};

use super::*;

const NOW: Ticks = Ticks(10_000);
const BUCKETS: u32 = 16;

struct Table<F: Family> {
    tags: Vec<Tags>,
    flows: Vec<Flow<F>>,
    halves: Vec<Half<F>>,
    lost: Cell<u32>,
}

impl<F: Family> Table<F> {
    fn new() -> Self {
        let records = BUCKETS * WAYS;
        Table {
            tags: (0..BUCKETS).map(|_| Tags::default()).collect(),
            flows: (0..records).map(|_| Flow::default()).collect(),
            halves: (0..records).map(|_| Half::default()).collect(),
            lost: Cell::new(0),
        }
    }

    /// What another node would be told.
    fn told(&self) -> Vec<Carried> {
        let indices =
            (0..BUCKETS * WAYS).filter(|&index| self.tags[(index / WAYS) as usize].is_used(index % WAYS));
        let mut told: Vec<_> = indices
            .filter_map(|index| {
                let flow = &self.flows[index as usize];
                let (key, owner) = (flow.key()?, flow.owner());
                (owner.state & NAT_REPLY == 0).then(|| carry_out(self, &key, index, &owner, NOW))?
            })
            .collect();
        told.sort_by_key(|record| record.client);
        told
    }
}

impl<F: Family> FlowMemory<F> for Table<F> {
    fn flow_buckets(&self) -> u32 {
        BUCKETS
    }
    fn flow_seed(&self) -> u64 {
        7
    }
    fn flow_tags(&self, bucket: u32) -> Option<&Tags> {
        self.tags.get(bucket as usize)
    }
    fn flow_record(&self, index: u32) -> Option<&Flow<F>> {
        self.flows.get(index as usize)
    }
    fn flow_half(&self, index: u32) -> Option<&Half<F>> {
        self.halves.get(index as usize)
    }
    fn flow_lost(&self, _: u32, _: Ticks) {
        self.lost.set(self.lost.get() + 1);
    }
}

fn plain(client: &str) -> Carried {
    Carried {
        protocol: TCP,
        of_client: false,
        client: client.parse().unwrap(),
        vip: "10.0.0.80:80".parse().unwrap(),
        server: 3,
        silent_ticks: 50,
        state: 0,
        pair: None,
    }
}

fn paired(client: &str, source: &str) -> Carried {
    let pair = CarriedPair {
        source: source.parse().unwrap(),
        destination: "10.0.0.91:8888".parse().unwrap(),
        silent_ticks: 40,
        state: 0,
        peer_mac: 0x1122,
        interface: 5,
        tags: 0,
    };
    Carried { pair: Some(pair), ..plain(client) }
}

fn import(record: Carried) -> Import {
    Import {
        record,
        server: ServerId(9),
        service: 1,
        nat_source: 2,
        interface: 6,
        own_mac: 0x99,
        replace: false,
    }
}

/// As this node would tell of it, which calls the server and the interface otherwise.
fn here(record: Carried) -> Carried {
    Carried { server: 9, pair: record.pair.map(|pair| CarriedPair { interface: 6, ..pair }), ..record }
}

#[test]
fn what_was_told_stands_here_as_it_stood_there() {
    let table = Table::<V4>::new();
    let records = [
        plain("10.0.0.1:4000"),
        paired("10.0.0.2:4000", "10.0.0.93:2000"),
        Carried { of_client: true, ..plain("10.0.0.3:0") },
    ];
    let mut of_client = records[2];
    of_client.vip.set_port(0);
    for record in [records[0], records[1], of_client] {
        assert_eq!(carry_in(&table, &import(record), NOW), Imported::Made);
        assert_eq!(carry_in(&table, &import(record), NOW), Imported::Known, "once is enough");
    }
    assert_eq!(table.told(), [here(records[0]), here(records[1]), here(of_client)]);
}

#[test]
fn a_known_record_never_looks_older_and_never_reopens() {
    let table = Table::<V4>::new();
    let record = plain("10.0.0.1:4000");
    carry_in(&table, &import(record), NOW);
    carry_in(&table, &import(Carried { silent_ticks: 500, ..record }), NOW);
    assert_eq!(table.told()[0].silent_ticks, 50);
    carry_in(&table, &import(Carried { silent_ticks: 10, state: FIN, ..record }), NOW);
    assert_eq!((table.told()[0].silent_ticks, table.told()[0].state), (10, FIN));
    carry_in(&table, &import(record), NOW);
    assert_eq!(table.told()[0].state, FIN, "told late");
}

#[test]
fn what_is_here_gives_way_only_where_the_other_node_has_the_address() {
    let table = Table::<V4>::new();
    let other = Import { server: ServerId(4), ..import(plain("10.0.0.1:4000")) };
    carry_in(&table, &other, NOW);
    assert_eq!(carry_in(&table, &import(plain("10.0.0.1:4000")), NOW), Imported::Taken);
    assert_eq!(table.told()[0].server, 4);
    let replace = Import { replace: true, ..import(plain("10.0.0.1:4000")) };
    assert_eq!(carry_in(&table, &replace, NOW), Imported::Made);
    assert_eq!(table.told()[0].server, 9);
}

#[test]
fn a_port_that_another_flow_has_is_not_given_twice() {
    let table = Table::<V4>::new();
    let (first, second) = ("10.0.0.1:4000", "10.0.0.2:4000");
    assert_eq!(carry_in(&table, &import(paired(first, "10.0.0.93:2000")), NOW), Imported::Made);
    assert_eq!(carry_in(&table, &import(paired(second, "10.0.0.93:2000")), NOW), Imported::Taken);
    assert_eq!(table.told().len(), 1);
    let replace = Import { replace: true, ..import(paired(second, "10.0.0.93:2000")) };
    assert_eq!(carry_in(&table, &replace, NOW), Imported::Made);
    let told = table.told();
    assert_eq!(
        (told.len(), told[0].client),
        (1, second.parse().unwrap()),
        "both halves of the other are gone"
    );
}

#[test]
fn a_full_table_takes_no_half_pair() {
    let table = Table::<V4>::new();
    let mut full = 0;
    for n in 0..200u32 {
        let record = paired(&format!("10.0.1.{}:4000", n), &format!("10.0.0.93:{}", 2_000 + n));
        full += u32::from(carry_in(&table, &import(record), NOW) == Imported::Full);
    }
    let used: usize = table.tags.iter().map(|tags| (0..WAYS).filter(|&way| tags.is_used(way)).count()).sum();
    assert!(full > 0 && used == table.told().len() * 2, "{full} refused, {used} places");
}

#[test]
fn ends_of_two_families_are_no_flow() {
    let table = Table::<V4>::new();
    let mut record = paired("10.0.0.1:4000", "10.0.0.93:2000");
    record.pair.as_mut().unwrap().source = "[2001:db8::1]:2000".parse().unwrap();
    assert_eq!(carry_in(&table, &import(record), NOW), Imported::Senseless);
    assert_eq!(table.told(), []);
}

//! The packets most cases begin with.

use etherparse::TcpHeader;
use lb_common::flow::{FIN, RST};
use lb_user::pure::config::network::Family;

use super::{
    packet::{Datagram, Transport},
    world::{CLIENT, CLIENT_MAC, FRONT_MAC, NAMES, WEB, ends},
};

/// From the client to the web service; `shape` sets flags, numbers and options.
pub(super) fn tcp(payload: &[u8], shape: impl FnOnce(&mut TcpHeader)) -> Datagram {
    let mut header = TcpHeader { sequence_number: 1_000, window_size: 64_000, ..TcpHeader::default() };
    shape(&mut header);
    datagram(Transport::Tcp(Box::new(header)), payload)
}

pub(super) fn syn() -> Datagram {
    tcp(&[], |header| header.syn = true)
}

pub(super) fn ack() -> Datagram {
    tcp(b"GET / HTTP/1.1\r\n\r\n", |header| {
        header.ack = true;
        header.acknowledgment_number = 77_000;
    })
}

pub(super) fn fin() -> Datagram {
    tcp(&[], |header| (header.fin, header.ack) = (true, true))
}

pub(super) fn rst() -> Datagram {
    tcp(&[], |header| header.rst = true)
}

/// From the client to the name service.
pub(super) fn udp(payload: &[u8]) -> Datagram {
    Datagram { destination: NAMES, ..datagram(Transport::Udp, payload) }
}

impl Datagram {
    /// The same between the client and the services of a family.
    pub(super) fn of(self, family: Family) -> Datagram {
        let ends = ends(family);
        let destination = if self.destination == NAMES { ends.names } else { ends.web };
        Datagram { source: ends.client, destination, ..self }
    }

    /// Bits of the record that the packet sets.
    pub(super) fn ends_flow(&self) -> u32 {
        let Transport::Tcp(header) = &self.transport else { return 0 };
        u32::from(header.fin) * FIN + u32::from(header.rst) * RST
    }
}

fn datagram(transport: Transport, payload: &[u8]) -> Datagram {
    Datagram {
        to: FRONT_MAC,
        from: CLIENT_MAC,
        source: CLIENT,
        destination: WEB,
        identification: 0x1234,
        transport,
        payload: payload.to_vec(),
        ..Datagram::empty()
    }
}

//! New ends for a packet, with every checksum updated in place.

use lb_common::{
    flow::Tuple,
    net::{Be16, TCP},
};

use crate::{
    checksum::{Sum, udp_field},
    frame::Frame,
    header::{Ports, Tcp, Udp},
    ip::{Ip, Part},
    parse::Parsed,
};

/// New ends, and one hop less to live.
#[inline(always)]
pub(crate) fn ends<F: Ip>(frame: &mut Frame<'_>, parsed: &Parsed<F>, new: Tuple<F>) -> Option<()> {
    let header = frame.at::<F::Header>(parsed.l3)?;
    F::set_ends(header, new.source, new.destination);
    F::hop(header);
    if parsed.part == Part::Later {
        return Some(());
    }
    let old = parsed.tuple;
    let change = change(old, new);
    let ports = Ports { source: new.source_port, destination: new.destination_port };
    if parsed.protocol == TCP {
        let tcp = frame.at::<Tcp>(parsed.l4)?;
        tcp.ports = ports;
        tcp.checksum = Sum::of_field(tcp.checksum).plus(change).field();
    } else {
        let udp = frame.at::<Udp>(parsed.l4)?;
        udp.ports = ports;
        if udp.checksum != Be16(0) {
            udp.checksum = udp_field(Sum::of_field(udp.checksum).plus(change));
        }
    }
    Some(())
}

/// What new ends change in a transport checksum, pseudo header included.
#[inline(always)]
pub(crate) fn change<F: Ip>(old: Tuple<F>, new: Tuple<F>) -> Sum {
    let sum = F::exchange(Sum::default(), old.source, new.source);
    F::exchange(sum, old.destination, new.destination)
        .replace16(old.source_port, new.source_port)
        .replace16(old.destination_port, new.destination_port)
}

//! Client networks that a service takes or refuses.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use lb_tests::bed::{
    Arms, Bed, Family, Steelyard,
    client::{Knock, knock_from},
    poll,
};

use super::{bed_of, each_forward};

/// Silence, not a reset: who is refused learns nothing.
#[test]
fn a_denied_client_hears_nothing() -> Result<()> {
    for mode in each_forward() {
        let (bed, mut config) = bed_of(mode.layout(Arms::One))?;
        let denied = bed.add_client_address(30)?;
        let other = bed.add_client_address(31)?;
        config.services[0].deny = vec![denied.to_string()];
        let steelyard = Steelyard::running(&bed, &config)?;
        expect(&bed, denied, Knock::Silent).with_context(|| mode.name)?;
        let before = steelyard.counter("drop_access")?;
        ensure!(before > 0, "{}: the SYN was not counted", mode.name);
        let socket = bed.client.namespace.enter(|| UdpSocket::bind(SocketAddr::new(denied, 0)))??;
        socket.send_to(b"who\n", bed.service())?;
        poll("the count of a datagram", LIMIT, || {
            (steelyard.counter("drop_access").ok()? > before).then_some(())
        })
        .with_context(|| mode.name)?;
        expect(&bed, other, Knock::Open).with_context(|| mode.name)?;
    }
    Ok(())
}

#[test]
fn only_allowed_clients_are_served() -> Result<()> {
    for mode in each_forward() {
        let (bed, mut config) = bed_of(mode.layout(Arms::One))?;
        let allowed = bed.add_client_address(40)?;
        let outside = bed.add_client_address(50)?;
        // 40 to 47.
        let network = match mode.family {
            Family::V4 => format!("{allowed}/29"),
            Family::V6 => format!("{allowed}/125"),
        };
        config.services[0].allow = vec![network];
        let steelyard = Steelyard::running(&bed, &config)?;
        expect(&bed, allowed, Knock::Open).with_context(|| mode.name)?;
        expect(&bed, outside, Knock::Silent).with_context(|| mode.name)?;
        ensure!(steelyard.counter("drop_access")? > 0, "{}", mode.name);
    }
    Ok(())
}

#[test]
fn a_denied_address_within_an_allowed_network_stays_denied() -> Result<()> {
    for mode in each_forward() {
        let (bed, mut config) = bed_of(mode.layout(Arms::One))?;
        let denied = bed.add_client_address(30)?;
        let allowed = bed.add_client_address(31)?;
        let web = &mut config.services[0];
        web.allow = match mode.family {
            Family::V4 => vec!["10.77.0.0/16".to_owned()],
            Family::V6 => vec!["fd00:77::/32".to_owned()],
        };
        web.deny = vec![denied.to_string()];
        let _steelyard = Steelyard::running(&bed, &config)?;
        expect(&bed, denied, Knock::Silent).with_context(|| mode.name)?;
        expect(&bed, allowed, Knock::Open).with_context(|| mode.name)?;
    }
    Ok(())
}

fn expect(bed: &Bed, client: IpAddr, expected: Knock) -> Result<()> {
    let limit = if expected == Knock::Silent { Duration::from_millis(300) } else { LIMIT };
    let (outcome, _) = knock_from(&bed.client, SocketAddr::new(client, 0), bed.service(), limit)?;
    ensure!(outcome == expected, "{client}: {outcome:?}");
    Ok(())
}

const LIMIT: Duration = Duration::from_secs(3);

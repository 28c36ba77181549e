//! Datagrams longer than a packet: every fragment reaches the server of the flow, and so do those of the answer.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_tests::bed::{Steelyard, datagrams, poll};

use super::{bed_of, every_layout};

#[test]
fn fragments_reach_the_server_of_their_flow() -> Result<()> {
    for layout in every_layout() {
        let (bed, config) = bed_of(layout)?;
        let _steelyard = Steelyard::running(&bed, &config)?;
        for number in 0..SOCKETS {
            let place = || format!("{layout:?}, socket {number}");
            let socket = datagrams::connected(&bed.client, bed.service())?;
            socket.set_read_timeout(Some(ANSWER))?;
            let owner = datagrams::sum(&socket, 100).with_context(place)?;
            // The first may be too long for an encapsulation: the client learns and cuts finer.
            let mut last = String::new();
            let server = poll("an answer to fragments", LIMIT, || {
                datagrams::sum(&socket, LONG).map_err(|error| last = format!("{error:#}")).ok()
            });
            let server = server.with_context(|| format!("{}: {last}", place()))?;
            ensure!(server == owner, "{}: {server} got the fragments of {owner}", place());
            datagrams::echo(&socket, LONG).with_context(|| format!("{}, the answer", place()))?;
        }
    }
    Ok(())
}

const SOCKETS: usize = 20;
const LONG: usize = 8_000;
const ANSWER: Duration = Duration::from_millis(300);
const LIMIT: Duration = Duration::from_secs(10);

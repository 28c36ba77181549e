//! Sockets of checks that go through the data path: marked for the programs that steer them.

use std::{io, net::IpAddr};

use socket2::{SockFilter, SockRef};

use crate::pure::{
    config::model::Forward,
    report::Step,
    state::{CheckTask, Steered},
};

/// Before it connects. What comes back without the mark came another way, and is not taken: a check can fail while no
/// program steers it, never pass.
pub(super) fn steer(socket: &SockRef<'_>, task: &CheckTask) -> io::Result<()> {
    let Some(Steered { mark, .. }) = task.through else { return Ok(()) };
    socket.set_mark(mark)?;
    socket.attach_filter(&[
        SockFilter::new(LOAD, 0, 0, PACKET_MARK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, mark),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ])?;
    if socket.r#type()? == socket2::Type::STREAM {
        socket.set_tcp_mss(SEGMENT_MAX)?;
    }
    Ok(())
}

/// What the socket is bound to. The source of what is steered is the service's side's, of which the programs know.
pub(super) fn source(task: &CheckTask) -> Option<IpAddr> {
    let of_target = |source: &IpAddr| source.is_ipv4() == task.target.is_ipv4();
    task.check.source.filter(|source| task.through.is_none() || of_target(source))
}

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
const PACKET_MARK: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_MARK) as u32;
/// Leaves room for the outer headers on every way that takes IPv6 (RFC 8200, section 5).
const SEGMENT_MAX: u32 = 1_280 - 40 - 20 - (40 + 8);

/// Why a check failed, for people: where it is steered, not the target but the VIP did not answer.
pub(super) fn told(reason: String, step: Option<Step>, task: &CheckTask) -> String {
    let Some(Steered { vip, forward, .. }) = task.through else { return reason };
    let question = match (step, forward) {
        _ if reason == REFUSED => "",
        (Some(Step::Connect), Forward::Ipip | Forward::Gue) => {
            ": does it have this address, and does it open its tunnel?"
        }
        (Some(Step::Connect), Forward::Dsr) => ": does it have this address?",
        _ => "",
    };
    format!("{reason} at {vip}, asked by {}{question}", forward.name())
}

/// Somebody who has the address said so.
const REFUSED: &str = "connection refused";

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Duration};

    use super::{
        super::{run, testing},
        *,
    };
    use crate::{
        io::testbed::{FAR_PORT, in_either_family},
        pure::{config::model::check::CheckKind, report::Outcome},
    };

    /// Where nothing steers it, a check reaches the server itself, which answers.
    #[test]
    fn an_answer_that_no_program_steered_is_not_taken() {
        in_either_family(async |_, who| {
            let target = SocketAddr::new(who.far, FAR_PORT);
            let task = |limit| testing::task(CheckKind::Tcp(Vec::new()), target, limit);
            assert_eq!(run(&task(Duration::from_secs(5))).await.outcome, Outcome::Passed);
            let mut steered = task(Duration::from_millis(300));
            steered.through = Some(Steered { mark: 0x5300_0001, vip: target, forward: Forward::Dsr });
            let report = run(&steered).await;
            assert!(matches!(report.outcome, Outcome::Failed(_)), "{report:?}");
        });
    }

    #[test]
    fn a_steered_failure_names_the_vip_and_asks_what_to_look_at() {
        let target = "10.0.0.1:80".parse().unwrap();
        let mut task = testing::task(CheckKind::Tcp(Vec::new()), target, Duration::from_secs(1));
        let timeout = || "timeout after 1s".to_owned();
        assert_eq!(told(timeout(), Some(Step::Connect), &task), "timeout after 1s");
        let vip = "192.0.2.9:80".parse().unwrap();
        for (forward, reason, step, expected) in [
            (
                Forward::Dsr,
                timeout(),
                Step::Connect,
                "timeout after 1s at 192.0.2.9:80, asked by dsr: does it have this address?",
            ),
            (
                Forward::Gue,
                timeout(),
                Step::Connect,
                "timeout after 1s at 192.0.2.9:80, asked by gue: does it have this address, and does it open its tunnel?",
            ),
            (
                Forward::Ipip,
                REFUSED.to_owned(),
                Step::Connect,
                "connection refused at 192.0.2.9:80, asked by ipip",
            ),
            (
                Forward::Ipip,
                "status 503".to_owned(),
                Step::Status,
                "status 503 at 192.0.2.9:80, asked by ipip",
            ),
        ] {
            task.through = Some(Steered { mark: 1, vip, forward });
            assert_eq!(told(reason, Some(step), &task), expected);
        }
    }
}

//! A UDP question and a TCP connection with a request every millisecond, each independent of the others.
//!
//! A probe that is not answered in time has failed. What counts as an outage lies between two answered probes with at
//! least one that failed: a pause of the prober itself is none.

use std::{
    io::Write,
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    runtime,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::bed::{Family, Host};

#[derive(Debug, Clone, Copy)]
pub(super) struct Probe {
    pub(super) sent: Instant,
    /// Who answered.
    by: Option<Answerer>,
}

/// A responder, by the first byte of its name.
type Answerer = u8;

/// Probes of one kind in the order they were sent.
type Record = Arc<Mutex<Vec<Probe>>>;

pub(super) struct Prober {
    udp: Record,
    tcp: Record,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Result<()>>>>,
}

/// What the probes of one kind say.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    pub(super) outage: Duration,
    pub(super) failed: usize,
    pub(super) pause: Duration,
}

impl Prober {
    pub(super) fn start(client: &Host, target: SocketAddr) -> Prober {
        let (udp, tcp) = (Record::default(), Record::default());
        let ended = Arc::new(AtomicBool::new(false));
        let (record, end) = (Arc::clone(&udp), Arc::clone(&ended));
        let by_udp = client.namespace.background(move || ask_by_udp(target, &record, &end));
        let (record, end) = (Arc::clone(&tcp), Arc::clone(&ended));
        let by_tcp = client.namespace.background(move || ask_by_tcp(target, &record, &end));
        Prober { udp, tcp, ended, threads: vec![by_udp, by_tcp] }
    }

    /// Whether this responder alone has answered every probe of the last while that began after `since`.
    pub(super) fn steady(&self, name: &str, since: Instant) -> bool {
        let now = Instant::now();
        let answered = |record: &Record| {
            let record = record.lock().unwrap_or_else(PoisonError::into_inner);
            let recent: Vec<_> = record
                .iter()
                .rev()
                .skip_while(|probe| now - probe.sent < ON_THE_WAY)
                .take_while(|probe| now - probe.sent < ON_THE_WAY + STEADY && probe.sent > since)
                .collect();
            let long = recent.last().is_some_and(|probe| now - probe.sent > ON_THE_WAY + STEADY / 2);
            long && recent.iter().all(|probe| probe.by == name.bytes().next())
        };
        answered(&self.udp) && answered(&self.tcp)
    }

    /// Ends both, and says what came of the probes since `from`: UDP, then TCP.
    pub(super) fn stop(mut self, from: Instant) -> Result<[Seen; 2]> {
        self.end()?;
        Ok([&self.udp, &self.tcp].map(|record| {
            let record = record.lock().unwrap_or_else(PoisonError::into_inner);
            let probes: Vec<Probe> = record.iter().filter(|probe| probe.sent >= from).copied().collect();
            judge(&probes)
        }))
    }

    fn end(&mut self) -> Result<()> {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow::anyhow!("a prober failed"))???;
        }
        Ok(())
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{error:#}");
        }
    }
}

/// Of probes in the order they were sent. Those behind the last answer are still on their way.
fn judge(probes: &[Probe]) -> Seen {
    let mut seen = Seen::default();
    let mut last: Option<(usize, Instant)> = None;
    for (index, probe) in probes.iter().enumerate() {
        if index > 0 {
            seen.pause = seen.pause.max(probe.sent - probes[index - 1].sent);
        }
        if probe.by.is_none() {
            continue;
        }
        if let Some((before, sent)) = last
            && index > before + 1
        {
            seen.failed += index - before - 1;
            seen.outage = seen.outage.max((probe.sent - sent).saturating_sub(PACE));
        }
        last = Some((index, probe.sent));
    }
    seen
}

fn ask_by_udp(target: SocketAddr, record: &Record, ended: &AtomicBool) -> Result<()> {
    let socket = UdpSocket::bind((Family::of(target.ip()).unspecified(), 0))?;
    socket.set_nonblocking(true)?;
    let mut next = Instant::now();
    while !ended.load(Ordering::Relaxed) {
        let now = Instant::now();
        if now >= next {
            let number = begin(record, now);
            // What cannot be sent is not answered.
            let _ = socket.send_to(format!("sign {number}").as_bytes(), target);
            next = (next + PACE).max(now);
        }
        let left = TimeSpec::from(next.saturating_duration_since(Instant::now()));
        let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        ppoll(&mut ready, Some(left), None).context("waiting for answers")?;
        let mut answer = [0; 64];
        while let Ok((size, _)) = socket.recv_from(&mut answer) {
            let text = String::from_utf8_lossy(&answer[..size]);
            let number = text.rsplit(' ').next().and_then(|number| number.parse().ok());
            finish(record, number, answer[0]);
        }
    }
    Ok(())
}

fn ask_by_tcp(target: SocketAddr, record: &Record, ended: &AtomicBool) -> Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !ended.load(Ordering::Relaxed) {
            pace.tick().await;
            let number = begin(record, Instant::now());
            let record = Arc::clone(record);
            tokio::spawn(async move {
                if let Ok(Ok(by)) = timeout(PATIENCE, get(target)).await {
                    finish(&record, Some(number), by);
                }
            });
        }
    });
    Ok(())
}

/// The first byte of the body. The end is abortive, so that a port is free again at once.
async fn get(target: SocketAddr) -> Result<Answerer> {
    let socket = match target {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
    let mut stream = socket.connect(target).await?;
    let mut request = Vec::new();
    write!(request, "GET / HTTP/1.0\r\n\r\n")?;
    stream.write_all(&request).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let body = answer.windows(4).position(|part| part == b"\r\n\r\n").context("no body")? + 4;
    answer.get(body).copied().context("an empty body")
}

/// The number of a probe that is sent now.
fn begin(record: &Record, sent: Instant) -> usize {
    let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
    record.push(Probe { sent, by: None });
    record.len() - 1
}

fn finish(record: &Record, number: Option<usize>, by: Answerer) {
    let mut record = record.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(probe) = number.and_then(|number| record.get_mut(number)) else { return };
    if probe.sent.elapsed() < PATIENCE {
        probe.by = Some(by);
    }
}

const PACE: Duration = Duration::from_millis(1);
/// Less than the second after which a lost SYN is sent again.
const PATIENCE: Duration = Duration::from_millis(900);
/// Probes as young as this may still be answered.
const ON_THE_WAY: Duration = Duration::from_millis(50);
const STEADY: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_lies_between_two_answers() {
        let check = |name: &str, answers: &str, outage: u64, failed: usize| {
            let start = Instant::now();
            let probe =
                |(at, answer)| Probe { sent: start + PACE * at, by: (answer != '.').then_some(answer as u8) };
            let probes: Vec<_> = (0..).zip(answers.chars()).map(probe).collect();
            let seen = judge(&probes);
            assert_eq!((seen.outage, seen.failed), (PACE * outage as u32, failed), "{name}");
        };
        check("all answered", "aaabbb", 0, 0);
        check("one failed", "aa.bb", 1, 1);
        check("the longest counts", "a.aa...b", 3, 4);
        check("what is still on its way does not", "aab..", 0, 0);
        check("nothing before the first answer", "..aab", 0, 0);
    }

    #[test]
    fn a_pause_of_the_prober_is_no_outage() {
        let start = Instant::now();
        let sent = |ms| Probe { sent: start + Duration::from_millis(ms), by: Some(b'a') };
        let seen = judge(&[sent(0), sent(1), sent(40)]);
        assert_eq!((seen.outage, seen.pause), (Duration::ZERO, Duration::from_millis(39)));
    }
}

//! The client's side: connections, datagrams and transfers, always from inside the client's namespace.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use socket2::{Domain, Socket, Type};

use super::{Family, Host, icmp, stream, wait::pause};

/// Who answered how often.
#[derive(Debug, Default, Clone)]
pub struct Histogram {
    pub by_server: BTreeMap<String, u64>,
    pub failed: u64,
    /// The first few failures, as the client saw them.
    pub failures: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
pub struct Requests {
    pub target: SocketAddr,
    pub count: u32,
    pub concurrency: u32,
    pub timeout: Duration,
}

/// What a client learns from a connection attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knock {
    Open,
    Refused,
    Silent,
}

impl Requests {
    pub fn new(target: SocketAddr, count: u32) -> Requests {
        Requests { target, count, concurrency: 8, timeout: Duration::from_secs(3) }
    }

    /// A new TCP connection, one question and one answer for each.
    pub fn tcp(self, client: &Host) -> Result<Histogram> {
        self.run(client, tcp_who)
    }

    /// A datagram from a fresh port for each.
    pub fn udp(self, client: &Host) -> Result<Histogram> {
        self.run(client, udp_who)
    }

    fn run(self, client: &Host, ask: Ask) -> Result<Histogram> {
        let taken = AtomicU32::new(0);
        let worker = || {
            let mut seen = Histogram::default();
            while taken.fetch_add(1, Ordering::Relaxed) < self.count {
                seen.add(ask(self.target, None, self.timeout));
            }
            seen
        };
        client.namespace.enter(|| {
            thread::scope(|scope| {
                let workers: Vec<_> = (0..self.concurrency).map(|_| scope.spawn(worker)).collect();
                workers.into_iter().fold(Histogram::default(), |sum, worker| match worker.join() {
                    Ok(seen) => sum.merge(seen),
                    Err(fault) => std::panic::resume_unwind(fault),
                })
            })
        })
    }
}

/// Who answers a TCP connection from exactly this address of the client.
pub fn tcp_from(client: &Host, local: SocketAddr, target: SocketAddr) -> Result<String> {
    let answer = client.namespace.enter(|| tcp_who(target, Some(local), Duration::from_secs(3)))?;
    answer.with_context(|| format!("connecting from {local} to {target}"))
}

/// As above, by one datagram.
pub fn udp_from(client: &Host, local: SocketAddr, target: SocketAddr) -> Result<String> {
    let answer = client.namespace.enter(|| udp_who(target, Some(local), Duration::from_secs(3)))?;
    answer.with_context(|| format!("asking {target} from {local}"))
}

pub fn knock(client: &Host, target: SocketAddr, limit: Duration) -> Result<(Knock, Duration)> {
    let local = SocketAddr::new(Family::of(target.ip()).unspecified(), 0);
    knock_from(client, local, target, limit)
}

/// As above, from an address of the client; port 0: a free one.
pub fn knock_from(
    client: &Host,
    local: SocketAddr,
    target: SocketAddr,
    limit: Duration,
) -> Result<(Knock, Duration)> {
    let start = Instant::now();
    let outcome = match client.namespace.enter(|| connect(target, Some(local), limit))? {
        Ok(_) => Knock::Open,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Knock::Refused,
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Knock::Silent,
        Err(error) => return Err(error).with_context(|| format!("connecting to {target}")),
    };
    Ok((outcome, start.elapsed()))
}

/// Round trip time of one ICMP echo.
pub fn ping(from: &Host, target: IpAddr, limit: Duration) -> Result<Duration> {
    from.namespace.enter(|| icmp::echo(target, limit))?.with_context(|| format!("pinging {target}"))
}

/// A connection that stays open: closed in order, not by a reset.
#[derive(Debug)]
pub struct Session {
    pub server: String,
    input: BufReader<TcpStream>,
}

impl Session {
    pub fn open(client: &Host, target: SocketAddr) -> Result<Session> {
        client.namespace.enter(|| Session::open_in(target, Duration::from_secs(10)))?
    }

    /// As above, from the namespace of the calling thread; every answer must come within `limit`.
    pub fn open_in(target: SocketAddr, limit: Duration) -> Result<Session> {
        let stream = connect(target, None, limit)?;
        stream.set_linger(None)?;
        let stream = TcpStream::from(stream);
        let mut session = Session { server: String::new(), input: BufReader::new(stream) };
        session.server = session.who()?;
        Ok(session)
    }

    /// The client's end.
    pub fn client(&self) -> Result<SocketAddr> {
        Ok(self.input.get_ref().local_addr()?)
    }

    /// The client's end as the server sees it.
    pub fn seen_from(&mut self) -> Result<SocketAddr> {
        self.input.get_mut().write_all(b"from\n")?;
        Ok(self.line()?.parse()?)
    }

    /// The maximum segment size that the server was offered; it tells once.
    pub fn mss(&mut self) -> Result<u16> {
        self.input.get_mut().write_all(b"mss\n")?;
        Ok(self.line()?.parse()?)
    }

    /// Asks again on the same connection.
    pub fn who(&mut self) -> Result<String> {
        self.input.get_mut().write_all(b"who\n")?;
        self.line()
    }

    /// Receives `bytes` of the stream and compares digests.
    pub fn download(&mut self, bytes: u64) -> Result<()> {
        self.begin_download(bytes)?.finish()
    }

    /// Sends `bytes` of the stream; the server says what it got.
    pub fn upload(&mut self, bytes: u64) -> Result<()> {
        self.begin_upload(bytes)?.finish()
    }

    pub fn begin_download(&mut self, bytes: u64) -> Result<Download<'_>> {
        self.input.get_mut().write_all(format!("down {bytes}\n").as_bytes())?;
        Ok(Download { session: self, digest: stream::Digest::default(), left: bytes, bytes })
    }

    pub fn begin_upload(&mut self, bytes: u64) -> Result<Upload<'_>> {
        self.input.get_mut().write_all(format!("up {bytes}\n").as_bytes())?;
        Ok(Upload { session: self, stream: stream::Stream::default(), left: bytes, bytes })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.input.read_line(&mut line)?;
        ensure!(line.ends_with('\n'), "the server {} closed the connection", self.server);
        Ok(line.trim_end().to_owned())
    }
}

/// A transfer to the client, in as many steps as a scenario likes.
pub struct Download<'a> {
    session: &'a mut Session,
    digest: stream::Digest,
    left: u64,
    bytes: u64,
}

impl Download<'_> {
    /// Receives at most `bytes` more.
    pub fn take(&mut self, bytes: u64) -> Result<()> {
        let mut block = vec![0; stream::BLOCK];
        let end = self.left.saturating_sub(bytes);
        while self.left > end {
            let size = (self.left - end).min(stream::BLOCK as u64) as usize;
            let size = self.session.input.read(&mut block[..size]).context("receiving a transfer")?;
            ensure!(size > 0, "the transfer ended {} bytes early", self.left);
            self.digest.update(&block[..size]);
            self.left -= size as u64;
        }
        Ok(())
    }

    pub fn finish(mut self) -> Result<()> {
        self.take(self.left)?;
        ensure!(self.digest.value() == stream::digest_of(self.bytes), "the digests differ after a download");
        Ok(())
    }
}

/// A transfer to the server, in as many steps as a scenario likes.
pub struct Upload<'a> {
    session: &'a mut Session,
    stream: stream::Stream,
    left: u64,
    bytes: u64,
}

impl Upload<'_> {
    /// Sends at most `bytes` more; a multiple of 8 except in the last step.
    pub fn give(&mut self, bytes: u64) -> Result<()> {
        let mut block = vec![0; stream::BLOCK];
        let end = self.left.saturating_sub(bytes);
        while self.left > end {
            let size = (self.left - end).min(stream::BLOCK as u64) as usize;
            self.stream.fill(&mut block[..size]);
            self.session.input.get_mut().write_all(&block[..size]).context("sending a transfer")?;
            self.left -= size as u64;
        }
        Ok(())
    }

    pub fn finish(mut self) -> Result<()> {
        self.give(self.left)?;
        let answer = self.session.line()?;
        let wanted = format!("{} {} {:016x}", self.session.server, self.bytes, stream::digest_of(self.bytes));
        ensure!(answer == wanted, "the server says `{answer}`, the stream is `{wanted}`");
        Ok(())
    }
}

/// Requests that go on in the background until stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    workers: Vec<JoinHandle<Result<Histogram>>>,
}

impl Load {
    /// Paced, so that the load does not starve the health checks of the machine it shares.
    pub fn start(client: &Host, target: SocketAddr, concurrency: usize) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let worker = || {
            let (stop, answered) = (stop.clone(), answered.clone());
            client.namespace.background(move || {
                let mut seen = Histogram::default();
                while !stop.load(Ordering::Relaxed) {
                    seen.add(tcp_who(target, None, Duration::from_secs(3)));
                    answered.fetch_add(1, Ordering::Relaxed);
                    pause(Duration::from_millis(1));
                }
                seen
            })
        };
        let workers = (0..concurrency).map(|_| worker()).collect();
        Load { stop, answered, workers }
    }

    /// Requests that have ended, well or not.
    pub fn done(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    pub fn stop(self) -> Result<Histogram> {
        self.stop.store(true, Ordering::Relaxed);
        self.workers.into_iter().try_fold(Histogram::default(), |sum, worker| match worker.join() {
            Ok(seen) => Ok(sum.merge(seen?)),
            Err(fault) => std::panic::resume_unwind(fault),
        })
    }
}

impl Histogram {
    pub fn answered(&self) -> u64 {
        self.by_server.values().sum()
    }

    pub fn of(&self, server: &str) -> u64 {
        self.by_server.get(server).copied().unwrap_or(0)
    }

    /// Of all answers, 0.0 to 1.0.
    pub fn share(&self, server: &str) -> f64 {
        self.of(server) as f64 / self.answered().max(1) as f64
    }

    /// An error that shows what the client saw, unless every request was answered.
    pub fn all_answered(&self) -> Result<()> {
        if self.failed > 0 {
            bail!(
                "{} of {} requests failed: {:?}",
                self.failed,
                self.failed + self.answered(),
                self.failures
            );
        }
        Ok(())
    }

    fn add(&mut self, answer: io::Result<String>) {
        match answer {
            Ok(server) => *self.by_server.entry(server).or_default() += 1,
            Err(error) => {
                self.failed += 1;
                if self.failures.len() < FAILURES_KEPT {
                    self.failures.push(error.to_string());
                }
            }
        }
    }

    fn merge(mut self, other: Histogram) -> Histogram {
        for (server, count) in other.by_server {
            *self.by_server.entry(server).or_default() += count;
        }
        self.failed += other.failed;
        self.failures.extend(other.failures);
        self.failures.truncate(FAILURES_KEPT);
        self
    }
}

type Ask = fn(SocketAddr, Option<SocketAddr>, Duration) -> io::Result<String>;

fn tcp_who(target: SocketAddr, local: Option<SocketAddr>, limit: Duration) -> io::Result<String> {
    let mut stream = TcpStream::from(connect(target, local, limit)?);
    stream.write_all(b"who\n")?;
    let mut line = String::new();
    BufReader::new(&mut stream).take(NAME_MAX).read_line(&mut line)?;
    match line.strip_suffix('\n') {
        Some(name) => Ok(name.to_owned()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn udp_who(target: SocketAddr, local: Option<SocketAddr>, limit: Duration) -> io::Result<String> {
    let any = SocketAddr::new(Family::of(target.ip()).unspecified(), 0);
    let socket = UdpSocket::bind(local.unwrap_or(any))?;
    socket.connect(target)?;
    socket.set_read_timeout(Some(limit))?;
    socket.send(b"who\n")?;
    let mut name = [0; NAME_MAX as usize];
    let size = socket.recv(&mut name)?;
    Ok(String::from_utf8_lossy(&name[..size]).into_owned())
}

/// Closed by a reset, which leaves no TIME_WAIT: twenty thousand connections need no more than their ports.
fn connect(target: SocketAddr, local: Option<SocketAddr>, limit: Duration) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(local) = local {
        socket.set_reuse_address(true)?;
        socket.bind(&local.into())?;
    }
    socket.connect_timeout(&target.into(), limit)?;
    socket.set_read_timeout(Some(limit))?;
    socket.set_write_timeout(Some(limit))?;
    Ok(socket)
}

const NAME_MAX: u64 = 64;
const FAILURES_KEPT: usize = 5;

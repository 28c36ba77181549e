//! What runs on a server: answers with its name, sends and checks streams. The other end of `client`.
//!
//! A line is a request: `who`, answered by the name; `from`, answered by the client's address and port as seen
//! here; `mss`, once a connection, answered by the MSS of its SYN; `down N`, answered by N bytes of the stream; `up N`, followed by N bytes and answered by "NAME N DIGEST".
//! A datagram that begins with `echo` comes back as it is, one with `sum` is answered by "NAME LENGTH DIGEST",
//! any other by the name.

use std::{
    borrow::Cow,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
};

use anyhow::{Context, Result};
use socket2::{Domain, Socket, Type};

use super::{
    sockopt,
    stream::{self, Digest},
};

/// Serves TCP and UDP on every address until standard input ends: a peer never outlives its bed.
/// Each address has sockets of its own, so that answers leave with the address that was asked.
pub fn serve(name: &str, addresses: &[SocketAddr]) -> Result<()> {
    let name: Arc<str> = name.into();
    for address in addresses {
        let listener = listen(*address).with_context(|| format!("listening on {address}/tcp"))?;
        sockopt::save_syns(&listener)?;
        let socket: UdpSocket =
            bound(*address, Type::DGRAM).with_context(|| format!("listening on {address}/udp"))?.into();
        let (tcp, udp) = (name.clone(), name.clone());
        thread::spawn(move || accept(&listener, &tcp));
        thread::spawn(move || answer_datagrams(&socket, &udp));
    }
    println!("{READY}");
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bound(address, Type::STREAM)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// To an address that may come later.
fn bound(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
    }
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn accept(listener: &TcpListener, name: &Arc<str>) {
    let room = Arc::new(Room::default());
    loop {
        room.enter();
        // A connection that was reset while it waited is no reason to stop.
        let Ok((stream, _)) = listener.accept() else {
            room.leave();
            continue;
        };
        let (name, inside) = (name.clone(), room.clone());
        let spawned = thread::Builder::new().stack_size(STACK).spawn(move || {
            // The client sees a broken connection and tells; here it is an ordinary end.
            let _ = converse(stream, &name);
            inside.leave();
        });
        if let Err(error) = spawned {
            eprintln!("no thread for a connection: {error}");
            room.leave();
        }
    }
}

/// Connections served at once; more wait in the backlog.
#[derive(Default)]
struct Room {
    used: Mutex<usize>,
    left: Condvar,
}

impl Room {
    fn enter(&self) {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let free = self.left.wait_while(used, |used| *used >= CONNECTIONS_MAX);
        *free.unwrap_or_else(PoisonError::into_inner) += 1;
    }

    fn leave(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.left.notify_one();
    }
}

fn converse(stream: TcpStream, name: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut output = stream.try_clone()?;
    let mut input = BufReader::with_capacity(stream::BLOCK, stream);
    let mut line = String::new();
    loop {
        line.clear();
        if (&mut input).take(LINE_MAX).read_line(&mut line)? == 0 {
            return Ok(());
        }
        match line.trim_end().split_once(' ') {
            None if line == "who\n" => writeln_at_once(&mut output, name)?,
            None if line == "from\n" => {
                writeln_at_once(&mut output, &input.get_ref().peer_addr()?.to_string())?;
            }
            Some(("GET", _)) => {
                return output.write_all(format!("HTTP/1.0 200 OK\r\n\r\n{name}\n").as_bytes());
            }
            None if line == "mss\n" => {
                writeln_at_once(&mut output, &sockopt::mss_of_syn(input.get_ref())?.to_string())?;
            }
            Some(("down", bytes)) => stream::for_each_block(number(bytes)?, |block| output.write_all(block))?,
            Some(("up", bytes)) => {
                let digest = receive(&mut input, number(bytes)?)?;
                writeln_at_once(&mut output, &format!("{name} {bytes} {digest:016x}"))?;
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// The digest of exactly `bytes` bytes.
pub(super) fn receive(input: &mut impl Read, bytes: u64) -> io::Result<u64> {
    let mut digest = Digest::default();
    let mut block = vec![0; stream::BLOCK];
    let mut left = bytes;
    while left > 0 {
        let size = input.read(&mut block[..left.min(stream::BLOCK as u64) as usize])?;
        if size == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        digest.update(&block[..size]);
        left -= size as u64;
    }
    Ok(digest.value())
}

fn answer_datagrams(socket: &UdpSocket, name: &str) {
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        // An ICMP error for an earlier answer is reported here; the next question is not its fault.
        if let Ok((size, client)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&answer(name, &buffer[..size]), client);
        }
    }
}

fn answer<'a>(name: &'a str, question: &'a [u8]) -> Cow<'a, [u8]> {
    if question.starts_with(ECHO) {
        question.into()
    } else if question.starts_with(SIGN) {
        [name.as_bytes(), b" ", question].concat().into()
    } else if question.starts_with(SUM) {
        summary(name, question).into_bytes().into()
    } else {
        name.as_bytes().into()
    }
}

/// The answer to `sum`.
pub(super) fn summary(name: &str, question: &[u8]) -> String {
    let mut digest = Digest::default();
    digest.update(question);
    format!("{name} {} {:016x}", question.len(), digest.value())
}

fn writeln_at_once(output: &mut TcpStream, line: &str) -> io::Result<()> {
    output.write_all(format!("{line}\n").as_bytes())
}

fn number(text: &str) -> io::Result<u64> {
    text.parse().map_err(io::Error::other)
}

/// Written to standard output once every address listens.
pub(super) const READY: &str = "ready";
pub(super) const ECHO: &[u8] = b"echo";
pub(super) const SUM: &[u8] = b"sum";
const SIGN: &[u8] = b"sign";
const DATAGRAM_MAX: usize = 65_535;
const CONNECTIONS_MAX: usize = 16_384;
const BACKLOG: i32 = 1_024;
/// Of a thread that serves one connection.
const STACK: usize = 128 << 10;
const LINE_MAX: u64 = 64;

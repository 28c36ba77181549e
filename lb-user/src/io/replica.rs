//! Connections between nodes that tell each other of slots and records: one direction each, sealed.
//!
//! ```text
//! connecting node                         accepting node
//! nonce, 32 bytes        ───────────────►
//!                        ◄───────────────  nonce, 32 bytes
//! length, sealed frame   ───────────────►  (see `pure::replica`)
//! ```

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use aws_lc_rs::rand;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::pure::replica::{
    Ends, FRAME_MAX, Message, MessageError, NONCE_LENGTH, Opener, SealError, Sealer, TAG_LENGTH,
};

/// Errors name the cause; the caller knows the node.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    #[error("cannot listen on port {port} for other nodes: {source}; give [cluster] another `port`")]
    Bind { port: u16, source: io::Error },
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error("a frame of {0} bytes is longer than any that is sent: do both nodes run the same release?")]
    Length(u32),
    #[error("the system has no random numbers: {0}")]
    Random(&'static str),
}

/// To tell another node.
pub struct Teller {
    stream: TcpStream,
    sealer: Sealer,
    frame: Vec<u8>,
}

/// To hear from another node.
pub struct Listener {
    stream: BufReader<TcpStream>,
    opener: Opener,
    frame: Vec<u8>,
}

impl Teller {
    pub async fn connect(peer: SocketAddr, secret: &[u8]) -> Result<Teller, ReplicaError> {
        let mut stream = within(TcpStream::connect(peer)).await?;
        settle(&stream)?;
        let connecting = nonce()?;
        within(stream.write_all(&connecting)).await?;
        let mut accepting = [0; NONCE_LENGTH];
        within(stream.read_exact(&mut accepting)).await?;
        let ends = Ends {
            connecting: (stream.local_addr()?.ip(), connecting),
            accepting: (stream.peer_addr()?.ip(), accepting),
        };
        let sealer = Sealer::new(secret, &ends).ok_or(ReplicaError::Random("no key"))?;
        Ok(Teller { stream, sealer, frame: Vec::new() })
    }

    /// Waits while the other node takes nothing in, as long as it lives.
    pub async fn tell(&mut self, message: &Message) -> Result<(), ReplicaError> {
        let mut content = message.encode();
        self.sealer.seal(&mut content)?;
        self.frame.clear();
        self.frame.extend((content.len() as u32).to_be_bytes());
        self.frame.append(&mut content);
        Ok(self.stream.write_all(&self.frame).await?)
    }

    /// Ends when the other node closes, or is gone: it sends nothing else.
    pub async fn closed(&self) -> io::Result<()> {
        self.stream.readable().await?;
        match self.stream.try_read(&mut [0; 1]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Ok(_) => Err(io::ErrorKind::ConnectionReset.into()),
            Err(error) => Err(error),
        }
    }
}

impl Listener {
    pub async fn open(mut stream: TcpStream, secret: &[u8]) -> Result<Listener, ReplicaError> {
        settle(&stream)?;
        let accepting = nonce()?;
        let mut connecting = [0; NONCE_LENGTH];
        within(stream.read_exact(&mut connecting)).await?;
        within(stream.write_all(&accepting)).await?;
        let ends = Ends {
            connecting: (stream.peer_addr()?.ip(), connecting),
            accepting: (stream.local_addr()?.ip(), accepting),
        };
        let opener = Opener::new(secret, &ends).ok_or(ReplicaError::Random("no key"))?;
        Ok(Listener { stream: BufReader::with_capacity(FRAME_MAX, stream), opener, frame: Vec::new() })
    }

    /// None: the other node has closed.
    pub async fn hear(&mut self) -> Result<Option<Message>, ReplicaError> {
        let mut length = [0; 4];
        match self.stream.read_exact(&mut length).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        };
        let length = u32::from_be_bytes(length);
        if length as usize > FRAME_MAX || (length as usize) < TAG_LENGTH {
            return Err(ReplicaError::Length(length));
        }
        self.frame.resize(length as usize, 0);
        within(self.stream.read_exact(&mut self.frame)).await?;
        Ok(Some(Message::decode(self.opener.open(&mut self.frame)?)?))
    }
}

/// On every address, of both families where the system has both.
pub fn bind(port: u16) -> Result<TcpListener, ReplicaError> {
    let listen = |address: IpAddr| {
        let socket =
            Socket::new(Domain::for_address((address, port).into()), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::new(address, port).into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    let both = listen(Ipv6Addr::UNSPECIFIED.into());
    let one = both.or_else(|_| listen(Ipv4Addr::UNSPECIFIED.into()));
    one.map_err(|source| ReplicaError::Bind { port, source })
}

/// A node that is gone must not hold a connection for hours.
fn settle(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new().with_time(ALIVE).with_interval(ALIVE).with_retries(2);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(ALIVE * 3))?;
    socket.set_tcp_nodelay(true)
}

fn nonce() -> Result<[u8; NONCE_LENGTH], ReplicaError> {
    let mut nonce = [0; NONCE_LENGTH];
    rand::fill(&mut nonce).map_err(|_| ReplicaError::Random("the generator failed"))?;
    Ok(nonce)
}

async fn within<T>(what: impl Future<Output = io::Result<T>>) -> Result<T, ReplicaError> {
    match timeout(PATIENCE, what).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(ReplicaError::Timeout(PATIENCE)),
    }
}

const PATIENCE: Duration = Duration::from_secs(3);
const ALIVE: Duration = Duration::from_secs(1);
/// A cluster has few nodes.
const BACKLOG: i32 = 16;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    async fn joined(secrets: [&[u8]; 2]) -> (Teller, Listener) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let hear = async { Listener::open(listener.accept().await.unwrap().0, secrets[1]).await };
        let (teller, heard) = tokio::join!(Teller::connect(address, secrets[0]), hear);
        (teller.unwrap(), heard.unwrap())
    }

    fn message(name: &str) -> Message {
        Message::Hello { node: name.into(), interfaces: Vec::new() }
    }

    #[tokio::test]
    async fn messages_arrive_and_an_end_is_an_end() {
        let (mut teller, mut listener) = joined([b"secret", b"secret"]).await;
        for name in ["a", "b"] {
            teller.tell(&message(name)).await.unwrap();
            assert_eq!(listener.hear().await.unwrap(), Some(message(name)));
        }
        drop(teller);
        assert_eq!(listener.hear().await.unwrap(), None);
    }

    #[tokio::test]
    async fn another_secret_is_refused_at_the_first_message() {
        let (mut teller, mut listener) = joined([b"secret", b"other"]).await;
        teller.tell(&message("a")).await.unwrap();
        let error = listener.hear().await.unwrap_err();
        assert!(matches!(error, ReplicaError::Seal(SealError::Foreign)), "{error}");
        drop(listener);
        assert!(teller.closed().await.is_err());
    }

    #[tokio::test]
    async fn a_length_that_no_frame_has_is_refused() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        stream.write_all(&[0; NONCE_LENGTH]).await.unwrap();
        stream.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        let mut listener = Listener::open(listener.accept().await.unwrap().0, b"secret").await.unwrap();
        assert!(matches!(listener.hear().await, Err(ReplicaError::Length(u32::MAX))));
    }
}

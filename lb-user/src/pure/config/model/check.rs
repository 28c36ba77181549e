//! How the servers of a service are checked.

use std::{net::IpAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use regex::bytes::{Regex, RegexBuilder};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub kind: CheckKind,
    pub through: Through,
    /// From the start of one check to the start of the next.
    pub interval: Duration,
    /// The same while a server is on its way up or down.
    pub fast_interval: Duration,
    /// The same while it is down.
    pub down_interval: Duration,
    /// Of the whole check; never longer than the shortest interval.
    pub timeout: Duration,
    /// Successes in a row that bring a server up; at least 1.
    pub rise: u32,
    /// Failures in a row that take it down; at least 1.
    pub fall: u32,
    /// What a server counts as before its first result.
    pub start: StartState,
    /// Percent of the interval by which each run is moved at random, 50 at most. With 0 too the first runs of all
    /// servers are spread over the interval.
    pub spread: u8,
    /// None: the server's own address.
    pub address: Option<IpAddr>,
    /// None: the server's own port, which then is not 0.
    pub port: Option<u16>,
    /// None: as the route prefers.
    pub source: Option<IpAddr>,
    /// Sent before anything else on a stream.
    pub proxy_header: Option<ProxyHeader>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckKind {
    /// The server always counts as up.
    None,
    /// A connection, and what is said on it.
    Tcp(Vec<Exchange>),
    Http(Http),
    /// A handshake.
    Tls(Tls),
    Udp(Udp),
    Dns(Dns),
    Grpc(Grpc),
    /// An echo request.
    Icmp,
    Script(Script),
    /// A server that says of itself how it is, in the words of HAProxy's agent check.
    Agent {
        send: Vec<u8>,
    },
}

/// Where a check goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Through {
    /// To the server's address.
    Direct,
    /// To the service's address on that very server, as the service's packets go.
    Datapath,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartState {
    /// The first failure takes it down.
    Up,
    /// The first success brings it up.
    Down,
}

/// Version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    V1,
    V2,
}

/// One move of a dialogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exchange {
    Send(Vec<u8>),
    /// Sent if what came since the last sending matches.
    SendIf(Pattern, Vec<u8>),
    /// Bytes are read until they match, together with what came since the last sending.
    Expect(Pattern),
    /// Nothing more will be sent, and the server ends the connection in turn: for one that complains of a reset.
    Finish,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// None: in clear.
    pub tls: Option<Tls>,
    pub method: String,
    pub uri: String,
    /// None: the address that is asked.
    pub host: Option<String>,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub status: Vec<RangeInclusive<u16>>,
    /// None: the body is not read.
    pub body_matches: Option<Pattern>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// None: no SNI, and the address must be in a certificate that is verified.
    pub server_name: Option<String>,
    pub verify: Verify,
    pub alpn: Vec<String>,
    /// A certificate that ends sooner is warned about.
    pub expiry_warning: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verify {
    None,
    /// By the machine's own authorities.
    System,
    /// By the authorities of a PEM file.
    File(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Udp {
    pub send: Vec<u8>,
    /// None: any answer will do, and so will none, as long as no error comes back.
    pub expect: Option<Pattern>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    pub query: String,
    /// Type of the record asked for (RFC 1035, 3.2.2).
    pub record: u16,
    /// None: any answer without an error.
    pub expect: Option<IpAddr>,
}

/// `grpc.health.v1.Health/Check`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grpc {
    pub tls: Option<Tls>,
    /// Empty: the server as a whole.
    pub service: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// The program and its arguments; at least one.
    pub command: Vec<String>,
    /// None: as the daemon.
    pub user: Option<String>,
}

/// A regular expression over bytes.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

impl Pattern {
    pub fn new(expression: &str) -> Result<Pattern, regex::Error> {
        RegexBuilder::new(expression).size_limit(PATTERN_MAX).dfa_size_limit(PATTERN_MAX).build().map(Pattern)
    }

    /// Matches the text itself.
    pub fn literal(text: &str) -> Result<Pattern, regex::Error> {
        Pattern::new(&regex::escape(text))
    }

    pub fn is_in(&self, bytes: &[u8]) -> bool {
        self.0.is_match(bytes)
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

impl Check {
    /// Of a kind, with every other value as it is when a configuration says nothing of it.
    pub fn of(kind: CheckKind) -> Check {
        Check {
            kind,
            through: Through::Direct,
            interval: INTERVAL,
            fast_interval: INTERVAL,
            down_interval: INTERVAL,
            timeout: TIMEOUT,
            rise: COUNT,
            fall: COUNT,
            start: StartState::Up,
            spread: 0,
            address: None,
            port: None,
            source: None,
            proxy_header: None,
        }
    }

    /// Whether it goes to a port that only the server can name.
    pub fn needs_port(&self) -> bool {
        self.kind.has_port() && self.port.is_none()
    }
}

pub const INTERVAL: Duration = Duration::from_secs(2);
pub const TIMEOUT: Duration = Duration::from_secs(1);
/// `rise` and `fall`.
pub const COUNT: u32 = 3;
/// Bytes of a compiled expression: every service may have one.
const PATTERN_MAX: usize = 1 << 20;

impl CheckKind {
    /// Whether there is anything to run.
    pub fn is_none(&self) -> bool {
        matches!(self, CheckKind::None)
    }

    /// Whether it connects by TCP to a port.
    pub fn is_stream(&self) -> bool {
        match self {
            CheckKind::Tcp(_)
            | CheckKind::Http(_)
            | CheckKind::Tls(_)
            | CheckKind::Grpc(_)
            | CheckKind::Agent { .. } => true,
            CheckKind::None
            | CheckKind::Udp(_)
            | CheckKind::Dns(_)
            | CheckKind::Icmp
            | CheckKind::Script(_) => false,
        }
    }

    /// Whether it goes to a port.
    pub fn has_port(&self) -> bool {
        self.is_stream() || matches!(self, CheckKind::Udp(_) | CheckKind::Dns(_))
    }
}

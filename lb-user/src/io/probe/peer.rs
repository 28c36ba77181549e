//! The other end, for tests: servers whose every word and manner is given.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer},
    version::{TLS12, TLS13},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{run, testing};
use crate::pure::{
    config::model::check::{CheckKind, Tls, Verify},
    report::{Outcome, Report, Step},
};

/// What a server does once it has heard something.
#[derive(Debug, Clone)]
pub(super) enum Manner {
    Silent,
    /// Before it has heard anything.
    Closes,
    Says(Vec<u8>),
    SaysAndCloses(Vec<u8>),
    SaysAndResets(Vec<u8>),
    /// One byte at a time, and slowly.
    Drips(Vec<u8>),
    /// The first once, the second again and again.
    Endless(Vec<u8>, Vec<u8>),
}

pub(super) struct Server {
    pub(super) address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Server {
    pub(super) async fn new(manner: Manner) -> Server {
        Server::each(move |stream| play(stream, manner.clone())).await
    }

    pub(super) async fn with_tls(config: ServerConfig, manner: Manner) -> Server {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let serve = move |stream| {
            let (acceptor, manner) = (acceptor.clone(), manner.clone());
            async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    play(stream, manner).await;
                }
            }
        };
        Server::each(serve).await
    }

    /// One connection after the other.
    pub(super) async fn each<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Server
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                serve(stream).await;
            }
        });
        Server { address, _tasks: tasks }
    }

    /// What a check finds, within its time.
    pub(super) async fn checked(&self, kind: CheckKind) -> Report {
        let started = Instant::now();
        let report = run(&testing::task(kind, self.address, TIMEOUT)).await;
        assert!(started.elapsed() < TIMEOUT + GRACE, "{report} after {:?}", started.elapsed());
        println!("{report}");
        report
    }
}

async fn play<S: AsyncRead + AsyncWrite + Unpin + Socket>(mut stream: S, manner: Manner) {
    if matches!(manner, Manner::Closes) {
        let _ = stream.shutdown().await;
    }
    let _ = stream.read(&mut [0; 4_096]).await;
    let mut said = match &manner {
        Manner::Silent | Manner::Closes => true,
        Manner::Says(bytes) | Manner::SaysAndCloses(bytes) | Manner::SaysAndResets(bytes) => {
            stream.write_all(bytes).await.is_ok() && stream.flush().await.is_ok()
        }
        Manner::Drips(bytes) => drip(&mut stream, bytes).await,
        Manner::Endless(first, _) => stream.write_all(first).await.is_ok(),
    };
    match &manner {
        Manner::SaysAndCloses(_) => return,
        Manner::SaysAndResets(_) => return stream.reset_when_dropped(),
        Manner::Endless(_, again) => {
            while said {
                said = stream.write_all(again).await.is_ok();
            }
        }
        _ => {}
    }
    // Open until the check leaves.
    while said && stream.read(&mut [0; 4_096]).await.is_ok_and(|heard| heard > 0) {}
}

/// The connection under a stream.
trait Socket {
    fn reset_when_dropped(&self);
}

impl Socket for TcpStream {
    fn reset_when_dropped(&self) {
        self.set_zero_linger().unwrap();
    }
}

impl Socket for TlsStream<TcpStream> {
    fn reset_when_dropped(&self) {
        self.get_ref().0.reset_when_dropped();
    }
}

async fn drip<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> bool {
    let mut ticks = time::interval(TIMEOUT / 10);
    for &byte in bytes {
        ticks.tick().await;
        if stream.write_all(&[byte]).await.is_err() || stream.flush().await.is_err() {
            return false;
        }
    }
    true
}

/// A failure, and the step it ended.
#[track_caller]
pub(super) fn assert_failed(name: &str, report: &Report, step: Step, reason: &str) {
    assert_eq!(report.outcome, Outcome::Failed(reason.to_owned()), "{name}: {report}");
    assert_eq!(report.steps.last().map(|(step, _)| *step), Some(step), "{name}: {report}");
}

/// In the namespace of the thread, once every server is gone.
pub(super) async fn assert_no_socket_stays() {
    let sockets = || {
        let tables =
            ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")));
        tables.map(|table| table.unwrap().lines().skip(1).map(str::to_owned).collect::<Vec<_>>()).concat()
    };
    let limit = Instant::now() + GRACE;
    while !sockets().is_empty() {
        assert!(Instant::now() < limit, "{:#?}", sockets());
        time::sleep(Duration::from_millis(5)).await;
    }
}

/// Signs certificates, and has its own in a file.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    directory: TempDir,
}

impl Authority {
    pub(super) fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE), params.self_signed(&key).unwrap().pem()).unwrap();
        Authority { issuer: Issuer::new(params, key), directory }
    }

    pub(super) fn file(&self) -> PathBuf {
        self.directory.path().join(FILE)
    }

    /// A check that trusts nobody else.
    pub(super) fn check(&self, server_name: Option<&str>) -> Tls {
        let server_name = server_name.map(str::to_owned);
        Tls { server_name, verify: Verify::File(self.file()), alpn: Vec::new(), expiry_warning: 14 * DAY }
    }

    /// For the names and addresses, over days from today.
    pub(super) fn certificate(
        &self,
        names: &[&str],
        days: (i32, i32),
    ) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = today(days.0).into();
        params.not_after = today(days.1).into();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.into(), key.into())
    }

    /// A server for everything a test asks, over days from today.
    pub(super) fn server(&self, days: (i32, i32)) -> ServerConfig {
        let (certificate, key) = self.certificate(&["a.example", "127.0.0.1"], days);
        server_builder(&[&TLS13, &TLS12])
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap()
    }
}

pub(super) fn server_builder(
    versions: &[&'static SupportedProtocolVersion],
) -> rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    ServerConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap()
}

/// An hour later than now, so that whole days remain while a test runs.
fn today(days: i32) -> SystemTime {
    let now = SystemTime::now() + Duration::from_secs(3_600);
    let away = DAY * days.unsigned_abs();
    if days < 0 { now - away } else { now + away }
}

/// Of a check in these tests.
pub(super) const TIMEOUT: Duration = Duration::from_millis(400);
/// What a busy machine may add to any time.
const GRACE: Duration = Duration::from_secs(5);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const FILE: &str = "authority.pem";

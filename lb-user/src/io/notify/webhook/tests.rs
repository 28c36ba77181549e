//! Against real servers that answer, refuse, hang or talk nonsense.

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::pure::notice::Notice;

/// What a server says to each request in turn; empty: nothing at all, and it keeps the connection.
type Script = &'static [&'static str];

const GOOD: &str = "HTTP/1.1 204 No Content\r\n\r\n";
const BAD: &str = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 2\r\n\r\nno";

/// The requests it got.
async fn server(script: Script, tls: Option<TlsAcceptor>) -> (u16, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        let mut requests = Vec::new();
        for answer in script {
            let (stream, _) = listener.accept().await.unwrap();
            let request = match &tls {
                None => serve(stream, answer).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => serve(stream, answer).await,
                    Err(error) => Err(error),
                },
            };
            requests.push(request.unwrap_or_else(|error| error.to_string()));
        }
        requests
    });
    (port, task)
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &str) -> io::Result<String> {
    let mut request = String::new();
    let mut buffer = [0; 4096];
    while !request.ends_with('}') {
        let taken = stream.read(&mut buffer).await?;
        if taken == 0 {
            return Ok(request);
        }
        request += &String::from_utf8_lossy(&buffer[..taken]);
    }
    if answer.is_empty() {
        return std::future::pending().await;
    }
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    Ok(request)
}

fn event() -> EventStatus {
    Notice::Stopping.event("2026-11-20T12:00:00Z".parse().unwrap(), &"lb1".into()).status()
}

async fn post(port: u16, limit: Duration) -> Result<(), String> {
    let webhook = Webhook::trusting(RootCertStore::empty()).unwrap();
    let url = format!("http://127.0.0.1:{port}/secret?x=1");
    webhook.post(&url, &event(), limit).await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn an_event_is_posted_as_json() {
    let (port, task) = server(&[GOOD], None).await;
    post(port, PATIENCE).await.unwrap();
    let requests = task.await.unwrap();
    let (head, body) = requests[0].split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /secret?x=1 HTTP/1.1\r\n"), "{head}");
    for line in [&format!("host: 127.0.0.1:{port}"), "content-type: application/json"] {
        assert!(head.lines().any(|seen| seen == line), "{head}");
    }
    assert_eq!(serde_json::from_str::<EventStatus>(body).unwrap(), event());
}

#[tokio::test]
async fn one_failure_is_forgiven() {
    for first in [BAD, "nonsense\r\n\r\n", "HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n"] {
        let script: Script = Box::leak(Box::new([first, GOOD]));
        let (port, task) = server(script, None).await;
        post(port, PATIENCE).await.unwrap();
        assert_eq!(task.await.unwrap().len(), 2);
    }
}

#[tokio::test]
async fn two_failures_are_told_without_the_url() {
    let (port, task) = server(&[BAD, BAD], None).await;
    let error = post(port, PATIENCE).await.unwrap_err();
    assert_eq!(error, "the webhook at 127.0.0.1 answered 500 Internal Server Error");
    assert_eq!(task.await.unwrap().len(), 2);
    // Nobody listens there now.
    let error = post(port, PATIENCE).await.unwrap_err();
    assert!(error.contains("no connection") && !error.contains("secret"), "{error}");
}

#[tokio::test]
async fn a_server_that_hangs_costs_no_more_than_the_limit() {
    let (port, task) = server(&[""], None).await;
    let error = post(port, Duration::from_millis(200)).await.unwrap_err();
    assert_eq!(error, "the webhook at 127.0.0.1 did not answer within 200ms");
    task.abort();
}

#[tokio::test]
async fn https_trusts_what_it_was_told_to_trust() {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let mut roots = RootCertStore::empty();
    let stranger = Webhook::trusting(roots.clone()).unwrap();
    roots.add(cert.der().clone()).unwrap();
    let friend = Webhook::trusting(roots).unwrap();

    let (port, task) = server(&[GOOD], Some(acceptor.clone())).await;
    friend.post(&format!("https://localhost:{port}/"), &event(), PATIENCE).await.unwrap();
    assert!(task.await.unwrap()[0].starts_with("POST / HTTP/1.1\r\n"));
    let (port, _task) = server(&[GOOD, GOOD], Some(acceptor)).await;
    let error = stranger.post(&format!("https://localhost:{port}/"), &event(), PATIENCE).await.unwrap_err();
    assert!(error.to_string().contains("no connection to the webhook at localhost"), "{error}");
}

#[test]
fn urls_are_taken_apart() {
    let parsed = |url: &str| {
        Target::parse(url).map(|target| (target.authority(), target.host.clone(), target.port, target.page))
    };
    let target = |authority: &str, host: &str, port, page: &str| {
        Some((authority.to_owned(), host.to_owned(), port, page.to_owned()))
    };
    assert_eq!(parsed("http://a.example"), target("a.example", "a.example", 80, "/"));
    assert_eq!(parsed("https://a.example:8443/x?y"), target("a.example:8443", "a.example", 8443, "/x?y"));
    assert_eq!(parsed("https://[2001:db8::1]/"), target("[2001:db8::1]", "2001:db8::1", 443, "/"));
    for wrong in ["", "a.example", "/x", "ftp://a.example/", "http://", "http:///x"] {
        assert_eq!(parsed(wrong), None, "{wrong}");
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

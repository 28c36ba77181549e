//! Real conversations over real sockets, with servers of every temper.

use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use super::*;

/// How a mail server behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Temper {
    Good,
    /// Knows the addresses that begin with "ops" alone.
    KnowsOps,
    KnowsNobody,
    Silent,
    Unwilling,
    DropsAtData,
    NeverEndsALine,
    Encrypts,
    OffersBrokenTls,
}

/// One connection; the lines it got.
async fn server(temper: Temper) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut lines = Vec::new();
        // A client that goes away ends the conversation.
        let _ = converse(stream, temper, &mut lines).await;
        lines
    });
    (address, task)
}

async fn converse(mut stream: TcpStream, temper: Temper, lines: &mut Vec<String>) -> io::Result<()> {
    match temper {
        Temper::Silent => return std::future::pending().await,
        Temper::Unwilling => return stream.write_all(b"554 no\r\n").await,
        Temper::NeverEndsALine => loop {
            stream.write_all(&[b'2'; 4096]).await?;
        },
        _ => stream.write_all(b"220 mail.example.com\r\n").await?,
    }
    let mut stream = BufReader::new(stream);
    talk(&mut stream, temper, lines).await?;
    if temper == Temper::Encrypts {
        let stream = acceptor().accept(stream.into_inner()).await?;
        lines.push("encrypted".to_owned());
        talk(&mut BufReader::new(stream), Temper::Good, lines).await?;
    }
    Ok(())
}

/// Until the client has gone, or waits for a handshake.
async fn talk(
    stream: &mut (impl AsyncBufRead + AsyncWrite + Unpin),
    temper: Temper,
    lines: &mut Vec<String>,
) -> io::Result<()> {
    let mut in_data = false;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let line = line.trim_end().to_owned();
        let answer = answer(&line, &mut in_data, temper);
        let starts = temper == Temper::Encrypts && line == "STARTTLS";
        lines.push(line);
        match answer {
            Some("") => return Ok(()),
            Some(answer) => stream.write_all(format!("{answer}\r\n").as_bytes()).await?,
            None => {}
        }
        if starts {
            return Ok(());
        }
    }
}

/// With a certificate that nobody vouches for.
fn acceptor() -> TlsAcceptor {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["elsewhere".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// None: nothing to say yet; empty: goodbye without a word.
fn answer(line: &str, in_data: &mut bool, temper: Temper) -> Option<&'static str> {
    if *in_data {
        *in_data = line != ".";
        return (!*in_data).then_some("250 taken");
    }
    let recipient = line.strip_prefix("RCPT TO:<");
    Some(match (line.split(' ').next().unwrap_or_default(), temper) {
        ("EHLO", Temper::OffersBrokenTls | Temper::Encrypts) => "250-hello\r\n250 STARTTLS",
        ("STARTTLS", Temper::Encrypts) => "220 go",
        ("STARTTLS", _) => "220 go\r\n this is no tls",
        ("DATA", Temper::DropsAtData) => "",
        ("DATA", _) => {
            *in_data = true;
            "354 go on"
        }
        ("RCPT", Temper::KnowsNobody) => "550 nobody here",
        ("RCPT", Temper::KnowsOps) if recipient.is_some_and(|to| !to.starts_with("ops")) => "550 unknown",
        ("QUIT", _) => "221 bye",
        _ => "250 fine",
    })
}

fn mail(server: String) -> Mail {
    let to = ["ops@example.com", "Night <night@example.com>"].map(str::to_owned).into();
    Mail { server, from: "lb1@example.com".to_owned(), to }
}

fn letter() -> Letter {
    Letter {
        subject: "[lb1] Server web/web1 (10.0.5.91:8888) - DOWN".to_owned(),
        body: "web/web1 is down: café fermé\n.\nlast\n".to_owned(),
    }
}

async fn sent(temper: Temper, limit: Duration) -> (Result<Refused, String>, Vec<String>) {
    let (address, task) = server(temper).await;
    let result = send(&mail(address), &letter(), limit).await.map_err(|error| error.to_string());
    if temper == Temper::Silent {
        task.abort();
    }
    (result, task.await.unwrap_or_default())
}

#[tokio::test]
async fn a_mail_is_handed_over_whole() {
    let (result, lines) = sent(Temper::Good, PATIENCE).await;
    assert_eq!(result, Ok(vec![]));
    for expected in [
        "MAIL FROM:<lb1@example.com>",
        "RCPT TO:<ops@example.com>",
        "RCPT TO:<night@example.com>",
        "Subject: [lb1] Server web/web1 (10.0.5.91:8888) - DOWN",
        "Auto-Submitted: auto-generated",
        "From: lb1@example.com",
        ".",
        "QUIT",
    ] {
        assert!(lines.iter().any(|line| line == expected), "{expected} is not in {lines:#?}");
    }
    assert!(lines.iter().any(|line| line.starts_with("Date: ")), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("caf=C3=A9")), "{lines:#?}");
}

#[tokio::test]
async fn what_can_be_encrypted_is() {
    let (result, lines) = sent(Temper::Encrypts, PATIENCE).await;
    assert_eq!(result, Ok(vec![]));
    let begin = lines.iter().position(|line| line == "encrypted").expect("a handshake");
    assert_eq!(lines[begin - 1], "STARTTLS");
    assert!(lines[begin..].iter().any(|line| line.starts_with("MAIL FROM:")), "{lines:#?}");
    assert!(lines[..begin].iter().all(|line| !line.starts_with("MAIL FROM:")), "{lines:#?}");
}

#[tokio::test]
async fn one_unknown_address_does_not_keep_the_mail_from_the_others() {
    let (result, lines) = sent(Temper::KnowsOps, PATIENCE).await;
    let refused = result.unwrap();
    assert!(refused.len() == 1 && refused[0].contains("night@example.com"), "{refused:?}");
    assert!(lines.iter().any(|line| line.starts_with("Subject: ")), "{lines:#?}");
}

#[tokio::test]
async fn servers_that_fail_are_told_apart() {
    for (temper, expected) in [
        (Temper::KnowsNobody, "takes mail for nobody"),
        (Temper::Unwilling, "554"),
        (Temper::DropsAtData, "failed"),
        (Temper::NeverEndsALine, "does not stop answering"),
        (Temper::OffersBrokenTls, "failed"),
    ] {
        let (result, _) = sent(temper, PATIENCE).await;
        let error = result.expect_err("it must fail");
        assert!(error.contains(expected) && error.contains("127.0.0.1:"), "{temper:?}: {error}");
    }
}

#[tokio::test]
async fn a_silent_server_costs_no_more_than_the_limit() {
    let limit = Duration::from_millis(200);
    let begun = std::time::Instant::now();
    let (result, _) = sent(Temper::Silent, limit).await;
    assert!(result.expect_err("it must fail").contains("did not finish within 200ms"));
    assert!(begun.elapsed() < PATIENCE);
}

#[tokio::test]
async fn a_closed_port_and_a_bad_address_are_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = send(&mail(closed.clone()), &letter(), PATIENCE).await.unwrap_err().to_string();
    assert!(error.contains(&closed) && error.contains("refused"), "{error}");
    let nobody = Mail { to: vec!["nobody".to_owned()], ..mail(closed) };
    let error = send(&nobody, &letter(), PATIENCE).await.unwrap_err();
    assert!(matches!(error, MailError::Address(_)), "{error}");
}

#[test]
fn servers_are_written_with_and_without_a_port() {
    for (server, expected) in [
        ("mail.example.com", ("mail.example.com", 25)),
        ("mail.example.com:2525", ("mail.example.com", 2525)),
        ("192.168.200.1", ("192.168.200.1", 25)),
        ("[2001:db8::25]:26", ("2001:db8::25", 26)),
        ("[2001:db8::25]", ("2001:db8::25", 25)),
        ("2001:db8::25", ("2001:db8::25", 25)),
    ] {
        assert_eq!(host_and_port(server), expected);
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

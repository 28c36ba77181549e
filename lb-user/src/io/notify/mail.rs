//! Sends one mail over SMTP: plain, or encrypted where the server offers it.

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use lettre::{
    Address, Message,
    message::{
        Mailbox,
        header::{HeaderName, HeaderValue},
    },
    transport::smtp::{
        self,
        client::{AsyncSmtpConnection, AsyncTokioStream, TlsParameters},
        commands,
        extension::ClientId,
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};

use crate::pure::{config::model::Mail, notice::Letter};

#[derive(Debug, thiserror::Error)]
pub enum MailError {
    #[error("{0} is no mail address: correct `email` and `email_from` in [notify]")]
    Address(String),
    #[error("the mail cannot be written: {0}")]
    Message(#[from] lettre::error::Error),
    #[error("no connection to the mail server {server}: {source}")]
    Connect { server: String, source: io::Error },
    #[error("the mail server {server} failed: {}", reason(.source))]
    Smtp { server: String, source: smtp::Error },
    #[error("the mail server {server} takes mail for nobody: {reason}")]
    Recipients { server: String, reason: String },
    #[error("the mail server {server} did not finish within {limit:?}")]
    Timeout { server: String, limit: Duration },
}

/// Recipients that the server refused, while others got the mail.
pub type Refused = Vec<String>;

/// One mail over one connection, within `limit`.
pub async fn send(mail: &Mail, letter: &Letter, limit: Duration) -> Result<Refused, MailError> {
    let sent = timeout(limit, attempt(mail, letter)).await;
    sent.map_err(|_| MailError::Timeout { server: mail.server.clone(), limit })?
}

async fn attempt(mail: &Mail, letter: &Letter) -> Result<Refused, MailError> {
    let server = || mail.server.clone();
    let failed = |source| MailError::Smtp { server: server(), source };
    let from = mailbox(&mail.from)?;
    let to = mail.to.iter().map(|to| mailbox(to)).collect::<Result<Vec<_>, _>>()?;
    let message = message(&from, &to, letter)?;
    let (host, port) = host_and_port(&mail.server);
    let stream = TcpStream::connect((host, port)).await;
    let stream = stream.map_err(|source| MailError::Connect { server: server(), source })?;
    let hello = ClientId::default();
    let bounded = Box::new(Bounded { stream, left: ANSWERS_MAX });
    let mut connection =
        AsyncSmtpConnection::connect_with_transport(bounded, &hello).await.map_err(failed)?;
    if connection.can_starttls() {
        let tls = opportunistic(host).map_err(failed)?;
        connection.starttls(tls, &hello).await.map_err(failed)?;
    }
    connection.command(commands::Mail::new(Some(from.email), Vec::new())).await.map_err(failed)?;
    let refused = recipients(&mut connection, to, mail).await?;
    connection.command(commands::Data).await.map_err(failed)?;
    connection.message(&message).await.map_err(failed)?;
    // The mail is accepted; a server that now drops the connection changes nothing.
    let _ = connection.quit().await;
    Ok(refused)
}

/// One address that the server does not know must not keep the mail from the others.
async fn recipients(
    connection: &mut AsyncSmtpConnection,
    to: Vec<Mailbox>,
    mail: &Mail,
) -> Result<Refused, MailError> {
    let mut refused = Vec::new();
    let count = to.len();
    for Mailbox { email, .. } in to {
        match connection.command(commands::Rcpt::new(email.clone(), Vec::new())).await {
            Ok(_) => {}
            Err(error) if error.status().is_some() => refused.push(format!("{email}: {}", reason(&error))),
            Err(source) => return Err(MailError::Smtp { server: mail.server.clone(), source }),
        }
    }
    if refused.len() == count {
        let reason = refused.join(", ");
        return Err(MailError::Recipients { server: mail.server.clone(), reason });
    }
    Ok(refused)
}

fn message(from: &Mailbox, to: &[Mailbox], letter: &Letter) -> Result<Vec<u8>, MailError> {
    // Nobody's absence note shall answer (RFC 3834, section 5).
    let automatic =
        HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned());
    let mut builder =
        Message::builder().from(from.clone()).subject(&letter.subject).message_id(None).raw_header(automatic);
    for to in to {
        builder = builder.to(to.clone());
    }
    Ok(builder.body(letter.body.clone())?.formatted())
}

fn mailbox(text: &str) -> Result<Mailbox, MailError> {
    let address = text.parse::<Address>().map(|address| Mailbox::new(None, address));
    address.or_else(|_| text.parse()).map_err(|_| MailError::Address(text.to_owned()))
}

/// Whoever could show another certificate could as well strip the offer to encrypt (RFC 7435), so any is taken: the
/// alternative is plain text.
fn opportunistic(host: &str) -> Result<TlsParameters, smtp::Error> {
    TlsParameters::builder(host.to_owned())
        .dangerous_accept_invalid_certs(true)
        .dangerous_accept_invalid_hostnames(true)
        .build()
}

/// "mail.example.com", "192.0.2.1:2525", "[2001:db8::25]:25", "2001:db8::25"
fn host_and_port(server: &str) -> (&str, u16) {
    let bare =
        |host: &'_ str| -> bool { !host.contains(':') || host.starts_with('[') && host.ends_with(']') };
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) if bare(host) => match port.parse() {
            Ok(port) => (host, port),
            Err(_) => (server, SMTP),
        },
        _ => (server, SMTP),
    };
    (host.trim_start_matches('[').trim_end_matches(']'), port)
}

/// lettre says what kind of error it is, and leaves what happened to the source.
fn reason(error: &smtp::Error) -> String {
    let mut reason = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        let text = error.to_string();
        if !reason.contains(&text) {
            reason = format!("{reason}: {text}");
        }
        source = error.source();
    }
    reason.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON_MAX).collect()
}

/// A connection that hears only so much: the SMTP client reads a line to its end, however long it is.
struct Bounded {
    stream: TcpStream,
    left: usize,
}

impl AsyncRead for Bounded {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buffer);
        match this.left.checked_sub(buffer.filled().len() - before) {
            Some(left) => this.left = left,
            None => return Poll::Ready(Err(io::Error::other("the server does not stop answering"))),
        }
        polled
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl fmt::Debug for Bounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stream.fmt(f)
    }
}

impl AsyncTokioStream for Bounded {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }
}

const SMTP: u16 = 25;
/// Of one connection, a TLS handshake included; an ordinary one hears less than 10 KiB.
const ANSWERS_MAX: usize = 64 << 10;
const REASON_MAX: usize = 300;

#[cfg(test)]
mod tests;

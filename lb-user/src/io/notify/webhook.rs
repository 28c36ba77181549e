//! Posts one event to a URL.

use std::{io, sync::Arc, time::Duration};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, StatusCode, Uri, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    select,
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;

use crate::pure::status::EventStatus;

/// No error shows the URL: its path may be a secret.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error("the webhook is no http or https URL with a host: correct [notify] webhook")]
    Url,
    #[error("the event cannot be written: {0}")]
    Event(#[from] serde_json::Error),
    #[error("no connection to the webhook at {host}: {source}")]
    Connect { host: String, source: io::Error },
    #[error("the webhook at {host} gave no usable answer: {source}")]
    Http { host: String, source: hyper::Error },
    #[error("the webhook at {host} answered {status}")]
    Status { host: String, status: StatusCode },
    #[error("the webhook at {host} did not answer within {limit:?}")]
    Timeout { host: String, limit: Duration },
    #[error("the system's certificates cannot be used: {0}")]
    Tls(#[from] rustls::Error),
}

/// Posts events over connections of their own.
pub struct Webhook {
    tls: TlsConnector,
}

/// A URL, taken apart.
struct Target {
    is_tls: bool,
    host: String,
    port: u16,
    /// Path and query.
    page: String,
}

impl Webhook {
    /// Trusts what the system trusts.
    pub fn new() -> Result<Self, WebhookError> {
        let mut roots = RootCertStore::empty();
        // A certificate that cannot be read vouches for nobody.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Webhook::trusting(roots)
    }

    fn trusting(roots: RootCertStore) -> Result<Self, WebhookError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = config.with_root_certificates(roots).with_no_client_auth();
        Ok(Webhook { tls: TlsConnector::from(Arc::new(config)) })
    }

    /// Tries twice if need be, both within `limit`. What answers with 2xx has the event; nothing is followed.
    pub async fn post(&self, url: &str, event: &EventStatus, limit: Duration) -> Result<(), WebhookError> {
        let target = Target::parse(url).ok_or(WebhookError::Url)?;
        let body = Bytes::from(serde_json::to_vec(event)?);
        let posted = timeout(limit, async {
            if self.attempt(&target, body.clone()).await.is_ok() {
                return Ok(());
            }
            sleep(RETRY_PAUSE).await;
            self.attempt(&target, body).await
        });
        posted.await.map_err(|_| WebhookError::Timeout { host: target.host.clone(), limit })?
    }

    async fn attempt(&self, target: &Target, body: Bytes) -> Result<(), WebhookError> {
        let failed = |source| WebhookError::Connect { host: target.host.clone(), source };
        let stream = TcpStream::connect((&*target.host, target.port)).await.map_err(failed)?;
        if !target.is_tls {
            return target.exchange(stream, body).await;
        }
        let name = ServerName::try_from(target.host.clone()).map_err(|_| WebhookError::Url)?;
        let stream = self.tls.connect(name, stream).await.map_err(failed)?;
        target.exchange(stream, body).await
    }
}

impl Target {
    fn parse(url: &str) -> Option<Target> {
        let uri: Uri = url.parse().ok()?;
        let is_tls = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let port = uri.port_u16().unwrap_or(if is_tls { HTTPS } else { HTTP });
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let page = uri.path_and_query().map_or("/", |page| page.as_str()).to_owned();
        (!host.is_empty()).then_some(Target { is_tls, host, port, page })
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        body: Bytes,
    ) -> Result<(), WebhookError> {
        let failed = |source| WebhookError::Http { host: self.host.clone(), source };
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let request = Request::post(&self.page)
            .header("host", self.authority())
            .header("user-agent", concat!("steelyard/", env!("CARGO_PKG_VERSION")))
            .header("content-type", "application/json")
            .header("connection", "close")
            .body(Full::new(body))
            .map_err(|_| WebhookError::Url)?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(failed)?;
            let status = response.status();
            // Read so that the other side sees its answer taken; what it says does not matter.
            let _ = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
            Ok::<_, WebhookError>(status)
        };
        // The connection moves only while it is polled, and ends with this function.
        let status = select! {
            biased;
            status = exchange => status?,
            Err(source) = connection => return Err(failed(source)),
        };
        if status.is_success() {
            return Ok(());
        }
        Err(WebhookError::Status { host: self.host.clone(), status })
    }

    fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.is_tls, self.port) {
            (false, HTTP) | (true, HTTPS) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

const HTTP: u16 = 80;
const HTTPS: u16 = 443;
/// Whoever is just starting again gets a moment.
/// What was restarting may be there by then.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
const ANSWER_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests;

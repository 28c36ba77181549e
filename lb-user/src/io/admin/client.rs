//! Asks a running daemon.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1, header::HeaderValue};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};

use super::Refusal;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no daemon answers at {path}: start one with `steelyard run`, or name its socket with --socket")]
    NoDaemon { path: PathBuf },
    #[error("may not talk to the daemon at {path}: run as root")]
    Forbidden { path: PathBuf },
    #[error("{0}")]
    Refused(String),
    /// A configuration with faults.
    #[error("{0}")]
    Faulty(String),
    #[error("the daemon at {path} did not answer within {limit_s} s: see its log")]
    Timeout { path: PathBuf, limit_s: u64 },
    #[error("the daemon at {path} gave no usable answer ({reason}): is it of the same version?")]
    Answer { path: PathBuf, reason: String },
}

/// The answer to a GET of `page`, such as "/v1/status".
pub async fn get<T: DeserializeOwned>(socket: &Path, page: &str) -> Result<T, ClientError> {
    let request = Request::get(page).body(Full::default());
    exchange(socket, request, TIMEOUT).await
}

/// The answer to something that is to be done.
pub async fn send<T: DeserializeOwned>(
    socket: &Path,
    method: Method,
    page: &str,
    body: &impl Serialize,
) -> Result<T, ClientError> {
    let answer = |reason: String| ClientError::Answer { path: socket.to_owned(), reason };
    let body = serde_json::to_vec(body).map_err(|error| answer(error.to_string()))?;
    let request = Request::builder().method(method).uri(page).header("content-type", "application/json");
    exchange(socket, request.body(Full::from(body)), TIMEOUT_OF_CHANGES).await
}

type Built = Result<Request<Full<Bytes>>, http::Error>;

async fn exchange<T: DeserializeOwned>(
    socket: &Path,
    request: Built,
    limit: Duration,
) -> Result<T, ClientError> {
    let asked = timeout(limit, ask(socket, request)).await;
    asked.map_err(|_| ClientError::Timeout { path: socket.to_owned(), limit_s: limit.as_secs() })?
}

async fn ask<T: DeserializeOwned>(socket: &Path, request: Built) -> Result<T, ClientError> {
    let answer = |reason: String| ClientError::Answer { path: socket.to_owned(), reason };
    let mut request = request.map_err(|error| answer(error.to_string()))?;
    request.headers_mut().insert("host", HeaderValue::from_static("steelyard"));
    let stream = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => ClientError::Forbidden { path: socket.to_owned() },
        _ => ClientError::NoDaemon { path: socket.to_owned() },
    })?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| answer(error.to_string()))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| answer(error.to_string()))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
        Ok::<_, ClientError>((status, body.map_err(|error| answer(error.to_string()))?.to_bytes()))
    };
    // The connection moves only while it is polled, and ends with this function.
    let (status, body) = tokio::select! {
        exchanged = exchange => exchanged?,
        Err(error) = connection => return Err(answer(error.to_string())),
    };
    if !status.is_success() {
        let refusal: Result<Refusal, _> = serde_json::from_slice(&body);
        let error = refusal.map_or_else(|_| status.to_string(), |refusal| refusal.error);
        return Err(match status {
            StatusCode::UNPROCESSABLE_ENTITY => ClientError::Faulty(error),
            _ => ClientError::Refused(error),
        });
    }
    serde_json::from_slice(&body).map_err(|error| answer(error.to_string()))
}

const TIMEOUT: Duration = Duration::from_secs(10);
/// A large configuration is read and planned, and a change is written to disk.
const TIMEOUT_OF_CHANGES: Duration = Duration::from_secs(60);
/// A status of 1 000 services with 20 servers each is about 8 MB.
const ANSWER_MAX: usize = 64 << 20;

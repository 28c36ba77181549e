//! Asks a running daemon.

use std::{
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::HeaderValue,
};
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
    #[error("the daemon at {path} has ended")]
    Ended { path: PathBuf },
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
    let (mut sender, connection, request) = connect(socket, request).await?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| answer(error.to_string()))?;
        let status = response.status();
        Ok::<_, ClientError>((status, whole(socket, response.into_body()).await?))
    };
    // The connection moves only while it is polled, and ends with this function.
    let (status, body) = tokio::select! {
        exchanged = exchange => exchanged?,
        Err(error) = connection => return Err(answer(error.to_string())),
    };
    if !status.is_success() {
        return Err(refused(status, &body));
    }
    serde_json::from_slice(&body).map_err(|error| answer(error.to_string()))
}

/// Gives every line of an answer to `each`, until the answer ends or `each` wants no more.
pub async fn lines(
    socket: &Path,
    page: &str,
    mut each: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<(), ClientError> {
    let answer = |reason: String| ClientError::Answer { path: socket.to_owned(), reason };
    let late = |_| ClientError::Timeout { path: socket.to_owned(), limit_s: TIMEOUT.as_secs() };
    let request = Request::get(page).body(Full::default());
    let (mut sender, connection, request) =
        timeout(TIMEOUT, connect(socket, request)).await.map_err(late)??;
    let exchange = async {
        let response = timeout(TIMEOUT, sender.send_request(request)).await.map_err(late)?;
        let response = response.map_err(|error| answer(error.to_string()))?;
        let status = response.status();
        let mut body = response.into_body();
        if !status.is_success() {
            return Err(refused(status, &whole(socket, body).await?));
        }
        let mut rest = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| ClientError::Ended { path: socket.to_owned() })?;
            rest.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
            while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                if each(String::from_utf8_lossy(&line[..end]).as_ref()).is_break() {
                    return Ok(());
                }
            }
            if rest.len() > LINE_MAX {
                return Err(answer("a line has no end".to_owned()));
            }
        }
        Ok(())
    };
    tokio::select! {
        biased;
        exchanged = exchange => exchanged,
        Err(_) = connection => Err(ClientError::Ended { path: socket.to_owned() }),
    }
}

type Connection = http1::Connection<TokioIo<UnixStream>, Full<Bytes>>;

async fn connect(
    socket: &Path,
    request: Built,
) -> Result<(http1::SendRequest<Full<Bytes>>, Connection, Request<Full<Bytes>>), ClientError> {
    let answer = |reason: String| ClientError::Answer { path: socket.to_owned(), reason };
    let mut request = request.map_err(|error| answer(error.to_string()))?;
    request.headers_mut().insert("host", HeaderValue::from_static("steelyard"));
    let stream = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => ClientError::Forbidden { path: socket.to_owned() },
        _ => ClientError::NoDaemon { path: socket.to_owned() },
    })?;
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| answer(error.to_string()))?;
    Ok((sender, connection, request))
}

async fn whole(socket: &Path, body: Incoming) -> Result<Bytes, ClientError> {
    let answer = |reason: String| ClientError::Answer { path: socket.to_owned(), reason };
    let body = Limited::new(body, ANSWER_MAX).collect().await;
    Ok(body.map_err(|error| answer(error.to_string()))?.to_bytes())
}

fn refused(status: StatusCode, body: &[u8]) -> ClientError {
    let refusal: Result<Refusal, _> = serde_json::from_slice(body);
    let error = refusal.map_or_else(|_| status.to_string(), |refusal| refusal.error);
    match status {
        StatusCode::UNPROCESSABLE_ENTITY => ClientError::Faulty(error),
        _ => ClientError::Refused(error),
    }
}

const TIMEOUT: Duration = Duration::from_secs(10);
/// A large configuration is read and planned, and a change is written to disk.
const TIMEOUT_OF_CHANGES: Duration = Duration::from_secs(60);
/// A status of 1 000 services with 20 servers each is about 8 MB.
const ANSWER_MAX: usize = 64 << 20;
/// An event is less than 4 KiB.
const LINE_MAX: usize = 1 << 20;

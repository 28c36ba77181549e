//! Asks a running daemon.

use std::{
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
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
    #[error("the daemon at {path} did not answer within {} s: see its log", TIMEOUT.as_secs())]
    Timeout { path: PathBuf },
    #[error("the daemon at {path} has ended")]
    Ended { path: PathBuf },
    #[error("the daemon at {path} gave no usable answer ({reason}): is it of the same version?")]
    Answer { path: PathBuf, reason: String },
}

/// The answer to a GET of `page`, such as "/v1/status".
pub async fn get<T: DeserializeOwned>(socket: &Path, page: &str) -> Result<T, ClientError> {
    let asked = timeout(TIMEOUT, ask(socket, page)).await;
    asked.map_err(|_| ClientError::Timeout { path: socket.to_owned() })?
}

async fn ask<T: DeserializeOwned>(socket: &Path, page: &str) -> Result<T, ClientError> {
    let answer = |reason: String| ClientError::Answer { path: socket.to_owned(), reason };
    let (mut sender, connection, request) = request(socket, page).await?;
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
    let late = |_| ClientError::Timeout { path: socket.to_owned() };
    let (mut sender, connection, request) = timeout(TIMEOUT, request(socket, page)).await.map_err(late)??;
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

type Connection = http1::Connection<TokioIo<UnixStream>, Empty<Bytes>>;

async fn request(
    socket: &Path,
    page: &str,
) -> Result<(http1::SendRequest<Empty<Bytes>>, Connection, Request<Empty<Bytes>>), ClientError> {
    let answer = |reason: String| ClientError::Answer { path: socket.to_owned(), reason };
    let stream = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => ClientError::Forbidden { path: socket.to_owned() },
        _ => ClientError::NoDaemon { path: socket.to_owned() },
    })?;
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| answer(error.to_string()))?;
    let request = Request::get(page).header("host", "steelyard").body(Empty::<Bytes>::new());
    Ok((sender, connection, request.map_err(|error| answer(error.to_string()))?))
}

async fn whole(socket: &Path, body: Incoming) -> Result<Bytes, ClientError> {
    let answer = |reason: String| ClientError::Answer { path: socket.to_owned(), reason };
    let body = Limited::new(body, ANSWER_MAX).collect().await;
    Ok(body.map_err(|error| answer(error.to_string()))?.to_bytes())
}

fn refused(status: StatusCode, body: &[u8]) -> ClientError {
    let refusal: Result<Refusal, _> = serde_json::from_slice(body);
    ClientError::Refused(refusal.map_or_else(|_| status.to_string(), |refusal| refusal.error))
}

const TIMEOUT: Duration = Duration::from_secs(10);
/// A status of 1 000 services with 20 servers each is about 8 MB.
const ANSWER_MAX: usize = 64 << 20;
/// An event is less than 4 KiB.
const LINE_MAX: usize = 1 << 20;

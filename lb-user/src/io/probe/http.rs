//! The HTTP check: one request on a connection of its own, over TLS or in clear. Redirects are answers like others.

use std::{error::Error, future::poll_fn, io, net::SocketAddr, ops::RangeInclusive, pin::pin};

use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::{Body, Bytes},
    client::conn::http1,
    header::{CONNECTION, HOST, HeaderName, HeaderValue, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    select,
};

use super::{Failure, Trace, tcp, tls};
use crate::pure::{
    config::{
        error::quote,
        model::check::{Http, Pattern},
    },
    report::Step,
    state::CheckTask,
};

#[cfg(test)]
mod tests;

pub(super) async fn check(trace: &mut Trace, task: &CheckTask, http: &Http) -> Result<(), Failure> {
    let request = request(http, task.target).map_err(Failure::Local)?;
    let stream = tcp::connect(trace, task).await?;
    let Some(tls) = &http.tls else {
        return exchange(trace, stream, request, http).await;
    };
    let stream = tls::handshake(trace, stream, task.target.ip(), tls, &tls.alpn).await?;
    exchange(trace, stream, request, http).await
}

fn request(http: &Http, target: SocketAddr) -> Result<Request<Full<Bytes>>, String> {
    let mut request = Request::builder()
        .method(http.method.as_str())
        .uri(&http.uri)
        .body(Full::from(http.body.clone()))
        .map_err(|error| format!("{error}: change the check's `method` or `uri`"))?;
    let headers = request.headers_mut();
    for (name, value) in &http.headers {
        let header = HeaderName::try_from(name).ok().zip(HeaderValue::try_from(value).ok());
        let (name, value) =
            header.ok_or_else(|| format!("{} is no header: change the check's `headers`", quote(name)))?;
        headers.append(name, value);
    }
    if !headers.contains_key(HOST) {
        let host = http.host.clone().unwrap_or_else(|| authority(target, http.tls.is_some()));
        let host = HeaderValue::try_from(&host)
            .map_err(|_| format!("{} is no host name: change the check's `host`", quote(&host)))?;
        headers.insert(HOST, host);
    }
    headers.entry(USER_AGENT).or_insert(AGENT);
    headers.entry(CONNECTION).or_insert(CLOSE);
    Ok(request)
}

/// A port that the scheme implies is left out (RFC 9110, 4.2.3).
fn authority(target: SocketAddr, tls: bool) -> String {
    match target {
        implied if implied.port() == if tls { 443 } else { 80 } => match implied.ip() {
            ip if ip.is_ipv4() => ip.to_string(),
            ip => format!("[{ip}]"),
        },
        named => named.to_string(),
    }
}

async fn exchange<S>(
    trace: &mut Trace,
    stream: S,
    request: Request<Full<Bytes>>,
    http: &Http,
) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    trace.step(Step::Reply);
    let connection = http1::Builder::new().max_buf_size(HEAD_MAX).handshake(TokioIo::new(stream)).await;
    let (mut sender, mut connection) = connection.map_err(|error| fault(&error))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| fault(&error))?;
        judge(trace, response, http).await
    };
    // A shutdown would leave a server that closes first in TIME_WAIT; the reset that follows does not.
    served(answer, poll_fn(|cx| connection.poll_without_shutdown(cx))).await
}

/// What comes of an exchange while its connection is served. The connection may end first, with the last of the
/// answer still to be taken.
pub(super) async fn served<T>(exchange: impl Future<Output = T>, connection: impl Future) -> T {
    let mut exchange = pin!(exchange);
    select! {
        answer = &mut exchange => answer,
        _ = connection => exchange.await,
    }
}

async fn judge<B>(trace: &mut Trace, response: Response<B>, http: &Http) -> Result<(), Failure>
where
    B: Body<Data = Bytes, Error = hyper::Error> + Unpin,
{
    let status = response.status().as_u16();
    if !http.status.iter().any(|range| range.contains(&status)) {
        trace.step(Step::Status);
        return Err(Failure::Server(format!("status {status}, expected {}", ranges(&http.status))));
    }
    if let Some(pattern) = &http.body_matches {
        let start = start(response.into_body()).await?;
        if !pattern.is_in(&start.bytes) {
            return Err(Failure::Server(mismatch(&start, pattern)));
        }
    }
    trace.answer = Some(format!("status {status}"));
    Ok(())
}

/// As much of a body as a check reads.
struct Start {
    bytes: Vec<u8>,
    whole: bool,
}

async fn start<B>(mut body: B) -> Result<Start, Failure>
where
    B: Body<Data = Bytes, Error = hyper::Error> + Unpin,
{
    let mut bytes = Vec::new();
    // Pieces are counted, too: each costs time however short it is.
    for _ in 0..PIECES_MAX {
        let Some(frame) = body.frame().await else {
            return Ok(Start { bytes, whole: true });
        };
        let data = frame.map_err(|error| fault(&error))?.into_data().unwrap_or_default();
        let room = BODY_MAX - bytes.len();
        bytes.extend_from_slice(&data[..data.len().min(room)]);
        if data.len() > room {
            break;
        }
    }
    Ok(Start { bytes, whole: false })
}

fn mismatch(start: &Start, pattern: &Pattern) -> String {
    let pattern = quote(pattern.as_str());
    match start {
        Start { bytes, whole: false } => {
            format!("body does not match {pattern} in its first {} bytes", bytes.len())
        }
        Start { bytes, .. } if bytes.is_empty() => format!("body is empty, expected {pattern}"),
        Start { bytes, .. } => {
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(BODY_SHOWN)]);
            format!("body does not match {pattern}, it begins with {}", quote(&shown))
        }
    }
}

/// "200-299, 401".
fn ranges(ranges: &[RangeInclusive<u16>]) -> String {
    let range = |range: &RangeInclusive<u16>| match (range.start(), range.end()) {
        (start, end) if start == end => start.to_string(),
        (start, end) => format!("{start}-{end}"),
    };
    ranges.iter().map(range).collect::<Vec<_>>().join(", ")
}

/// What an error of an exchange says, and of whom.
fn fault(error: &hyper::Error) -> Failure {
    stream_fault(error).unwrap_or_else(|| Failure::Server(reason(error)))
}

/// The same, if it is the stream's.
pub(super) fn stream_fault(error: &hyper::Error) -> Option<Failure> {
    error.source()?.downcast_ref::<io::Error>().map(tls::fault)
}

fn reason(error: &hyper::Error) -> String {
    match error {
        error if error.is_parse_too_large() => "its header is longer than 16 KiB".to_owned(),
        // Cancelled is what the connection ended before it took.
        error if error.is_incomplete_message() || error.is_canceled() => {
            "connection closed before the answer's end".to_owned()
        }
        error if error.is_parse() => format!("it does not speak HTTP: {error}"),
        error => error.to_string(),
    }
}

const AGENT: HeaderValue = HeaderValue::from_static("steelyard");
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// Of an answer's header.
const HEAD_MAX: usize = 16 << 10;
/// Of its body, in bytes and in chunks.
const BODY_MAX: usize = 64 << 10;
const PIECES_MAX: usize = 4 << 10;
const BODY_SHOWN: usize = 64;

//! The gRPC check: `grpc.health.v1.Health/Check` on an HTTP/2 connection of its own, over TLS or in clear.

use std::{
    error::Error,
    net::SocketAddr,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http2,
    header::{CONTENT_TYPE, HeaderValue, TE, USER_AGENT},
    rt::Executor,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
};

use super::{
    Failure, Trace,
    http::{served, stream_fault},
    tcp, tls,
};
use crate::pure::{
    config::{error::quote, model::check::Grpc},
    grpc::{self, Health},
    report::Step,
    state::CheckTask,
};

#[cfg(test)]
mod tests;

pub(super) async fn check(trace: &mut Trace, task: &CheckTask, grpc: &Grpc) -> Result<(), Failure> {
    let request = request(grpc, task.target, task.check.timeout).map_err(Failure::Local)?;
    let stream = tcp::connect(trace, task).await?;
    let answer = match &grpc.tls {
        None => exchange(trace, stream, request).await?,
        Some(tls) => {
            let h2 = [H2.to_owned()];
            let alpn = if tls.alpn.is_empty() { &h2[..] } else { &tls.alpn };
            let stream = tls::handshake(trace, stream, task.target.ip(), tls, alpn).await?;
            exchange(trace, stream, request).await?
        }
    };
    judge(trace, &answer, &grpc.service)
}

fn request(grpc: &Grpc, target: SocketAddr, timeout: Duration) -> Result<Request<Full<Bytes>>, String> {
    let (scheme, name) = match &grpc.tls {
        None => ("http", None),
        Some(tls) => ("https", tls.server_name.as_ref()),
    };
    let authority = name.map_or_else(|| target.to_string(), |name| format!("{name}:{}", target.port()));
    Request::post(format!("{scheme}://{authority}{}", grpc::CHECK))
        .header(CONTENT_TYPE, GRPC)
        .header(TE, "trailers")
        .header(USER_AGENT, "steelyard")
        .header("grpc-timeout", format!("{}m", timeout.as_millis().min(TIMEOUT_MAX)))
        .body(Full::from(grpc::request(&grpc.service)))
        .map_err(|error| format!("{error}: change the check's `server_name`"))
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
    trailers: HeaderMap,
}

async fn exchange<S>(trace: &mut Trace, stream: S, request: Request<Full<Bytes>>) -> Result<Answer, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    trace.step(Step::Reply);
    let tasks = Arc::new(Mutex::new(JoinSet::new()));
    let mut builder = http2::Builder::new(Tasks(Arc::downgrade(&tasks)));
    builder.max_header_list_size(HEAD_MAX);
    let connection = builder.handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = connection.map_err(|error| fault(&error))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| fault(&error))?;
        read(response).await
    };
    served(answer, connection).await
}

/// Where the tasks of one connection live, which end with the check.
///
/// Weak, because the tasks hold it, too.
#[derive(Clone)]
struct Tasks(Weak<Mutex<JoinSet<()>>>);

impl<F> Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        if let Some(tasks) = self.0.upgrade()
            && let Ok(mut tasks) = tasks.lock()
        {
            tasks.spawn(task);
        }
    }
}

async fn read(response: Response<Incoming>) -> Result<Answer, Failure> {
    let (head, mut incoming) = response.into_parts();
    let mut body = Vec::new();
    let mut trailers = HeaderMap::new();
    while let Some(frame) = incoming.frame().await {
        match frame.map_err(|error| fault(&error))?.into_data() {
            Ok(data) if body.len() + data.len() > BODY_MAX => {
                return Err(Failure::Server("its answer is longer than 4 KiB".to_owned()));
            }
            Ok(data) => body.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    Ok(Answer { status: head.status, headers: head.headers, body, trailers })
}

fn judge(trace: &mut Trace, answer: &Answer, service: &str) -> Result<(), Failure> {
    let status = |trace: &mut Trace, reason| {
        trace.step(Step::Status);
        Err(Failure::Server(reason))
    };
    if answer.status != StatusCode::OK {
        return status(trace, format!("status {} of HTTP, expected 200", answer.status.as_u16()));
    }
    let kind = answer.headers.get(CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    if !kind.starts_with(GRPC.as_bytes()) {
        let kind = quote(&String::from_utf8_lossy(kind));
        return Err(Failure::Server(format!("it does not speak gRPC: its answer is of type {kind}")));
    }
    match answer.code() {
        Some(OK) => {}
        Some(code) => return status(trace, refusal(code, answer.field("grpc-message"), service)),
        None => return Err(Failure::Server("its answer ends without a grpc-status".to_owned())),
    }
    match grpc::reply(&answer.body) {
        Ok(health @ Health::Serving) => {
            trace.answer = Some(format!("status {health}"));
            Ok(())
        }
        Ok(health) => status(trace, format!("status {health}, expected {}", Health::Serving)),
        Err(error) => Err(Failure::Server(error.to_string())),
    }
}

impl Answer {
    /// An answer that is nothing but an error has its trailers among its headers.
    fn field(&self, name: &str) -> Option<&HeaderValue> {
        self.trailers.get(name).or_else(|| self.headers.get(name))
    }

    fn code(&self) -> Option<u32> {
        self.field("grpc-status")?.to_str().ok()?.parse().ok()
    }
}

/// The two that every server gives are told by what they mean.
fn refusal(code: u32, message: Option<&HeaderValue>, service: &str) -> String {
    let name = grpc::code_name(code).map_or_else(|| code.to_string(), str::to_owned);
    match (code, message) {
        (NOT_FOUND, _) => format!("status {name} of gRPC: it knows no service {}", quote(service)),
        (UNIMPLEMENTED, _) => format!("status {name} of gRPC: it has no grpc.health.v1.Health"),
        (_, Some(message)) if !message.is_empty() => {
            format!("status {name} of gRPC: {}", quote(&grpc::status_message(message.as_bytes())))
        }
        _ => format!("status {name} of gRPC"),
    }
}

/// What an error of an exchange says, and of whom.
fn fault(error: &hyper::Error) -> Failure {
    stream_fault(error).unwrap_or_else(|| {
        let reason = error.source().map_or_else(|| error.to_string(), |source| source.to_string());
        Failure::Server(format!("no exchange over HTTP/2: {reason}"))
    })
}

const GRPC: &str = "application/grpc";
const H2: &str = "h2";

/// Values of `grpc-status`.
const OK: u32 = 0;
const NOT_FOUND: u32 = 5;
const UNIMPLEMENTED: u32 = 12;

/// `grpc-timeout` has eight digits at most.
const TIMEOUT_MAX: u128 = 99_999_999;
/// Of an answer's header.
const HEAD_MAX: u32 = 16 << 10;
/// Of its body: the message takes seven bytes.
const BODY_MAX: usize = 4 << 10;

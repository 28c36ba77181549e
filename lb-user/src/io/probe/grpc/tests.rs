use std::convert::Infallible;

use hyper::{body::Body, server, service::service_fn};
use hyper_util::rt::TokioExecutor;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::{
    io::{
        probe::peer::{Authority, Manner, Server, assert_failed, assert_no_socket_stays},
        testbed::in_namespaces,
    },
    pure::{config::model::check::CheckKind, report::Outcome},
};

/// How a server answers, apart from the hostile ones.
#[derive(Debug, Clone)]
struct Says {
    status: u16,
    headers: &'static [(&'static str, &'static str)],
    body: Vec<u8>,
    trailers: &'static [(&'static str, &'static str)],
}

const OF_GRPC: &[(&str, &str)] = &[("content-type", "application/grpc+proto")];
const FINE: &[(&str, &str)] = &[("grpc-status", "0")];

/// One byte of `HealthCheckResponse.status`.
fn health(status: u8) -> Says {
    Says { status: 200, headers: OF_GRPC, body: vec![0, 0, 0, 0, 2, 8, status], trailers: FINE }
}

fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
    list.iter().map(|&(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
}

async fn serve<S>(stream: S, says: Says, asked: Asked)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| answer(request, says.clone(), Arc::clone(&asked)));
    let _ = server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

type Asked = Arc<Mutex<Vec<String>>>;

async fn answer(
    request: Request<Incoming>,
    says: Says,
    asked: Asked,
) -> Result<Response<impl Body<Data = Bytes, Error = Infallible>>, Infallible> {
    let line = format!("{} {}", request.method(), request.uri().path());
    assert_eq!(request.headers()[CONTENT_TYPE], GRPC);
    let body = request.into_body().collect().await.unwrap().to_bytes();
    asked.lock().unwrap().push(format!("{line} {}", body.escape_ascii()));
    let trailers = headers(says.trailers);
    let body = Full::new(Bytes::from(says.body)).with_trailers(async { Some(Ok(trailers)) });
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(says.status).unwrap();
    *response.headers_mut() = headers(says.headers);
    Ok(response)
}

async fn server(says: Says, asked: Asked) -> Server {
    Server::each(move |stream| serve(stream, says.clone(), Arc::clone(&asked))).await
}

fn plain(service: &str) -> CheckKind {
    CheckKind::Grpc(Grpc { tls: None, service: service.to_owned() })
}

#[test]
fn a_serving_server_passes() {
    in_namespaces(async |_| {
        let asked = Asked::default();
        let server = server(health(1), Arc::clone(&asked)).await;
        for service in ["", "web"] {
            let report = server.checked(plain(service)).await;
            assert_eq!(report.outcome, Outcome::Passed);
            assert_eq!(report.answer.as_deref(), Some("status SERVING"));
        }
        let path = "POST /grpc.health.v1.Health/Check";
        let expected =
            [format!(r"{path} \x00\x00\x00\x00\x00"), format!(r"{path} \x00\x00\x00\x00\x05\n\x03web")];
        assert_eq!(*asked.lock().unwrap(), expected);
        drop(server);
        assert_no_socket_stays().await;
    });
}

#[test]
fn other_answers_say_what_came() {
    in_namespaces(async |_| {
        let error = |headers| Says { headers, body: Vec::new(), trailers: &[], ..health(0) };
        let cases = [
            (health(0), "status UNKNOWN, expected SERVING"),
            (health(2), "status NOT_SERVING, expected SERVING"),
            (health(3), "status SERVICE_UNKNOWN, expected SERVING"),
            (health(9), "status 9, expected SERVING"),
            (
                error(&[("content-type", "application/grpc"), ("grpc-status", "5")]),
                "status NOT_FOUND of gRPC: it knows no service `web`",
            ),
            (
                error(&[("content-type", "application/grpc"), ("grpc-status", "12")]),
                "status UNIMPLEMENTED of gRPC: it has no grpc.health.v1.Health",
            ),
            (
                error(&[
                    ("content-type", "application/grpc"),
                    ("grpc-status", "14"),
                    ("grpc-message", "back%20soon%0a"),
                ]),
                "status UNAVAILABLE of gRPC: `back soon `",
            ),
            (
                Says { body: Vec::new(), trailers: &[("grpc-status", "16")], ..health(0) },
                "status UNAUTHENTICATED of gRPC",
            ),
            (Says { body: Vec::new(), trailers: &[("grpc-status", "99")], ..health(0) }, "status 99 of gRPC"),
            (Says { trailers: &[], ..health(1) }, "its answer ends without a grpc-status"),
            (Says { body: Vec::new(), ..health(1) }, "its answer holds no message"),
            (Says { body: b"\0\0\0\0\x09\x08".to_vec(), ..health(1) }, "its message is cut short"),
            (Says { status: 503, ..health(1) }, "status 503 of HTTP, expected 200"),
            (
                Says { headers: &[("content-type", "text/html")], ..health(1) },
                "it does not speak gRPC: its answer is of type `text/html`",
            ),
        ];
        for (says, reason) in cases {
            let server = server(says.clone(), Asked::default()).await;
            let report = server.checked(plain("web")).await;
            let step = if reason.starts_with("status") { Step::Status } else { Step::Reply };
            assert_failed(&format!("{says:?}"), &report, step, reason);
        }
        let long = Says { body: vec![0; 1 << 20], ..health(1) };
        let report = server(long, Asked::default()).await.checked(plain("web")).await;
        assert_failed("long", &report, Step::Reply, "its answer is longer than 4 KiB");
        assert_no_socket_stays().await;
    });
}

#[test]
fn the_check_runs_over_tls_too() {
    in_namespaces(async |_| {
        let authority = Authority::new("ours");
        let mut config = authority.server((-1, 90));
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let server = Server::each(move |stream| {
            let accepted = acceptor.accept(stream);
            async move {
                let stream = accepted.await.unwrap();
                assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
                serve(stream, health(1), Asked::default()).await;
            }
        })
        .await;
        let tls = Some(authority.check(Some("a.example")));
        let report = server.checked(CheckKind::Grpc(Grpc { tls, service: String::new() })).await;
        assert_eq!(report.outcome, Outcome::Passed);
        let steps: Vec<_> = report.steps.iter().map(|(step, _)| *step).collect();
        assert_eq!(steps, [Step::Connect, Step::Tls, Step::Reply]);
        drop(server);
        assert_no_socket_stays().await;
    });
}

#[test]
fn servers_without_manners_fail_in_time() {
    in_namespaces(async |_| {
        // SETTINGS without any, then HEADERS that never end.
        let settings = b"\0\0\0\x04\0\0\0\0\0".to_vec();
        let continued = [&settings[..], b"\0\0\x01\x01\0\0\0\0\x01\x88"].concat();
        let continuation = b"\0\0\x01\x09\0\0\0\0\x01\x88".repeat(100);
        let cases = [
            ("silence", Manner::Silent, Some("timeout after 400ms")),
            ("settings, then silence", Manner::Says(settings.clone()), Some("timeout after 400ms")),
            ("reset", Manner::SaysAndResets(settings.clone()), None),
            (
                "http 1",
                Manner::Says(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
                Some("no exchange over HTTP/2: connection error detected: frame with invalid size"),
            ),
            ("garbage", Manner::Endless(settings.clone(), vec![0xff; 65_536]), None),
            ("drip", Manner::Drips(settings.clone()), Some("timeout after 400ms")),
            ("endless header", Manner::Endless(continued, continuation), None),
            ("endless pings", Manner::Endless(settings, b"\0\0\x08\x06\0\0\0\0\0ping-me!".to_vec()), None),
        ];
        for (name, manner, reason) in cases {
            println!("{name}");
            let report = Server::new(manner).await.checked(plain("")).await;
            assert_eq!(report.steps.last().map(|(step, _)| *step), Some(Step::Reply), "{name}: {report}");
            match (&report.outcome, reason) {
                (Outcome::Failed(told), Some(reason)) => assert_eq!(told, reason, "{name}"),
                (outcome, _) => assert!(matches!(outcome, Outcome::Failed(_)), "{name}: {report}"),
            }
        }
        assert_no_socket_stays().await;

        // What stays is the server's, which closed first.
        let report = Server::new(Manner::Closes).await.checked(plain("")).await;
        assert!(matches!(report.outcome, Outcome::Failed(_)), "{report}");
    });
}

use tokio::{io::AsyncReadExt, net::TcpListener};

use super::*;
use crate::{
    io::{
        probe::{
            peer::{Authority, Manner, Server, TIMEOUT, assert_failed, assert_no_socket_stays},
            run, testing,
        },
        testbed::in_namespaces,
    },
    pure::{
        config::model::check::{CheckKind, Tls},
        report::Outcome,
    },
};

fn plain() -> Http {
    Http {
        tls: None,
        method: "GET".to_owned(),
        uri: "/health".to_owned(),
        host: None,
        headers: Vec::new(),
        body: Vec::new(),
        status: vec![200..=299, 401..=401],
        body_matches: None,
    }
}

fn matching(pattern: &str) -> Http {
    Http { body_matches: Some(Pattern::new(pattern).unwrap()), ..plain() }
}

fn says(text: &str) -> Manner {
    Manner::Says(text.into())
}

#[test]
fn good_answers_pass_in_every_spelling() {
    in_namespaces(async |_| {
        let cases = [
            ("plain", plain(), "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            ("another status", plain(), "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"),
            ("no reason", plain(), "HTTP/1.1 204\r\n\r\n"),
            ("version 1.0", matching("^ok$"), "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok"),
            ("lower case", matching("^ok$"), "HTTP/1.1 200 ok\r\ncontent-length: 2\r\n\r\nok"),
            ("upper case", matching("^ok$"), "HTTP/1.1 200 OK\r\nCONTENT-LENGTH: 2\r\n\r\nok"),
            (
                "chunked",
                matching("^up and well$"),
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nup \r\n8;x=y\r\nand well\r\n0\r\nA: b\r\n\r\n",
            ),
            (
                "early hints",
                matching("ok"),
                "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            ),
        ];
        for (name, http, answer) in cases {
            let server = Server::new(says(answer)).await;
            let report = server.checked(CheckKind::Http(http)).await;
            assert_eq!(report.outcome, Outcome::Passed, "{name}");
            let steps: Vec<_> = report.steps.iter().map(|(step, _)| *step).collect();
            assert_eq!(steps, [Step::Connect, Step::Reply], "{name}");
            assert!(report.answer.unwrap().starts_with("status "), "{name}");
        }
        let until_close = Manner::SaysAndCloses(b"HTTP/1.1 200 OK\r\n\r\nup and well".into());
        let server = Server::new(until_close).await;
        let report = server.checked(CheckKind::Http(matching("well$"))).await;
        assert_eq!(report.outcome, Outcome::Passed);
        drop(server);
        assert_no_socket_stays().await;
    });
}

#[test]
fn bad_answers_say_what_came() {
    in_namespaces(async |_| {
        let long = format!("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{}", "<html>\u{7}".repeat(1_000));
        let cases = [
            (
                plain(),
                "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
                Step::Status,
                "status 503, expected 200-299, 401",
            ),
            (
                plain(),
                "HTTP/1.1 302 Found\r\nLocation: /other\r\n\r\n",
                Step::Status,
                "status 302, expected 200-299, 401",
            ),
            (
                matching("ok"),
                "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbusy",
                Step::Reply,
                "body does not match `ok`, it begins with `busy`",
            ),
            (
                matching("ok"),
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                Step::Reply,
                "body is empty, expected `ok`",
            ),
        ];
        for (http, answer, step, reason) in cases {
            let server = Server::new(says(answer)).await;
            let report = server.checked(CheckKind::Http(http)).await;
            assert_failed(answer, &report, step, reason);
        }
        let server = Server::new(says(&long)).await;
        let report = server.checked(CheckKind::Http(matching("ok"))).await.to_string();
        assert!(report.contains("begins with `<html> <html>") && report.len() < 200, "{report}");
    });
}

#[test]
fn the_request_is_as_configured() {
    in_namespaces(async |_| {
        let full = Http {
            method: "POST".to_owned(),
            uri: "/check?deep=1".to_owned(),
            host: Some("www.example".to_owned()),
            headers: vec![("X-Token".to_owned(), "secret".to_owned())],
            body: b"ping".to_vec(),
            ..plain()
        };
        let own = Http { headers: vec![("host".to_owned(), "own.example".to_owned())], ..plain() };
        let all = Http { method: "OPTIONS".to_owned(), uri: "*".to_owned(), ..plain() };
        for (http, first, rest) in [
            (plain(), "GET /health HTTP/1.1\r\n", &["host: 127.0.0.1:", "connection: close"][..]),
            (
                full,
                "POST /check?deep=1 HTTP/1.1\r\n",
                &["host: www.example\r\n", "x-token: secret\r\n", "content-length: 4\r\n", "\r\n\r\nping"],
            ),
            (own, "GET /health HTTP/1.1\r\n", &["host: own.example\r\n", "user-agent: steelyard\r\n"]),
            (all, "OPTIONS * HTTP/1.1\r\n", &[]),
        ] {
            let request = request_of(http).await;
            assert!(request.starts_with(first), "{request}");
            for part in rest {
                assert!(request.contains(part), "{part:?} in {request}");
            }
            assert_eq!(request.matches("host: ").count(), 1, "{request}");
        }
    });
}

/// All that a server reads of it; the check then fails.
async fn request_of(http: Http) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let task = testing::task(CheckKind::Http(http), listener.local_addr().unwrap(), TIMEOUT);
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        let _ = stream.read_to_end(&mut request).await;
        String::from_utf8(request).unwrap()
    };
    tokio::join!(server, run(&task)).0
}

#[test]
fn a_host_leaves_out_the_port_that_is_implied() {
    for (target, tls, expected) in [
        ("192.0.2.1:80", false, "192.0.2.1"),
        ("192.0.2.1:443", false, "192.0.2.1:443"),
        ("192.0.2.1:443", true, "192.0.2.1"),
        ("[2001:db8::1]:80", false, "[2001:db8::1]"),
        ("[2001:db8::1]:80", true, "[2001:db8::1]:80"),
    ] {
        assert_eq!(authority(target.parse().unwrap(), tls), expected);
    }
}

#[test]
fn a_request_that_cannot_be_made_is_this_machines_fault() {
    in_namespaces(async |_| {
        let server = Server::new(Manner::Silent).await;
        for http in [
            Http { uri: "no path".to_owned(), ..plain() },
            Http { method: "G E T".to_owned(), ..plain() },
            Http { host: Some("a\nb".to_owned()), ..plain() },
            Http { headers: vec![("a b".to_owned(), String::new())], ..plain() },
        ] {
            let report = server.checked(CheckKind::Http(http)).await;
            assert!(matches!(report.outcome, Outcome::NotRun(_)), "{report}");
        }
    });
}

#[test]
fn servers_without_manners_fail_in_time() {
    in_namespaces(async |_| {
        let ok = "HTTP/1.1 200 OK\r\n";
        let body = format!("{ok}Content-Length: 100\r\n\r\nhalf");
        let chunked = format!("{ok}Transfer-Encoding: chunked\r\n\r\n");
        let limit = "body does not match `ok` in its first 65536 bytes";
        let cut = "connection closed before the answer's end";
        let garbage = "it does not speak HTTP: invalid HTTP version parsed";
        let endless = |first: &str, again: &str| Manner::Endless(first.into(), again.repeat(1_000).into());
        let cases = [
            ("silence", Manner::Silent, "timeout after 400ms"),
            ("close", Manner::Closes, cut),
            ("close in the header", Manner::SaysAndCloses(ok.into()), cut),
            ("close in the body", Manner::SaysAndCloses(body.clone().into()), "connection closed"),
            ("reset in the header", Manner::SaysAndResets(ok.into()), "connection reset"),
            ("reset in the body", Manner::SaysAndResets(body.clone().into()), "connection reset"),
            ("garbage", says("\u{1}\u{2}\u{3}\r\n\r\n"), garbage),
            ("ssh", says("SSH-2.0-OpenSSH_9.2\r\n"), garbage),
            ("drip", Manner::Drips(body.clone().into()), "timeout after 400ms"),
            ("half a body", Manner::Says(body.into()), "timeout after 400ms"),
            ("endless header", endless(ok, "a: b\r\n"), "its header is longer than 16 KiB"),
            ("endless line", endless(ok, "a"), "its header is longer than 16 KiB"),
            ("endless hints", endless("", "HTTP/1.1 103 Early Hints\r\n\r\n"), "timeout after 400ms"),
            ("endless body", endless(&format!("{ok}\r\n"), "no"), limit),
            ("huge chunk", endless(&format!("{chunked}7fffffffffffffff\r\n"), "no"), limit),
            (
                "tiny chunks",
                endless(&chunked, "1\r\nn\r\n"),
                "body does not match `ok` in its first 4096 bytes",
            ),
        ];
        for (name, manner, reason) in cases {
            println!("{name}");
            let server = Server::new(manner).await;
            let report = server.checked(CheckKind::Http(matching("ok"))).await;
            assert_failed(name, &report, Step::Reply, reason);
        }
        let beyond = says(&format!("{chunked}fffffffffffffffff\r\nno"));
        let report = Server::new(beyond).await.checked(CheckKind::Http(matching("ok"))).await;
        assert!(matches!(report.outcome, Outcome::Failed(_)), "{report}");
        assert_no_socket_stays().await;
    });
}

#[test]
fn https_asks_inside_of_tls() {
    in_namespaces(async |_| {
        let authority = Authority::new("ours");
        let https = |tls: Tls| CheckKind::Http(Http { tls: Some(tls), ..matching("^ok$") });
        let good = Manner::Says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".into());
        let server = Server::with_tls(authority.server((-1, 3)), good).await;
        let report = server.checked(https(authority.check(Some("a.example")))).await;
        assert_eq!(report.outcome, Outcome::Passed);
        let steps: Vec<_> = report.steps.iter().map(|(step, _)| *step).collect();
        assert_eq!(steps, [Step::Connect, Step::Tls, Step::Reply]);
        assert_eq!(report.warning.as_deref(), Some("its certificate ends in 3 days"));

        let report = server.checked(https(authority.check(Some("b.example")))).await;
        assert_eq!(report.steps.last().map(|(step, _)| *step), Some(Step::Tls), "{report}");

        let half = b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok".to_vec();
        for (name, manner, reason) in [
            ("silence", Manner::Silent, "timeout after 400ms"),
            ("close", Manner::SaysAndCloses(half.clone()), "connection closed"),
            ("reset", Manner::SaysAndResets(half), "connection reset"),
        ] {
            let server = Server::with_tls(authority.server((-1, 90)), manner).await;
            let report = server.checked(https(authority.check(None))).await;
            assert_failed(name, &report, Step::Reply, reason);
        }
        drop(server);
        assert_no_socket_stays().await;
    });
}

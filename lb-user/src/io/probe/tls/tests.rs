use std::fs;

use nix::{sys::stat::Mode, unistd::mkfifo};
use rustls::{server::ResolvesServerCertUsingSni, sign::CertifiedKey, version::TLS12};

use super::*;
use crate::{
    io::{
        probe::peer::{Authority, Manner, Server, assert_failed, assert_no_socket_stays, server_builder},
        testbed::in_namespaces,
    },
    pure::{
        config::model::check::{CheckKind, Verify},
        report::Outcome,
    },
};

#[test]
fn a_verified_handshake_passes_and_shows_the_certificates_end() {
    in_namespaces(async |_| {
        let authority = Authority::new("ours");
        let server = Server::with_tls(authority.server((-1, 90)), Manner::Silent).await;
        for name in [Some("a.example"), None] {
            let report = server.checked(CheckKind::Tls(authority.check(name))).await;
            assert_eq!(report.outcome, Outcome::Passed, "{name:?}");
            assert_eq!(report.warning, None);
            let steps: Vec<_> = report.steps.iter().map(|(step, _)| *step).collect();
            assert_eq!(steps, [Step::Connect, Step::Tls]);
            let end = day(now() + 90 * DAY + HOUR);
            assert_eq!(report.answer, Some(format!("TLS 1.3, certificate until {end}")));
        }
        drop(server);
        assert_no_socket_stays().await;
    });
}

#[test]
fn tls_1_2_passes_too() {
    in_namespaces(async |_| {
        let authority = Authority::new("ours");
        let (certificate, key) = authority.certificate(&["a.example"], (-1, 90));
        let config = server_builder(&[&TLS12]).with_no_client_auth();
        let server =
            Server::with_tls(config.with_single_cert(vec![certificate], key).unwrap(), Manner::Silent).await;
        for verify in [Verify::None, Verify::File(authority.file())] {
            let tls = Tls { verify, ..authority.check(Some("a.example")) };
            let report = server.checked(CheckKind::Tls(tls)).await;
            assert_eq!(report.outcome, Outcome::Passed);
            assert!(report.answer.unwrap().starts_with("TLS 1.2"));
        }
    });
}

#[test]
fn what_is_wrong_with_a_certificate_is_told() {
    in_namespaces(async |_| {
        let (authority, other, renewed) =
            (Authority::new("ours"), Authority::new("theirs"), Authority::new("ours"));
        let soon = day(now() + 2 * DAY + HOUR);
        let cases = [
            (
                "a wrong name",
                (-1, 90),
                authority.check(Some("b.example")),
                "its certificate is not for `b.example`, but for `a.example`, `127.0.0.1`".to_owned(),
            ),
            (
                "another authority",
                (-1, 90),
                other.check(Some("a.example")),
                "its certificate comes from an unknown authority".to_owned(),
            ),
            (
                "an authority made anew",
                (-1, 90),
                renewed.check(Some("a.example")),
                "its certificate comes from another authority of the same name".to_owned(),
            ),
            (
                "expired",
                (-30, -4),
                authority.check(Some("a.example")),
                "its certificate ended 3 days ago".to_owned(),
            ),
            (
                "not yet valid",
                (2, 90),
                authority.check(Some("a.example")),
                format!("its certificate is not valid before {soon}: look at both clocks"),
            ),
        ];
        for (name, days, tls, reason) in cases {
            let server = Server::with_tls(authority.server(days), Manner::Silent).await;
            let report = server.checked(CheckKind::Tls(tls.clone())).await;
            assert_failed(name, &report, Step::Tls, &reason);
            let unverified = Tls { verify: Verify::None, ..tls };
            let report = server.checked(CheckKind::Tls(unverified)).await;
            assert_eq!(report.outcome, Outcome::Passed, "{name}");
        }
        assert_no_socket_stays().await;
    });
}

#[test]
fn a_certificates_end_is_warned_of_even_where_nothing_is_verified() {
    in_namespaces(async |_| {
        let authority = Authority::new("ours");
        for (days, verify, warning) in [
            ((-1, 3), Verify::File(authority.file()), Some("its certificate ends in 3 days")),
            ((-1, 3), Verify::None, Some("its certificate ends in 3 days")),
            ((-30, -4), Verify::None, Some("its certificate ended 3 days ago")),
            ((-1, 15), Verify::None, None),
        ] {
            let server = Server::with_tls(authority.server(days), Manner::Silent).await;
            let report = server.checked(CheckKind::Tls(Tls { verify, ..authority.check(None) })).await;
            assert_eq!(report.outcome, Outcome::Passed);
            assert_eq!(report.warning.as_deref(), warning);
        }
    });
}

#[test]
fn the_server_name_is_sent_if_there_is_one() {
    in_namespaces(async |_| {
        let authority = Authority::new("ours");
        let (certificate, key) = authority.certificate(&["a.example"], (-1, 90));
        let config = server_builder(&[&TLS12]).with_no_client_auth();
        let key = CertifiedKey::from_der(vec![certificate], key, config.crypto_provider()).unwrap();
        let mut by_name = ResolvesServerCertUsingSni::new();
        by_name.add("a.example", key).unwrap();
        let server =
            Server::with_tls(config.with_cert_resolver(std::sync::Arc::new(by_name)), Manner::Silent).await;
        let named = Tls { verify: Verify::None, ..authority.check(Some("a.example")) };
        let nameless = Tls { server_name: None, ..named.clone() };
        assert_eq!(server.checked(CheckKind::Tls(named)).await.outcome, Outcome::Passed);
        let report = server.checked(CheckKind::Tls(nameless)).await;
        assert_failed("no name", &report, Step::Tls, "it refuses, with the alert AccessDenied");
    });
}

#[test]
fn a_protocol_must_be_agreed_on_if_one_is_asked_for() {
    in_namespaces(async |_| {
        let authority = Authority::new("ours");
        let offers: [(&[&str], Result<(), &str>); 3] = [
            (&["http/1.1", "h2"], Ok(())),
            (&["imap"], Err("it refuses, with the alert NoApplicationProtocol")),
            (&[], Err("it chose none of the protocols h2, spdy/1")),
        ];
        for (offered, expected) in offers {
            let mut config = authority.server((-1, 90));
            config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
            let server = Server::with_tls(config, Manner::Silent).await;
            let alpn = vec!["h2".to_owned(), "spdy/1".to_owned()];
            let report = server.checked(CheckKind::Tls(Tls { alpn, ..authority.check(None) })).await;
            match expected {
                Ok(()) => assert_eq!(report.outcome, Outcome::Passed),
                Err(reason) => assert_failed(&format!("{offered:?}"), &report, Step::Tls, reason),
            }
        }
    });
}

#[test]
fn servers_without_manners_fail_in_time() {
    in_namespaces(async |_| {
        // A record of a handshake that promises 16 KiB.
        let record = b"\x16\x03\x03\x40\x00".to_vec();
        let endless = vec![0xff; 65_536];
        let cases = [
            ("silence", Manner::Silent, "timeout after 400ms"),
            ("close", Manner::Closes, "connection closed"),
            ("close later", Manner::SaysAndCloses(record.clone()), "connection closed"),
            ("reset", Manner::SaysAndResets(record.clone()), "connection reset"),
            ("http", Manner::Says(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()), "it does not speak TLS"),
            ("ssh", Manner::Says(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), "it does not speak TLS"),
            ("drip", Manner::Drips([&record[..], &endless[..]].concat()), "timeout after 400ms"),
            (
                "garbage",
                Manner::Endless(b"\xff\xff\xff\xff\xff".to_vec(), endless.clone()),
                "it does not speak TLS",
            ),
            ("endless", Manner::Endless(record, endless), "it does not speak TLS"),
        ];
        for (name, manner, reason) in cases {
            let server = Server::new(manner).await;
            let tls = Tls { verify: Verify::None, ..Authority::new("ours").check(None) };
            let report = server.checked(CheckKind::Tls(tls)).await;
            assert_failed(name, &report, Step::Tls, reason);
        }
        assert_no_socket_stays().await;
    });
}

#[test]
fn a_file_without_authorities_is_this_machines_fault() {
    in_namespaces(async |_| {
        let authority = Authority::new("ours");
        let server = Server::with_tls(authority.server((-1, 90)), Manner::Silent).await;
        let directory = tempfile::tempdir().unwrap();
        let path = |name| directory.path().join(name);
        fs::write(path("empty"), "").unwrap();
        fs::write(path("text"), "no certificate\n").unwrap();
        fs::write(path("other"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        mkfifo(&path("pipe"), Mode::S_IRWXU).unwrap();
        for (name, reason) in [
            ("missing", "No such file or directory"),
            ("empty", "holds no certificate: put the authority's there"),
            ("text", "holds no certificate: put the authority's there"),
            ("other", "holds something that is no certificate"),
            ("pipe", "is no file of certificates"),
        ] {
            let tls = Tls { verify: Verify::File(path(name)), ..authority.check(None) };
            match server.checked(CheckKind::Tls(tls)).await.outcome {
                Outcome::NotRun(told) => {
                    assert!(told.contains(reason) && told.contains(name), "{name}: {told}");
                }
                other => panic!("{name}: {other:?}"),
            }
        }
    });
}

#[test]
fn a_certificates_end_is_told_in_the_unit_that_says_most() {
    let check = |left: i64| ending(1_000_000 + left, 1_000_000, Duration::from_secs(14 * DAY as u64));
    for (left, expected) in [
        (14 * DAY + 1, None),
        (14 * DAY, Some("its certificate ends in 14 days")),
        (2 * DAY, Some("its certificate ends in 2 days")),
        (2 * DAY - 1, Some("its certificate ends in 47 hours")),
        (2 * HOUR - 1, Some("its certificate ends in 119 minutes")),
        (0, Some("its certificate ends in 0 minutes")),
        (-DAY, Some("its certificate ended 24 hours ago")),
        (-400 * DAY, Some("its certificate ended 400 days ago")),
    ] {
        assert_eq!(check(left).as_deref(), expected, "{left}");
    }
}

//! The whole way of a notice, with sinks that work, hang and fail.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::yield_now,
};

use super::*;
use crate::pure::{config::model::Mail, notice::ServerName};

fn down() -> Notice {
    let server = ServerName {
        service: Some("web".to_owned()),
        server: "web1".to_owned(),
        address: "10.0.5.91:8888".to_owned(),
    };
    Notice::Down { server, detail: "refused".to_owned() }
}

fn nobody() -> Notify {
    Notify {
        command: Vec::new(),
        webhook: None,
        mail: None,
        timeout: Duration::from_secs(10),
        per_minute: 60,
    }
}

fn shell(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(str::to_owned).into()
}

fn started(notify: Notify) -> (Notices, Arc<Mutex<Situation>>) {
    let situation = Arc::new(Mutex::new(Situation::default()));
    (Notices::start("lb1", notify, &situation), situation)
}

/// Accepts and says nothing.
async fn hole() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok(accepted) = listener.accept().await {
            kept.push(accepted);
        }
    });
    address
}

/// Answers the first requests with 500, all others with 204.
async fn hook(failures: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = String::new();
            let mut buffer = [0; 4096];
            while !request.ends_with('}') {
                let taken = stream.read(&mut buffer).await.unwrap_or(0);
                request += &String::from_utf8_lossy(&buffer[..taken]);
            }
            let failed = count.fetch_add(1, SeqCst) < failures;
            let status = if failed { "500 Internal Server Error" } else { "204 No Content" };
            let _ =
                stream.write_all(format!("HTTP/1.1 {status}\r\nconnection: close\r\n\r\n").as_bytes()).await;
        }
    });
    (url, seen)
}

async fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_true() {
        assert!(Instant::now() < end, "{what} did not happen");
        yield_now().await;
    }
}

fn warning(situation: &Mutex<Situation>, about: &str) -> String {
    situation.lock().unwrap().warnings.get(about).cloned().unwrap_or_default()
}

fn lines(file: &Path) -> Vec<String> {
    fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_storm_with_every_sink_hanging_blocks_nobody_and_keeps_little() {
    let mail =
        Mail { server: hole().await, from: "lb1@example.com".into(), to: vec!["ops@example.com".into()] };
    let notify = Notify {
        command: shell("sleep 600"),
        webhook: Some(format!("http://{}/", hole().await)),
        mail: Some(mail),
        ..nobody()
    };
    let (mut notices, _) = started(notify);
    let mut reader = notices.stream().subscribe(Replay::Last(0)).unwrap();
    let begun = Instant::now();
    for _ in 0..10_000 {
        notices.tell(&down());
    }
    // About 50 ms; far more is a sign that somebody was waited for.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    for outlet in &notices.outlets {
        assert_eq!(outlet.queue.capacity(), 0);
        assert_eq!(outlet.lost.load(Ordering::Relaxed), 10_000 - QUEUE as u64);
    }
    assert!(matches!(reader.live.recv().await, Err(broadcast::error::RecvError::Lagged(_))));
    // The sinks are in the middle of what they cannot finish.
    let lost = Arc::clone(&notices.outlets[0].lost);
    until("the command to start", || lost.load(Ordering::Relaxed) == 0).await;
    let begun = Instant::now();
    notices.close().await;
    assert!(begun.elapsed() < LAST_WORDS + Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_the_limit_holds_back_is_summed_up_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("told");
    let script = format!("echo \"$STEELYARD_EVENT $STEELYARD_DETAIL\" >> {}", file.display());
    let (mut notices, _) = started(Notify { command: shell(&script), per_minute: 2, ..nobody() });
    for _ in 0..40 {
        notices.tell(&down());
    }
    until("two deliveries", || lines(&file).len() == 2).await;
    notices.close().await;
    // The last ones go out when the daemon stops, whatever the limit.
    let told = lines(&file);
    assert_eq!(told[..3], ["server-down refused"; 3], "{told:?}");
    assert_eq!(told[3..], ["suppressed 37"], "{told:?}");
}

#[tokio::test]
async fn a_sink_that_fails_is_in_the_status_until_it_works_again() {
    let (url, seen) = hook(2).await;
    let (mut notices, situation) = started(Notify { webhook: Some(url), ..nobody() });
    notices.tell(&down());
    until("a warning", || warning(&situation, "notify webhook").contains("answered 500")).await;
    // The summary is tried at once, and tells how many there were.
    until("the recovery", || warning(&situation, "notify webhook").contains("one by one: 1")).await;
    assert_eq!(seen.load(SeqCst), 3);
    notices.tell(&down());
    until("another delivery", || seen.load(SeqCst) == 4).await;
    notices.close().await;
}

#[tokio::test]
async fn the_end_does_not_try_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tried");
    let script = format!("echo $STEELYARD_EVENT >> {}; exit 1", file.display());
    let (mut notices, _) = started(Notify { command: shell(&script), ..nobody() });
    notices.tell(&Notice::Stopping);
    let begun = Instant::now();
    notices.close().await;
    assert!(begun.elapsed() < LAST_WORDS, "{:?}", begun.elapsed());
    // The event, its summary as a second try, and the rest.
    assert_eq!(lines(&file), ["stopping", "suppressed", "suppressed"]);
}

#[tokio::test]
async fn a_reload_turns_sinks_on_and_off() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("told");
    let (mut notices, situation) = started(nobody());
    notices.tell(&down());
    let script = format!("echo $STEELYARD_EVENT >> {}", file.display());
    notices.configure(Notify { command: shell(&script), ..nobody() });
    notices.tell(&Notice::Reloaded { detail: "0.0 % of the slots move".to_owned() });
    until("a delivery", || lines(&file) == ["reloaded"]).await;
    notices.configure(Notify { command: shell("exit 1"), ..nobody() });
    notices.tell(&down());
    until("a failure", || warning(&situation, "notify command").contains("exit status: 1")).await;
    notices.configure(nobody());
    until("the end of the warning", || warning(&situation, "notify command").is_empty()).await;
    notices.tell(&down());
    notices.close().await;
    assert_eq!(lines(&file), ["reloaded"]);
}

#[tokio::test]
async fn a_reader_gets_every_event_once() {
    let (mut notices, _) = started(nobody());
    notices.tell(&down());
    notices.tell(&Notice::Stopping);
    let mut reader = notices.stream().subscribe(Replay::Last(1)).unwrap();
    notices.tell(&Notice::Healed { detail: "one server".to_owned() });
    let kept: Vec<_> = reader.kept.iter().map(|event| event.kind).collect();
    assert_eq!((kept, reader.live.recv().await.unwrap().kind), (vec!["stopping"], "drift-healed"));
    let since = Replay::Since(reader.kept[0].time);
    assert_eq!(notices.stream().subscribe(since).unwrap().kept.len(), 1);
}

#[tokio::test]
async fn readers_are_bounded_and_make_room() {
    let (notices, _) = started(nobody());
    let stream = notices.stream();
    let mut readers: Vec<_> = (0..READERS_MAX).map(|_| stream.subscribe(Replay::Last(0)).unwrap()).collect();
    let error = stream.subscribe(Replay::Last(0)).err().unwrap();
    assert!(error.contains("16 readers"), "{error}");
    readers.pop();
    assert!(stream.subscribe(Replay::Last(0)).is_ok());
}

#[tokio::test]
async fn the_log_is_limited_and_says_what_it_leaves_out() {
    let (mut notices, _) = started(nobody());
    for _ in 0..1_000 {
        notices.tell(&down());
    }
    assert_eq!(notices.unsaid, 1_000 - u64::from(LINES_PER_MINUTE));
    notices.tick();
    assert_eq!(notices.unsaid, 1_000 - u64::from(LINES_PER_MINUTE), "the limit holds for the summary, too");
}

const PATIENCE: Duration = Duration::from_secs(20);

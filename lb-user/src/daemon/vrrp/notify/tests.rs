//! Hooks that work, hang and fail, and FIFOs with and without a reader.

use std::{fs, io::Read, os::unix::fs::OpenOptionsExt, path::Path};

use tokio::task::yield_now;

use super::*;
use crate::pure::{
    config::model::vrrp::{Group, Hook, Hooks},
    vrrp::{happening::End, node::State},
};

const PATIENCE: Duration = Duration::from_secs(20);

fn shell(script: &str) -> Option<Hook> {
    let command = ["/bin/sh", "-c", script, "hook"].map(str::to_owned).into();
    Some(Hook { command, user: None })
}

/// Groups are told like routers, and need less of a model.
fn vrrp(groups: &[(&str, Hooks)]) -> Vrrp {
    let group = |(name, notify): &(&str, Hooks)| Group {
        name: (*name).to_owned(),
        members: Vec::new(),
        track: Vec::new(),
        notify: notify.clone(),
    };
    Vrrp { groups: groups.iter().map(group).collect(), ..Vrrp::default() }
}

fn started(vrrp: &Vrrp, timeout: Duration) -> (Notifier, Arc<Mutex<Situation>>) {
    let situation = Arc::new(Mutex::new(Situation::default()));
    let mut notifier = Notifier::start(&situation);
    notifier.configure(vrrp, timeout);
    (notifier, situation)
}

fn became(group: &str, to: State) -> Happening {
    Happening::GroupBecame { group: group.to_owned(), to }
}

fn warning(situation: &Mutex<Situation>, about: &str) -> String {
    situation.lock().unwrap().warnings.get(about).cloned().unwrap_or_default()
}

fn lines(file: &Path) -> Vec<String> {
    fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

async fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_true() {
        assert!(Instant::now() < end, "{what} did not happen");
        yield_now().await;
    }
}

#[tokio::test]
async fn programs_of_one_run_in_order_and_the_stop_waits_for_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log");
    // What comes first takes longest.
    let any = format!("case $3 in MASTER) sleep 0.3;; esac; echo \"$@\" >> {}", file.display());
    let stop = format!("sleep 0.1; echo stop >> {}", file.display());
    let hooks = Hooks { any: shell(&any), stop: shell(&stop), ..Hooks::default() };
    let (mut notifier, situation) = started(&vrrp(&[("G1", hooks)]), PATIENCE);
    for to in [State::Active, State::Backup, State::Fault] {
        assert!(!notifier.tell(&became("G1", to)));
    }
    notifier.tell(&Happening::GroupEnded { group: "G1".to_owned(), how: End::Stopped });
    notifier.close(PATIENCE).await;
    let expected = ["GROUP G1 MASTER 0", "GROUP G1 BACKUP 0", "GROUP G1 FAULT 0", "stop", "GROUP G1 STOP 0"];
    assert_eq!(lines(&file), expected);
    assert!(situation.lock().unwrap().warnings.is_empty());
}

#[tokio::test]
async fn a_program_that_hangs_delays_no_other_router_and_is_loud() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log");
    let hang = Hooks { any: shell("sleep 600"), ..Hooks::default() };
    let quick = Hooks { any: shell(&format!("echo \"$@\" >> {}", file.display())), ..Hooks::default() };
    let (mut notifier, situation) = started(&vrrp(&[("slow", hang), ("quick", quick)]), PATIENCE);
    for number in 0..100 {
        let to = if number % 2 == 0 { State::Active } else { State::Backup };
        notifier.tell(&became("slow", to));
    }
    notifier.tell(&became("quick", State::Active));
    until("the other one was told", || lines(&file) == ["GROUP quick MASTER 0"]).await;
    let text = warning(&situation, "hooks of group slow");
    assert!(text.contains("slower than its changes of state"), "{text}");
    // The program is ended with the daemon.
    let begun = Instant::now();
    notifier.close(Duration::from_millis(100)).await;
    assert!(begun.elapsed() < PATIENCE / 2);
}

#[tokio::test]
async fn a_program_that_fails_is_in_the_status_until_one_works() {
    let hooks = Hooks {
        master: shell("echo no cloud >&2; exit 3"),
        fault: shell("sleep 600"),
        backup: shell("exit 0"),
        ..Hooks::default()
    };
    let (mut notifier, situation) = started(&vrrp(&[("G1", hooks)]), Duration::from_millis(200));
    for (to, expected) in [
        (State::Active, "\"GROUP \"G1\" MASTER 0\": /bin/sh failed with exit status: 3: no cloud"),
        (State::Fault, "did not end within 200ms and was killed"),
    ] {
        notifier.tell(&became("G1", to));
        until(expected, || warning(&situation, "hooks of group G1").contains(expected)).await;
    }
    notifier.tell(&became("G1", State::Backup));
    until("it works", || situation.lock().unwrap().warnings.is_empty()).await;
    notifier.close(PATIENCE).await;
}

fn read(path: &Path) -> String {
    let opened = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let Ok(mut file) = opened else { return String::new() };
    let mut bytes = [0; 65_536];
    let length = file.read(&mut bytes).unwrap_or(0);
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}

#[tokio::test]
async fn fifos_get_every_line_in_order_until_they_are_full() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
    let model = |fifos: &[&Path]| {
        let fifos = fifos.iter().map(|path| path.to_path_buf()).collect();
        Vrrp { fifos, ..vrrp(&[("G1", Hooks { mail: true, ..Hooks::default() })]) }
    };
    let (mut notifier, situation) = started(&model(&[&one, &two]), PATIENCE);
    assert!(notifier.tell(&became("G1", State::Backup)));
    notifier.tell(&became("G1", State::Active));
    let expected = "GROUP \"G1\" BACKUP 0\nGROUP \"G1\" MASTER 0\n";
    for path in [&one, &two] {
        let mut text = String::new();
        until("both lines came", || {
            text += &read(path);
            text == expected
        })
        .await;
    }
    notifier.configure(&model(&[&one]), PATIENCE);
    let about = format!("fifo {}", one.display());
    // A pipe holds 64 KiB.
    until("it is full", || {
        notifier.tell(&became("G1", State::Fault));
        warning(&situation, &about).contains("is full: start its reader")
    })
    .await;
    assert_eq!(warning(&situation, &format!("fifo {}", two.display())), "");
    while !read(&one).is_empty() {}
    notifier.tell(&became("G1", State::Active));
    until("it takes lines again", || warning(&situation, &about).is_empty()).await;
    notifier.close(PATIENCE).await;
}

//! Trackers with real scripts, processes and files, and a thread that is only a queue.

use std::{
    fs,
    path::Path,
    process::{Child, Command},
    sync::mpsc as std_mpsc,
};

use nix::sys::eventfd::EventFd;
use tokio::task::yield_now;

use super::*;
use crate::{
    daemon::vrrp::ORDERS,
    pure::{
        config::model::vrrp::{Effect, Group, Hooks, Track},
        status::VrrpStatus,
    },
};

const PATIENCE: Duration = Duration::from_secs(20);

/// The thread's end, and control's.
struct World {
    trackers: Trackers,
    orders: std_mpsc::Receiver<Order>,
    notices: mpsc::Receiver<Notice>,
    situation: Arc<Mutex<Situation>>,
    _status: watch::Sender<Arc<VrrpStatus>>,
}

fn world(orders_max: usize) -> World {
    let (sender, orders) = std_mpsc::sync_channel(orders_max);
    let (status, watched) = watch::channel(Arc::default());
    let wake = Arc::new(EventFd::new().unwrap());
    let thread = Handle { orders: sender, wake, status: watched };
    let situation = Arc::new(Mutex::new(Situation::default()));
    let (teller, notices) = mpsc::channel(NOTICES);
    let trackers = Trackers::new(thread, Arc::clone(&situation), teller);
    World { trackers, orders, notices, situation, _status: status }
}

impl World {
    async fn ordered(&mut self) -> (String, Verdict) {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Ok(Order::Tracked { what, verdict }) = self.orders.try_recv() {
                return (what.to_string(), verdict);
            }
            assert!(Instant::now() < end, "no verdict came");
            yield_now().await;
        }
    }

    async fn until(&self, what: &str, is_true: impl Fn(&Situation) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_true(&self.situation.lock().unwrap()) {
            assert!(Instant::now() < end, "{what} did not happen: {:?}", self.situation.lock().unwrap());
            yield_now().await;
        }
    }

    fn told(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.notices.try_recv().ok()).map(|notice| notice.to_string()).collect()
    }
}

fn script(command: &[&str], interval: Duration) -> Script {
    Script {
        name: "chk".to_owned(),
        command: command.iter().map(ToString::to_string).collect(),
        interval,
        timeout: PATIENCE,
        rise: 1,
        fall: 1,
        user: None,
        init_fail: false,
    }
}

fn shell(text: &str) -> Script {
    script(&["/bin/sh", "-c", text], Duration::from_millis(50))
}

/// All of it, tracked by a group.
fn vrrp(scripts: &[Script], processes: &[Process], files: &[TrackFile]) -> Vrrp {
    let scripts_tracked = scripts.iter().map(|script| Tracked::Script(script.name.clone()));
    let processes_tracked = processes.iter().map(|process| Tracked::Process(process.name.clone()));
    let files_tracked = files.iter().map(|file| Tracked::File(file.name.clone()));
    let all = scripts_tracked.chain(processes_tracked).chain(files_tracked);
    let track = all.map(|what| Track { what, effect: Effect::Fault { reverse: false } }).collect();
    let group = Group { name: "G".to_owned(), members: Vec::new(), track, notify: Hooks::default() };
    Vrrp {
        groups: vec![group],
        scripts: scripts.to_vec(),
        processes: processes.to_vec(),
        files: files.to_vec(),
        ..Vrrp::default()
    }
}

fn is(verdict: Verdict) -> (String, Verdict) {
    ("script chk".to_owned(), verdict)
}

#[tokio::test]
async fn a_script_s_verdict_changes_with_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let flag = folder.path().join("down");
    let mut world = world(ORDERS);
    let script = shell(&format!("if [ -e {} ]; then echo no process found; exit 1; fi", flag.display()));
    world.trackers.configure(&vrrp(&[script], &[], &[]));
    assert_eq!(world.ordered().await, is(Verdict::Up));
    assert_eq!(world.told(), [""; 0]);
    fs::write(&flag, "").unwrap();
    assert_eq!(world.ordered().await, is(Verdict::Down));
    let words = "exit code 1: \"no process found\"";
    assert_eq!(world.told(), [format!("script chk is down: {words}")]);
    assert_eq!(world.situation.lock().unwrap().tracked["script chk"], words);
    fs::remove_file(&flag).unwrap();
    assert_eq!(world.ordered().await, is(Verdict::Up));
    assert_eq!(world.told(), ["script chk is up: exit code 0"]);
}

#[tokio::test]
async fn only_what_is_tracked_runs_and_a_reload_says_again_what_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ran");
    let mut world = world(ORDERS);
    let script = shell(&format!("echo x >> {}", file.display()));
    let untracked = Vrrp { groups: Vec::new(), ..vrrp(std::slice::from_ref(&script), &[], &[]) };
    world.trackers.configure(&untracked);
    assert!(world.trackers.scripts.is_empty());
    let tracked = vrrp(&[script], &[], &[]);
    world.trackers.configure(&tracked);
    assert_eq!(world.ordered().await, is(Verdict::Up));
    world.trackers.configure(&tracked);
    assert_eq!(world.ordered().await, is(Verdict::Up));
    // What is no longer tracked is forgotten.
    world.trackers.configure(&untracked);
    assert!(world.situation.lock().unwrap().tracked.is_empty());
}

#[tokio::test]
async fn a_changed_script_keeps_its_verdict_until_it_has_another() {
    let mut world = world(ORDERS);
    world.trackers.configure(&vrrp(&[shell("exit 0")], &[], &[]));
    assert_eq!(world.ordered().await, is(Verdict::Up));
    world.trackers.configure(&vrrp(&[shell("exit 1")], &[], &[]));
    assert_eq!(world.ordered().await, is(Verdict::Up));
    assert_eq!(world.ordered().await, is(Verdict::Down));
}

#[tokio::test]
async fn a_script_that_hangs_or_cannot_run_is_loud() {
    let hangs = Script { timeout: Duration::from_millis(200), ..shell("sleep 600") };
    let missing = script(&["/no/such/script"], Duration::from_millis(50));
    for (script, expected) in [(hangs, "did not end within 200ms"), (missing, "does not exist")] {
        let mut world = world(ORDERS);
        world.trackers.configure(&vrrp(&[script], &[], &[]));
        assert_eq!(world.ordered().await, is(Verdict::Down));
        let told = world.told();
        assert!(
            told.iter().any(|told| told.contains("counts as failed") && told.contains(expected)),
            "{told:?}"
        );
        world
            .until("a warning", |situation| {
                situation.warnings.get("script chk").is_some_and(|warning| warning.contains(expected))
            })
            .await;
        world.trackers.configure(&vrrp(&[shell("exit 0")], &[], &[]));
        world.until("it is over", |situation| situation.warnings.is_empty()).await;
    }
}

#[tokio::test]
async fn one_copy_runs_at_a_time_and_a_late_one_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let (lock, twice) = (folder.path().join("lock"), folder.path().join("twice"));
    let text = format!(
        "mkdir {lock} || touch {twice}; sleep 0.2; rmdir {lock}; exit 0",
        lock = lock.display(),
        twice = twice.display()
    );
    let mut world = world(ORDERS);
    world.trackers.configure(&vrrp(&[shell(&text)], &[], &[]));
    assert_eq!(world.ordered().await, is(Verdict::Up));
    let late = |situation: &Situation| situation.warnings.get("script chk late").cloned();
    world.until("it is late", |situation| late(situation).is_some()).await;
    let text = late(&world.situation.lock().unwrap()).unwrap();
    assert!(text.starts_with("script chk takes longer than its interval of 50ms"), "{text}");
    world.trackers.close(PATIENCE).await;
    assert!(!twice.exists());
}

#[tokio::test]
async fn a_script_may_end_after_it_ordered_the_daemon_to() {
    let folder = tempfile::tempdir().unwrap();
    let (begun, done) = (folder.path().join("begun"), folder.path().join("done"));
    let text = format!("touch {}; sleep 0.3; touch {}", begun.display(), done.display());
    let mut world = world(ORDERS);
    world.trackers.configure(&vrrp(&[shell(&text)], &[], &[]));
    world.until("it runs", |_| begun.exists()).await;
    world.trackers.close(PATIENCE).await;
    assert!(done.exists());
}

#[tokio::test]
async fn a_script_that_hangs_does_not_hold_up_the_stop() {
    let folder = tempfile::tempdir().unwrap();
    let begun = folder.path().join("begun");
    let mut world = world(ORDERS);
    world.trackers.configure(&vrrp(&[shell(&format!("touch {}; sleep 600", begun.display()))], &[], &[]));
    world.until("it runs", |_| begun.exists()).await;
    let started = Instant::now();
    world.trackers.close(Duration::from_millis(100)).await;
    assert!(started.elapsed() < PATIENCE / 2);
}

#[tokio::test]
async fn what_the_thread_does_not_take_is_said_again() {
    let mut world = world(0);
    world.trackers.configure(&vrrp(&[shell("exit 0")], &[], &[]));
    world.until("it ran", |situation| situation.tracked.contains_key("script chk")).await;
    assert!(world.orders.try_recv().is_err());
    let orders = std::mem::replace(&mut world.orders, std_mpsc::sync_channel(1).1);
    let waiting = std::thread::spawn(move || orders.recv_timeout(PATIENCE).is_ok());
    let end = Instant::now() + PATIENCE;
    while !waiting.is_finished() {
        assert!(Instant::now() < end);
        world.trackers.tick();
        yield_now().await;
    }
    assert!(waiting.join().unwrap());
}

fn named(folder: &Path, name: &str) -> Child {
    let path = folder.join(name);
    if !path.exists() {
        fs::copy("/bin/sleep", &path).unwrap();
    }
    Command::new(path).arg("600").spawn().unwrap()
}

#[tokio::test]
async fn processes_are_counted_as_they_come_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("steelyard-test-process");
    let process = Process {
        name: "it".to_owned(),
        process: path.to_str().unwrap().to_owned(),
        quorum: 2,
        quorum_max: None,
        delay: Duration::ZERO,
    };
    let mut world = world(ORDERS);
    let is = |verdict| ("process it".to_owned(), verdict);
    world.trackers.configure(&vrrp(&[], &[process], &[]));
    assert_eq!(world.ordered().await, is(Verdict::Down));
    let mut children = [0, 1].map(|_| named(folder.path(), "steelyard-test-process"));
    assert_eq!(world.ordered().await, is(Verdict::Up));
    assert_eq!(world.situation.lock().unwrap().tracked["process it"], "2 processes");
    children[0].kill().unwrap();
    assert_eq!(world.ordered().await, is(Verdict::Down));
    assert_eq!(world.told().last().unwrap(), "process it is down: 1 process");
    for child in &mut children {
        // One is dead already.
        let _ = child.kill();
        child.wait().unwrap();
    }
}

#[tokio::test]
async fn files_are_read_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("number");
    let file = TrackFile { name: "n".to_owned(), path: path.clone(), interval: Duration::from_millis(20) };
    let mut world = world(ORDERS);
    let is = |verdict| ("file n".to_owned(), verdict);
    world.trackers.configure(&vrrp(&[], &[], &[file]));
    assert_eq!(world.ordered().await, is(Verdict::Number(0)));
    // As `echo` does: it is empty for a moment, and that does not count.
    for number in [3, 0, 5] {
        fs::write(&path, format!("{number}\n")).unwrap();
        assert_eq!(world.ordered().await, is(Verdict::Number(number)));
    }
    assert_eq!(world.situation.lock().unwrap().tracked["file n"], "holds 5");
    fs::remove_file(&path).unwrap();
    assert_eq!(world.ordered().await, is(Verdict::Number(0)));
    fs::create_dir(&path).unwrap();
    assert_eq!(world.ordered().await, is(Verdict::Down));
    assert!(world.told().iter().any(|told| told.contains("is no regular file")));
}

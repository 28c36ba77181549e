use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use super::{
    super::{run, testing},
    *,
};
use crate::pure::{
    config::model::check::CheckKind,
    report::{Outcome, Report},
};

const SHORT: Duration = Duration::from_millis(500);
const LONG: Duration = Duration::from_secs(20);

fn task(command: &[&str], user: Option<&str>, timeout: Duration) -> CheckTask {
    let command = command.iter().map(|word| (*word).to_owned()).collect();
    let script = Script { command, user: user.map(str::to_owned) };
    testing::task(CheckKind::Script(script), "[2001:db8::7]:8080".parse().unwrap(), timeout)
}

async fn shell(text: &str, timeout: Duration) -> Report {
    run(&task(&["/bin/sh", "-c", text], None, timeout)).await
}

fn failed(reason: &str) -> Outcome {
    Outcome::Failed(reason.to_owned())
}

#[tokio::test]
async fn the_exit_code_decides_and_the_first_line_tells() {
    let passed = shell("echo all is well; echo and more", LONG).await;
    assert_eq!((passed.outcome, passed.answer.as_deref()), (Outcome::Passed, Some("\"all is well\"")));
    assert_eq!(passed.steps.len(), 1);
    let silent = shell("exit 0", LONG).await;
    assert_eq!((silent.outcome, silent.answer.as_deref()), (Outcome::Passed, Some("exit code 0")));
    for (text, reason) in [
        ("exit 3", "exit code 3"),
        ("echo disk full >&2; exit 1", "exit code 1: \"disk full\""),
        ("printf 'a\\033[2J\\377'; exit 1", "exit code 1: \"a\\x1b[2J\\xff\""),
        ("kill -9 $$", "killed by signal 9"),
        ("kill -TERM $$", "killed by signal 15"),
        ("exec >&- 2>&-; exit 4", "exit code 4"),
    ] {
        assert_eq!(shell(text, LONG).await.outcome, failed(reason), "{text}");
    }
}

#[tokio::test]
async fn a_script_finds_what_is_documented_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (environment, rest) = (folder.path().join("environment"), folder.path().join("rest"));
    let text = format!(
        "cat /proc/$$/environ > {}; (pwd; ls /proc/$$/fd; readlink /proc/$$/fd/0) > {}",
        environment.display(),
        rest.display()
    );
    assert_eq!(shell(&text, LONG).await.outcome, Outcome::Passed);
    let environment = fs::read_to_string(environment).unwrap();
    let mut variables: Vec<_> = environment.split_terminator('\0').collect();
    variables.sort_unstable();
    let path = format!("PATH={PATH}");
    assert_eq!(
        variables,
        [
            path.as_str(),
            "STEELYARD_ADDRESS=2001:db8::7",
            "STEELYARD_PORT=8080",
            "STEELYARD_SERVER=web1",
            "STEELYARD_SERVICE=web"
        ]
    );
    assert_eq!(fs::read_to_string(rest).unwrap(), "/\n0\n1\n2\n/dev/null\n");
}

#[tokio::test]
async fn a_script_runs_as_its_user_with_that_users_groups() {
    let command = ["/bin/sh", "-c", "echo $(id -un) $(id -u) $(id -ru) $(id -G)"];
    let report = run(&task(&command, Some("nobody"), LONG)).await;
    assert_eq!(report.outcome, Outcome::Passed);
    assert_eq!(report.answer.as_deref(), Some("\"nobody 65534 65534 65534\""));
    let report = run(&task(&command, Some("root"), LONG)).await;
    assert!(report.answer.unwrap().starts_with("\"root 0 0 0"));
}

#[tokio::test]
async fn what_cannot_be_run_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str, mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let locked = file("locked", "#!/bin/sh\n", 0o644);
    let orphan = file("orphan", "#!/no/such/shell\n", 0o755);
    let secret = file("secret", "#!/bin/sh\n", 0o700);
    let cases: [(&[&str], Option<&str>, &str); 7] = [
        (&["/no/such/program"], None, "`/no/such/program` does not exist"),
        (&["no-such-program"], None, "`no-such-program` does not exist"),
        (&[&orphan], None, "or what its first line names: install it"),
        (&[&locked], None, "may not be run: make it executable"),
        (&[&secret], Some("nobody"), "may not be run as `nobody`: make it executable"),
        (&["/bin/true"], Some("no-such-user"), "the user `no-such-user` does not exist: create it"),
        (&[], None, "its command is empty"),
    ];
    for (command, user, expected) in cases {
        let Outcome::NotRun(reason) = run(&task(command, user, LONG)).await.outcome else {
            panic!("{command:?} was run")
        };
        assert!(reason.contains(expected), "{reason}");
    }
}

/// A file that processes write their numbers into.
struct Roll {
    folder: tempfile::TempDir,
}

impl Roll {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("roll"), "").unwrap();
        Roll { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("roll")
    }

    /// A shell's words with which a process signs.
    fn sign(&self) -> String {
        format!("echo $PPID $$ >> {}", self.path().display())
    }

    /// Whoever signed, and the keeper.
    fn signed(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.path()).unwrap();
        text.split_whitespace().map(|number| number.parse().unwrap()).collect()
    }

    async fn has(&self, count: usize) {
        until(|| self.signed().len() >= count * 2).await;
    }

    /// Nobody of them is left, not even to be waited for.
    async fn is_over(&self) {
        let own = std::process::id();
        for process in self.signed().into_iter().filter(|process| *process > 1 && *process != own) {
            until(|| !PathBuf::from(format!("/proc/{process}")).exists()).await;
        }
    }
}

async fn until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "it did not happen");
        task::yield_now().await;
    }
}

/// Each signs the roll, ignores SIGTERM, and goes on forever: the script, a child, one in a session of its own, and one
/// whose parent is gone.
fn family(roll: &Roll) -> String {
    let hang = format!("trap '' TERM HUP INT; {}; while :; do sleep 1000; done", roll.sign());
    let quoted = hang.replace('\'', "'\\''");
    format!("sh -c '{quoted}' & setsid sh -c '{quoted}' & (setsid sh -c '{quoted}' &) ; {hang}")
}

#[tokio::test]
async fn a_script_that_hangs_is_ended_with_all_that_it_started() {
    let roll = Roll::new();
    let begin = Instant::now();
    let report = shell(&format!("echo working; {}", family(&roll)), Duration::from_secs(2)).await;
    assert_eq!(report.outcome, failed("timeout after 2s, and until then \"working\""));
    assert!(begin.elapsed() < LONG);
    assert_eq!(roll.signed().len(), 8, "four have signed");
    roll.is_over().await;
}

#[tokio::test]
async fn a_check_that_is_dropped_ends_its_script() {
    let roll = Roll::new();
    let text = family(&roll);
    tokio::select! {
        report = shell(&text, LONG) => panic!("{report:?}"),
        () = roll.has(4) => {}
    }
    roll.is_over().await;
}

#[tokio::test]
async fn what_a_script_leaves_behind_goes_with_it() {
    let roll = Roll::new();
    let hang = format!("{}; exec sleep 1000", roll.sign());
    let wait = format!("until [ $(wc -l < {}) = 1 ]; do :; done", roll.path().display());
    let report = shell(&format!("setsid sh -c '{hang}' & {wait}; echo done"), LONG).await;
    assert_eq!((report.outcome, report.answer.as_deref()), (Outcome::Passed, Some("\"done\"")));
    // Before the result is known, not some time after it.
    let [_, behind] = roll.signed()[..] else { panic!("one has signed") };
    assert!(!PathBuf::from(format!("/proc/{behind}")).exists());
}

#[tokio::test]
async fn a_script_that_forks_and_forks_is_ended() {
    let roll = Roll::new();
    let fork =
        "f() { i=0; while [ $i -lt 15 ]; do setsid sh -c 'sleep 1000 & sleep 1000' & i=$((i+1)); done; }";
    let report = shell(&format!("{}; {fork}; f; wait", roll.sign()), SHORT * 2).await;
    assert_eq!(report.outcome, failed("timeout after 1s"));
    roll.is_over().await;
}

#[tokio::test]
async fn output_without_end_is_a_failure() {
    let roll = Roll::new();
    let report = shell(&format!("{}; exec yes", roll.sign()), LONG).await;
    assert_eq!(report.outcome, failed("its output has no end: more than 1 MiB came"));
    assert_eq!(report.answer.as_deref(), Some("\"y\""));
    roll.is_over().await;
    let line = shell("exec tr '\\0' x < /dev/zero", LONG).await;
    assert_eq!(line.outcome, failed("its output has no end: more than 1 MiB came"));
    assert!(line.answer.unwrap().len() < 200);
}

#[tokio::test]
async fn output_that_nobody_needs_is_let_go() {
    let report = shell("echo first; head -c 500000 /dev/zero; exit 2", LONG).await;
    assert_eq!(report.outcome, failed("exit code 2: \"first\""));
}

#[tokio::test]
async fn a_keeper_that_is_killed_is_this_machines_fault() {
    let report = shell("kill -9 $PPID; sleep 0.2", LONG).await;
    let Outcome::NotRun(reason) = report.outcome else { panic!("{report:?}") };
    assert!(reason.contains("keeper"), "{reason}");
}

#[tokio::test]
async fn many_at_once_do_not_mix() {
    let mut checks = task::JoinSet::new();
    for number in 0..40 {
        checks.spawn(async move { (number, shell(&format!("echo {number}; exit {number}"), LONG).await) });
    }
    for (number, report) in checks.join_all().await {
        let line = format!("\"{number}\"");
        assert_eq!(report.answer.as_deref(), Some(line.as_str()));
        let outcome =
            if number == 0 { Outcome::Passed } else { failed(&format!("exit code {number}: {line}")) };
        assert_eq!(report.outcome, outcome);
    }
}

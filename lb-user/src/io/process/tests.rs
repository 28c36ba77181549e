use std::{fs, path::PathBuf, time::Instant};

use super::*;

const SHORT: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(20);
const OUTPUT_MAX: usize = 1 << 16;

/// How it ended, and what it wrote.
async fn run_program(program: &Program, time: Duration) -> (Result<ExitStatus, ProcessError>, String) {
    let mut output = Vec::new();
    let limits = Limits { time, output: OUTPUT_MAX };
    let ended = run(program, limits, &mut |piece| output.extend_from_slice(piece)).await;
    (ended, String::from_utf8(output).unwrap())
}

fn program(command: &[&str], user: Option<&str>) -> Program {
    let command = command.iter().map(|word| (*word).to_owned()).collect();
    Program { command, user: user.map(str::to_owned), ..Program::default() }
}

async fn shell(text: &str, time: Duration) -> (Result<ExitStatus, ProcessError>, String) {
    run_program(&program(&["/bin/sh", "-c", text], None), time).await
}

#[tokio::test]
async fn status_and_output_are_collected() {
    let (ended, output) = shell("echo one; echo two >&2; exit 3", LONG).await;
    assert_eq!((ended.unwrap().code(), output.as_str()), (Some(3), "one\ntwo\n"));
    let (ended, output) = shell("kill -TERM $$", LONG).await;
    assert_eq!((ended.unwrap().signal(), output.as_str()), (Some(15), ""));
}

#[tokio::test]
async fn a_program_finds_what_is_listed_and_nothing_else() {
    let text = "tr '\\0' '\\n' < /proc/$$/environ; (pwd; ls /proc/$$/fd; readlink /proc/$$/fd/0)";
    let environment = vec![("STEELYARD_ONE", "1".to_owned()), ("STEELYARD_TWO", String::new())];
    let program = Program { environment, ..program(&["/bin/sh", "-c", text], None) };
    let (ended, output) = run_program(&program, LONG).await;
    assert!(ended.unwrap().success());
    let expected = format!("PATH={PATH}\nSTEELYARD_ONE=1\nSTEELYARD_TWO=\n/\n0\n1\n2\n/dev/null\n");
    assert_eq!(output, expected);
}

#[tokio::test]
async fn a_program_runs_as_its_user_with_that_users_groups() {
    let command = ["/bin/sh", "-c", "echo $(id -un) $(id -u) $(id -ru) $(id -G)"];
    let (ended, output) = run_program(&program(&command, Some("nobody")), LONG).await;
    assert!(ended.unwrap().success());
    assert_eq!(output, "nobody 65534 65534 65534\n");
    let (_, output) = run_program(&program(&command, Some("root")), LONG).await;
    assert!(output.starts_with("root 0 0 0"), "{output}");
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
        let (ended, _) = run_program(&program(command, user), LONG).await;
        let reason = ended.expect_err("it cannot be run").to_string();
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

/// Each signs the roll, ignores SIGTERM, and goes on forever: the program, a child, one in a session of its own, and one
/// whose parent is gone.
fn family(roll: &Roll) -> String {
    let hang = format!("trap '' TERM HUP INT; {}; while :; do sleep 1000; done", roll.sign());
    let quoted = hang.replace('\'', "'\\''");
    format!("sh -c '{quoted}' & setsid sh -c '{quoted}' & (setsid sh -c '{quoted}' &) ; {hang}")
}

#[tokio::test]
async fn a_program_that_hangs_is_ended_with_all_that_it_started() {
    let roll = Roll::new();
    let begin = Instant::now();
    let (ended, output) = shell(&format!("echo working; {}", family(&roll)), SHORT * 2).await;
    assert!(matches!(ended, Err(ProcessError::Timeout { .. })), "{ended:?}");
    assert_eq!(output, "working\n");
    assert!(begin.elapsed() < LONG);
    assert_eq!(roll.signed().len(), 8, "four have signed");
    roll.is_over().await;
}

#[tokio::test]
async fn a_program_that_is_dropped_is_ended() {
    let roll = Roll::new();
    let text = family(&roll);
    tokio::select! {
        ended = shell(&text, LONG) => panic!("{ended:?}"),
        () = roll.has(4) => {}
    }
    roll.is_over().await;
}

#[tokio::test]
async fn what_a_program_leaves_behind_goes_with_it() {
    let roll = Roll::new();
    let hang = format!("{}; exec sleep 1000", roll.sign());
    let wait = format!("until [ $(wc -l < {}) = 1 ]; do :; done", roll.path().display());
    let (ended, output) = shell(&format!("setsid sh -c '{hang}' & {wait}; echo done"), LONG).await;
    assert!(ended.unwrap().success());
    assert_eq!(output, "done\n");
    // Before the result is known, not some time after it.
    let [_, behind] = roll.signed()[..] else { panic!("one has signed") };
    assert!(!PathBuf::from(format!("/proc/{behind}")).exists());
}

#[tokio::test]
async fn a_program_that_forks_and_forks_is_ended() {
    let roll = Roll::new();
    let fork =
        "f() { i=0; while [ $i -lt 15 ]; do setsid sh -c 'sleep 1000 & sleep 1000' & i=$((i+1)); done; }";
    let (ended, _) = shell(&format!("{}; {fork}; f; wait", roll.sign()), SHORT).await;
    assert!(matches!(ended, Err(ProcessError::Timeout { .. })), "{ended:?}");
    roll.is_over().await;
}

#[tokio::test]
async fn a_flood_ends_the_program() {
    let roll = Roll::new();
    let (ended, output) = shell(&format!("{}; exec yes", roll.sign()), LONG).await;
    assert!(matches!(ended, Err(ProcessError::Flood { max: OUTPUT_MAX, .. })), "{ended:?}");
    assert!((1..=4_096).contains(&(output.len() - OUTPUT_MAX)), "{}", output.len());
    roll.is_over().await;
    let (ended, output) = shell(&format!("head -c {OUTPUT_MAX} /dev/zero"), LONG).await;
    assert!(ended.unwrap().success() && output.len() == OUTPUT_MAX);
}

#[tokio::test]
async fn a_keeper_that_is_killed_is_told() {
    let (ended, _) = shell("kill -9 $PPID; sleep 0.2", LONG).await;
    assert!(matches!(ended, Err(ProcessError::Keeper { .. })), "{ended:?}");
}

#[tokio::test]
async fn many_at_once_do_not_mix() {
    let mut running = task::JoinSet::new();
    for number in 0..40 {
        running.spawn(async move { (number, shell(&format!("echo {number}; exit {number}"), LONG).await) });
    }
    for (number, (ended, output)) in running.join_all().await {
        assert_eq!((ended.unwrap().code(), output), (Some(number), format!("{number}\n")));
    }
}

use super::*;
use crate::pure::config::model::vrrp::Group;

fn hook(program: &str) -> Option<Hook> {
    Some(Hook { command: vec![program.to_owned()], user: None })
}

fn hooks() -> Hooks {
    Hooks {
        any: Some(Hook { command: vec!["any".to_owned(), "-v".to_owned()], user: Some("ops".to_owned()) }),
        master: hook("master"),
        backup: hook("backup"),
        fault: hook("fault"),
        stop: hook("stop"),
        deleted: hook("deleted"),
        lower_priority: hook("lower"),
        mail: true,
    }
}

/// A group, since that is all of the model that hooks need.
fn teller(notify: Hooks) -> Teller {
    let group =
        Group { name: "G1".to_owned(), members: Vec::new(), track: Vec::new(), notify: notify.clone() };
    let mut teller = Teller::default();
    teller.configure(&Vrrp { groups: vec![group], ..Vrrp::default() });
    teller.known.insert(router(), Known { hooks: notify, priority: 100, stays: true });
    teller
}

fn router() -> Owner {
    Owner::Router("VI_1".to_owned())
}

fn became(to: State, priority: u8) -> Happening {
    let why = "because".to_owned();
    Happening::Became { router: "VI_1".to_owned(), from: State::Initialize, to, priority, why }
}

fn ended(how: End) -> Happening {
    Happening::Ended { router: "VI_1".to_owned(), how }
}

fn lower() -> Happening {
    Happening::LowerPriority { router: "VI_1".to_owned(), peer: "192.0.2.2".parse().unwrap(), priority: 50 }
}

/// Lines, and the commands that run with them.
fn told(teller: &mut Teller, happening: &Happening) -> (String, Vec<String>) {
    let telling = teller.tell(happening).unwrap();
    (telling.line, telling.programs.iter().map(|program| program.command.join(" ")).collect())
}

#[test]
fn everybody_is_told_in_keepalived_s_words() {
    let mut teller = teller(hooks());
    let group = |to| Happening::GroupBecame { group: "G1".to_owned(), to };
    let cases: [(Happening, &str, &[&str]); 9] = [
        (
            became(State::Active, 150),
            "INSTANCE \"VI_1\" MASTER 150\n",
            &["master", "any -v INSTANCE VI_1 MASTER 150"],
        ),
        (
            became(State::Backup, 80),
            "INSTANCE \"VI_1\" BACKUP 80\n",
            &["backup", "any -v INSTANCE VI_1 BACKUP 80"],
        ),
        (
            became(State::Fault, 80),
            "INSTANCE \"VI_1\" FAULT 80\n",
            &["fault", "any -v INSTANCE VI_1 FAULT 80"],
        ),
        (lower(), "INSTANCE \"VI_1\" MASTER_RX_LOWER_PRI 80\n", &["lower"]),
        (ended(End::Stopped), "INSTANCE \"VI_1\" STOP 80\n", &["stop", "any -v INSTANCE VI_1 STOP 80"]),
        (
            ended(End::Deleted),
            "INSTANCE \"VI_1\" DELETED 80\n",
            &["deleted", "any -v INSTANCE VI_1 DELETED 80"],
        ),
        (group(State::Active), "GROUP \"G1\" MASTER 0\n", &["master", "any -v GROUP G1 MASTER 0"]),
        (group(State::Fault), "GROUP \"G1\" FAULT 0\n", &["fault", "any -v GROUP G1 FAULT 0"]),
        (
            Happening::GroupEnded { group: "G1".to_owned(), how: End::Stopped },
            "GROUP \"G1\" STOP 0\n",
            &["stop", "any -v GROUP G1 STOP 0"],
        ),
    ];
    for (happening, line, programs) in cases {
        let (said, ran) = told(&mut teller, &happening);
        assert_eq!((said.as_str(), ran), (line, programs.iter().map(ToString::to_string).collect()));
    }
    let telling = teller.tell(&became(State::Backup, 80)).unwrap();
    assert_eq!(
        telling.programs.iter().map(|hook| hook.user.as_deref()).collect::<Vec<_>>(),
        [None, Some("ops")]
    );
    assert_eq!(teller.tell(&became(State::Initialize, 80)), None);
}

#[test]
fn the_last_word_has_the_last_priority() {
    let mut teller = teller(hooks());
    let why = "a script".to_owned();
    let state = State::Active;
    let priority = Happening::Priority { router: "VI_1".to_owned(), state, from: 100, to: 42, why };
    assert_eq!(teller.tell(&priority), None);
    assert_eq!(told(&mut teller, &ended(End::Stopped)).0, "INSTANCE \"VI_1\" STOP 42\n");
}

#[test]
fn without_a_hook_for_it_being_taken_out_is_a_fault() {
    let mut teller = teller(Hooks { deleted: None, ..hooks() });
    let (line, programs) = told(&mut teller, &ended(End::Deleted));
    assert_eq!(line, "INSTANCE \"VI_1\" FAULT 100\n");
    assert_eq!(programs, ["fault", "any -v INSTANCE VI_1 FAULT 100"]);
}

#[test]
fn who_is_taken_out_by_a_reload_has_a_last_word() {
    let mut teller = teller(hooks());
    teller.configure(&Vrrp::default());
    assert!(teller.tell(&ended(End::Deleted)).is_some());
    teller.configure(&Vrrp::default());
    assert_eq!(teller.tell(&ended(End::Deleted)), None);
}

#[test]
fn mail_is_for_alarms_and_for_those_who_want_it() {
    let group = Happening::GroupBecame { group: "G1".to_owned(), to: State::Active };
    for (mail, happening, expected) in [
        (true, became(State::Active, 1), true),
        (false, became(State::Active, 1), false),
        (false, became(State::Fault, 1), true),
        (true, group.clone(), true),
        (false, group, false),
        (false, ended(End::Stopped), false),
        (false, lower(), true),
    ] {
        let teller = teller(Hooks { mail, ..hooks() });
        assert_eq!(teller.is_mailed(&happening), expected, "{happening:?}");
    }
}

fn telling(owner: &str, line: &str, is_state: bool) -> Telling {
    let programs = hook("it").into_iter().collect();
    Telling { owner: Owner::Router(owner.to_owned()), line: line.to_owned(), programs, is_state }
}

#[test]
fn an_owner_s_tellings_run_one_after_the_other_and_nobody_waits_for_another_owner() {
    let mut backlog = Backlog::default();
    for (owner, line) in [("b", "1"), ("b", "2"), ("a", "3"), ("b", "4")] {
        assert_eq!(backlog.put(telling(owner, line, true)), None);
    }
    let next = |backlog: &mut Backlog| backlog.take().map(|telling| telling.line);
    assert_eq!(next(&mut backlog).as_deref(), Some("1"));
    assert_eq!(next(&mut backlog).as_deref(), Some("3"));
    assert_eq!(next(&mut backlog), None);
    for line in ["2", "4"] {
        backlog.done(&Owner::Router("b".to_owned()));
        assert_eq!(next(&mut backlog).as_deref(), Some(line));
    }
    backlog.done(&Owner::Router("b".to_owned()));
    assert!(!backlog.is_idle());
    backlog.done(&Owner::Router("a".to_owned()));
    assert!(backlog.is_idle());
}

#[test]
fn what_does_not_fit_is_what_matters_least() {
    let mut backlog = Backlog::default();
    let mut dropped = Vec::new();
    for number in 0..WAITING_MAX + 3 {
        let telling = telling("a", &number.to_string(), number != 5);
        dropped.extend(backlog.put(telling).map(|telling| telling.line));
    }
    assert_eq!(dropped, ["5", "0", "1"]);
    // A storm of what is no state leaves the state.
    let mut backlog = Backlog::default();
    backlog.put(telling("a", "state", true));
    for _ in 0..10 * WAITING_MAX {
        backlog.put(telling("a", "aside", false));
    }
    assert_eq!(backlog.take().unwrap().line, "state");
}

#[test]
fn so_many_run_at_once_and_no_more() {
    let mut backlog = Backlog::default();
    for number in 0..RUNNING_MAX + 1 {
        backlog.put(telling(&number.to_string(), "it", true));
    }
    let running: Vec<_> = std::iter::from_fn(|| backlog.take()).collect();
    assert_eq!(running.len(), RUNNING_MAX);
    backlog.done(&running[0].owner);
    assert!(backlog.take().is_some());
}

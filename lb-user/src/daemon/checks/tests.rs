use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    time::Duration,
};

use tokio::time::timeout;

use super::*;
use crate::pure::{
    config::model::check::{Check, CheckKind},
    report::Outcome,
};

/// Everything here takes milliseconds, the first check up to a second.
const PATIENCE: Duration = Duration::from_secs(10);

fn task(server: u32, target: SocketAddr) -> CheckTask {
    let long = Duration::from_secs(3_600);
    let check = Check {
        interval: long,
        fast_interval: long,
        down_interval: long,
        ..Check::of(CheckKind::Tcp(Vec::new()))
    };
    CheckTask {
        server: ServerId(server),
        service_name: "web".to_owned(),
        server_name: format!("web{server}"),
        target,
        check: Arc::new(check),
        through: None,
    }
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback");
    let address = listener.local_addr().expect("bound");
    (listener, address)
}

async fn passed(events: &mut mpsc::Receiver<Event>) -> (ServerId, bool) {
    let event = timeout(PATIENCE, events.recv()).await.expect("a check in time").expect("a running task");
    let Event::Checked { server, report } = event else { panic!("{event:?} is no result") };
    (server, report.outcome == Outcome::Passed)
}

#[tokio::test]
async fn checks_follow_the_list_and_the_orders() {
    let (_open, target) = listener();
    let (closed, refused) = listener();
    drop(closed);
    let (lists, tasks) = watch::channel(Arc::new(vec![task(1, target)]));
    let (inbox, mut events) = mpsc::channel(8);
    let orders = Arc::new(Mailbox::default());
    let running = tokio::spawn(run(tasks, Arc::clone(&orders), inbox));
    assert_eq!(passed(&mut events).await, (ServerId(1), true));

    let mut at_once = Orders::default();
    at_once.expedite(CheckId(1));
    orders.post(at_once);
    assert_eq!(passed(&mut events).await, (ServerId(1), true), "an hour early");

    lists.send_replace(Arc::new(vec![task(1, target), task(2, refused)]));
    assert_eq!(passed(&mut events).await, (ServerId(2), false), "only the new one");
    lists.send_replace(Arc::new(vec![task(1, refused)]));
    assert_eq!(passed(&mut events).await, (ServerId(1), false), "changed, so checked anew");

    drop(events);
    timeout(PATIENCE, running).await.expect("it ends with its receiver").expect("without a fault");
}

#[tokio::test]
async fn the_result_of_a_replaced_or_removed_task_does_not_count() {
    let (_open, target) = listener();
    let (_other, elsewhere) = listener();
    // The only id that is due at once.
    let [before, after] = [target, elsewhere].map(|target| task(0, target));
    let attempt = |number| Attempt { id: CheckId(0), number };

    let mut checks = Checks::new(8);
    checks.reconcile(std::slice::from_ref(&before));
    checks.start_due();
    checks.reconcile(std::slice::from_ref(&before));
    assert!(checks.ended(attempt(1)), "nothing has changed");
    assert!(!checks.ended(attempt(1)), "once");

    let mut checks = Checks::new(8);
    checks.reconcile(std::slice::from_ref(&before));
    checks.start_due();
    checks.reconcile(std::slice::from_ref(&after));
    assert!(!checks.ended(attempt(1)), "of the old target");
    checks.start_due();
    assert!(checks.ended(attempt(2)), "of the new one");

    checks.schedule.expedite(CheckId(0), Instant::now());
    checks.start_due();
    checks.reconcile(&[]);
    assert!(!checks.ended(attempt(3)), "nobody asks any more");
    assert_eq!(checks.deadline(), None);
}

#[tokio::test]
async fn what_is_due_beyond_the_bound_waits() {
    let (_open, target) = listener();
    let mut checks = Checks::new(1);
    checks.reconcile(&[task(0, target), task(1, target)]);
    for id in [0, 1] {
        checks.schedule.expedite(CheckId(id), Instant::now());
    }
    checks.start_due();
    assert_eq!((checks.running.len(), checks.deadline()), (1, None), "an attempt that ends makes room");
    let first = checks.running.join_next().await.expect("one runs").expect("without a fault").0;
    assert!(checks.ended(first));
    checks.start_due();
    assert_eq!(checks.running.len(), 1);
}

//! What a node tracks moves its addresses, and everybody who wants to know is told, in order.

use std::{
    fs::{self, OpenOptions},
    io::Read,
    net::IpAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lb_tests::bed::{Family::V4, Pair, Steelyard, pair::INTERFACE, poll, steelyard::all_up};
use lb_user::pure::status::EventStatus;

/// A node with what is written about it behind the parts that all have.
fn node<'a>(pair: &'a Pair, number: usize, more: &str) -> Result<Steelyard<'a>> {
    let node = pair.steelyard(number)?;
    let others = (0..pair.nodes.len()).filter(|other| *other != number);
    let peers: Vec<_> = others.map(|other| format!("\"{}\"", pair.nodes[other].address(V4))).collect();
    node.write_config(&format!(
        "[global]\nnode = {:?}\nadmin_socket = {:?}\nstate = {:?}\n\n[cluster]\nsecret = \"of the bed\"\n\
         peers = [{}]\n\n[datapath]\npin = {:?}\n{more}",
        Pair::name(number),
        node.socket(),
        node.state(),
        peers.join(", "),
        node.pin()
    ))?;
    Ok(node)
}

/// A node that does not hand over is found dead after 1.2 seconds.
fn router(vrid: u8, priority: u8, more: &str) -> String {
    format!(
        "\n[[vrrp]]\nname = \"VI_{vrid}\"\ninterface = {INTERFACE:?}\nvrid = {vrid}\npriority = {priority}\n\
         advert_interval = \"400ms\"\naddresses = [\"{}/24\"]\n{more}\n",
        vip(vrid)
    )
}

fn vip(vrid: u8) -> IpAddr {
    Pair::vip(V4, vrid)
}

/// A script that fails while `flag` is there.
fn script(flag: &Path) -> String {
    format!(
        "\n[[track_script]]\nname = \"flag\"\ncommand = [\"/usr/bin/test\", \"!\", \"-e\", {flag:?}]\n\
         interval = \"50ms\"\ntimeout = \"2s\"\nfall = 2\nrise = 2\n"
    )
}

/// How long it took.
fn moves(pair: &Pair, vrid: u8, to: usize) -> Result<Duration> {
    let begun = Instant::now();
    pair.wait_for_holders(vip(vrid), &[to], LIMIT)?;
    Ok(begun.elapsed())
}

fn lines(file: &Path) -> Vec<String> {
    fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn events(node: &Steelyard, kind: &str) -> Result<Vec<EventStatus>> {
    let text = node.done(&["events", "--recent", "1000", "--json"])?;
    let all: Result<Vec<EventStatus>, _> = text.lines().map(serde_json::from_str).collect();
    Ok(all?.into_iter().filter(|event| event.kind == kind).collect())
}

#[test]
fn a_script_that_fails_moves_addresses_by_weight_and_by_fault() -> Result<()> {
    let pair = Pair::new(2, 0)?;
    let flag = pair.folder(0).join("flag");
    let routers =
        |priority, track: [&str; 2]| router(11, priority, track[0]) + &router(12, priority, track[1]);
    let tracked = ["track = [{ script = \"flag\", weight = -20 }]", "track = [{ script = \"flag\" }]"];
    let mut a = node(&pair, 0, &(routers(250, tracked) + &script(&flag)))?;
    let mut b = node(&pair, 1, &routers(240, ["", ""]))?;
    a.start()?;
    b.start()?;
    take_part(&[&a, &b])?;
    for vrid in [11, 12] {
        moves(&pair, vrid, 0)?;
    }
    for (what, to) in [("fails", 1), ("works again", 0)] {
        if to == 1 {
            fs::write(&flag, "")?
        } else {
            fs::remove_file(&flag)?
        }
        let took = [moves(&pair, 11, to)?, moves(&pair, 12, to)?];
        // Two runs of the script, and a hand-over. Who was in Fault has to wait on the way back.
        let is_quick = took.iter().all(|took| *took < QUICK);
        ensure!(to == 0 || is_quick, "the script {what}: {took:?}");
    }
    let down = events(&a, "tracker-down")?;
    let told = down.iter().any(|event| event.text == "script flag is down: exit code 1");
    ensure!(told, "{down:?}");
    let faults = events(&a, "vrrp-fault")?;
    ensure!(faults.iter().any(|fault| fault.router.as_deref() == Some("VI_12")), "{faults:?}");
    Ok(())
}

/// All routers of the nodes are in an election, so that there is somebody to hand over to.
fn take_part(nodes: &[&Steelyard]) -> Result<()> {
    for node in nodes {
        node.wait("its routers to take part", |status| {
            status.vrrp.routers.iter().all(|router| router.state != "initialize")
        })?;
    }
    Ok(())
}

/// The balancer checks its servers itself, so that nobody has to poll the balancer.
#[test]
fn a_service_that_loses_its_last_server_moves_the_address_at_once() -> Result<()> {
    let pair = Pair::new(2, 2)?;
    let config = |number: usize, priority: u8| {
        let service = format!(
            "interfaces = [{INTERFACE:?}]\nmode = \"native\"\n\n[[service]]\nname = \"web\"\naddress = \"{}\"\nport = 80\nforward = \"dsr\"\n\
             server = [{{ name = \"web{}\", address = \"{}\" }}]\n\
             [service.check]\ntype = \"tcp\"\ninterval = \"50ms\"\ntimeout = \"50ms\"\nfall = 1\nrise = 1\n",
            vip(0),
            number + 1,
            pair.servers[number].at(V4),
        );
        let track = "track = [{ service = \"web\", weight = -50 }, { datapath = true }]";
        service + &router(21, priority, track)
    };
    let mut a = node(&pair, 0, &config(0, 250))?;
    let mut b = node(&pair, 1, &config(1, 240))?;
    a.start()?;
    b.start()?;
    take_part(&[&a, &b])?;
    moves(&pair, 21, 0)?;
    b.wait("its server to be up", all_up)?;
    pair.servers[0].kill();
    let took = moves(&pair, 21, 1)?;
    ensure!(took < QUICK, "it took {took:?}");
    eprintln!("from the death of the last server to the address on the other node: {took:?}");
    pair.servers[0].start()?;
    moves(&pair, 21, 0)?;

    // A node that does not forward does not win.
    fs::remove_file(link_pin(a.pin())?)?;
    moves(&pair, 21, 1).map(drop)
}

/// Where the link of the program is pinned.
fn link_pin(folder: &Path) -> Result<PathBuf> {
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().contains("link") {
                return Ok(path);
            }
        }
    }
    anyhow::bail!("no link is pinned")
}

#[test]
fn programs_and_fifos_are_told_in_order() -> Result<()> {
    let pair = Pair::new(1, 0)?;
    let folder = pair.folder(0);
    let (flag, told, fifo) = (folder.join("flag"), folder.join("told"), folder.join("fifo"));
    let hook = folder.join("notify.sh");
    // The first takes longest: nobody overtakes it.
    fs::write(
        &hook,
        format!("#!/bin/sh\n[ \"$3\" = BACKUP ] && sleep 0.3\necho \"$@\" >> {}\n", told.display()),
    )?;
    fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let notify =
        format!("notify = {hook:?}\nnotify_master = [{hook:?}, \"up\"]\ntrack = [{{ script = \"flag\" }}]");
    let quick = router(31, 200, &notify).replace("\"400ms\"", "\"50ms\"");
    let group = format!("\n[[vrrp_group]]\nname = \"G\"\nmembers = [\"VI_31\"]\nnotify = [{hook:?}]\n");
    let mut a = node(&pair, 0, &format!("{quick}{group}{}\n[notify]\nfifo = [{fifo:?}]\n", script(&flag)))?;
    a.start()?;
    moves(&pair, 31, 0)?;
    let mut heard = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&fifo)?;
    fs::write(&flag, "")?;
    pair.wait_for_holders(vip(31), &[], LIMIT)?;
    fs::remove_file(&flag)?;
    moves(&pair, 31, 0)?;
    ensure!(a.terminate()?.success());

    // Also the last word: the stop waits for it.
    let of = |kind: &str| lines(&told).into_iter().filter(|line| line.starts_with(kind)).collect::<Vec<_>>();
    let states = ["BACKUP", "MASTER", "FAULT", "BACKUP", "MASTER", "STOP"];
    let expected: Vec<_> = states.iter().map(|state| format!("INSTANCE VI_31 {state} 200")).collect();
    ensure!(of("INSTANCE") == expected, "{:?}", lines(&told));
    ensure!(of("up").len() == 2, "{:?}", lines(&told));
    let of_group: Vec<_> = states.iter().map(|state| format!("GROUP G {state} 0")).collect();
    ensure!(of("GROUP") == of_group, "{:?}", lines(&told));

    let mut text = String::new();
    // Nobody writes any more: it ends.
    heard.read_to_string(&mut text)?;
    let written: Vec<_> = text.lines().filter(|line| line.starts_with("INSTANCE")).collect();
    let expected: Vec<_> = states.iter().map(|state| format!("INSTANCE \"VI_31\" {state} 200")).collect();
    ensure!(written == expected, "{text}");
    Ok(())
}

#[test]
fn a_script_that_hangs_is_loud_and_one_may_stop_the_daemon() -> Result<()> {
    let pair = Pair::new(2, 0)?;
    let folder = pair.folder(0);
    let (flag, pid, report) = (folder.join("flag"), folder.join("pid"), folder.join("report"));
    let check = format!(
        "[ -e {flag} ] || exec sleep 600; kill -TERM $(cat {pid}); sleep 0.2; echo stopped > {report}; exit 1",
        flag = flag.display(),
        pid = pid.display(),
        report = report.display()
    );
    let script = format!(
        "\n[[track_script]]\nname = \"hangs\"\ncommand = [\"/bin/sh\", \"-c\", {check:?}]\n\
         interval = \"100ms\"\ntimeout = \"400ms\"\n"
    );
    let mut a =
        node(&pair, 0, &(router(41, 250, "track = [{ script = \"hangs\", weight = -100 }]") + &script))?;
    let mut b = node(&pair, 1, &router(41, 200, ""))?;
    b.start()?;
    a.start()?;
    fs::write(&pid, a.pid()?.to_string())?;
    let told = a.wait("a warning", |status| {
        status.warnings.iter().any(|warning| warning.starts_with("script hangs cannot tell"))
    })?;
    ensure!(told.warnings.iter().any(|warning| warning.contains("did not end within 400ms")), "{told:?}");
    ensure!(!events(&a, "tracker-broken")?.is_empty(), "no event tells of it");
    moves(&pair, 41, 1)?;

    fs::write(&flag, "")?;
    poll("the end of the daemon", LIMIT, || a.status().is_err().then_some(()))?;
    poll("the script's report", LIMIT, || (lines(&report) == ["stopped"]).then_some(()))
}

/// In a namespace the kernel announces no processes: they are counted now and then.
#[test]
fn processes_and_files_decide_too() -> Result<()> {
    let pair = Pair::new(1, 0)?;
    let (program, number) = (pair.folder(0).join("tracked-program"), pair.folder(0).join("number"));
    fs::copy("/bin/sleep", &program)?;
    let trackers = format!(
        "\n[[track_process]]\nname = \"p\"\nprocess = {program:?}\n\
         \n[[track_file]]\nname = \"n\"\nfile = {number:?}\ninterval = \"50ms\"\n"
    );
    let track = "track = [{ process = \"p\" }, { file = \"n\", weight = 2 }]";
    let quick = router(51, 100, track).replace("\"400ms\"", "\"50ms\"");
    let mut a = node(&pair, 0, &(quick + &trackers))?;
    let mut child = Command::new(&program).arg("600").stdout(Stdio::null()).spawn()?;
    a.start()?;
    moves(&pair, 51, 0)?;
    fs::write(&number, "7\n")?;
    poll("the priority", LIMIT, || {
        let told = events(&a, "vrrp-priority").ok()?;
        told.iter().any(|event| event.to.as_deref() == Some("114")).then_some(())
    })?;
    child.kill()?;
    child.wait()?;
    pair.wait_for_holders(vip(51), &[], LIMIT).context("the process is gone")?;
    let faults = events(&a, "vrrp-fault")?;
    let why = faults.last().and_then(|fault| fault.detail.clone()).unwrap_or_default();
    ensure!(why.contains("process p"), "{faults:?}");
    Ok(())
}

const LIMIT: Duration = Duration::from_secs(10);
/// Less than finding a node dead takes.
const QUICK: Duration = Duration::from_secs(1);

//! A change is told to everybody who asked, and nobody who does not listen holds anything up.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use lb_tests::bed::{
    Arms, Bed, Config, Forward, Namespace, Steelyard,
    client::{Load, Requests},
    poll,
    steelyard::{all_up, is_down},
};
use lb_user::pure::status::EventStatus;

use super::bed;

#[test]
fn a_server_that_dies_is_told_by_every_way() -> Result<()> {
    let (bed, config) = bed(Arms::One, Forward::Dsr)?;
    let (mails, hooks) = (Heard::default(), Heard::default());
    let mail = listen(&bed.balancer.namespace, mails.clone(), take_mail)?;
    let hook = listen(&bed.balancer.namespace, hooks.clone(), take_post)?;
    let told = bed.files().join("told");
    let script = format!(
        "echo \"$STEELYARD_EVENT $STEELYARD_SERVICE/$STEELYARD_SERVER $STEELYARD_FROM-$STEELYARD_TO\" >> {}",
        told.display()
    );
    let sinks = Sinks { script: &script, mail: &mail, hook: &hook, timeout: "10s" };
    let mut steelyard = notifying(&bed, &config, &sinks)?;
    steelyard.start()?;
    steelyard.wait("every server to be up", all_up)?;
    let stream = follow(&steelyard)?;

    bed.servers[0].kill();
    let down = "web/web1 is down: ";
    wait_for(
        "the log",
        || steelyard.log(),
        &[down, "kind=\"server-down\"", "server=\"web1\"", "from=\"up\""],
    )?;
    let json = ["\"kind\":\"server-down\"", "\"server\":\"web1\"", "\"node\":\"bed\"", down];
    wait_for("the stream", || stream.text(), &json)?;
    wait_for("the command", || read(&told), &["server-down web/web1 up-down"])?;
    wait_for("the webhook", || hooks.text(), &json)?;
    wait_for("the mail", || mails.text(), &["To: ops@example.com", down])?;

    for server in &bed.servers[1..] {
        server.kill();
    }
    wait_for("the end of the service", || stream.text(), &["\"kind\":\"service-down\""])?;
    bed.servers[0].start()?;
    wait_for("its return", || read(&told), &["service-up web/ down-up"])?;
    let listed = steelyard.cli(&["events", "--recent", "1000"])?;
    ensure!(listed.code == Some(0), "{listed:?}");
    for text in ["ready: steelyard", down, "service web is down: none of 3", "service web is up: 1 of 3"] {
        ensure!(listed.stdout.contains(text), "{text} is not in {}", listed.stdout);
    }
    ensure!(steelyard.terminate()?.success());
    // Also the last word: it is queued when the daemon begins to stop.
    wait_for("the last event", || read(&told), &["stopping"])?;
    wait_for("the last mail", || mails.text(), &["stopping"])
}

#[test]
fn events_can_be_asked_for_again() -> Result<()> {
    let (bed, config) = bed(Arms::One, Forward::Dsr)?;
    let steelyard = Steelyard::running(&bed, &config)?;
    let drained = steelyard.cli(&["server", "drain", "web/web1"])?;
    ensure!(drained.code == Some(0), "{drained:?}");
    let all = events(&steelyard, &["--recent", "1000"])?;
    let last = all.last().context("events")?;
    ensure!(last.kind == "server-admin" && last.by.as_deref() == Some("operator"), "{last:?}");
    ensure!((last.from.as_deref(), last.to.as_deref()) == (Some("ready"), Some("drain")), "{last:?}");
    ensure!(events(&steelyard, &["--recent", "1"])? == all[all.len() - 1..]);
    let first = &all[0].time;
    ensure!(events(&steelyard, &["--since", first])? == all[1..], "later than {first}");
    ensure!(events(&steelyard, &["--since", &last.time])?.is_empty());
    // Sixteen may follow at once: those who left are not among them.
    for _ in 0..50 {
        poll("room for a reader", LIMIT, || {
            let mut stream = ask_for_events(&steelyard).ok()?;
            let mut status = [0; 12];
            stream.read_exact(&mut status).ok()?;
            (&status == b"HTTP/1.1 200").then_some(())
        })?;
    }
    Ok(())
}

#[test]
fn following_ends_with_the_reader_or_the_daemon() -> Result<()> {
    let (bed, config) = bed(Arms::One, Forward::Dsr)?;
    let mut steelyard = Steelyard::running(&bed, &config)?;
    let follow = ["events", "--follow", "--recent", "1"];
    let mut child = steelyard.background(&follow)?;
    let (heard, text) = (Heard::default(), Heard::default());
    let add = text.clone();
    let mut lines = BufReader::new(child.stdout.take().context("its output")?).lines();
    let reader =
        thread::spawn(move || lines.by_ref().take(2).map_while(Result::ok).for_each(|line| add.add(&line)));
    wait_for("the past", || text.text(), &["Z "])?;
    steelyard.done(&["server", "weight", "web/web1", "2"])?;
    wait_for("the present", || text.text(), &["web/web1 has weight 2, it was 1, by the operator"])?;
    ensure!(reader.join().is_ok(), "the reader failed");
    steelyard.done(&["server", "weight", "web/web1", "3"])?;
    let code = poll("the end of the command", LIMIT, || child.try_wait().ok().flatten())?;
    ensure!(code.success(), "a closed pipe is no error: {code}");

    let mut orphan = steelyard.background(&follow)?;
    let add = heard.clone();
    let lines = BufReader::new(orphan.stdout.take().context("its output")?).lines();
    let reader = thread::spawn(move || lines.map_while(Result::ok).for_each(|line| add.add(&line)));
    wait_for("the past", || heard.text(), &["has weight 3"])?;
    ensure!(steelyard.terminate()?.success());
    let code = poll("the end of the command", LIMIT, || orphan.try_wait().ok().flatten())?;
    ensure!(code.code() == Some(1), "the daemon has ended, the stream has not: {code}");
    ensure!(reader.join().is_ok() && heard.text().contains("stopping"), "{}", heard.text());
    Ok(())
}

#[test]
fn sinks_that_hang_hold_nothing_up() -> Result<()> {
    let (bed, config) = bed(Arms::One, Forward::Dsr)?;
    let holes = bed.balancer.namespace.enter(|| [(); 2].map(|()| TcpListener::bind("127.0.0.1:0")))?;
    let mut addresses = Vec::new();
    for hole in &holes {
        addresses
            .push(hole.as_ref().map(TcpListener::local_addr).map_err(|error| anyhow::anyhow!("{error}"))??);
    }
    let pids = bed.files().join("pids");
    let script = format!("echo $$ >> {0}; sleep 600 & echo $! >> {0}; wait", pids.display());
    let [mail, hook] = [addresses[0].to_string(), addresses[1].to_string()];
    let sinks = Sinks { script: &script, mail: &mail, hook: &hook, timeout: "1s" };
    let mut steelyard = notifying(&bed, &config, &sinks)?;
    steelyard.start()?;
    steelyard.wait("every server to be up", all_up)?;
    let load = Load::start(&bed.client, bed.service(), 2);

    let start = Instant::now();
    bed.servers[0].kill();
    steelyard.wait("web1 to leave the ring", |status| is_down(status, "web", "web1"))?;
    ensure!(start.elapsed() < Duration::from_secs(3), "it took {:?}", start.elapsed());
    Requests::new(bed.service(), 100).tcp(&bed.client)?.all_answered()?;
    let all_hang = |warnings: &[String]| {
        ["notify command: ", "notify mail: ", "notify webhook: "]
            .iter()
            .all(|name| warnings.iter().any(|warning| warning.starts_with(name)))
    };
    steelyard.wait("a warning about each sink", |status| all_hang(&status.warnings))?;
    bed.servers[0].start()?;
    steelyard.wait("web1 to return", all_up)?;
    drop(load.stop()?);
    Requests::new(bed.service(), 100).tcp(&bed.client)?.all_answered()?;

    let stop = Instant::now();
    ensure!(steelyard.terminate()?.success());
    ensure!(stop.elapsed() < Duration::from_secs(6), "stopping took {:?}", stop.elapsed());
    let started = read(&pids);
    ensure!(started.lines().count() >= 2, "{started}");
    poll("the end of every command", LIMIT, || {
        started.lines().all(|pid| !Path::new("/proc").join(pid).exists()).then_some(())
    })
}

struct Sinks<'a> {
    script: &'a str,
    mail: &'a str,
    hook: &'a str,
    timeout: &'a str,
}

/// Not started yet; all three sinks are configured.
fn notifying<'a>(bed: &'a Bed, config: &Config, sinks: &Sinks<'_>) -> Result<Steelyard<'a>> {
    let Sinks { script, mail, hook, timeout } = sinks;
    let steelyard = Steelyard::new(bed, config)?;
    let before = fs::read_to_string(steelyard.config_file())?;
    steelyard.write_config(&format!(
        "{before}\n[notify]\ncommand = [\"/bin/sh\", \"-c\", {script:?}]\nwebhook = \"http://{hook}/hook\"\n\
         email = [\"ops@example.com\"]\nemail_from = \"lb@example.com\"\nsmtp_server = {mail:?}\n\
         timeout = {timeout:?}\n"
    ))?;
    Ok(steelyard)
}

fn events(steelyard: &Steelyard, options: &[&str]) -> Result<Vec<EventStatus>> {
    let done = steelyard.cli(&[&["events", "--json"], options].concat())?;
    ensure!(done.code == Some(0), "{done:?}");
    done.stdout.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// Reads the stream of events for as long as there is one.
fn follow(steelyard: &Steelyard) -> Result<Heard> {
    let stream = ask_for_events(steelyard)?;
    let heard = Heard::default();
    let text = heard.clone();
    thread::spawn(move || {
        let mut lines = BufReader::new(stream).lines();
        while let Some(Ok(line)) = lines.next() {
            text.add(&line);
        }
    });
    wait_for("the answer", || heard.text(), &["200 OK"])?;
    Ok(heard)
}

fn ask_for_events(steelyard: &Steelyard) -> Result<UnixStream> {
    let mut stream = UnixStream::connect(steelyard.socket())?;
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nhost: steelyard\r\n\r\n")?;
    Ok(stream)
}

/// What a peer was told.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<String>>);

impl Heard {
    fn add(&self, line: &str) {
        let mut text = self.0.lock().expect("nobody fails while adding");
        text.push_str(line);
        text.push('\n');
    }

    fn text(&self) -> String {
        self.0.lock().expect("nobody fails while adding").clone()
    }
}

/// A server on the loopback of a namespace; its address.
fn listen(
    namespace: &Namespace,
    heard: Heard,
    take: fn(TcpStream, &Heard) -> std::io::Result<()>,
) -> Result<String> {
    let listener = namespace.enter(|| TcpListener::bind("127.0.0.1:0"))??;
    let address = listener.local_addr()?.to_string();
    // Ends with the test's process.
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            // A client that goes away is the client's business.
            let _ = take(stream, &heard);
        }
    });
    Ok(address)
}

/// A mail server that takes everything.
fn take_mail(mut stream: TcpStream, heard: &Heard) -> std::io::Result<()> {
    stream.write_all(b"220 bed\r\n")?;
    let mut in_data = false;
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?;
        heard.add(&line);
        if in_data && line != "." {
            continue;
        }
        in_data = line == "DATA";
        stream.write_all(if in_data { b"354 go on\r\n" } else { b"250 ok\r\n" })?;
    }
    Ok(())
}

fn take_post(mut stream: TcpStream, heard: &Heard) -> std::io::Result<()> {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.ends_with('}') {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            taken => text += &String::from_utf8_lossy(&buffer[..taken]),
        }
    }
    heard.add(&text);
    stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

/// Until all of `parts` are in the text.
fn wait_for(what: &str, text: impl Fn() -> String, parts: &[&str]) -> Result<()> {
    poll(what, LIMIT, || parts.iter().all(|part| text().contains(part)).then_some(()))
        .with_context(|| format!("{parts:?} is not all in:\n{}", text()))
}

const LIMIT: Duration = Duration::from_secs(15);

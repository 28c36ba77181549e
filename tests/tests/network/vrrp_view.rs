//! What is said of virtual routers, and done on an operator's word.

use std::{net::IpAddr, time::Duration};

use anyhow::{Result, ensure};
use lb_tests::bed::{Family::V4, Pair, Steelyard, pair::INTERFACE, poll};
use lb_user::pure::status::{RouterStatus, VrrpStatus};

/// A router that owns no data path: a node may do VRRP alone.
fn config(steelyard: &Steelyard, keys: &str) -> String {
    format!(
        "[global]\nadmin_socket = {:?}\nstate = {:?}\n[datapath]\npin = {:?}\n\
         [[vrrp]]\nname = \"V\"\ninterface = {INTERFACE:?}\nvrid = 51\naddresses = [\"{}/24\"]\n{keys}\n",
        steelyard.socket(),
        steelyard.state(),
        steelyard.pin(),
        vip()
    )
}

fn vip() -> IpAddr {
    Pair::vip(V4, 7)
}

/// One node after the other, each with these keys.
fn running<'p>(pair: &'p Pair, keys: [&str; 2]) -> Result<[Steelyard<'p>; 2]> {
    let mut nodes = [pair.steelyard(0)?, pair.steelyard(1)?];
    for (number, (node, keys)) in nodes.iter_mut().zip(keys).enumerate() {
        node.write_config(&config(node, keys))?;
        node.start()?;
        let state = if number == 0 { "active" } else { "" };
        router(node, |router| state.is_empty() || router.state == state)?;
    }
    Ok(nodes)
}

/// The router as soon as it is as wanted.
fn router(node: &Steelyard, wanted: impl Fn(&RouterStatus) -> bool) -> Result<RouterStatus> {
    poll("the router to be as wanted", LIMIT, || {
        let router: RouterStatus = node.json(&["vrrp", "show", "V", "--json"]).ok()?;
        wanted(&router).then_some(router)
    })
}

#[test]
fn routers_are_listed_shown_and_handed_over() -> Result<()> {
    let pair = Pair::new(2, 0)?;
    let fast = |priority| format!("advert_interval = \"50ms\"\npriority = {priority}");
    let [first, second] = running(&pair, [&fast(200), &fast(100)])?;
    pair.wait_for_holders(vip(), &[0], LIMIT)?;
    let backup = router(&second, |router| router.state == "backup" && !router.senders.is_empty())?;
    let heard = &backup.senders[0];
    ensure!((heard.priority, heard.version, heard.refused.as_ref()) == (200, 3, None), "{backup:?}");

    let list: VrrpStatus = first.json(&["vrrp", "list", "--json"])?;
    ensure!(list.routers.len() == 1 && list.routers[0].counters.adverts_sent > 0, "{list:?}");
    let status = first.done(&["status"])?;
    ensure!(status.contains("ROUTER") && status.contains("active"), "{status}");
    for args in [&["vrrp", "list"][..], &["vrrp", "show", "V"]] {
        let text = second.done(args)?;
        ensure!(text.contains("backup"), "{text}");
        ensure!(text.lines().all(|line| line.chars().count() <= 80), "wider than a terminal:\n{text}");
    }
    let unknown = first.cli(&["vrrp", "show", "W"])?;
    ensure!(unknown.code == Some(1), "{unknown:?}");
    ensure!(unknown.stderr.contains("no virtual router named `W`: there are V"), "{unknown:?}");

    first.done(&["vrrp", "failover", "V"])?;
    pair.wait_for_holders(vip(), &[1], LIMIT)?;
    let left = router(&first, |router| router.state == "backup")?;
    ensure!(left.counters.priority_zero_sent > 0 && left.counters.released_active == 1, "{left:?}");
    Ok(())
}

#[test]
fn two_that_do_not_understand_each_other_are_told_of() -> Result<()> {
    let pair = Pair::new(2, 0)?;
    let [first, second] =
        running(&pair, ["priority = 255", "version = 2\npriority = 255\nauth_pass = \"hush\""])?;
    pair.wait_for_holders(vip(), &[0, 1], LIMIT)?;
    for (node, theirs) in [(&first, 2), (&second, 3)] {
        let told = router(node, |router| {
            router.senders.iter().any(|sender| sender.refused.as_deref() == Some("version"))
        })?;
        ensure!(told.counters.refused.get("version").is_some_and(|&count| count > 0), "{told:?}");
        ensure!(told.senders[0].version == theirs, "{told:?}");
        node.wait("a warning", |status| {
            status.warnings.iter().any(|text| text.contains("does not agree (version)"))
        })?;
        let text = node.done(&["vrrp", "show", "V"])?;
        ensure!(text.contains("refused") && text.contains("version:") && !text.contains("hush"), "{text}");
        let checked = node.cli(&["check"])?;
        let expected = format!("speaks version {theirs}, and this is version {}", 5 - theirs);
        ensure!(checked.code == Some(0) && checked.stderr.contains(&expected), "{checked:?}");
    }
    // The same file on a host that lacks the interface, and hears nobody.
    let alone = second.config_file();
    second.write_config(&config(&second, "").replace(INTERFACE, "none0"))?;
    let checked = first.cli(&["check", "-c", &alone.to_string_lossy()])?;
    ensure!(checked.stderr.contains("there is no interface none0 here"), "{checked:?}");
    Ok(())
}

const LIMIT: Duration = Duration::from_secs(10);

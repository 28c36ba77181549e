//! Commands that change what a running daemon does, or say what a change would do.

use std::{
    thread,
    time::{Duration, Instant},
};

use comfy_table::Cell;
use hyper::Method;

use super::{
    CliError,
    args::{Common, Foreign, Output, Which},
    ask::{get, send, server_page, servers_page, tell},
    color::Paint,
    print, render, serve,
};
use crate::{
    io::{
        admin::{PlanFile, PlanForeign, PlanRequest, ReloadRequest, SetRequest, server::ServerRow},
        file::{ConfigText, ForeignText, Texts},
    },
    pure::{
        overlay::{Added, AdminWord},
        status::{Changed, PlanStatus, ServicePlan, Status},
    },
};

pub(super) fn plan(common: &Common, foreign: &Foreign, output: &Output) -> Result<(), CliError> {
    // A faulty file is told here, with its places, and asks nobody.
    serve::load_aloud(common, foreign)?;
    let request = request(serve::texts(common, foreign)?);
    let plan: PlanStatus = send(common, Method::POST, "/v1/plan", &request)?;
    tell(&plan, output, |plan| shown(plan, Paint::stdout()))
}

fn request(texts: Texts) -> PlanRequest {
    let file = |text: ConfigText| PlanFile { name: text.name, text: text.text };
    let foreign = |text: ForeignText| PlanForeign {
        file: file(text.file),
        config_id: text.config_id,
        included: text.included,
    };
    PlanRequest {
        files: texts.own.into_iter().map(file).collect(),
        keepalived: texts.keepalived.into_iter().map(foreign).collect(),
    }
}

pub(super) fn reload(common: &Common, request: ReloadRequest, output: &Output) -> Result<(), CliError> {
    let changed = send(common, Method::POST, "/v1/reload", &request)?;
    tell_changed(&changed, output)
}

pub(super) fn set(common: &Common, which: &Which, admin: AdminWord) -> Result<(), CliError> {
    patch(common, which, &SetRequest { admin: Some(admin), weight: None })
}

pub(super) fn weight(common: &Common, which: &Which, weight: u16) -> Result<(), CliError> {
    patch(common, which, &SetRequest { admin: None, weight: Some(weight) })
}

pub(super) fn add(
    common: &Common,
    which: &Which,
    address: &str,
    weight: u16,
    backup: bool,
) -> Result<(), CliError> {
    let (name, address) = (which.name.server.clone(), address.to_owned());
    let page = servers_page(&which.name.service);
    let changed = send(common, Method::POST, &page, &Added { name, address, weight, backup })?;
    tell_changed(&changed, &which.output)
}

pub(super) fn remove(common: &Common, which: &Which) -> Result<(), CliError> {
    let changed = send(common, Method::DELETE, &server_page(&which.name), &())?;
    tell_changed(&changed, &which.output)
}

pub(super) fn drain(
    common: &Common,
    which: &Which,
    wait: bool,
    timeout: Option<Duration>,
) -> Result<(), CliError> {
    set(common, which, AdminWord::Drain)?;
    if !wait {
        return Ok(());
    }
    let started = Instant::now();
    let mut first: Status = get(common, "/v1/status")?;
    loop {
        let status: Status = get(common, "/v1/status")?;
        let row: ServerRow = get(common, &server_page(&which.name))?;
        if status.datapath.sweeps < first.datapath.sweeps {
            // Another daemon, which counts anew.
            first = status.clone();
        }
        // The counts are those of the last sweep: one that began after the drain must have ended.
        let swept = status.datapath.sweeps >= first.datapath.sweeps + 2;
        if swept && row.server.flows == 0 && row.server.slots_base == 0 {
            return print(&format!("drained after {:.0?}\n", started.elapsed()));
        }
        if let Some(limit) = timeout.filter(|limit| started.elapsed() >= *limit) {
            let name = format!("{}/{}", which.name.service, which.name.server);
            let left = match (row.server.flows, row.server.slots_base) {
                (0, slots) => format!("{slots} slots with connections that may only be idle"),
                (flows, _) => format!("{flows} recorded flows"),
            };
            return Err(CliError::Undrained { name, left, waited: limit });
        }
        thread::sleep(POLL);
    }
}

fn patch(common: &Common, which: &Which, request: &SetRequest) -> Result<(), CliError> {
    let changed = send(common, Method::PATCH, &server_page(&which.name), request)?;
    tell_changed(&changed, &which.output)
}

fn tell_changed(changed: &Changed, output: &Output) -> Result<(), CliError> {
    tell(changed, output, |changed| {
        let paint = Paint::stdout();
        let warnings = changed.warnings.iter().map(|text| format!("{} {text}\n", paint.yellow("warning:")));
        format!("{}\n{}", changed.done, warnings.collect::<String>())
    })
}

/// A plan for people: what changes, and no line for what does not.
fn shown(plan: &PlanStatus, paint: Paint) -> String {
    let mut table = render::table(&["service", "change", "slots that move", "recorded flows", "servers"]);
    let changing =
        plan.services.iter().filter(|service| service.change != "unchanged" || service.slots_moved > 0);
    let mut rows = 0;
    for service in changing {
        rows += 1;
        table.add_row([
            Cell::new(&service.name),
            Cell::new(&service.change),
            render::right(format!(
                "{} of {} ({:.1} %)",
                render::number(service.slots_moved.into()),
                render::number(service.slots.into()),
                service.percent_moved
            )),
            render::right(render::number(service.flows)),
            Cell::new(servers(service)),
        ]);
    }
    let unchanged = plan.services.len() - rows;
    let mut text = if rows == 0 { String::new() } else { render::finish(&table) };
    text +=
        &format!("{:.1} % of all slots move; {unchanged} services stay as they are\n", plan.percent_moved);
    for breaks in &plan.breaks {
        text += &format!("{} {breaks}; a reload needs --force\n", paint.red("breaks connections:"));
    }
    for later in plan.ends.iter().chain(&plan.next_start) {
        text += &format!("{} {later}\n", paint.yellow("warning:"));
    }
    text
}

fn servers(service: &ServicePlan) -> String {
    let added = service.servers_added.iter().map(|name| format!("+{name}"));
    let removed = service.servers_removed.iter().map(|name| format!("-{name}"));
    added.chain(removed).chain(service.servers_changed.iter().cloned()).collect::<Vec<_>>().join("; ")
}

/// The daemon counts at the end of each sweep, half a second apart: looking more often shows nothing new.
const POLL: Duration = Duration::from_millis(500);

//! Shows the events of a daemon as they happen.

use std::ops::ControlFlow;

use super::{
    CliError,
    args::{Common, Events},
    ask::{escape, runtime, socket},
    color::Paint,
    printed,
};
use crate::{io::admin::client, pure::status::EventStatus};

pub(super) fn events(common: &Common, asked: &Events) -> Result<(), CliError> {
    let which = match asked.since {
        Some(since) => format!("since={}", escape(&since.to_string())),
        None => format!("recent={}", asked.recent),
    };
    let page = format!("/v1/events?{which}&follow={}", asked.follow);
    let socket = socket(common)?;
    let mut outcome = Ok(());
    let read = client::lines(&socket, &page, |line| match show(line, asked.output.json) {
        Ok(true) => ControlFlow::Continue(()),
        // Whoever read it has gone.
        Ok(false) => ControlFlow::Break(()),
        Err(error) => {
            outcome = Err(error);
            ControlFlow::Break(())
        }
    });
    runtime()?.block_on(read).map_err(CliError::Client)?;
    outcome
}

fn show(line: &str, json: bool) -> Result<bool, CliError> {
    if json {
        return printed(&format!("{line}\n"));
    }
    let event: EventStatus = serde_json::from_str(line)
        .map_err(|error| CliError::Io { what: "cannot read an event", source: error.into() })?;
    printed(&text(&event, Paint::stdout()))
}

/// "2026-11-20T12:00:00.000000Z web/web1 is down: refused"
fn text(event: &EventStatus, paint: Paint) -> String {
    let text = if event.level == "warning" { paint.yellow(&event.text) } else { event.text.clone() };
    format!("{} {text}\n", event.time)
}

//! Commands that a running daemon answers.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use hyper::Method;

use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    runtime::{Builder, Runtime},
    time::timeout,
};

use super::{
    CliError,
    args::{Common, Output, ServerCommand, ServerPath, ServiceCommand},
    change,
    color::Paint,
    print, render, serve,
};
use crate::{
    io::admin::{client, server::ServerRow},
    pure::{
        explain::Endpoint,
        overlay::AdminWord,
        status::{Counters, Explanation, Flows, ServiceStatus, Status},
    },
};

const SOCKET: &str = "/run/steelyard/admin.sock";

pub(super) fn status(common: &Common, output: &Output) -> Result<(), CliError> {
    show::<Status>(common, "/v1/status", output, render::status)
}

pub(super) fn counters(common: &Common, output: &Output) -> Result<(), CliError> {
    show::<Counters>(common, "/v1/counters", output, |counters, _| render::counters(counters))
}

pub(super) fn service(common: &Common, command: &ServiceCommand) -> Result<(), CliError> {
    match command {
        ServiceCommand::List(output) => {
            show::<Vec<ServiceStatus>>(common, "/v1/services", output, |list, paint| {
                render::services(list, paint)
            })
        }
        ServiceCommand::Show { name, output } => {
            let page = format!("/v1/services/{}", escape(name));
            show::<ServiceStatus>(common, &page, output, render::service)
        }
    }
}

pub(super) fn server(common: &Common, command: &ServerCommand) -> Result<(), CliError> {
    match command {
        ServerCommand::List(output) => {
            show::<Vec<ServerRow>>(common, "/v1/servers", output, |list, paint| render::servers(list, paint))
        }
        ServerCommand::Show { name, output } => {
            let page = server_page(name);
            show::<ServerRow>(common, &page, output, render::server)
        }
        ServerCommand::Enable(which) => change::set(common, which, AdminWord::Ready),
        ServerCommand::Disable(which) => change::set(common, which, AdminWord::Maintenance),
        ServerCommand::Drain { which, wait, timeout } => change::drain(common, which, *wait, *timeout),
        ServerCommand::Weight { which, weight } => change::weight(common, which, *weight),
        ServerCommand::Add { which, address, weight, backup } => {
            change::add(common, which, address, *weight, *backup)
        }
        ServerCommand::Remove(which) => change::remove(common, which),
    }
}

pub(super) fn flows(common: &Common, service: Option<&str>, output: &Output) -> Result<(), CliError> {
    let page = match service {
        Some(name) => format!("/v1/flows?service={}", escape(name)),
        None => "/v1/flows".to_owned(),
    };
    show::<Flows>(common, &page, output, |flows, _| render::flows(flows))
}

pub(super) fn explain(
    common: &Common,
    client: SocketAddr,
    vip: Endpoint,
    output: &Output,
) -> Result<(), CliError> {
    let page = format!("/v1/explain?client={}&vip={}", escape(&client.to_string()), escape(&vip.to_string()));
    show::<Explanation>(common, &page, output, |explanation, _| render::explanation(explanation))
}

/// Asks, and shows the answer as JSON or for people.
fn show<T: DeserializeOwned + Serialize>(
    common: &Common,
    page: &str,
    output: &Output,
    render: impl Fn(&T, Paint) -> String,
) -> Result<(), CliError> {
    let answer: T = get(common, page)?;
    tell(&answer, output, |answer| render(answer, Paint::stdout()))
}

/// Prints an answer as JSON or for people.
pub(super) fn tell<T: Serialize>(
    answer: &T,
    output: &Output,
    render: impl Fn(&T) -> String,
) -> Result<(), CliError> {
    if output.json {
        let json = serde_json::to_string_pretty(answer);
        let json = json.map_err(|error| CliError::Io { what: "cannot write json", source: error.into() })?;
        return print(&format!("{json}\n"));
    }
    print(&render(answer))
}

pub(super) fn get<T: DeserializeOwned>(common: &Common, page: &str) -> Result<T, CliError> {
    ask(common, async |socket| client::get(socket, page).await)
}

/// The answer, if one comes in time.
pub(super) fn within<T: DeserializeOwned>(socket: &Path, page: &str, limit: Duration) -> Option<T> {
    runtime().ok()?.block_on(async { timeout(limit, client::get(socket, page)).await }).ok()?.ok()
}

/// Asks for something to be done.
pub(super) fn send<T: DeserializeOwned>(
    common: &Common,
    method: Method,
    page: &str,
    body: &impl Serialize,
) -> Result<T, CliError> {
    ask(common, async |socket| client::send(socket, method, page, body).await)
}

fn ask<T>(
    common: &Common,
    question: impl AsyncFnOnce(&Path) -> Result<T, client::ClientError>,
) -> Result<T, CliError> {
    let socket = socket(common)?;
    runtime()?.block_on(question(&socket)).map_err(CliError::Client)
}

/// Of one server.
pub(super) fn server_page(name: &ServerPath) -> String {
    format!("{}/{}", servers_page(&name.service), escape(&name.server))
}

/// Of the servers of a service.
pub(super) fn servers_page(service: &str) -> String {
    format!("/v1/services/{}/servers", escape(service))
}

pub(super) fn runtime() -> Result<Runtime, CliError> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.map_err(|source| CliError::Io { what: "cannot start the runtime", source })
}

pub(super) fn socket(common: &Common) -> Result<PathBuf, CliError> {
    if let Some(socket) = &common.socket {
        return Ok(socket.clone());
    }
    match serve::configured(common) {
        Ok(config) => Ok(config.map_or_else(|| SOCKET.into(), |config| config.global.admin_socket)),
        // A file that is just being edited must not hide a running daemon.
        Err(_) if common.config.is_none() => Ok(SOCKET.into()),
        Err(error) => Err(error),
    }
}

/// Percent-encodes what may not stand in a path or query (RFC 3986, section 2.3).
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(byte.into()),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

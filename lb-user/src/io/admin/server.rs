//! Answers readers. Must not know where the answers come from: the daemon brings them as functions.

use std::{
    fs::{self, File},
    io,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
        net::UnixStream as BlockingStream,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    Json, Router,
    extract::{Path as PathParameter, Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::future::BoxFuture;
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::stat::{Mode, umask},
};
use serde::{Deserialize, Serialize};
use tokio::{net::UnixListener, task::spawn_blocking};

use super::{
    PlanRequest, Refusal, ReloadRequest, changes,
    events::{EventsQuery, Subscription, body},
    vrrp,
};
use crate::pure::{
    explain::{Connection, Endpoint},
    notice::Replay,
    overlay::Change,
    status::{
        Changed, Counters, Explanation, Flows, PlanStatus, ServerStatus, ServiceStatus, Status, VrrpStatus,
    },
};

/// Where answers come from; an error is a sentence for the operator.
pub struct Answers {
    pub status: Answer<(), Status>,
    pub counters: Answer<(), Counters>,
    /// An error: there are readers enough.
    pub events: Answer<Replay, Subscription>,
    /// Takes a while, as `flows` does: asked on a thread of its own.
    pub explain: Answer<Connection, Explanation>,
    /// Of a service, or of all.
    pub flows: Answer<Option<String>, Flows>,
    pub plan: Act<PlanRequest, PlanStatus>,
    pub reload: Act<ReloadRequest, Changed>,
    pub change: Act<ServerChange, Changed>,
    pub vrrp: Answer<(), VrrpStatus>,
    /// Of the virtual router of this name; what came of it.
    pub fail_over: Act<String, String>,
}

/// One change of one server of a service.
pub struct ServerChange {
    pub service: String,
    pub server: String,
    pub change: Change,
}

/// Why something was not done: a sentence for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("{0}")]
    Invalid(String),
    /// It names something that is not there.
    #[error("{0}")]
    Unknown(String),
    /// It cannot be done with what there is.
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    Fault(String),
}

type Answer<Q, A> = Box<dyn Fn(Q) -> Result<A, String> + Send + Sync>;
/// Something that takes its time, and has an end.
type Act<Q, A> = Box<dyn Fn(Q) -> BoxFuture<'static, Result<A, Refused>> + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("another steelyard answers at {0}: stop it first, or set another [global] admin_socket")]
    InUse(PathBuf),
    #[error("{0} exists and is not a socket: set [global] admin_socket to another path")]
    NotSocket(PathBuf),
    #[error("cannot listen on the admin socket {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// The socket's file, and the lock beside it that says whose it is; both removed on drop.
pub struct SocketFile {
    socket: PathBuf,
    lock: PathBuf,
    /// Held as long as the daemon lives; the kernel releases it however the daemon ends.
    _held: Flock<File>,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Gone already when somebody else removed it. The lock last: until then nobody else binds.
        let _ = fs::remove_file(&self.socket);
        let _ = fs::remove_file(&self.lock);
    }
}

/// Listens with mode 0600; the socket of a daemon that was killed is replaced.
pub fn bind(path: &Path) -> Result<(UnixListener, SocketFile), BindError> {
    let io = |source| BindError::Io { path: path.to_owned(), source };
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(io)?;
    }
    let (lock, held) = lock(path)?;
    match BlockingStream::connect(path) {
        Ok(_) => return Err(BindError::InUse(path.to_owned())),
        // Connecting to a file of another kind is refused, too.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            if !fs::symlink_metadata(path).map_err(io)?.file_type().is_socket() {
                return Err(BindError::NotSocket(path.to_owned()));
            }
            fs::remove_file(path).map_err(io)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io(error)),
    }
    // From the first moment nobody else may connect.
    let before = umask(Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(path);
    umask(before);
    let listener = bound.map_err(io)?;
    let file = SocketFile { socket: path.to_owned(), lock, _held: held };
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(io)?;
    Ok((listener, file))
}

/// Of several daemons that find the socket of a dead one, one may replace it.
fn lock(socket: &Path) -> Result<(PathBuf, Flock<File>), BindError> {
    let io = |source| BindError::Io { path: socket.to_owned(), source };
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    for _ in 0..LOCK_TRIES {
        let file =
            File::options().write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(io)?;
        let opened = file.metadata().map_err(io)?.ino();
        let held = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(held) => held,
            Err((_, Errno::EWOULDBLOCK)) => break,
            Err((_, errno)) => return Err(io(errno.into())),
        };
        // A file that its owner removed between the two locks nobody out.
        if fs::metadata(&path).is_ok_and(|standing| standing.ino() == opened) {
            return Ok((path, held));
        }
    }
    Err(BindError::InUse(socket.to_owned()))
}

/// Each failure means that another daemon ended in that moment.
const LOCK_TRIES: u32 = 8;

/// Serves until the future is dropped.
pub async fn serve(listener: UnixListener, answers: Answers) -> io::Result<()> {
    axum::serve(listener, router(Arc::new(answers))).await
}

fn router(answers: Arc<Answers>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/services", get(services))
        .route("/v1/services/{service}", get(service))
        .route("/v1/servers", get(servers))
        .route("/v1/services/{service}/servers/{server}", get(server).merge(changes::server()))
        .route("/v1/counters", get(counters))
        .route("/v1/events", get(events))
        .route("/v1/explain", get(explain))
        .route("/v1/flows", get(flows))
        .merge(changes::router())
        .merge(vrrp::router())
        .fallback(async || {
            refuse(StatusCode::NOT_FOUND, "no such page: see docs/api.md for the pages there are")
        })
        .method_not_allowed_fallback(async || {
            refuse(StatusCode::METHOD_NOT_ALLOWED, "this page does not take this method: see docs/api.md")
        })
        .with_state(answers)
}

/// A server with the service it belongs to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServerRow {
    pub service: String,
    #[serde(flatten)]
    pub server: ServerStatus,
}

async fn status(State(answers): State<Arc<Answers>>) -> Response {
    reply((answers.status)(()))
}

async fn services(State(answers): State<Arc<Answers>>) -> Response {
    reply((answers.status)(()).map(|status| status.services))
}

async fn service(
    State(answers): State<Arc<Answers>>,
    PathParameter(name): PathParameter<String>,
) -> Response {
    match (answers.status)(()) {
        Ok(status) => found(find_service(status, &name)),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error),
    }
}

async fn servers(State(answers): State<Arc<Answers>>) -> Response {
    reply((answers.status)(()).map(rows))
}

async fn server(
    State(answers): State<Arc<Answers>>,
    PathParameter((service, server)): PathParameter<(String, String)>,
) -> Response {
    match (answers.status)(()) {
        Ok(status) => found(find_service(status, &service).and_then(|service| find_server(service, &server))),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error),
    }
}

async fn counters(State(answers): State<Arc<Answers>>) -> Response {
    reply((answers.counters)(()))
}

async fn events(
    State(answers): State<Arc<Answers>>,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Response {
    let Ok(Query(query)) = query else {
        return refuse(StatusCode::BAD_REQUEST, EventsQuery::EXPECTED);
    };
    let replay = match query.replay() {
        Ok(replay) => replay,
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &error),
    };
    match (answers.events)(replay) {
        Ok(subscription) => body(subscription, query.follow).into_response(),
        Err(error) => refuse(StatusCode::SERVICE_UNAVAILABLE, &error),
    }
}

#[derive(Deserialize)]
struct ExplainQuery {
    client: String,
    vip: String,
}

async fn explain(
    State(answers): State<Arc<Answers>>,
    query: Result<Query<ExplainQuery>, QueryRejection>,
) -> Response {
    let Ok(Query(query)) = query else {
        return refuse(StatusCode::BAD_REQUEST, "expected ?client=ADDRESS:PORT&vip=ADDRESS:PORT%2Ftcp");
    };
    let Ok(client) = query.client.parse() else {
        return refuse(StatusCode::BAD_REQUEST, "client: expected ADDRESS:PORT, such as 192.0.2.1:40000");
    };
    let connection = match query.vip.parse::<Endpoint>() {
        Ok(Endpoint(vip, protocol)) => Connection { client, vip, protocol },
        Err(error) => return refuse(StatusCode::BAD_REQUEST, &format!("vip: {error}")),
    };
    if connection.client.is_ipv4() != connection.vip.is_ipv4() {
        let error = "client and vip must both have IPv4 addresses, or both IPv6 ones";
        return refuse(StatusCode::BAD_REQUEST, error);
    }
    aside(move || (answers.explain)(connection)).await
}

#[derive(Deserialize)]
struct FlowsQuery {
    service: Option<String>,
}

async fn flows(
    State(answers): State<Arc<Answers>>,
    query: Result<Query<FlowsQuery>, QueryRejection>,
) -> Response {
    let Ok(Query(FlowsQuery { service })) = query else {
        return refuse(StatusCode::BAD_REQUEST, "expected ?service=NAME, or nothing for all services");
    };
    if let Some(name) = &service {
        match (answers.status)(()).map(|status| find_service(status, name)) {
            Ok(Ok(_)) => {}
            Ok(Err(unknown)) => return refuse(StatusCode::NOT_FOUND, &unknown),
            Err(error) => return refuse(StatusCode::INTERNAL_SERVER_ERROR, &error),
        }
    }
    aside(move || (answers.flows)(service)).await
}

/// Asks on another thread, so that nobody waits behind a long answer.
async fn aside<T: Serialize + Send + 'static>(
    ask: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Response {
    match spawn_blocking(ask).await {
        Ok(answer) => reply(answer),
        Err(_) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "a fault of steelyard: see its log"),
    }
}

fn rows(status: Status) -> Vec<ServerRow> {
    let of = |service: ServiceStatus| {
        let name = service.name;
        service.servers.into_iter().map(move |server| ServerRow { service: name.clone(), server })
    };
    status.services.into_iter().flat_map(of).collect()
}

fn find_service(status: Status, name: &str) -> Result<ServiceStatus, String> {
    let names = status.services.iter().map(|service| service.name.as_str());
    let unknown = unknown("service", name, names);
    status.services.into_iter().find(|service| service.name == name).ok_or(unknown)
}

fn find_server(service: ServiceStatus, name: &str) -> Result<ServerRow, String> {
    let names = service.servers.iter().map(|server| server.name.as_str());
    let unknown = unknown("server", name, names);
    let server = service.servers.into_iter().find(|server| server.name == name).ok_or(unknown)?;
    Ok(ServerRow { service: service.name, server })
}

pub(super) fn unknown<'a>(kind: &str, name: &str, names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.take(NAMES_SHOWN).collect();
    format!("no {kind} named `{name}`: there are {}", names.join(", "))
}

const NAMES_SHOWN: usize = 20;

pub(super) fn reply<T: Serialize>(answer: Result<T, String>) -> Response {
    match answer {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error),
    }
}

pub(super) fn found<T: Serialize>(answer: Result<T, String>) -> Response {
    match answer {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => refuse(StatusCode::NOT_FOUND, &error),
    }
}

pub(super) fn refuse(status: StatusCode, error: &str) -> Response {
    (status, Json(Refusal { error: error.to_owned() })).into_response()
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener as BlockingListener, sync::Barrier, thread};

    use super::*;

    #[test]
    fn of_many_that_find_the_socket_of_a_dead_daemon_one_replaces_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        for _ in 0..20 {
            drop(BlockingListener::bind(&path).unwrap());
            let start = Barrier::new(8);
            let bound: Vec<_> = thread::scope(|scope| {
                let bind = || {
                    start.wait();
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    let _guard = runtime.enter();
                    bind(&path).map(|(_, file)| file)
                };
                let all: Vec<_> = (0..8).map(|_| scope.spawn(bind)).collect();
                all.into_iter().map(|one| one.join().unwrap()).collect()
            });
            let lost = |result: &&Result<SocketFile, BindError>| matches!(result, Err(BindError::InUse(_)));
            assert_eq!(bound.iter().filter(|result| result.is_ok()).count(), 1);
            assert_eq!(bound.iter().filter(lost).count(), 7);
            drop(bound);
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "a file is left");
        }
    }
}

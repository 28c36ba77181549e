//! What operators order of the running daemon: another configuration, a change of one server, a look at what either
//! would do. Carried out by `control`, one after the other.

use std::collections::BTreeSet;

use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_blocking,
};
use tracing::warn;

use super::{
    control::Control,
    interfaces::target,
    keeper::{Keeper, Receipt},
    start,
};
use crate::{
    io::{
        admin::{PlanFile, PlanForeign, PlanRequest, server::Refused},
        file::{self, ConfigText, ForeignText, Inputs, Texts},
        net::Interface,
    },
    pure::{
        config::{
            model::{Admin, Config, Secret},
            network::shown,
        },
        notice::{By, Notice, ServerName},
        overlay::{Change, ChangeError, Overlay},
        preview::Tried,
        status::{Changed, PlanStatus},
    },
};

/// Orders that wait; who orders more waits, too.
pub(super) const ORDERS: usize = 64;

pub(super) enum Order {
    Reload {
        loaded: Loaded,
        limits: Limits,
        reply: Reply<Changed>,
    },
    Plan {
        loaded: Loaded,
        reply: Reply<PlanStatus>,
    },
    Change {
        service: String,
        server: String,
        change: Change,
        /// With what tells when it is kept.
        reply: Reply<(Changed, Receipt)>,
    },
    /// A reload found no configuration that it could read: whoever asked knows, and the others are to.
    Unread {
        error: String,
    },
}

pub(super) type Reply<T> = oneshot::Sender<Result<T, Refused>>;

/// Gives orders: to whoever listens to operators.
#[derive(Clone)]
pub(super) struct Orderer {
    pub orders: mpsc::Sender<Order>,
    /// What the daemon was started with, and what a reload reads again.
    pub inputs: Inputs,
}

impl Orderer {
    pub(super) async fn reload(&self, limits: Limits) -> Result<Changed, Refused> {
        let inputs = self.inputs.clone();
        let loaded = match aside(move || Loaded::read(&inputs)).await {
            Ok(loaded) => loaded,
            Err(refused) => {
                // A daemon that is stopping has nobody to tell.
                let _ = self.orders.send(Order::Unread { error: refused.to_string() }).await;
                return Err(refused);
            }
        };
        self.give(|reply| Order::Reload { loaded, limits, reply }).await
    }

    pub(super) async fn plan(&self, request: PlanRequest) -> Result<PlanStatus, Refused> {
        let text = |PlanFile { name, text }: PlanFile| ConfigText { name, text };
        let foreign = |PlanForeign { file, config_id, included }: PlanForeign| ForeignText {
            file: text(file),
            config_id,
            included,
        };
        let texts = Texts {
            own: request.files.into_iter().map(text).collect(),
            keepalived: request.keepalived.into_iter().map(foreign).collect(),
        };
        let loaded = aside(move || Loaded::parse(&texts)).await?;
        self.give(|reply| Order::Plan { loaded, reply }).await
    }

    pub(super) async fn change(
        &self,
        service: String,
        server: String,
        change: Change,
    ) -> Result<Changed, Refused> {
        let (mut changed, receipt) =
            self.give(|reply| Order::Change { service, server, change, reply }).await?;
        if let Err(error) = receipt.wait().await {
            changed.warnings.push(format!("in force, but a restart would lose it: {error}"));
        }
        Ok(changed)
    }

    async fn give<T>(&self, order: impl FnOnce(Reply<T>) -> Order) -> Result<T, Refused> {
        let stopping = || Refused::Fault("the daemon is stopping".to_owned());
        let (reply, answer) = oneshot::channel();
        self.orders.send(order(reply)).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }
}

/// Reads files on a thread of its own.
async fn aside(read: impl FnOnce() -> Result<Loaded, String> + Send + 'static) -> Result<Loaded, Refused> {
    let read = spawn_blocking(read).await.map_err(|error| Refused::Fault(error.to_string()))?;
    read.map_err(Refused::Invalid)
}

/// What a reload may do.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Limits {
    /// Percent of all slots.
    pub max_moved: Option<f64>,
    /// Though it ends connections.
    pub force: bool,
}

/// A configuration as it stands in files, and what goes with it.
#[derive(Debug)]
pub(super) struct Loaded {
    pub config: Config,
    pub secret: Vec<u8>,
    pub warnings: Vec<String>,
}

impl Loaded {
    /// From the files that the daemon was started with. Blocks.
    pub(super) fn read(inputs: &Inputs) -> Result<Loaded, String> {
        Loaded::parse(&inputs.read().map_err(|error| error.to_string())?)
    }

    /// Blocks where secrets are in files.
    pub(super) fn parse(texts: &Texts) -> Result<Loaded, String> {
        let mut parsed = texts
            .parse()
            .map_err(|found| found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n\n"))?;
        parsed.read_secrets(file::secret)?;
        let secret = secret(&parsed.config.cluster.secret).map_err(|error| error.to_string())?;
        let warnings = parsed.warnings.iter().map(ToString::to_string).collect();
        Ok(Loaded { config: parsed.config, secret, warnings })
    }
}

pub(super) fn secret(secret: &Secret) -> Result<Vec<u8>, file::FileError> {
    match secret {
        Secret::Unset => Ok(Vec::new()),
        Secret::Inline(text) => Ok(text.clone().into_bytes()),
        Secret::File(path) => file::secret(path),
    }
}

/// The file that is in force, and what was changed beside it.
pub(super) struct Settings {
    /// As the file says.
    pub file: Config,
    pub secret: Vec<u8>,
    pub overlay: Overlay,
    pub keeper: Keeper,
}

impl Control {
    pub(super) async fn carry_out(&mut self, order: Order) {
        match order {
            Order::Plan { loaded, reply } => {
                // Nobody waits any more when a reply cannot be sent.
                let _ = reply.send(self.preview(&loaded));
            }
            Order::Reload { loaded, limits, reply } => {
                let done = self.reload(loaded, limits).await;
                if let Err(refused) = &done {
                    self.notices.tell(&Notice::ReloadRefused { detail: refused.to_string() });
                }
                let _ = reply.send(done);
            }
            Order::Unread { error } => {
                let first = error.lines().find(|line| !line.trim().is_empty()).unwrap_or(&error);
                let detail = format!("{first}; `steelyard check` tells all of it");
                self.notices.tell(&Notice::ReloadRefused { detail });
            }
            Order::Change { service, server, change, reply } => {
                let _ = reply.send(self.change(&service, &server, change));
            }
        }
    }

    fn preview(&self, loaded: &Loaded) -> Result<PlanStatus, Refused> {
        let mut overlay = self.settings.overlay.clone();
        overlay.prune(&loaded.config);
        Ok(self.tried(&loaded.config, &overlay, &loaded.secret)?.plan)
    }

    fn tried(&self, file: &Config, overlay: &Overlay, secret: &[u8]) -> Result<Tried, Refused> {
        let tried = self.state.tried(overlay.apply(file), secret);
        tried.map_err(|error| Refused::Conflict(error.to_string()))
    }

    async fn reload(&mut self, loaded: Loaded, limits: Limits) -> Result<Changed, Refused> {
        let Loaded { config: file, secret, mut warnings } = loaded;
        let mut overlay = self.settings.overlay.clone();
        warnings.extend(overlay.prune(&file));
        let tried = self.tried(&file, &overlay, &secret)?;
        allowed(&tried.plan, limits)?;
        let added = self.interfaces_to_add(&file).await?;

        warnings
            .extend(tried.plan.breaks.iter().chain(&tried.plan.ends).chain(&tried.plan.next_start).cloned());
        let plan = tried.plan.clone();
        let before = std::mem::replace(&mut self.settings.file, file);
        self.settings.secret = secret;
        self.adopt(tried, overlay);
        self.configure_vrrp();
        self.leave_interfaces(&before.datapath.interfaces);
        for interface in &added {
            if let Err(error) = self.attach(interface) {
                self.unattached.insert(interface.name.clone());
                warnings.push(error.to_string());
            }
        }
        self.settle();
        self.look_around(start::warnings(&self.net, &self.settings.file).await);
        for warning in &warnings {
            warn!("{warning}");
        }
        self.notices.configure(self.settings.file.notify.clone());
        let detail = format!("{:.1} % of the slots move", plan.percent_moved);
        self.notices.tell(&Notice::Reloaded { detail });
        Ok(Changed { done: "reloaded".to_owned(), plan, warnings })
    }

    fn change(&mut self, service: &str, server: &str, change: Change) -> Result<(Changed, Receipt), Refused> {
        let mut overlay = self.settings.overlay.clone();
        let done = said(service, server, &change);
        let before = self.settings.overlay.apply(&self.settings.file);
        overlay.change(&self.settings.file, service, server, change.clone()).map_err(
            |error| match error {
                ChangeError::Unknown { .. } => Refused::Unknown(error.to_string()),
                _ => Refused::Conflict(error.to_string()),
            },
        )?;
        let tried = self.tried(&self.settings.file, &overlay, &self.settings.secret)?;
        let plan = tried.plan.clone();
        let kept = self.adopt(tried, overlay);
        if let Some(notice) = notice(&before, service, server, &change) {
            self.notices.tell(&notice);
        }
        let warnings = match change {
            Change::Admin(Admin::Ready) => {
                self.state.down_though_ready(service, server).into_iter().collect()
            }
            _ => Vec::new(),
        };
        Ok((Changed { done, plan, warnings }, kept))
    }

    /// From here on the tried state is the state. Tells everybody who depends on the configuration.
    fn adopt(&mut self, tried: Tried, overlay: Overlay) -> Receipt {
        self.state = tried.state;
        self.apply(tried.steps);
        self.tell_tasks();
        let changed = overlay != self.settings.overlay;
        self.settings.overlay = overlay;
        let differences = self.settings.overlay.differences(&self.settings.file);
        if let Ok(mut situation) = self.situation.lock() {
            situation.changes = differences;
        }
        match changed {
            true => self.settings.keeper.keep(&self.settings.overlay),
            false => self.settings.keeper.nothing_new(),
        }
    }

    /// Configured interfaces that are not attached to, once it is sure that they can be.
    async fn interfaces_to_add(&self, file: &Config) -> Result<Vec<Interface>, Refused> {
        let known: BTreeSet<_> = self.settings.file.datapath.interfaces.iter().collect();
        let mut added = Vec::new();
        for name in file.datapath.interfaces.iter().filter(|name| !known.contains(name)) {
            let refused = |error: &dyn std::error::Error| Refused::Conflict(error.to_string());
            let interface = self.net.interface(name).await.map_err(|error| refused(&error))?;
            self.kernel.inspect(&target(&interface), self.mode).map_err(|error| refused(&error))?;
            added.push(interface);
        }
        Ok(added)
    }
}

/// Whether a plan stays within what was allowed.
fn allowed(plan: &PlanStatus, limits: Limits) -> Result<(), Refused> {
    if limits.force {
        return Ok(());
    }
    if !plan.breaks.is_empty() {
        let flows: u64 = plan.services.iter().map(|service| service.flows).sum();
        return Err(Refused::Conflict(format!(
            "{} ({flows} flows are recorded now): reload with --force to do it nevertheless",
            plan.breaks.join("; ")
        )));
    }
    match limits.max_moved {
        Some(max) if plan.percent_moved > max => Err(Refused::Conflict(format!(
            "{:.1} % of the slots would move, more than {max} %: see `steelyard plan`, or raise --max-moved",
            plan.percent_moved
        ))),
        Some(_) | None => Ok(()),
    }
}

/// What everybody is to know of a change of the operator's. None: things are as they were.
fn notice(before: &Config, service: &str, server: &str, change: &Change) -> Option<Notice> {
    let (by, added) = (By::Operator, if let Change::Add(added) = change { Some(added) } else { None });
    let known = before.services.iter().find(|known| known.name == service)?;
    let known = known.servers.iter().find(|known| known.name == server);
    let address = match (known, added) {
        (Some(known), _) => shown(known.address),
        (None, Some(added)) => added.address.clone(),
        (None, None) => return None,
    };
    let name = ServerName { service: Some(service.to_owned()), server: server.to_owned(), address };
    match (change, known) {
        (&Change::Admin(to), Some(known)) if known.admin != to => {
            Some(Notice::Administered { server: name, from: known.admin, to, by })
        }
        (&Change::Weight(to), Some(known)) if known.weight != to => {
            Some(Notice::Weighted { server: name, from: known.weight, to, by })
        }
        (Change::Add(_), _) => Some(Notice::Added { server: name, by }),
        (Change::Remove, _) => Some(Notice::Removed { server: name, by }),
        (Change::Admin(_) | Change::Weight(_), _) => None,
    }
}

fn said(service: &str, server: &str, change: &Change) -> String {
    match change {
        Change::Admin(admin) => format!("{service}/{server} is set to {}", admin.name()),
        Change::Weight(weight) => format!("{service}/{server} has weight {weight} now"),
        Change::Add(added) => format!("{service}/{server} was added at {}", added.address),
        Change::Remove => format!("{service}/{server} was removed; its connections go on"),
    }
}

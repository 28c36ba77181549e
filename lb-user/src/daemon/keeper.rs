//! Keeps what operators changed at runtime in a file, so that it survives a restart. A disk that takes nothing delays
//! nobody: the change is in force, and the keeper tries again.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};
use tracing::warn;

use super::answers::Situation;
use crate::{io::file, pure::overlay::Overlay};

const RETRY: Duration = Duration::from_secs(30);
/// Of whoever waits for a change to be kept.
const PATIENCE: Duration = Duration::from_secs(20);
const NAME: &str = "changes.json";
/// Subject of the warning in the status, until the next change is kept.
pub(super) const ABOUT: &str = "changes at runtime";

pub(super) fn path(state: &Path) -> PathBuf {
    state.join(NAME)
}

/// What an earlier daemon kept, and what is to be said of it: one that cannot be read is put aside.
pub(super) fn load(path: &Path) -> (Overlay, Option<String>) {
    let fault = match file::kept(path) {
        Ok(None) => return (Overlay::default(), None),
        Ok(Some(text)) => match serde_json::from_str(&text) {
            Ok(overlay) => return (overlay, None),
            Err(error) => format!("{} is damaged ({error})", path.display()),
        },
        Err(error) => error.to_string(),
    };
    let aside = file::put_aside(path).map_or_else(|error| error.to_string(), shown);
    let told = format!("what was changed at runtime is not in force: {fault}; it is kept as {aside}");
    (Overlay::default(), Some(told))
}

fn shown(path: PathBuf) -> String {
    path.display().to_string()
}

/// Hands overlays to the task that keeps them; the latest takes the place of those that wait.
pub(super) struct Keeper {
    wanted: watch::Sender<Numbered>,
    kept: watch::Receiver<Kept>,
}

#[derive(Debug, Clone, Default)]
struct Numbered {
    number: u64,
    overlay: Overlay,
}

/// What became of the overlays up to a number.
#[derive(Debug, Clone, Default)]
struct Kept {
    number: u64,
    failure: Option<String>,
}

/// Knows when an overlay is kept.
pub(super) struct Receipt {
    number: u64,
    kept: watch::Receiver<Kept>,
}

impl Keeper {
    /// Starts the task, which ends with the keeper.
    pub(super) fn start(path: PathBuf, situation: Arc<Mutex<Situation>>) -> (Keeper, JoinHandle<()>) {
        let (wanted, watched) = watch::channel(Numbered::default());
        let (done, kept) = watch::channel(Kept::default());
        let task = tokio::spawn(keep(path, watched, done, situation));
        (Keeper { wanted, kept }, task)
    }

    pub(super) fn keep(&self, overlay: &Overlay) -> Receipt {
        let number = self.wanted.borrow().number + 1;
        self.wanted.send_replace(Numbered { number, overlay: overlay.clone() });
        Receipt { number, kept: self.kept.clone() }
    }

    /// For a change that is kept already.
    pub(super) fn nothing_new(&self) -> Receipt {
        Receipt { number: 0, kept: self.kept.clone() }
    }
}

impl Receipt {
    /// Whether it is kept; an error says why it is not yet.
    pub(super) async fn wait(mut self) -> Result<(), String> {
        let written = self.kept.wait_for(|kept| kept.number >= self.number);
        match timeout(PATIENCE, written).await {
            Ok(Ok(kept)) => kept.failure.clone().map_or(Ok(()), Err),
            Ok(Err(_)) => Err("the daemon is stopping".to_owned()),
            Err(_) => Err(format!("the disk has not taken it within {} s", PATIENCE.as_secs())),
        }
    }
}

/// Writes every change until the sender is gone; what could not be written, again and again.
async fn keep(
    path: PathBuf,
    mut wanted: watch::Receiver<Numbered>,
    done: watch::Sender<Kept>,
    situation: Arc<Mutex<Situation>>,
) {
    loop {
        let failed = done.borrow().failure.is_some();
        let news = if failed { timeout(RETRY, wanted.changed()).await } else { Ok(wanted.changed().await) };
        if matches!(news, Ok(Err(_))) {
            return;
        }
        let Numbered { number, overlay } = wanted.borrow_and_update().clone();
        let failure = write(&path, &overlay).await.err();
        let warning =
            failure.as_ref().map(|error| format!("what was changed at runtime is not kept: {error}"));
        if let Ok(mut situation) = situation.lock()
            && situation.warn_of(ABOUT, warning.clone())
            && let Some(warning) = warning
        {
            warn!("{warning}");
        }
        done.send_replace(Kept { number, failure });
    }
}

async fn write(path: &Path, overlay: &Overlay) -> Result<(), String> {
    let text = serde_json::to_string_pretty(overlay).map_err(|error| error.to_string())?;
    let path = path.to_owned();
    let written = spawn_blocking(move || file::keep(&path, text.as_bytes()));
    written.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

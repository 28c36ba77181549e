//! Keeps what operators changed at runtime in a file, so that it survives a restart. A disk that takes nothing delays
//! nobody: the change is in force, and the keeper tries again.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{sync::mpsc, task::spawn_blocking, time::timeout};
use tracing::warn;

use super::{answers::Situation, orders::Save};
use crate::{io::file, pure::overlay::Overlay};

/// Changes that wait to be kept; only the last of them is written.
pub(super) const SAVES: usize = 64;
const RETRY: Duration = Duration::from_secs(30);
const NAME: &str = "changes.json";
/// Subject of the warning in the status.
const ABOUT: &str = "changes at runtime";

pub(super) fn path(state: &Path) -> PathBuf {
    state.join(NAME)
}

/// What an earlier daemon kept. One that cannot be read is put aside, and said to be.
pub(super) fn load(path: &Path) -> Overlay {
    let text = match file::kept(path) {
        Ok(None) => return Overlay::default(),
        Ok(Some(text)) => text,
        Err(error) => {
            warn!("what was changed at runtime is not in force: {error}");
            return Overlay::default();
        }
    };
    serde_json::from_str(&text).unwrap_or_else(|error| {
        let aside = file::put_aside(path);
        let place = aside.map_or_else(|error| error.to_string(), |aside| aside.display().to_string());
        warn!(
            "{} is damaged ({error}): what was changed at runtime is not in force; it is kept as {place}",
            path.display()
        );
        Overlay::default()
    })
}

/// Writes every change until the senders are gone.
pub(super) async fn keep(path: PathBuf, mut saves: mpsc::Receiver<Save>, situation: Arc<Mutex<Situation>>) {
    let mut batch = Vec::with_capacity(SAVES);
    let mut unsaved: Option<Overlay> = None;
    loop {
        let taken = match unsaved {
            None => saves.recv_many(&mut batch, SAVES).await,
            // Nothing new: once more what could not be written.
            Some(_) => timeout(RETRY, saves.recv_many(&mut batch, SAVES)).await.unwrap_or(usize::MAX),
        };
        if taken == 0 {
            return;
        }
        let Some(overlay) = batch.last().map(|save| save.overlay.clone()).or(unsaved.take()) else {
            continue;
        };
        let written = write(&path, &overlay).await;
        if let Ok(mut situation) = situation.lock() {
            match &written {
                Ok(()) => drop(situation.warnings.remove(ABOUT)),
                Err(error) => {
                    let text = format!("what was changed at runtime is not kept: {error}");
                    warn!("{text}");
                    situation.warnings.insert(ABOUT.to_owned(), text);
                }
            }
        }
        unsaved = written.is_err().then_some(overlay);
        for reply in batch.drain(..).filter_map(|save| save.reply) {
            // Whoever asked may be gone.
            let _ = reply.send(written.clone());
        }
    }
}

async fn write(path: &Path, overlay: &Overlay) -> Result<(), String> {
    let text = serde_json::to_string_pretty(overlay).map_err(|error| error.to_string())?;
    let path = path.to_owned();
    let written = spawn_blocking(move || file::keep(&path, text.as_bytes()));
    written.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

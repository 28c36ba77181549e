//! The stream of events: one JSON object a line, for as long as the reader stays.
//!
//! Must not know who makes events: the daemon brings a subscription.

use std::{collections::VecDeque, convert::Infallible, sync::Arc};

use axum::{
    body::Body,
    http::header::{CONTENT_TYPE, HeaderName},
};
use futures_util::stream;
use hyper::body::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, broadcast};

use crate::pure::notice::{Event, Notice, Replay};

/// What one reader gets.
pub struct Subscription {
    /// Oldest first.
    pub kept: VecDeque<Arc<Event>>,
    /// Begins where `kept` ends.
    pub live: broadcast::Receiver<Arc<Event>>,
    pub node: Arc<str>,
    /// Among the readers there may be at once.
    pub place: OwnedSemaphorePermit,
}

#[derive(Debug, Deserialize)]
pub(super) struct EventsQuery {
    recent: Option<usize>,
    since: Option<String>,
    #[serde(default = "yes")]
    pub follow: bool,
}

fn yes() -> bool {
    true
}

impl EventsQuery {
    pub(super) const EXPECTED: &'static str =
        "expected ?recent=NUMBER or ?since=TIME, &follow=false to end with what is kept";

    /// Without a wish, a follower gets what is new, and who does not follow all that is kept.
    pub(super) fn replay(&self) -> Result<Replay, String> {
        match (&self.since, self.recent) {
            (Some(_), Some(_)) => Err("give one of since and recent".to_owned()),
            (None, Some(count)) => Ok(Replay::Last(count)),
            (None, None) if self.follow => Ok(Replay::Last(0)),
            (None, None) => Ok(Replay::Last(usize::MAX)),
            (Some(since), None) => {
                let time: Result<Timestamp, _> = since.parse();
                let time =
                    time.map_err(|_| "since: expected the time of an event, as in 2026-11-20T12:00:00Z");
                Ok(Replay::Since(time?))
            }
        }
    }
}

/// A line each; a reader that is too slow gets a line that says how many it missed.
pub(super) fn body(subscription: Subscription, follow: bool) -> ([(HeaderName, &'static str); 1], Body) {
    let lines = stream::unfold(subscription, move |mut subscription| async move {
        let event = subscription.next(follow).await?;
        let mut line = serde_json::to_vec(&event.status()).ok()?;
        line.push(b'\n');
        Some((Ok::<_, Infallible>(Bytes::from(line)), subscription))
    });
    ([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines))
}

impl Subscription {
    /// None: there is no more. Cancel safe.
    async fn next(&mut self, follow: bool) -> Option<Arc<Event>> {
        if let Some(event) = self.kept.pop_front() {
            return Some(event);
        }
        if !follow {
            return None;
        }
        match self.live.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(count)) => {
                Some(Arc::new(Notice::Lagged { count }.event(Timestamp::now(), &self.node)))
            }
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

//! One sink's task: takes events from its queue, and delivers what its outbox lets go.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::{
    select,
    sync::{mpsc, watch},
    task::spawn_blocking,
    time::sleep_until,
};
use tracing::{info, warn};

use super::super::answers::Situation;
use crate::{
    io::notify::{command, mail, webhook::Webhook},
    pure::{
        config::model::Notify,
        notice::{Delivery, Event, Notice, Outbox, letter},
    },
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Command,
    Mail,
    Webhook,
}

pub(super) struct Sink {
    kind: Kind,
    queue: mpsc::Receiver<Arc<Event>>,
    /// Counted by the sender, when the queue was full.
    lost: Arc<AtomicU64>,
    settings: watch::Receiver<Notify>,
    situation: Arc<Mutex<Situation>>,
    node: Arc<str>,
    outbox: Outbox,
    /// Made when it is first used.
    webhook: Option<Webhook>,
    is_failing: bool,
    /// Not delivered since it last worked without a loss.
    undelivered: u64,
    /// Until when the status tells of a loss that is over.
    shown_until: Option<Instant>,
}

impl Kind {
    pub(super) const ALL: [Kind; 3] = [Kind::Command, Kind::Mail, Kind::Webhook];

    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Command => "notify command",
            Kind::Mail => "notify mail",
            Kind::Webhook => "notify webhook",
        }
    }

    pub(super) fn is_on(self, notify: &Notify) -> bool {
        match self {
            Kind::Command => !notify.command.is_empty(),
            Kind::Mail => notify.mail.is_some(),
            Kind::Webhook => notify.webhook.is_some(),
        }
    }

    fn outbox(self, per_minute: u32) -> Outbox {
        match self {
            Kind::Command | Kind::Webhook => Outbox::single(per_minute),
            Kind::Mail => Outbox::gathering(per_minute, MAIL_EVENTS, MAIL_GATHER),
        }
    }
}

impl Sink {
    pub(super) fn new(
        kind: Kind,
        queue: mpsc::Receiver<Arc<Event>>,
        lost: Arc<AtomicU64>,
        settings: watch::Receiver<Notify>,
        situation: Arc<Mutex<Situation>>,
        node: &str,
    ) -> Self {
        let outbox = kind.outbox(settings.borrow().per_minute);
        Sink {
            kind,
            queue,
            lost,
            settings,
            situation,
            node: node.into(),
            outbox,
            webhook: None,
            is_failing: false,
            undelivered: 0,
            shown_until: None,
        }
    }

    /// Until the senders are gone and what they sent is delivered.
    pub(super) async fn run(mut self) {
        loop {
            self.count_lost();
            while let Some(delivery) = self.outbox.take(Instant::now()) {
                self.deliver(delivery).await;
            }
            // Cancel safe: an event that was not received stays in the queue.
            select! {
                event = self.queue.recv() => match event {
                    Some(event) => self.outbox.put(Instant::now(), event),
                    None => break,
                },
                () = at(self.outbox.deadline()) => {}
                () = at(self.shown_until) => self.hide_loss(),
                Ok(()) = self.settings.changed() => self.adjust(),
            }
        }
        while let Some(delivery) = self.outbox.rest(Instant::now()) {
            self.deliver(delivery).await;
            // What failed would be the rest again.
            if self.is_failing {
                return;
            }
        }
    }

    /// What is waiting goes by the new settings.
    fn adjust(&mut self) {
        let (is_on, per_minute) = {
            let settings = self.settings.borrow_and_update();
            (self.kind.is_on(&settings), settings.per_minute)
        };
        if is_on {
            self.outbox.set_limit(per_minute);
        } else {
            self.outbox = self.kind.outbox(per_minute);
            (self.is_failing, self.undelivered) = (false, 0);
            self.hide_loss();
        }
    }

    fn count_lost(&mut self) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        self.undelivered += lost;
        self.outbox.miss(Instant::now(), lost);
    }

    async fn deliver(&mut self, delivery: Delivery) {
        let Delivery { mut events, more } = delivery;
        let count = events.len() as u64;
        if more > 0 {
            let summary = Notice::Suppressed { count: more };
            events.push(Arc::new(summary.event(Timestamp::now(), &self.node)));
        }
        let settings = self.settings.borrow().clone();
        let sent = self.send(&settings, &events).await;
        self.count_lost();
        match sent {
            Ok(complaint) => self.worked(complaint),
            Err(error) => {
                self.undelivered += count;
                self.outbox.miss(Instant::now(), count + more);
                self.failed(&error);
            }
        }
    }

    /// Some: it worked, but there is something to look at.
    async fn send(&mut self, notify: &Notify, events: &[Arc<Event>]) -> Result<Option<String>, String> {
        let text = |error: &dyn std::error::Error| error.to_string();
        match (self.kind, &notify.mail, &notify.webhook) {
            (Kind::Command, _, _) => {
                for event in events {
                    let run = command::run(&notify.command, event, notify.timeout).await;
                    run.map_err(|error| text(&error))?;
                }
                Ok(None)
            }
            (Kind::Mail, Some(mail), _) => {
                let sent = mail::send(mail, &letter(events), notify.timeout).await;
                let refused = sent.map_err(|error| text(&error))?;
                Ok((!refused.is_empty()).then(|| format!("mail was refused for {}", refused.join(", "))))
            }
            (Kind::Webhook, _, Some(url)) => {
                for event in events {
                    let posted = self.webhook().await?.post(url, &event.status(), notify.timeout).await;
                    posted.map_err(|error| text(&error))?;
                }
                Ok(None)
            }
            // Taken out of the configuration a moment ago.
            (Kind::Mail, None, _) | (Kind::Webhook, _, None) => Ok(None),
        }
    }

    async fn webhook(&mut self) -> Result<&Webhook, String> {
        if self.webhook.is_none() {
            // Reads the system's certificates.
            let made = spawn_blocking(Webhook::new).await.map_err(|error| error.to_string())?;
            self.webhook = Some(made.map_err(|error| error.to_string())?);
        }
        self.webhook.as_ref().ok_or_else(|| "no webhook".to_owned())
    }

    fn failed(&mut self, error: &str) {
        self.shown_until = None;
        let name = self.kind.name();
        self.show(Some(format!("{name}: {error}; events not delivered so far: {}", self.undelivered)));
        if !std::mem::replace(&mut self.is_failing, true) {
            warn!("{name}: {error}; it is tried again, and events are summed up until it works");
        }
    }

    fn worked(&mut self, complaint: Option<String>) {
        let name = self.kind.name();
        let undelivered = std::mem::take(&mut self.undelivered);
        let lost = format!("events not delivered one by one: {undelivered}, see `steelyard events`");
        let recovered = std::mem::take(&mut self.is_failing);
        if recovered {
            info!("{name}: works again; {lost}");
        } else if undelivered > 0 {
            warn!("{name}: slower than the events; {lost}");
        }
        let Some(trouble) = complaint.clone().or((undelivered > 0).then_some(lost)) else {
            if recovered {
                self.hide_loss();
            }
            return;
        };
        let text = format!("{name}: {trouble}");
        if self.show(Some(text.clone())) && complaint.is_some() {
            warn!("{text}");
        }
        self.shown_until = Some(Instant::now() + LOSS_SHOWN);
    }

    fn hide_loss(&mut self) {
        self.shown_until = None;
        self.show(None);
    }

    /// True: the status said something else before.
    fn show(&self, warning: Option<String>) -> bool {
        self.situation.lock().is_ok_and(|mut situation| situation.warn_of(self.kind.name(), warning))
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// Events in one mail; more are summed up.
const MAIL_EVENTS: usize = 100;
/// What follows so shortly on an event is in the same mail.
const MAIL_GATHER: Duration = Duration::from_secs(2);
/// How long the status tells of a loss that is over.
const LOSS_SHOWN: Duration = Duration::from_secs(600);

//! The order of what one input leads to: every advert before anything that takes time, what
//! other nodes hear of it behind it, and what is told last.

use super::{Action, Happening};

#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) open: Vec<Action>,
    pub(super) send: Vec<Action>,
    pub(super) install: Vec<Action>,
    pub(super) frame: Vec<Action>,
    pub(super) close: Vec<Action>,
    pub(super) tell: Vec<Action>,
    pub(super) told: Vec<Happening>,
}

impl Outbox {
    pub(super) fn flush(&mut self, actions: &mut Vec<Action>) {
        let Outbox { open, send, install, frame, close, tell, told } = self;
        for part in [open, send, install, frame, close, tell] {
            actions.append(part);
        }
        actions.extend(told.drain(..).map(Action::Happened));
    }
}

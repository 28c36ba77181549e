//! Ways to tell somebody of events: one delivery to one command, FIFO, mail server or web hook.
//!
//! Must not know which events there are, how many may go out, or what follows from a failure: that is `pure::notice` and
//! the daemon.

pub mod command;
pub mod fifo;
pub mod mail;
pub mod webhook;

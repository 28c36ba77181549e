//! Puts the calling thread before others, and keeps the daemon's memory from being paged out.

use std::io;

use nix::sys::{
    mman::{MlockAllFlags, mlockall},
    prctl::set_timerslack,
    resource::{Resource, getrlimit, setrlimit},
};

/// Each of them alone helps; the first that is refused is returned, and the others are done.
pub fn enter() -> Result<(), RealtimeError> {
    // A thread of real time that runs for so long without a pause has gone wild, and would take its CPU from
    // everybody: the kernel ends the daemon. Everything before that is bounded.
    let guarded = getrlimit(Resource::RLIMIT_RTTIME)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_RTTIME, RUN_MAX_US.min(hard), hard));
    let scheduled = guarded.map_err(io::Error::from).and_then(|()| schedule());
    // Timers of other threads may be late by 50 us, to be handled together.
    let _ = set_timerslack(1);
    // Pages are locked once they are used: what is reserved and never touched costs nothing.
    let locked = mlockall(
        MlockAllFlags::MCL_CURRENT
            | MlockAllFlags::MCL_FUTURE
            | MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT),
    );
    scheduled.map_err(RealtimeError::Schedule)?;
    locked.map_err(|errno| RealtimeError::Lock(errno.into()))
}

#[derive(Debug, thiserror::Error)]
pub enum RealtimeError {
    #[error(
        "the thread of the virtual routers runs at normal priority, a busy machine can delay adverts: {0}; \
         give steelyard CAP_SYS_NICE and a limit of real-time priority"
    )]
    Schedule(#[source] io::Error),
    #[error("memory is not locked, paging can delay adverts: {0}; give steelyard CAP_IPC_LOCK")]
    Lock(#[source] io::Error),
}

#[expect(unsafe_code, reason = "nix has no sched_setscheduler")]
fn schedule() -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: the pointer is to a value that lives during the call; 0 is the calling thread.
    let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &parameter) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// As Keepalived's users set it; the kernel's own threads for interrupts have 50, too, and take turns with it.
const PRIORITY: libc::c_int = 50;
const RUN_MAX_US: u64 = 2_000_000;

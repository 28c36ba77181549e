//! Keeps whatever a program starts together, and ends all of it with the program.
//!
//! ```text
//! daemon ◄── leash (a pair of sockets) ──► keeper ── program ── its children, and theirs
//! ```
//!
//! The keeper is a fork of the daemon between daemon and program. It is the subreaper of all that the program leaves
//! behind, so neither a double fork nor setsid(2) leads out of its reach. When the program has ended or the daemon's
//! end of the leash is gone (the daemon let go of it, or died), it kills what is left, says how the program ended, and
//! goes. A namespace of processes would do without it, but hide the machine's other processes from the program:
//! `killall -0` is what many checks consist of. Killing by cgroup would need a cgroup of the daemon's own.

use std::{
    ffi::c_int,
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    process::Command,
};

use nix::{
    sys::{
        prctl,
        signal::{SigSet, Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Gid, Pid, Uid, fork, setgroups, setresgid, setresuid, setsid, write},
};

/// Who a program runs as.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) user: Uid,
    pub(super) group: Gid,
    pub(super) groups: Vec<Gid>,
}

/// Puts a keeper between this process and the command; the end that is returned hears the wait status of the
/// command, four bytes, once nothing of it is left.
#[expect(unsafe_code, reason = "a fork between fork and exec")]
pub(super) fn tie(command: &mut Command, identity: Option<Identity>) -> io::Result<UnixStream> {
    use std::os::unix::process::CommandExt;

    let (daemon, keeper) = UnixStream::pair()?;
    let keeper = OwnedFd::from(keeper);
    // SAFETY: between fork and exec of a process with threads, only async-signal-safe functions may be called. The
    // closure makes system calls and neither allocates nor locks; the errors that it returns hold a number.
    unsafe { command.pre_exec(move || split(&keeper, identity.as_ref())) };
    Ok(daemon)
}

/// Returns in the process that becomes the program.
#[expect(unsafe_code, reason = "fork")]
fn split(leash: &OwnedFd, identity: Option<&Identity>) -> io::Result<()> {
    prctl::set_child_subreaper(true)?;
    // SAFETY: this process is a fork, and has one thread; both halves go on as async-signal-safe as before.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => keep(leash, child),
        ForkResult::Child => become_program(identity),
    }
}

fn become_program(identity: Option<&Identity>) -> io::Result<()> {
    setsid()?;
    if let Some(Identity { user, group, groups }) = identity {
        // In this order: without the user, the rest is not allowed.
        setgroups(groups)?;
        setresgid(*group, *group, *group)?;
        setresuid(*user, *user, *user)?;
    }
    // On exec, since the standard library still has one to tell of an error.
    close_range(STREAMS, RawFd::MAX, libc::CLOSE_RANGE_CLOEXEC);
    Ok(())
}

/// The life of a keeper. It holds on to nothing of the daemon's: an open file would keep its lock.
#[expect(unsafe_code, reason = "_exit")]
fn keep(leash: &OwnedFd, program: Pid) -> ! {
    // Both may fail without harm: a name for those who look, and nobody to stop the keeper before its time.
    let _ = prctl::set_name(c"steelyard-keep");
    let _ = SigSet::all().thread_block();
    let end = leash.as_raw_fd();
    close_range(0, end - 1, 0);
    close_range(end + 1, RawFd::MAX, 0);

    wait_for_either(end, program);
    // The group goes at once, before it can fork; until it was waited for, nobody else gets the number.
    let _ = kill(Pid::from_raw(-program.as_raw()), Signal::SIGKILL);
    let _ = kill(program, Signal::SIGKILL);
    let status = wait_status(program);
    end_the_rest();
    if let Some(status) = status {
        let _ = write(leash, &status.to_ne_bytes());
    }
    // SAFETY: it takes no pointer, and runs nothing of what the daemon registered for its own exit.
    unsafe { libc::_exit(0) }
}

/// Until the program has ended, or the daemon let go.
#[expect(unsafe_code, reason = "pidfd_open and poll")]
fn wait_for_either(leash: RawFd, program: Pid) {
    // SAFETY: it takes two numbers, and the program is a child that was not waited for.
    let ended = unsafe { libc::syscall(libc::SYS_pidfd_open, program.as_raw(), 0) };
    let Ok(ended @ 0..) = RawFd::try_from(ended) else {
        return;
    };
    let watch = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut watched = [watch(leash), watch(ended)];
    loop {
        // SAFETY: the array is alive and its length is given.
        let ready = unsafe { libc::poll(watched.as_mut_ptr(), watched.len() as libc::nfds_t, -1) };
        if ready >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
}

/// As wait(2) has it; nix would lose signals that it does not know.
#[expect(unsafe_code, reason = "waitpid with the status as it is")]
fn wait_status(program: Pid) -> Option<c_int> {
    let mut status = 0;
    // SAFETY: the status is a local that outlives the call.
    let waited = unsafe { libc::waitpid(program.as_raw(), &raw mut status, 0) };
    (waited == program.as_raw()).then_some(status)
}

/// Children of what was killed become the keeper's own, and go in the next pass.
fn end_the_rest() {
    for _ in 0..PASSES_MAX {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => break,
                Ok(_) => {}
                // Nobody is left.
                Err(_) => return,
            }
        }
        kill_children();
        pause();
    }
}

fn kill_children() {
    let mut list = [0; 4_096];
    let read = File::open("/proc/thread-self/children").and_then(|mut file| file.read(&mut list));
    // Each number is followed by a blank; one that is cut off waits for the next pass.
    for word in list[..read.unwrap_or(0)].split_inclusive(|byte| *byte == b' ') {
        let number = word.strip_suffix(b" ").and_then(|digits| str::from_utf8(digits).ok());
        if let Some(child) = number.and_then(|digits| digits.parse::<i32>().ok()).filter(|child| *child > 1) {
            // Together with its group, where it leads one.
            let _ = kill(Pid::from_raw(-child), Signal::SIGKILL);
            let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
        }
    }
}

/// For those just killed to die.
#[expect(unsafe_code, reason = "poll as a short sleep")]
fn pause() {
    // SAFETY: no deprogramor is passed.
    unsafe { libc::poll(std::ptr::null_mut(), 0, 1) };
}

#[expect(unsafe_code, reason = "close_range has no safe wrapper")]
fn close_range(first: RawFd, last: RawFd, flags: u32) {
    if first > last {
        return;
    }
    // SAFETY: it takes numbers. The deprogramors belong to this fork, which uses none of them again: the program is
    // about to exec, and a keeper never returns to the code that owns them.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
}

/// The first deprogramor that is no standard stream.
const STREAMS: RawFd = 3;

/// Of a millisecond at least: who forks faster than that for ten seconds is left to the machine's limits.
const PASSES_MAX: u32 = 10_000;

//! Which processes there are: a look at /proc, and the kernel's announcements where they may be heard.
//!
//! Announcements (the connector's process events) come in the first network namespace and to CAP_NET_ADMIN only; they
//! are a hint to look, and whoever cannot hear them looks more often.

use std::{ffi::OsString, fs, io, os::unix::ffi::OsStringExt, time::Duration};

use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_CONNECTOR};
use tokio::time::timeout;

use crate::pure::vrrp::process::{self, Identity, Sign};

/// Why announcements cannot be heard.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("cannot ask the kernel to announce processes: {0}")]
    Ask(io::Error),
    #[error("the kernel does not announce processes here: another namespace, or CAP_NET_ADMIN is missing")]
    Silent,
    #[error("cannot hear of processes: {0}")]
    Hear(io::Error),
}

/// What was heard.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    Sign(Sign),
    /// More was announced than fits: everything may have changed.
    Overrun,
    Nothing,
}

pub struct Listener {
    socket: TokioSocket,
    buffer: Vec<u8>,
}

impl Listener {
    pub async fn open() -> Result<Listener, ListenError> {
        let ask = || {
            let mut socket = TokioSocket::new(NETLINK_CONNECTOR)?;
            socket.socket_mut().bind(&SocketAddr::new(0, GROUP))?;
            socket.socket_mut().send_to(&process::subscription(), &SocketAddr::new(0, 0), 0)?;
            Ok(socket)
        };
        let socket = ask().map_err(ListenError::Ask)?;
        let mut listener = Listener { socket, buffer: Vec::with_capacity(DATAGRAM_MAX) };
        match timeout(ANSWER, listener.answered()).await {
            Ok(answered) => answered.map(|()| listener),
            Err(_) => Err(ListenError::Silent),
        }
    }

    /// Others may listen already: what they hear comes before the answer.
    async fn answered(&mut self) -> Result<(), ListenError> {
        loop {
            match self.hear().await? {
                Heard::Sign(Sign::Answer { errno: 0 }) => return Ok(()),
                Heard::Sign(Sign::Answer { .. }) => return Err(ListenError::Silent),
                Heard::Sign(_) | Heard::Overrun | Heard::Nothing => {}
            }
        }
    }

    /// Waits for the next announcement. Cancel safe: nothing is read unless it is returned.
    pub async fn hear(&mut self) -> Result<Heard, ListenError> {
        self.buffer.clear();
        match self.socket.recv_from(&mut self.buffer).await {
            // Nobody but the kernel is believed.
            Ok(sender) if sender.port_number() == 0 => {
                Ok(process::sign(&self.buffer).map_or(Heard::Nothing, Heard::Sign))
            }
            Ok(_) => Ok(Heard::Nothing),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(Heard::Overrun),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Heard::Nothing),
            Err(error) => Err(ListenError::Hear(error)),
        }
    }
}

/// None: it is gone, or dead and not yet waited for.
pub fn look(process: u32) -> Option<Identity> {
    let stat = fs::read(format!("/proc/{process}/stat")).ok()?;
    // "7 (name, which may hold anything) S ..."
    let (begin, end) = (stat.iter().position(|b| *b == b'(')?, stat.iter().rposition(|b| *b == b')')?);
    let comm = OsString::from_vec(stat.get(begin + 1..end)?.to_vec());
    if matches!(stat.get(end + 2)?, b'Z' | b'X') {
        return None;
    }
    let program = fs::read_link(format!("/proc/{process}/exe")).ok();
    // One whose file was replaced is still that program.
    let program = program.map(|path| match path.to_str().and_then(|path| path.strip_suffix(" (deleted)")) {
        Some(before) => before.into(),
        None => path,
    });
    Some(Identity { comm, program })
}

/// Every process. Blocks for as long as the kernel takes to list them: some microseconds each.
pub fn all() -> io::Result<Vec<(u32, Identity)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let process = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(process) = process
            && let Some(identity) = look(process)
        {
            found.push((process, identity));
        }
    }
    Ok(found)
}

/// CN_IDX_PROC, as a bit mask of groups.
const GROUP: u32 = 1;
const ANSWER: Duration = Duration::from_secs(1);
/// An announcement has 76 bytes.
const DATAGRAM_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn cat() -> Child {
        Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
    }

    #[test]
    fn a_process_is_seen_until_it_ends() {
        let mut child = cat();
        let id = child.id();
        let seen = all().unwrap().into_iter().find(|(process, _)| *process == id).unwrap().1;
        assert_eq!(seen.comm, "cat");
        assert!(seen.program.is_some_and(|program| program.ends_with("cat")));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(look(id), None);
    }

    /// In a namespace where the kernel announces nothing, there is nothing to test.
    #[tokio::test]
    async fn the_kernel_announces_what_begins_and_ends() {
        let mut listener = match Listener::open().await {
            Ok(listener) => listener,
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "{error}");
                return eprintln!("SKIPPED: {error}");
            }
        };
        let mut child = cat();
        let id = child.id();
        let heard = async |listener: &mut Listener, wanted: Sign| {
            let heard = async { while listener.hear().await.unwrap() != Heard::Sign(wanted) {} };
            timeout(Duration::from_secs(20), heard).await.expect("it is announced");
        };
        heard(&mut listener, Sign::Changed { process: id }).await;
        child.kill().unwrap();
        heard(&mut listener, Sign::Ended { process: id }).await;
        child.wait().unwrap();
    }
}

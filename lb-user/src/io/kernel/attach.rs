//! The XDP link of each interface: attached, replaced in place, pinned, taken back.

use std::{fs, io, path::PathBuf};

use aya::programs::{
    ProgramError, Xdp, XdpMode as AyaMode,
    links::{FdLink, LinkError, PinnedLink},
    xdp::XdpLink,
};

use super::{errno, load::chain, pins::Pins};
use crate::pure::config::model::XdpMode;

/// An interface as the caller found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub index: u32,
    pub name: String,
    /// Program id and mode of the XDP program that is attached now.
    pub attached: Option<(u32, Mode)>,
}

/// How the kernel runs the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Native,
    Generic,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Mode::Native => "native",
            Mode::Generic => "generic",
        }
    }
}

/// What attaching did.
#[derive(Debug, PartialEq, Eq)]
pub struct Attached {
    pub mode: Mode,
    /// The program of an earlier daemon was replaced without a gap.
    pub replaced: bool,
    /// Why native mode was refused, when `auto` fell back.
    pub fallback: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error(
        "interface {name} already runs xdp program {program} of someone else: \
         remove it (`ip link set dev {name} xdp off`, or `bpftool link detach` when a link holds it; \
         `steelyard detach` when it was steelyard under another name or pin), or take {name} out of [datapath] interfaces"
    )]
    Foreign { name: String, program: u32 },
    #[error(
        "interface {name} runs in {found} mode, not {wanted}: \
         run `steelyard detach` and start again, or set [datapath] mode = \"{found}\""
    )]
    OtherMode { name: String, found: &'static str, wanted: &'static str },
    #[error("cannot attach to interface {name} in {mode} mode: {cause}; {remedy}")]
    Attach { name: String, mode: &'static str, cause: String, remedy: &'static str },
    #[error("cannot pin the xdp link of interface {name}: {cause}")]
    Pin { name: String, cause: String },
}

/// What attaching would find.
enum Found {
    Nothing,
    /// The program an earlier daemon left, and how it runs.
    Ours(PinnedLink, Mode),
}

/// Whether `target` can be attached to, as far as it can be told without trying.
pub(super) fn inspect(pins: &Pins, target: &Target, mode: XdpMode) -> Result<(), AttachError> {
    find(pins, target, mode).map(drop)
}

/// Attaches `program` to `target`, or puts it in the place of the one an earlier daemon left there.
pub(super) fn attach(
    program: &mut Xdp,
    pins: &Pins,
    target: &Target,
    mode: XdpMode,
) -> Result<Attached, AttachError> {
    match find(pins, target, mode)? {
        Found::Ours(link, mode) => {
            replace(program, target, link)?;
            Ok(Attached { mode, replaced: true, fallback: None })
        }
        Found::Nothing => first(program, pins.links().join(&target.name), target, mode),
    }
}

fn find(pins: &Pins, target: &Target, mode: XdpMode) -> Result<Found, AttachError> {
    match (ours(&pins.links().join(&target.name), target)?, target.attached) {
        (Some(link), Some((_, found))) => match other_mode(mode, found) {
            None => Ok(Found::Ours(link, found)),
            Some(wanted) => Err(AttachError::OtherMode {
                name: target.name.clone(),
                found: found.name(),
                wanted: wanted.name(),
            }),
        },
        (None, Some((program, _))) => Err(AttachError::Foreign { name: target.name.clone(), program }),
        (_, None) => Ok(Found::Nothing),
    }
}

/// The pinned link, if it is the one that is attached; a pin whose interface is gone is removed.
fn ours(path: &PathBuf, target: &Target) -> Result<Option<PinnedLink>, AttachError> {
    let pin = |cause: String| AttachError::Pin { name: target.name.clone(), cause };
    let link = match PinnedLink::from_pin(path) {
        Ok(link) => FdLink::from(link),
        Err(LinkError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(pin(chain(&error))),
    };
    let info = link.info().map_err(|error| pin(chain(&error)))?;
    if target.attached.is_some_and(|(program, _)| program == info.program_id()) {
        return PinnedLink::from_pin(path).map(Some).map_err(|error| pin(chain(&error)));
    }
    fs::remove_file(path).map_err(|error| pin(chain(&error)))?;
    Ok(None)
}

fn other_mode(wanted: XdpMode, found: Mode) -> Option<Mode> {
    match (wanted, found) {
        (XdpMode::Auto, _) | (XdpMode::Native, Mode::Native) | (XdpMode::Generic, Mode::Generic) => None,
        (XdpMode::Native, Mode::Generic) => Some(Mode::Native),
        (XdpMode::Generic, Mode::Native) => Some(Mode::Generic),
    }
}

fn replace(program: &mut Xdp, target: &Target, link: PinnedLink) -> Result<(), AttachError> {
    let attach = |cause: String| AttachError::Attach {
        name: target.name.clone(),
        mode: "its present",
        cause,
        remedy: "run `steelyard detach` and start again",
    };
    let link = XdpLink::try_from(FdLink::from(link)).map_err(|error| attach(chain(&error)))?;
    let id = program.attach_to_link(link).map_err(|error| attach(cause(&error)))?;
    // The pin keeps the link; the handle must not detach it when the program is dropped.
    let link = program.take_link(id).map_err(|error| attach(chain(&error)))?;
    drop(FdLink::try_from(link));
    Ok(())
}

fn first(program: &mut Xdp, path: PathBuf, target: &Target, mode: XdpMode) -> Result<Attached, AttachError> {
    let made = link(program, target.index, mode).map_err(|Refused { mode, cause }| AttachError::Attach {
        name: target.name.clone(),
        mode: mode.name(),
        cause,
        remedy: match mode {
            Mode::Native => "set [datapath] mode = \"auto\" or \"generic\" to run without the driver's help",
            Mode::Generic => "see `ip -d link show` and the kernel log",
        },
    })?;
    let pin = |cause: String| AttachError::Pin { name: target.name.clone(), cause };
    made.link.pin(path).map_err(|error| pin(chain(&error)))?;
    Ok(Attached { mode: made.mode, replaced: false, fallback: made.fallback })
}

/// A new link, and how the kernel runs the program behind it.
pub(super) struct Link {
    pub link: FdLink,
    pub mode: Mode,
    /// Why native mode was refused, when `auto` fell back.
    pub fallback: Option<String>,
}

pub(super) struct Refused {
    pub mode: Mode,
    pub cause: String,
}

pub(super) fn link(program: &mut Xdp, interface: u32, mode: XdpMode) -> Result<Link, Refused> {
    let mut attach = |mode, fallback| match try_link(program, interface, mode) {
        Ok(link) => Ok(Link { link, mode, fallback }),
        Err(cause) => Err(Refused { mode, cause }),
    };
    match mode {
        XdpMode::Native => attach(Mode::Native, None),
        XdpMode::Generic => attach(Mode::Generic, None),
        XdpMode::Auto => {
            attach(Mode::Native, None).or_else(|refused| attach(Mode::Generic, Some(refused.cause)))
        }
    }
}

/// Only links that can be held count: aya falls back to a netlink attachment, which has an end of its own.
fn try_link(program: &mut Xdp, interface: u32, mode: Mode) -> Result<FdLink, String> {
    let flags = match mode {
        Mode::Native => AyaMode::Driver,
        Mode::Generic => AyaMode::Skb,
    };
    let id = program.attach_to_if_index(interface, flags).map_err(|error| cause(&error))?;
    let link = program.take_link(id).map_err(|error| chain(&error))?;
    FdLink::try_from(link).map_err(|_| "the kernel offers no bpf link for it".to_owned())
}

/// The operating system's word for it, which says more than the library's.
fn cause(error: &ProgramError) -> String {
    match errno(error) {
        Some(libc::EOPNOTSUPP) => "the driver does not support it".to_owned(),
        Some(libc::EBUSY | libc::EEXIST) => "another xdp program is attached".to_owned(),
        Some(libc::ERANGE | libc::EINVAL) => {
            "the driver refuses it: mtu too large, or offloads such as lro in the way".to_owned()
        }
        Some(code) => io::Error::from_raw_os_error(code).to_string(),
        None => error.to_string(),
    }
}

//! Two tiny XDP programs, written as instructions because the bed needs no compiler, and their attachment.
//!
//! A veth delivers what XDP sends to it only when its peer runs an XDP program too: hence `Pass` on every
//! peer of the balancer's interfaces. An attachment lives as long as its descriptor.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Everything goes on to the kernel.
    Pass,
    /// Every frame leaves, as it is, through the interface with this index.
    Redirect(u32),
}

/// Attaches to the interface with index `interface` of the caller's namespace, in native mode.
/// Detached when the descriptor is closed or the interface goes away.
pub fn attach(program: Program, interface: u32) -> io::Result<OwnedFd> {
    let program = load(&program.instructions())?;
    let link = LinkCreate {
        program: program.as_raw_fd(),
        interface,
        attach_type: BPF_XDP,
        flags: XDP_FLAGS_DRV_MODE,
    };
    bpf(BPF_LINK_CREATE, &link)
}

/// What `bpftool link detach` does to the link with this id.
pub fn detach(link: u32) -> io::Result<()> {
    let link = bpf(BPF_LINK_GET_FD_BY_ID, &LinkById { link })?;
    call(BPF_LINK_DETACH, &LinkDetach { link: link.as_raw_fd() }).map(drop)
}

impl Program {
    fn instructions(self) -> Vec<Instruction> {
        match self {
            Program::Pass => vec![Instruction::set(0, XDP_PASS), EXIT],
            Program::Redirect(index) => {
                vec![
                    Instruction::set(1, index),
                    Instruction::set(2, 0),
                    Instruction::call(BPF_REDIRECT),
                    EXIT,
                ]
            }
        }
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    /// Destination in the low, source in the high half.
    registers: u8,
    offset: i16,
    immediate: u32,
}

impl Instruction {
    /// rN = value
    fn set(register: u8, value: u32) -> Instruction {
        Instruction { code: 0xb7, registers: register, offset: 0, immediate: value }
    }

    /// r0 = helper(r1, r2, ...)
    fn call(helper: u32) -> Instruction {
        Instruction { code: 0x85, registers: 0, offset: 0, immediate: helper }
    }
}

const EXIT: Instruction = Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 };

fn load(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let request = ProgramLoad {
        kind: BPF_PROG_TYPE_XDP,
        count: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
    };
    bpf(BPF_PROG_LOAD, &request)
}

/// The leading members of the kernel's `union bpf_attr` for BPF_PROG_LOAD; it takes the rest as zero.
#[repr(C)]
struct ProgramLoad {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
}

/// As above, for BPF_LINK_CREATE.
#[repr(C)]
struct LinkCreate {
    program: i32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

/// As above, for BPF_LINK_GET_FD_BY_ID.
#[repr(C)]
struct LinkById {
    link: u32,
}

/// As above, for BPF_LINK_DETACH.
#[repr(C)]
struct LinkDetach {
    link: i32,
}

trait Request {}
impl Request for LinkById {}
impl Request for LinkDetach {}
impl Request for ProgramLoad {}
impl Request for LinkCreate {}

/// For commands that return a descriptor.
#[expect(unsafe_code, reason = "takes over the descriptor of a raw system call")]
fn bpf<R: Request>(command: u32, request: &R) -> io::Result<OwnedFd> {
    let fd = call(command, request)?;
    // SAFETY: the command returns a new descriptor, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[expect(unsafe_code, reason = "raw system call: aya loads only compiled object files")]
fn call<R: Request>(command: u32, request: &R) -> io::Result<i32> {
    // SAFETY: bpf(2) reads size_of::<R>() bytes of `request`, which has no padding and outlives the call, as
    // do the instructions and the license it points to; it writes to none of them.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, request, size_of::<R>()) };
    match i32::try_from(result).map_err(io::Error::other)? {
        result if result < 0 => Err(io::Error::last_os_error()),
        result => Ok(result),
    }
}

const BPF_PROG_LOAD: u32 = 5;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_LINK_CREATE: u32 = 28;
const BPF_LINK_GET_FD_BY_ID: u32 = 30;
const BPF_LINK_DETACH: u32 = 34;
const BPF_XDP: u32 = 37;
const BPF_REDIRECT: u32 = 23;
const XDP_PASS: u32 = 2;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

const _: () = assert!(size_of::<ProgramLoad>() == 24 && size_of::<LinkCreate>() == 16);

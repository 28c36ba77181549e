//! Transmit checksums computed by the sender, as on a wire: what XDP forwards must already be whole.

use std::{io, mem, os::fd::AsRawFd};

use socket2::{Domain, Socket, Type};

/// What `ethtool -K INTERFACE tx off` does, in the caller's namespace.
#[expect(unsafe_code, reason = "an ioctl without a safe wrapper")]
pub(super) fn disable_tx_checksum(interface: &str) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    let mut value = EthtoolValue { command: ETHTOOL_STXCSUM, data: 0 };
    // SAFETY: ifreq is plain data, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::Error::other("interface name too long"));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: SIOCETHTOOL takes an ifreq whose data points to the command's structure; both outlive the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[repr(C)]
struct EthtoolValue {
    command: u32,
    data: u32,
}

const ETHTOOL_STXCSUM: u32 = 0x17;

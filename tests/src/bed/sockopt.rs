//! Socket options that no safe wrapper offers.

use std::{
    io,
    net::{IpAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd, RawFd},
};

use etherparse::{IpSlice, TcpOptionElement, TcpSlice};

use super::Family;

/// Keeps the SYN of every connection that `listener` accepts from now on.
pub(super) fn save_syns(listener: &TcpListener) -> io::Result<()> {
    set(listener.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_SAVE_SYN, 1)
}

/// The maximum segment size in the SYN that opened `stream`; the kernel tells it once.
pub(super) fn mss_of_syn(stream: &TcpStream) -> io::Result<u16> {
    let mut syn = [0; 256];
    let size = get(stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_SAVED_SYN, &mut syn)?;
    let ip = IpSlice::from_slice(&syn[..size]).map_err(io::Error::other)?;
    let tcp = TcpSlice::from_slice(ip.payload().payload).map_err(io::Error::other)?;
    let mss = tcp.options_iterator().find_map(|option| match option {
        Ok(TcpOptionElement::MaximumSegmentSize(mss)) => Some(mss),
        _ => None,
    });
    mss.ok_or_else(|| io::Error::other("the SYN has no maximum segment size"))
}

/// ICMP errors of all kinds end the next call on `socket`, not only those the protocol counts as final.
pub(super) fn report_errors(socket: &UdpSocket, peer: IpAddr) -> io::Result<()> {
    let (level, name) = match Family::of(peer) {
        Family::V4 => (libc::IPPROTO_IP, libc::IP_RECVERR),
        Family::V6 => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
    };
    set(socket.as_raw_fd(), level, name, 1)
}

/// What the kernel takes for the path MTU of a connected socket.
pub(super) fn path_mtu(socket: &UdpSocket, peer: IpAddr) -> io::Result<u32> {
    let (level, name) = match Family::of(peer) {
        Family::V4 => (libc::IPPROTO_IP, libc::IP_MTU),
        Family::V6 => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
    };
    let mut value = [0; 4];
    get(socket.as_raw_fd(), level, name, &mut value)?;
    Ok(u32::from_ne_bytes(value))
}

#[expect(unsafe_code, reason = "options without a safe wrapper")]
fn get(socket: RawFd, level: i32, name: i32, value: &mut [u8]) -> io::Result<usize> {
    let mut size = libc::socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `size` bytes to `value` and their number to `size`; both outlive the
    // call, and any bytes are a value of u8.
    let code = unsafe { libc::getsockopt(socket, level, name, value.as_mut_ptr().cast(), &raw mut size) };
    if code < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(size as usize)
}

#[expect(unsafe_code, reason = "options without a safe wrapper")]
fn set(socket: RawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let size = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel reads `size` bytes of `value`, which outlives the call.
    let code = unsafe { libc::setsockopt(socket, level, name, (&raw const value).cast(), size) };
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

//! A link of the test's namespace, both ends of it: what is injected at the far one arrives at the near one.

use std::{
    io::Read,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rtnetlink::{LinkUnspec, LinkVeth};
use socket2::{Domain, Protocol, Socket, Type};

use super::frames::Frames;
use crate::{
    io::testbed::{self, Bed},
    pure::{config::network::Family, vrrp::frame::arp_probe},
};

pub(super) struct Link {
    pub(super) index: u32,
    far: Frames,
    /// Whatever is on any link.
    tap: Socket,
}

pub(super) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
pub(super) const NEAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(super) const OURS_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 79, 0, 1));
pub(super) const THEIRS_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 79, 0, 9));

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl Link {
    pub(super) async fn new(bed: &Bed) -> Link {
        bed.near.link().add(LinkVeth::new("vrrp0", "vrrp1").build()).execute().await.unwrap();
        let [index, far] = ["vrrp0", "vrrp1"].map(|name| nix::net::if_::if_nametoindex(name).unwrap());
        for (address, length) in [(OURS_V4, 24), (ip("fe80::1"), 64)] {
            testbed::add_address(&bed.near, index, address, length).await;
        }
        let near = LinkUnspec::new_with_index(index).address(NEAR_MAC.to_vec());
        testbed::set(&bed.near, near).await;
        for index in [index, far] {
            testbed::set(&bed.near, LinkUnspec::new_with_index(index).up()).await;
        }
        let all = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
        let tap = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), Some(all)).unwrap();
        let link = Link { index, far: Frames::open(far, Family::V4).unwrap(), tap };
        link.wait_for_queues(&Frames::open(index, Family::V4).unwrap(), 1);
        link.wait_for_queues(&link.far, 2);
        link
    }

    /// An interface is up before it has queues: until then it drops what it sends.
    fn wait_for_queues(&self, end: &Frames, sender: u8) {
        let probe = arp_probe([2, 0, 0, 0, 0xff, sender], Ipv4Addr::LOCALHOST);
        until(&self.tap, || {
            end.send(&probe).unwrap();
            self.next_frame(|frame| frame == probe)
        });
    }

    /// A frame from somebody else.
    pub(super) fn inject(&self, frame: &[u8]) {
        self.far.send(frame).unwrap();
    }

    /// The next frame that is `wanted`.
    pub(super) fn sniff(&self, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        until(&self.tap, || self.next_frame(&wanted))
    }

    fn next_frame(&self, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let mut buffer = [0; 2_048];
        while let Ok(length) = (&self.tap).read(&mut buffer) {
            if wanted(&buffer[..length]) {
                return Some(buffer[..length].to_vec());
            }
        }
        None
    }
}

/// Asks again whenever something arrives.
pub(super) fn until<T>(socket: impl AsFd, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "it did not arrive within {DEADLINE:?}");
        poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], PollTimeout::from(100_u8)).unwrap();
    }
}

const DEADLINE: Duration = Duration::from_secs(10);

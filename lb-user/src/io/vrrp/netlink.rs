//! A small synchronous netlink client: many requests in one send, and dumps.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_route::RouteNetlinkMessage;
use nix::sys::{
    socket::{setsockopt, sockopt},
    time::{TimeVal, TimeValLike},
};
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    #[error("cannot open a netlink socket: {0}")]
    Open(#[source] io::Error),
    #[error("cannot ask the kernel through netlink: {0}")]
    Send(#[source] io::Error),
    #[error("no answer of the kernel to a netlink request: {0}")]
    Receive(#[source] io::Error),
    #[error("the kernel refuses to list {what}: {source}")]
    Dump { what: &'static str, source: io::Error },
    #[error("{0} change faster than they can be listed: try again")]
    Restless(&'static str),
}

/// One request and its flags beside NLM_F_REQUEST and NLM_F_ACK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) message: RouteNetlinkMessage,
    pub(super) flags: u16,
}

pub(super) struct Client {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Client {
    /// In the network namespace of the calling thread.
    pub(super) fn new() -> Result<Client, NetlinkError> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            socket.set_netlink_get_strict_chk(true)?;
            socket.set_cap_ack(true)?;
            // The answers to a full batch wait together.
            setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
            setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(ANSWER_WAIT_MS))?;
            Ok(socket)
        };
        let socket = open().map_err(NetlinkError::Open)?;
        Ok(Client { socket, sequence: 0, buffer: Vec::with_capacity(DATAGRAM_MAX) })
    }

    /// Carries all of them out in their order, and says what became of each.
    pub(super) fn carry_out(&mut self, requests: &[Request]) -> Result<Vec<io::Result<()>>, NetlinkError> {
        let mut results = Vec::with_capacity(requests.len());
        for batch in requests.chunks(BATCH) {
            results.extend(self.carry_out_batch(batch)?);
        }
        Ok(results)
    }

    fn carry_out_batch(&mut self, requests: &[Request]) -> Result<Vec<io::Result<()>>, NetlinkError> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        for request in requests {
            let flags = request.flags | NLM_F_REQUEST | NLM_F_ACK;
            self.append(&mut bytes, request.message.clone(), flags);
        }
        self.socket.send(&bytes, 0).map_err(NetlinkError::Send)?;
        let mut results: Vec<Option<io::Result<()>>> = requests.iter().map(|_| None).collect();
        let mut missing = requests.len();
        while missing > 0 {
            for message in self.receive()? {
                let index = message.header.sequence_number.wrapping_sub(first);
                let place = usize::try_from(index).ok().and_then(|index| results.get_mut(index));
                let (Some(place @ None), NetlinkPayload::Error(answer)) = (place, message.payload) else {
                    continue;
                };
                *place = Some(answer.code.map_or(Ok(()), |_| Err(answer.to_io())));
                missing -= 1;
            }
        }
        Ok(results.into_iter().flatten().collect())
    }

    /// The one that the question names; None: there is none.
    pub(super) fn ask(
        &mut self,
        question: RouteNetlinkMessage,
    ) -> Result<Option<RouteNetlinkMessage>, NetlinkError> {
        let mut bytes = Vec::new();
        self.append(&mut bytes, question, NLM_F_REQUEST);
        self.socket.send(&bytes, 0).map_err(NetlinkError::Send)?;
        loop {
            for message in self.receive()? {
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => return Ok(Some(inner)),
                    NetlinkPayload::Error(_) => return Ok(None),
                    _ => {}
                }
            }
        }
    }

    /// All that there is of something; `question` filters where the kernel can.
    pub(super) fn dump(
        &mut self,
        what: &'static str,
        question: &RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        for _ in 0..DUMPS_MAX {
            if let Some(found) = self.dump_once(what, question)? {
                return Ok(found);
            }
        }
        Err(NetlinkError::Restless(what))
    }

    /// None: it changed meanwhile.
    fn dump_once(
        &mut self,
        what: &'static str,
        question: &RouteNetlinkMessage,
    ) -> Result<Option<Vec<RouteNetlinkMessage>>, NetlinkError> {
        let mut bytes = Vec::new();
        self.append(&mut bytes, question.clone(), NLM_F_REQUEST | NLM_F_DUMP);
        self.socket.send(&bytes, 0).map_err(NetlinkError::Send)?;
        let (mut found, mut whole) = (Vec::new(), true);
        loop {
            for message in self.receive()? {
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                whole &= message.header.flags & NLM_F_DUMP_INTR == 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => found.push(inner),
                    NetlinkPayload::Done(_) => return Ok(whole.then_some(found)),
                    NetlinkPayload::Error(answer) => {
                        return Err(NetlinkError::Dump { what, source: answer.to_io() });
                    }
                    _ => {}
                }
            }
        }
    }

    fn append(&mut self, bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        append(bytes, header, message);
    }

    fn receive(&mut self) -> Result<Vec<NetlinkMessage<RouteNetlinkMessage>>, NetlinkError> {
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => return Ok(messages_in(&self.buffer)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(NetlinkError::Receive(error)),
            }
        }
    }
}

fn append<I: NetlinkSerializable + NetlinkDeserializable>(
    bytes: &mut Vec<u8>,
    header: NetlinkHeader,
    message: I,
) {
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let start = bytes.len();
    bytes.resize(start + message.buffer_len().next_multiple_of(NLMSG_ALIGN), 0);
    message.serialize(&mut bytes[start..]);
}

/// What cannot be decoded is left out: nothing here depends on messages of a kind that the decoder does not know.
pub(super) fn messages_in(datagram: &[u8]) -> Vec<NetlinkMessage<RouteNetlinkMessage>> {
    let mut messages = Vec::new();
    let mut rest = datagram;
    while let Some((length, _)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_ne_bytes(*length)).unwrap_or(usize::MAX);
        let Some(message) = rest.get(..length.max(1)) else { break };
        messages.extend(NetlinkMessage::deserialize(message));
        rest = rest.get(length.max(1).next_multiple_of(NLMSG_ALIGN)..).unwrap_or_default();
    }
    messages
}

/// Requests in one send: their answers fit into the receive buffer.
const BATCH: usize = 64;
/// The kernel accounts about a kilobyte for an answer, and a dump is read in parts.
const RECEIVE_BUFFER: usize = 1 << 20;
/// The kernel builds parts of a dump of 32 kB at the most.
pub(super) const DATAGRAM_MAX: usize = 64 * 1_024;
const ANSWER_WAIT_MS: i64 = 1_000;
const DUMPS_MAX: usize = 5;
const NLMSG_ALIGN: usize = 4;

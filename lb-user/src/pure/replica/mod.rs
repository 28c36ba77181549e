//! What nodes tell each other so that connections go on when addresses move: whose slots were, and which flows are
//! recorded.
//!
//! ```text
//! node that has the addresses                      node that may get them
//! sweep ─► Outlet (what is new or refreshed) ─┐
//! rings that changed ─────────────────────────┴─► Message ─ seal ─ TCP ─► open ─► control: slots followed,
//!                                                                                 records inserted
//! ```
//!
//! Nothing on the wire is an id of one node's tables without saying whom it names: services go by name, servers by
//! service and address. Must not know sockets, maps, or who holds which address.

mod message;
mod outlet;
mod seal;

pub use self::{
    message::{Carried, CarriedPair, Message, MessageError, RECORDS_MAX, RingPart, SLOTS_MAX},
    outlet::{Outlet, digest},
    seal::{Ends, FRAME_MAX, NONCE_LENGTH, Opener, SealError, Sealer, TAG_LENGTH},
};

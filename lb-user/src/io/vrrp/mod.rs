//! Virtual routers and the outside world.

pub mod pulse;

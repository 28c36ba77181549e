use std::time::Duration;

use super::*;
use crate::pure::{
    config::model::vrrp::{Effect, Preempt, Router as Config, Track, Version},
    vrrp::testing::{a_router, ms},
};

mod property;

//! aya's marker for what may be copied to and from a map.
#![expect(unsafe_code, reason = "aya's Pod is an unsafe trait")]

use crate::{
    counter::{Counts, TrafficCounts},
    through::Target,
};

// SAFETY: repr(C), no padding (sizes are asserted beside the types), and every bit pattern is a value.
unsafe impl aya::Pod for TrafficCounts {}
// SAFETY: as above.
unsafe impl aya::Pod for Counts {}
// SAFETY: as above.
unsafe impl aya::Pod for Target {}

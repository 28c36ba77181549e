//! From text to meaning: `raw` is what was typed, `model` what it means, `error` what is wrong and where.

pub mod model;

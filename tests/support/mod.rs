//! What the integration tests share. Files, in reading order: `random` (seeded choices), `scratch`
//! (directories).
#![allow(dead_code, reason = "each test program uses its part")]

pub mod random;
pub mod scratch;

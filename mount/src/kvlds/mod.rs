//! Keys over a socket: kivaloo's KVLDS protocol.
//!
//! | file | job |
//! |---|---|
//! | `wire.rs` | packets on a stream |
//! | `message.rs` | what is asked and answered |

pub mod message;
pub mod wire;

//! Keys over a socket: kivaloo's KVLDS protocol.
//!
//! | file | job |
//! |---|---|
//! | `wire.rs` | packets on a stream |
//! | `message.rs` | what is asked and answered |
//! | `server.rs` | the socket: listens, accepts |
//! | `connection.rs` | one connection: requests in, answers out when they may be sent |
//! | `untold.rs` | changes of which who keeps copies of files has not heard yet |
//! | `client.rs` | the other end |
//!
//! # Contract
//!
//! * **Durability.** A request that changes is answered when the change is durable (C1).
//! * **Coherence.** And when whoever keeps copies of files has forgotten what is stale ([`Forget`](crate::fs::Forget)).
//!   Nothing that shows a change is answered before that, either: who has read it may look there next.
//! * **Order.** A request takes effect at one instant between its arrival and its answer. Those that
//!   change one key over one connection take effect in their order. A read sees everything that was
//!   acknowledged before it arrived, and is answered when what it shows is durable.
//! * **Failure.** What makes no sense, or cannot be done, ends its connection and no other, with a line
//!   in the log. The protocol has no answer for errors. What stands before something that makes no
//!   sense is carried out and answered first; nothing behind it is. What came together with a change
//!   that cannot be made may be carried out, and is not answered.
//! * **Bounds.** A connection takes at most 4 MiB; then it is read no further until answers were sent.

pub mod client;
mod connection;
pub mod message;
pub mod server;
mod untold;
pub mod wire;

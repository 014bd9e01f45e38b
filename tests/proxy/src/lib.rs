//! A fault proxy: stands between an S3 client and a real server, and does to the client what S3, the
//! network and caches on the way may do (C7). Requests are passed on as they are, the Host header
//! too, so that their signatures stay valid.
//!
//! ```no_run
//! # use kivafs_fault_proxy::{Outage, Proxy, ProxyOptions};
//! # fn work_with(_: &str) {}
//! # fn main() -> std::io::Result<()> {
//! let proxy = Proxy::start(ProxyOptions { seed: 7, ..ProxyOptions::to("http://127.0.0.1:7481") })?;
//! proxy.set("put c* nth=3 lost-reply; any * p=0.02 slow-down; any * delay=5ms..50ms".parse().unwrap());
//! work_with(&proxy.endpoint());
//! proxy.outage(Outage::Hang);
//! proxy.outage(Outage::None);
//! assert!(proxy.violations().is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! * **What happens to which request** is a [`Plan`], whose words are listed there.
//! * **Seeded.** Each decision follows from the seed, the rule, what is asked for, the address, and how
//!   often that was asked for there before; not from the time, nor from what else is under way, nor from the
//!   part of a name before its last two components. So a run is repeated under another prefix.
//! * **Addresses** stand for S3's many: one port on 127.0.0.1, 127.0.0.2..., each with stale answers
//!   and outages of its own.
//! * **Doors** are further ports, one for each writer that a test tells apart.
//! * **Recorded** is every request, with its fate; and it is checked, always, that no name is written with
//!   two contents ([`Violation`]).
//!
//! What a client may count on through the proxy is what C7 says: a GET or HEAD after a successful create
//! sees the object, unless that address answered 404 for its name before.
//!
//! Not understood, and refused with 501: uploads in parts, copies, and bodies in signed chunks.
//! Requests name the bucket in the path.
//!
//! Files, in reading order: `plan` (faults and their words), `request` (what is asked for), `dice`
//! (seeded decisions), `judge` (which faults a request meets), `past` (what objects were),
//! `listing` (LIST answers from another time), `record` (log, counts, violations), `body` (bodies that pass,
//! at a pace, and break), `upstream` (connections to the server), `pass` (one request's way),
//! `serve` (addresses, doors, outages).

mod body;
mod dice;
mod judge;
mod listing;
mod pass;
mod past;
mod plan;
mod record;
mod request;
mod serve;
mod upstream;

pub use plan::{Fault, Pattern, Plan, PlanError, Rule, Span, When};
pub use record::{BodySum, Counts, Entry, Told, Violation};
pub use request::Kind;
pub use serve::{Door, Outage, Proxy, ProxyOptions};

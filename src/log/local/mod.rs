//! The log in one local file.
//!
//! Files, in reading order: the formats `superblock` and `holder`; `ring` (where commits lie), `slots`
//! (where data segments lie), `read`, `writer`, `desk` (the storage thread, and who does its work), `open` (creation and
//! recovery).
//!
//! # Contract
//!
//! As the layer's; and: one sequential write and one flush a commit (and one flush before, if it
//! refers to new data); the file's lock keeps other writers away; recovery reads the tail of the
//! ring and nothing else.

mod desk;
mod holder;
mod open;
mod read;
mod ring;
mod slots;
mod superblock;
mod writer;

pub use holder::HolderRecord;
pub use open::{End, create, start};
pub use read::read;
pub use ring::{InRing, write_zeros};
pub use slots::Slots;
pub use superblock::VERSION;

//! The copy-on-write B+Tree.
//!
//! Files, in reading order: `value` (what a key maps to), `node` (a page in memory), `page` (a
//! page as stored: the format), `read` (get and scan), `change` (apply a batch), `checkpoint`
//! (freeze, write, install), `check` (walk everything).
//!
//! # Contract
//!
//! * A [`Tree`] is the writer's: one thread at a time calls its `&mut` methods. A [`Root`] is a
//!   snapshot: cheap to clone, immutable, usable from any thread, never blocked by the writer.
//! * The tree does no I/O. It reads pages through [`Pages`], which answers from memory or says
//!   [`TreeError::Miss`]: then nothing has changed, the caller fetches that page and asks again.
//!   It writes pages through [`PageSink`] (checkpoint only).
//! * [`Tree::apply`] is atomic: on any error the tree is what it was.
//! * What is durable is not the tree's business: it has the current state, no other.
//!
//! # Invariants (checked by [`Root::check`], cited as T1...)
//!
//! * T1 Keys within a page rise strictly; every key of a child lies in [its separator, the next).
//! * T2 All leaves have the same depth. An inner page has at least one child; the root, if it is
//!   an inner page, at least two (but for the moment between a batch and its merges).
//! * T3 The encoded size of a page is at most `page_bytes`, except for a leaf with one entry and
//!   an inner page with two children (long keys).
//! * T4 A stored page has only stored children; everything above a page that is not stored is not
//!   stored.
//! * T5 A page is changed in place only while nobody else holds it.
//! * T6 A frozen root holds no value that must be placed (see [`Value::must_be_placed`]).
//! * T7 The ledger was told of every pointer that came into the current tree and of every one that
//!   left it, once.

mod value;

pub use value::{Extent, KEY_MAX, Key, VALUE_INLINE_MAX, VALUE_MAX, Value};

//! The file system over a kivafs store, and what the `kivafs` binary is made of.
//!
//! From the top; calls go down, results come up:
//!
//! | module | job |
//! |---|---|
//! | [`cli`] | words of a command line to one call, errors to one line and an exit code |
//! | [`install`] | putting the program in place |
//! | [`mod@bench`] | the project's benchmarks |
//! | [`life`] | a mount from its beginning to its end: open, mount, serve, drain |
//! | [`top`] | rates of a mount, from its metrics |
//! | [`facade`] | FUSE requests: convert, call one method, reply |
//! | [`kvlds`] | keys over a socket: kivaloo's protocol |
//! | [`keys`] | keys and values as a Rust API, for programs that open a store themselves |
//! | [`fs`] | POSIX semantics, and those of keys, as methods; no FUSE types |
//! | [`meter`] | counts requests, and the time that they take |
//! | [`shown`] | numbers, sizes and times as people read them |

pub mod bench;
pub mod cli;
pub mod facade;
pub mod fs;
pub mod install;
pub mod keys;
pub mod kvlds;
pub mod life;
pub mod meter;
pub mod shown;
pub mod top;

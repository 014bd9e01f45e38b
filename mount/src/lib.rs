//! The file system over a kivafs store, and what the `kivafs` binary is made of.

pub mod fs;

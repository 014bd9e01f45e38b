//! (contract to come)
mod pointer;
pub use pointer::{Codec, NUMBER_MAX, POINTER_BYTES, Pointer, SEGMENT_BYTES_MAX, SegmentNo, Sequence, checksum};

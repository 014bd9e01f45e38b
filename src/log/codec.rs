//! Compression of stored bytes. Pure.

use super::pointer::Codec;
use std::borrow::Cow;

/// The stored form of a payload: compressed as asked where that makes it shorter by at least an
/// eighth, else as it is (reading raw bytes is cheaper than a gain of a few per cent).
pub fn encode(payload: &[u8], codec: Codec) -> (Codec, Cow<'_, [u8]>) {
    match codec {
        Codec::Raw => (Codec::Raw, Cow::Borrowed(payload)),
        Codec::Lz4 => {
            let packed = lz4_flex::compress_prepend_size(payload);
            if packed.len() <= payload.len() - payload.len() / 8 {
                (Codec::Lz4, Cow::Owned(packed))
            } else {
                (Codec::Raw, Cow::Borrowed(payload))
            }
        }
    }
}

/// The payload of stored bytes; `None` when they are not of that codec, or would grow beyond
/// `limit` bytes (a damaged length must not allocate gigabytes).
pub fn decode(stored: &[u8], codec: Codec, limit: usize) -> Option<Cow<'_, [u8]>> {
    match codec {
        Codec::Raw => (stored.len() <= limit).then_some(Cow::Borrowed(stored)),
        Codec::Lz4 => {
            let length = u32::from_le_bytes(*stored.first_chunk()?) as usize;
            if length > limit {
                return None;
            }
            lz4_flex::decompress_size_prepended(stored).ok().map(Cow::Owned)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_shrink_stays_raw() {
        let noise: Vec<u8> = (0..1000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        assert_eq!(encode(&noise, Codec::Lz4).0, Codec::Raw);
        let text = b"kivafs ".repeat(100);
        let (codec, stored) = encode(&text, Codec::Lz4);
        assert_eq!(codec, Codec::Lz4);
        assert_eq!(decode(&stored, codec, 1 << 16).as_deref(), Some(&text[..]));
        assert_eq!(decode(&stored, codec, 10), None, "longer than allowed");
        assert_eq!(encode(b"", Codec::Lz4).0, Codec::Raw);
    }

    #[test]
    fn damaged_bytes_do_not_panic() {
        let (_, stored) = encode(&[7; 5000], Codec::Lz4);
        for at in 0..stored.len() {
            let mut wrong = stored.to_vec();
            wrong[at] ^= 0xff;
            let _either = decode(&wrong, Codec::Lz4, 1 << 16);
        }
    }
}

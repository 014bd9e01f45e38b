//! Packets on a stream: kivaloo's wire protocol (its `INTERFACES`, "Wire protocol"). Pure.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | request number: the asker's choice; the answer has the same |
//! | 8 | 4 | length n of the record |
//! | 12 | 4 | CRC of the 12 bytes before |
//! | 16 | n | record |
//! | 16 + n | 4 | CRC of the record, xor the CRC at 12 |
//!
//! Numbers are big-endian. The CRC is CRC-32C (Castagnoli) of a 1 bit and the bytes, not inverted, and
//! little-endian.

use thiserror::Error;

/// What a packet has beside its record.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + 4;
const HEADER_BYTES: usize = 16;
const LENGTH_AT: usize = 8;
const CRC_AT: usize = 12;

/// The register behind the leading 1 bit: the polynomial itself, bits reversed.
const LEADING_ONE: u32 = 0x82f6_3b78;

/// A packet at the front of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The request's number.
    pub id: u64,
    /// What is asked or answered.
    pub record: &'a [u8],
}

/// Bytes that no packet begins with. What follows in the stream cannot be told either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// The first CRC is wrong.
    #[error("the checksum of a packet's header is wrong")]
    Header,
    /// The header announces more than any record has.
    #[error("a packet of {length} bytes is announced: no record has more than {most}")]
    TooLong {
        /// What is announced.
        length: u32,
        /// What is possible.
        most: usize,
    },
    /// The second CRC is wrong.
    #[error("the checksum of a packet's record is wrong")]
    Record,
}

impl Packet<'_> {
    /// Bytes of the whole packet.
    pub fn bytes(&self) -> usize {
        OVERHEAD_BYTES + self.record.len()
    }
}

/// The packet at the front of `stream`, with a record of at most `record_bytes_max`. `None`: it goes
/// on behind what is there. A header is judged before its record has come, so that nothing is ever
/// kept for a record that is too long.
pub fn front(stream: &[u8], record_bytes_max: usize) -> Result<Option<Packet<'_>>, Malformed> {
    let Some((header, rest)) = stream.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let header_crc = crc(&header[..CRC_AT]);
    if header[CRC_AT..] != header_crc.to_le_bytes() {
        return Err(Malformed::Header);
    }
    let length = u32::from_be_bytes(header[LENGTH_AT..CRC_AT].try_into().expect("four bytes"));
    if length as usize > record_bytes_max {
        return Err(Malformed::TooLong { length, most: record_bytes_max });
    }
    let Some((record, rest)) = rest.split_at_checked(length as usize) else { return Ok(None) };
    let Some(record_crc) = rest.first_chunk::<4>() else { return Ok(None) };
    if u32::from_le_bytes(*record_crc) != crc(record) ^ header_crc {
        return Err(Malformed::Record);
    }
    let id = u64::from_be_bytes(header[..LENGTH_AT].try_into().expect("eight bytes"));
    Ok(Some(Packet { id, record }))
}

/// Appends a packet whose record `write` appends.
pub fn push(out: &mut Vec<u8>, id: u64, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&[0; HEADER_BYTES - LENGTH_AT]);
    write(out);
    let length = out.len() - start - HEADER_BYTES;
    let length = u32::try_from(length).expect("records are far shorter than 4 GiB");
    out[start + LENGTH_AT..start + CRC_AT].copy_from_slice(&length.to_be_bytes());
    let header_crc = crc(&out[start..start + CRC_AT]);
    out[start + CRC_AT..start + HEADER_BYTES].copy_from_slice(&header_crc.to_le_bytes());
    let record_crc = crc(&out[start + HEADER_BYTES..]) ^ header_crc;
    out.extend_from_slice(&record_crc.to_le_bytes());
}

fn crc(bytes: &[u8]) -> u32 {
    // The library's register is inverted before and after.
    !crc32c::crc32c_append(!LEADING_ONE, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MOST: usize = 1000;

    /// Bit by bit, as the text of the protocol has it: 1, the bytes and the CRC, the bits of the two
    /// latter reversed, are a multiple of the polynomial.
    fn crc_by_the_text(bytes: &[u8]) -> u32 {
        const POLYNOMIAL: u64 = 0x1_1edc_6f41;
        let bits = bytes.iter().flat_map(|byte| (0..8).map(move |bit| u64::from(byte >> bit & 1)));
        let remainder = bits.chain([0; 32]).fold(1, |remainder, bit| {
            let shifted = remainder << 1 | bit;
            if shifted >> 32 == 1 { shifted ^ POLYNOMIAL } else { shifted }
        });
        (remainder as u32).reverse_bits()
    }

    #[test]
    fn golden_bytes() {
        let mut out = Vec::new();
        push(&mut out, 1, |record| record.extend_from_slice(&[0, 0, 1, 0]));
        let golden = b"\0\0\0\0\0\0\0\x01\0\0\0\x04\xab\x12\x33\xe7\0\0\x01\0\x80\x5f\x33\x9a";
        assert_eq!(out, golden);
        let packet = front(golden, MOST).unwrap().unwrap();
        assert_eq!((packet, packet.bytes()), (Packet { id: 1, record: &[0, 0, 1, 0] }, golden.len()));
        assert_eq!([crc(b""), crc(b"\0"), crc(b"123456789")], [0x82f6_3b78, 0xfbc3_faf9, 0x22fc_9104]);
    }

    #[test]
    fn a_record_that_is_too_long_is_refused_before_it_comes() {
        let mut out = Vec::new();
        push(&mut out, 7, |record| record.extend_from_slice(&[0; MOST + 1]));
        let refused = Err(Malformed::TooLong { length: MOST as u32 + 1, most: MOST });
        assert_eq!(front(&out[..HEADER_BYTES], MOST), refused);
        assert!(front(&out, MOST + 1).unwrap().is_some());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn packets_come_back_whole_and_only_whole(id: u64, record in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut out = Vec::new();
            push(&mut out, id, |out| out.extend_from_slice(&record));
            prop_assert_eq!(&out[16 + record.len()..], (crc_by_the_text(&record) ^ crc_by_the_text(&out[..12])).to_le_bytes());
            prop_assert_eq!(front(&out, MOST), Ok(Some(Packet { id, record: &record })));
            for cut in 0..out.len() {
                prop_assert_eq!(front(&out[..cut], MOST), Ok(None));
            }
            out.extend_from_slice(b"the next");
            prop_assert_eq!(front(&out, MOST), Ok(Some(Packet { id, record: &record })));
        }

        #[test]
        fn a_flipped_bit_is_seen(record in prop::collection::vec(any::<u8>(), 0..60), at: prop::sample::Index, bit in 0..8u8) {
            let mut out = Vec::new();
            push(&mut out, 5, |out| out.extend_from_slice(&record));
            let at = at.index(out.len());
            out[at] ^= 1 << bit;
            prop_assert!(front(&out, MOST).is_err());
        }
    }
}

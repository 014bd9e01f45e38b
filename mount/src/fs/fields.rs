//! Big-endian fields, read from stored bytes without trusting them. Pure.

/// What is left of a record.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    /// The next `count` bytes. `None`: there are fewer.
    pub(crate) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// The next `BYTES` bytes as a number. `None`: there are fewer.
    pub(crate) fn number<const BYTES: usize>(&mut self) -> Option<u64> {
        const { assert!(BYTES <= 8) };
        self.bytes(BYTES).map(|bytes| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// The next byte.
    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.bytes(1).map(|bytes| bytes[0])
    }

    /// The next two bytes.
    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.number::<2>().map(|number| number as u16)
    }

    /// The next four bytes.
    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.number::<4>().map(|number| number as u32)
    }

    /// Nothing is left. `None`: something is.
    pub(crate) fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// Appends the last `BYTES` bytes of `number`, which must fit.
pub(crate) fn push<const BYTES: usize>(out: &mut Vec<u8>, number: u64) {
    assert!(BYTES == 8 || number >> (8 * BYTES) == 0, "{number} does not fit into {BYTES} bytes");
    out.extend_from_slice(&number.to_be_bytes()[8 - BYTES..]);
}

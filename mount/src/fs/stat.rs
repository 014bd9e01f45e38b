//! Owner, permissions and times in few bytes: the part that pairs and inodes have in common. Pure.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | flags, below |
//! | 1 | 0 or 2 | permission bits, if they are not a common case |
//! | | 0, 2 or 8 | owner and group |
//! | | 6, 8 or 12 | mtime |
//! | | 0, 6, 8 or 12 | ctime, if it is not mtime |
//! | | 0, 6, 8 or 12 | atime, if it is not mtime |
//!
//! Flags: bits 0-1 permissions: 0 = 0644, 1 = 0755, 2 = 0600, 3 = the field. Bits 2-3 owner: 0 =
//! root:root, 1 = one u16 that is both, 2 = two u32, 3 = undefined. Bits 4-5 the times, all in one
//! form: 0 = whole milliseconds, i48; 1 = u64 with 34 bits of seconds above -2^31 (1901 to 2446)
//! and 30 bits of nanoseconds; 2 = i64 seconds and u32 nanoseconds; 3 = undefined. Bit 6: there is a
//! ctime. Bit 7: there is an atime.
//!
//! Thus a file of root that was made and written within a millisecond costs 7 bytes; written,
//! renamed or changed later 6 more (its ctime or atime differs), both 12; another owner 2 (uid =
//! gid) or 8, unusual permissions 2; times set to nanoseconds (`cp -p`, `tar`) 2 more per time.
//! The encoding of given values is the shortest, so equal records are equal bytes.

use crate::fs::fields::{Fields, push};
use crate::fs::time::Time;

/// Permissions, owner, times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// At most 0o7777.
    pub(crate) perm: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    pub(crate) ctime: Time,
    pub(crate) atime: Time,
}

/// Longest encoding.
pub(crate) const STAT_BYTES_MAX: usize = 1 + 2 + 8 + 3 * 12;
const PERM_MAX: u16 = 0o7777;
const COMMON_PERMS: [u16; 3] = [0o644, 0o755, 0o600];
const PERM_FIELD: u8 = 3;
const OWNER_ROOT: u8 = 0;
const OWNER_SAME: u8 = 1;
const OWNER_FIELDS: u8 = 2;
const TIMES_MILLIS: u8 = 0;
const TIMES_NANOS: u8 = 1;
const TIMES_WIDE: u8 = 2;
const HAS_CTIME: u8 = 1 << 6;
const HAS_ATIME: u8 = 1 << 7;
const OWNER_SHIFT: u8 = 2;
const TIMES_SHIFT: u8 = 4;
const NANOS_BITS: u32 = 30;
const NANOS_BASE: i64 = -(1 << 31);
const MILLIS_MAX: i64 = (1 << 47) - 1;

impl Stat {
    /// Appends the encoding.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.perm <= PERM_MAX, "permission bits {:o}", self.perm);
        let perm = COMMON_PERMS.iter().position(|perm| *perm == self.perm).map_or(PERM_FIELD, |at| at as u8);
        let owner = match (self.uid, self.gid) {
            (0, 0) => OWNER_ROOT,
            (uid, gid) if uid == gid && uid <= u32::from(u16::MAX) => OWNER_SAME,
            _ => OWNER_FIELDS,
        };
        let times = [self.mtime, self.ctime, self.atime];
        let form = match times {
            times if times.iter().all(|time| millis(*time).is_some()) => TIMES_MILLIS,
            times if times.iter().all(|time| packed(*time).is_some()) => TIMES_NANOS,
            _ => TIMES_WIDE,
        };
        let ctime = if self.ctime == self.mtime { 0 } else { HAS_CTIME };
        let atime = if self.atime == self.mtime { 0 } else { HAS_ATIME };
        out.push(perm | owner << OWNER_SHIFT | form << TIMES_SHIFT | ctime | atime);
        if perm == PERM_FIELD {
            push::<2>(out, self.perm.into());
        }
        match owner {
            OWNER_ROOT => {}
            OWNER_SAME => push::<2>(out, self.uid.into()),
            _ => {
                push::<4>(out, self.uid.into());
                push::<4>(out, self.gid.into());
            }
        }
        push_time(out, form, self.mtime);
        if ctime != 0 {
            push_time(out, form, self.ctime);
        }
        if atime != 0 {
            push_time(out, form, self.atime);
        }
    }

    /// Reads one. `None`: these bytes are none.
    pub(crate) fn decode(fields: &mut Fields<'_>) -> Option<Stat> {
        let flags = fields.u8()?;
        let perm = match flags & 3 {
            PERM_FIELD => fields.u16().filter(|perm| *perm <= PERM_MAX)?,
            common => COMMON_PERMS[usize::from(common)],
        };
        let (uid, gid) = match flags >> OWNER_SHIFT & 3 {
            OWNER_ROOT => (0, 0),
            OWNER_SAME => {
                let both = u32::from(fields.u16()?);
                (both, both)
            }
            OWNER_FIELDS => (fields.u32()?, fields.u32()?),
            _ => return None,
        };
        let form = flags >> TIMES_SHIFT & 3;
        let mtime = take_time(fields, form)?;
        let ctime = if flags & HAS_CTIME == 0 { mtime } else { take_time(fields, form)? };
        let atime = if flags & HAS_ATIME == 0 { mtime } else { take_time(fields, form)? };
        Some(Stat { perm, uid, gid, mtime, ctime, atime })
    }
}

fn millis(time: Time) -> Option<i64> {
    let millis = time.seconds().checked_mul(1000)?.checked_add(i64::from(time.nanos() / 1_000_000))?;
    (time.nanos().is_multiple_of(1_000_000) && (-MILLIS_MAX..=MILLIS_MAX).contains(&millis)).then_some(millis)
}

fn packed(time: Time) -> Option<u64> {
    let seconds = time.seconds().checked_sub(NANOS_BASE).and_then(|seconds| u64::try_from(seconds).ok())?;
    (seconds >> (64 - NANOS_BITS) == 0).then_some(seconds << NANOS_BITS | u64::from(time.nanos()))
}

fn push_time(out: &mut Vec<u8>, form: u8, time: Time) {
    match (form, millis(time), packed(time)) {
        (TIMES_MILLIS, Some(millis), _) => out.extend_from_slice(&millis.to_be_bytes()[2..]),
        (TIMES_NANOS, _, Some(packed)) => push::<8>(out, packed),
        _ => {
            assert_eq!(form, TIMES_WIDE, "{time:?} in a form that is too narrow");
            out.extend_from_slice(&time.seconds().to_be_bytes());
            push::<4>(out, time.nanos().into());
        }
    }
}

fn take_time(fields: &mut Fields<'_>, form: u8) -> Option<Time> {
    match form {
        TIMES_MILLIS => {
            let number = fields.number::<6>()?;
            let millis = (number << 16) as i64 >> 16;
            Time::new(millis.div_euclid(1000), millis.rem_euclid(1000) as u32 * 1_000_000)
        }
        TIMES_NANOS => {
            let number = fields.number::<8>()?;
            let nanos = (number & ((1 << NANOS_BITS) - 1)) as u32;
            Time::new((number >> NANOS_BITS) as i64 + NANOS_BASE, nanos)
        }
        TIMES_WIDE => Time::new(fields.number::<8>()? as i64, fields.u32()?),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn plain() -> Stat {
        let time = Time::new(1_700_000_000, 123_000_000).unwrap();
        Stat { perm: 0o644, uid: 0, gid: 0, mtime: time, ctime: time, atime: time }
    }

    fn encoded(stat: &Stat) -> Vec<u8> {
        let mut out = Vec::new();
        stat.encode(&mut out);
        let mut fields = Fields(&out);
        assert_eq!(Stat::decode(&mut fields), Some(*stat));
        assert!(fields.end().is_some() && out.len() <= STAT_BYTES_MAX);
        out
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(encoded(&plain()), [0, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 0x7b]);
        let fine = Time::new(-1, 999_999_999).unwrap();
        let owned = Stat { perm: 0o4755, uid: 1000, gid: 1000, atime: fine, ..plain() };
        assert_eq!(
            encoded(&owned),
            [
                0x97, 0x09, 0xed, 0x03, 0xe8, // flags, permissions, owner
                0x39, 0x54, 0xfc, 0x40, 0x07, 0x54, 0xd4, 0xc0, // mtime
                0x1f, 0xff, 0xff, 0xff, 0xfb, 0x9a, 0xc9, 0xff, // atime
            ]
        );
        let far = Time::new(i64::MAX, 1).unwrap();
        let wide = Stat { uid: 1, gid: 70000, ctime: far, ..plain() };
        assert_eq!(
            encoded(&wide),
            [
                0x68, 0, 0, 0, 1, 0, 1, 0x11, 0x70, // flags, owner, group
                0, 0, 0, 0, 0x65, 0x53, 0xf1, 0x00, 0x07, 0x54, 0xd4, 0xc0, // mtime
                0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, // ctime
            ]
        );
    }

    #[test]
    fn what_is_none_is_refused() {
        for bytes in [&b""[..], &[0, 1, 2, 3, 4, 5], &[0x0c; 40], &[0x30; 40], &[3, 0xff, 0xff, 1, 1, 1, 1, 1, 1]] {
            assert_eq!(Stat::decode(&mut Fields(bytes)), None, "{bytes:x?}");
        }
        let mut nanos = vec![0x10];
        push::<8>(&mut nanos, (1 << NANOS_BITS) - 1);
        assert_eq!(Stat::decode(&mut Fields(&nanos)), None, "nanoseconds beyond a second");
    }

    fn time() -> impl Strategy<Value = Time> {
        let seconds = prop_oneof![any::<i64>(), -3_000_000_000i64..20_000_000_000, -2..2i64];
        let nanos = prop_oneof![0..1_000_000_000u32, (0..1000u32).prop_map(|millis| millis * 1_000_000)];
        (seconds, nanos).prop_map(|(seconds, nanos)| Time::new(seconds, nanos).unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn there_and_back(
            perm in 0..=0o7777u16, uid in any::<u32>(), gid in any::<u32>(), same in any::<bool>(),
            mtime in time(), ctime in time(), atime in time(),
        ) {
            let gid = if same { uid } else { gid };
            encoded(&Stat { perm, uid, gid, mtime, ctime, atime });
        }

        #[test]
        fn any_bytes_are_safe(bytes in prop::collection::vec(any::<u8>(), 0..50)) {
            let _ = Stat::decode(&mut Fields(&bytes));
        }
    }
}

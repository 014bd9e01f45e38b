//! Access control lists: their bytes, and what they are beside a mode. Pure.
//!
//! The bytes are what the kernel hands to and wants from a file system as the value of the extended
//! attributes `system.posix_acl_access` and `system.posix_acl_default`, and so are stored:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | version: 2 |
//! | 4 | 8 each | entries |
//!
//! An entry:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 2 | tag: 0x01 owner, 0x02 a user, 0x04 group, 0x08 a group, 0x10 mask, 0x20 others |
//! | 2 | 2 | permissions: 4 read, 2 write, 1 execute |
//! | 4 | 4 | number of the user or group; all ones with the other tags |
//!
//! All little-endian. Entries come in the order of their tags; owner, group and others exactly once; a
//! mask at most once, and always where users or groups are named.
//!
//! Three entries alone say what a mode says: such a list is not stored. Of any other the owner's entry,
//! the mask (without one: the group's entry) and the others' entry are the nine bits of the mode (F9).

/// Most entries. The kernel takes and gives an ACL in one page of memory; where pages are larger than
/// 4 KiB one could be set that elsewhere nobody can read.
pub(crate) const ENTRIES_MAX: usize = 511;
/// Longest encoding.
pub(crate) const ACL_BYTES_MAX: usize = HEAD_BYTES + ENTRIES_MAX * ENTRY_BYTES;
const VERSION: [u8; HEAD_BYTES] = 2u32.to_le_bytes();
const HEAD_BYTES: usize = 4;
const ENTRY_BYTES: usize = 8;
/// No user and no group has this number.
const NOBODY: u32 = u32::MAX;
const RWX: u16 = 0o7;
/// The bits of a mode that an ACL says.
pub(crate) const MODE_BITS: u16 = 0o777;

/// Whom an entry is about; in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Owner,
    User(u32),
    Group,
    OtherGroup(u32),
    Mask,
    Others,
}

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    who: Who,
    /// At most [`RWX`].
    perm: u16,
}

/// A valid ACL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acl(Vec<Entry>);

impl Acl {
    /// Reads one. `None`: these bytes are none. (The numbers of users and groups may come in any order,
    /// and more than once, as the kernel has it: the first one counts.)
    pub(crate) fn decode(bytes: &[u8]) -> Option<Acl> {
        let entries = bytes.strip_prefix(&VERSION)?;
        if entries.len() % ENTRY_BYTES != 0 || bytes.len() > ACL_BYTES_MAX {
            return None;
        }
        let acl = Acl(entries.chunks_exact(ENTRY_BYTES).map(Entry::decode).collect::<Option<_>>()?);
        acl.is_valid().then_some(acl)
    }

    /// Its bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_vec();
        self.0.iter().for_each(|entry| entry.encode(&mut bytes));
        bytes
    }

    fn is_valid(&self) -> bool {
        let rank = |who| match who {
            Who::Owner => 0,
            Who::User(_) => 1,
            Who::Group => 2,
            Who::OtherGroup(_) => 3,
            Who::Mask => 4,
            Who::Others => 5,
        };
        let is_in_order = self.0.is_sorted_by_key(|entry| rank(entry.who));
        let count = |who| self.0.iter().filter(|entry| rank(entry.who) == rank(who)).count();
        let names_somebody = count(Who::User(0)) + count(Who::OtherGroup(0)) > 0;
        let are_once = [Who::Owner, Who::Group, Who::Others].into_iter().all(|who| count(who) == 1);
        let masks = count(Who::Mask);
        is_in_order && are_once && (masks == 1 || masks == 0 && !names_somebody)
    }

    /// Whether a mode says as much.
    pub(crate) fn is_mode(&self) -> bool {
        self.0.len() == 3
    }

    /// The nine bits of the mode that stat(2) shows.
    pub(crate) fn mode(&self) -> u16 {
        self.classes().into_iter().fold(0, |mode, (at, shift)| mode | self.0[at].perm << shift)
    }

    /// What chmod(2) does to it: the nine bits become those of `perm`.
    pub(crate) fn chmod(&mut self, perm: u16) {
        for (at, shift) in self.classes() {
            self.0[at].perm = perm >> shift & RWX;
        }
    }

    /// Where the entries stand that are the bits of the mode, and where in the mode these are.
    fn classes(&self) -> [(usize, u32); 3] {
        let find = |who| self.0.iter().position(|entry| entry.who == who);
        let at = |who| find(who).expect("a valid ACL has one");
        [(at(Who::Owner), 6), (find(Who::Mask).unwrap_or_else(|| at(Who::Group)), 3), (at(Who::Others), 0)]
    }
}

/// An access ACL as it is with what `umask` takes away from its mode. `bytes`: an ACL, as it is stored.
pub fn masked_acl(bytes: &[u8], umask: u16) -> Vec<u8> {
    let mut acl = Acl::decode(bytes).expect("one that was read and found valid");
    acl.chmod(acl.mode() & !umask);
    acl.encode()
}

impl Entry {
    fn decode(bytes: &[u8]) -> Option<Entry> {
        let [tag, tag_high, perm, perm_high, id @ ..] = *bytes.first_chunk::<ENTRY_BYTES>()?;
        let id = u32::from_le_bytes(id);
        let who = match u16::from_le_bytes([tag, tag_high]) {
            0x01 => Who::Owner,
            0x02 if id != NOBODY => Who::User(id),
            0x04 => Who::Group,
            0x08 if id != NOBODY => Who::OtherGroup(id),
            0x10 => Who::Mask,
            0x20 => Who::Others,
            _ => return None,
        };
        let perm = u16::from_le_bytes([perm, perm_high]);
        (perm <= RWX).then_some(Entry { who, perm })
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        let (tag, id): (u16, u32) = match self.who {
            Who::Owner => (0x01, NOBODY),
            Who::User(id) => (0x02, id),
            Who::Group => (0x04, NOBODY),
            Who::OtherGroup(id) => (0x08, id),
            Who::Mask => (0x10, NOBODY),
            Who::Others => (0x20, NOBODY),
        };
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&self.perm.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An ACL in few words: owner, (user, permissions), group, (group, permissions), mask, others.
    pub(crate) fn acl(
        owner: u16,
        users: &[(u32, u16)],
        group: u16,
        groups: &[(u32, u16)],
        mask: Option<u16>,
        others: u16,
    ) -> Acl {
        let mut entries = vec![Entry { who: Who::Owner, perm: owner }];
        entries.extend(users.iter().map(|(id, perm)| Entry { who: Who::User(*id), perm: *perm }));
        entries.push(Entry { who: Who::Group, perm: group });
        entries.extend(groups.iter().map(|(id, perm)| Entry { who: Who::OtherGroup(*id), perm: *perm }));
        entries.extend(mask.map(|perm| Entry { who: Who::Mask, perm }));
        entries.push(Entry { who: Who::Others, perm: others });
        Acl(entries)
    }

    #[test]
    fn golden_bytes() {
        let all = acl(7, &[(1000, 6)], 5, &[(0x0102_0304, 4)], Some(6), 1);
        let bytes = [
            2, 0, 0, 0, // version
            0x01, 0, 7, 0, 0xff, 0xff, 0xff, 0xff, // owner
            0x02, 0, 6, 0, 0xe8, 0x03, 0, 0, // user 1000
            0x04, 0, 5, 0, 0xff, 0xff, 0xff, 0xff, // group
            0x08, 0, 4, 0, 0x04, 0x03, 0x02, 0x01, // a group
            0x10, 0, 6, 0, 0xff, 0xff, 0xff, 0xff, // mask
            0x20, 0, 1, 0, 0xff, 0xff, 0xff, 0xff, // others
        ];
        assert_eq!(all.encode(), bytes);
        assert_eq!(Acl::decode(&bytes), Some(all.clone()));
        assert!(!all.is_mode());
        assert_eq!(all.mode(), 0o761);
    }

    #[test]
    fn three_entries_are_a_mode() {
        let mut three = acl(6, &[], 4, &[], None, 0);
        assert!(three.is_mode());
        assert_eq!(three.mode(), 0o640);
        three.chmod(0o4755);
        assert_eq!(three, acl(7, &[], 5, &[], None, 5));
    }

    /// The group's own entry stays what it is: the mask says what of it counts.
    #[test]
    fn chmod_changes_the_mask_where_there_is_one() {
        let mut masked = acl(7, &[(1, 7)], 5, &[], Some(7), 0);
        masked.chmod(0o604);
        assert_eq!(masked, acl(6, &[(1, 7)], 5, &[], Some(0), 4));
        assert_eq!(masked.mode(), 0o604);
        let mut only_a_mask = acl(7, &[], 5, &[], Some(1), 0);
        only_a_mask.chmod(0o777);
        assert_eq!(only_a_mask, acl(7, &[], 5, &[], Some(7), 7));
    }

    #[test]
    fn what_is_none_is_refused() {
        let valid = acl(7, &[(5, 6)], 5, &[(6, 4)], Some(6), 1).encode();
        assert!(Acl::decode(&valid).is_some());
        for length in 0..valid.len() {
            assert_eq!(Acl::decode(&valid[..length]), None, "the first {length} bytes");
        }
        let with = |at: usize, byte: u8| {
            let mut bytes = valid.clone();
            bytes[at] = byte;
            Acl::decode(&bytes)
        };
        assert_eq!(with(0, 1), None, "version 1");
        assert_eq!(with(6, 8), None, "a permission that there is not");
        assert_eq!(with(7, 1), None, "permissions of 9 bits");
        assert_eq!(with(4, 0x03), None, "a tag that there is not");
        assert_eq!(with(4, 0x20), None, "out of order");
        assert_eq!(with(12, 0x01), None, "two owners");
        let nobody = acl(7, &[(NOBODY, 6)], 5, &[], Some(6), 1);
        assert_eq!(Acl::decode(&nobody.encode()), None);
        assert_eq!(Acl::decode(&acl(7, &[(5, 6)], 5, &[], None, 1).encode()), None, "a user, and no mask");
        assert_eq!(Acl::decode(&acl(7, &[], 5, &[(5, 6)], None, 1).encode()), None, "a group, and no mask");
        let many: Vec<(u32, u16)> = (0..600).map(|id| (id, 7)).collect();
        assert!(Acl::decode(&acl(7, &many[..ENTRIES_MAX - 4], 5, &[], Some(7), 1).encode()).is_some());
        assert_eq!(Acl::decode(&acl(7, &many[..ENTRIES_MAX - 3], 5, &[], Some(7), 1).encode()), None);
    }

    fn named() -> impl Strategy<Value = Vec<(u32, u16)>> {
        proptest::collection::vec((0..NOBODY, 0..=RWX), 0..4)
    }

    prop_compose! {
        fn any_acl()(users in named(), groups in named(), perms in [0..=RWX, 0..=RWX, 0..=RWX, 0..=RWX], masked: bool) -> Acl {
            let needs_mask = masked || !users.is_empty() || !groups.is_empty();
            acl(perms[0], &users, perms[1], &groups, needs_mask.then_some(perms[2]), perms[3])
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(acl in any_acl()) {
            let bytes = acl.encode();
            prop_assert_eq!(Acl::decode(&bytes), Some(acl));
        }

        #[test]
        fn a_flipped_bit_makes_another_acl_or_none(acl in any_acl(), at: usize, bit in 0..8u8) {
            let mut bytes = acl.encode();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            // Numbers beside tags that have none are not looked at.
            if let Some(changed) = Acl::decode(&bytes) {
                prop_assert_eq!(Acl::decode(&changed.encode()), Some(changed));
            }
        }

        #[test]
        fn chmod_makes_the_mode(mut acl in any_acl(), perm in 0..=0o7777u16) {
            let before = acl.clone();
            acl.chmod(perm);
            prop_assert_eq!(acl.mode(), perm & MODE_BITS);
            prop_assert_eq!(acl.is_mode(), before.is_mode());
            acl.chmod(before.mode());
            prop_assert_eq!(acl, before);
        }
    }
}

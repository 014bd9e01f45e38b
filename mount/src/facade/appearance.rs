//! What files look like where the mount was told whose they are to be: `uid=`, `gid=`, `umask=`.
//!
//! Only what is shown changes, and with it what the kernel permits; owners, modes and ACLs are stored as
//! they are given. So the same store shows them elsewhere.

use crate::fs::{ACCESS_ACL, Attr, Caller, FileType, SetAttr, masked_acl};
use bytes::Bytes;
use fuser::Errno;

/// Set-user-id and set-group-id.
const SET_IDS: u32 = 0o6000;

/// What is shown instead of what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Appearance {
    /// The owner of everything.
    pub uid: Option<u32>,
    /// The group of everything.
    pub gid: Option<u32>,
    /// Permissions that nothing has. At most 0777.
    pub umask: u16,
}

impl Appearance {
    /// What stat(2) is to tell.
    pub fn of(self, attr: &Attr) -> Attr {
        let umask = if attr.kind == FileType::Symlink { 0 } else { self.umask };
        Attr { uid: self.uid.unwrap_or(attr.uid), gid: self.gid.unwrap_or(attr.gid), perm: attr.perm & !umask, ..*attr }
    }

    /// An extended attribute's value. Of an access ACL the kernel goes by the entries, not by the mode.
    pub fn of_xattr(self, name: &[u8], value: Bytes) -> Bytes {
        if self.umask != 0 && name == ACCESS_ACL { masked_acl(&value, self.umask).into() } else { value }
    }

    /// What to store of a mode. Whoever is only shown as the owner must not make programs that run as the
    /// one who is stored: where the store is mounted otherwise, they would.
    pub fn stored_mode(self, caller: Caller, mode: u32) -> u32 {
        if (self.uid.is_some() || self.gid.is_some()) && caller.uid != 0 { mode & !SET_IDS } else { mode }
    }

    /// What to store of a change: whose something is can only be set to what it is said to be, which
    /// changes nothing.
    pub fn stored(self, caller: Caller, wanted: SetAttr) -> Result<SetAttr, Errno> {
        let id = |shown: Option<u32>, wanted: Option<u32>| match (shown, wanted) {
            (Some(shown), Some(wanted)) if shown != wanted => Err(Errno::EPERM),
            (Some(_), _) => Ok(None),
            (None, wanted) => Ok(wanted),
        };
        let mode = wanted.mode.map(|mode| self.stored_mode(caller, mode));
        Ok(SetAttr { mode, uid: id(self.uid, wanted.uid)?, gid: id(self.gid, wanted.gid)?, ..wanted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_is_set_to_what_it_is_shown_as_or_not_at_all() {
        let look = Appearance { uid: Some(5), gid: None, umask: 0 };
        let user = Caller { uid: 5, gid: 5, umask: 0 };
        let chown = |uid, gid| look.stored(user, SetAttr { uid, gid, mode: Some(0o600), ..SetAttr::default() });
        let stored = chown(Some(5), Some(6)).unwrap();
        assert_eq!((stored.uid, stored.gid, stored.mode), (None, Some(6), Some(0o600)));
        assert_eq!(chown(Some(4), None).unwrap_err(), Errno::EPERM);
        assert_eq!(chown(None, None).unwrap().uid, None);
    }

    #[test]
    fn who_is_only_shown_as_the_owner_gives_no_privileges_away() {
        let look = Appearance { uid: Some(5), gid: None, umask: 0 };
        let mode = |look: Appearance, uid| look.stored_mode(Caller { uid, gid: 5, umask: 0 }, 0o6755);
        assert_eq!((mode(look, 5), mode(look, 0), mode(Appearance::default(), 5)), (0o755, 0o6755, 0o6755));
    }
}

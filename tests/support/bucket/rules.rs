//! What nobody may ever ask of a bucket. Each request is held to it as it arrives, also those that
//! get lost.
//!
//! Whoever breaks one loses data only in the crash or race that the rule is there for; so the rules
//! are asserted everywhere, not only where that happens. A *peer* is one opening of a store, with
//! its own connection ([`Handle`](super::Handle)).
//!
//! Of any bucket (C7):
//! * B1 A name is put by one peer only, always with the same body, and never once it was deleted.
//! * B2 A peer tries to create a name with one body only. (Not so below `p/`, where a server is tried
//!   out by creates that race.)
//! * B3 A name is either created or put, never both.
//! * B4 No object ever has two contents. (Only a server that does not heed conditions can make a
//!   peer break this that keeps the other rules.)
//!
//! Of a log in it, by the names of its layout:
//! * L1 (R8) A commit or seal is created only by who has created or read the one before it.
//! * L2 (R8) No other commit or seal is created by a peer before it knows what became of its last.
//! * L3 (R8) Commits of an epoch are created by the peer that created its first.
//! * L4 (R8) An epoch's first commit is created only when the epoch before it is sealed.
//! * L5 (R9) Of an open epoch, and of one that is not followed by another, nothing is deleted;
//!   else never the first commit, the seal, nor the commit just before the seal.
//! * L6 (R9) Nobody is told that a commit was created whose name had been used and deleted.
//! * L7 (R11) A data segment is put only by who has opened an epoch.

use super::call::{COMMIT_MAGIC, Call, DATA_MAGIC, Place, SEAL_MAGIC, What, commit_name, place_of};
use super::contents::{Conditional, Contents};
use bytes::Bytes;
use kivafs::backend::ObjectError;
use std::collections::{HashMap, HashSet};
use xxhash_rust::xxh3::xxh3_128;

/// What was asked so far, as far as the rules need it.
#[derive(Clone, Default)]
pub struct Rules {
    /// Who puts a name, and the checksum of what.
    puts: HashMap<String, (usize, u128)>,
    creates: HashMap<(usize, String), u128>,
    created_names: HashSet<String>,
    /// What was ever stored under a name.
    stored: HashMap<String, HashSet<u128>>,
    /// Who created an epoch's first commit.
    owners: HashMap<u64, usize>,
    /// Commits and seals that a peer has created or read.
    known: HashSet<(usize, String)>,
    /// Of each peer: the commit or seal of which it does not know what became.
    unresolved: HashMap<usize, String>,
}

impl Rules {
    /// A request has arrived. Panics if it breaks a rule.
    pub fn arrive(&mut self, peer: usize, call: &Call, contents: &Contents) {
        match call {
            Call::Create { name, body } => {
                let sum = xxh3_128(body);
                if let Some(before) = self.creates.get(&(peer, name.clone())) {
                    assert!(*before == sum || is_trial(name), "B2: peer {peer} creates {name} with a second body");
                }
                assert!(!self.puts.contains_key(name), "B3: peer {peer} creates {name}, which was put");
                if let Some(Place::Commit { epoch, number }) = place_of(name) {
                    self.check_commit(peer, name, (epoch, number), call, contents);
                }
            }
            Call::Put { name, body } => {
                let before = self.puts.get(name).copied().unwrap_or((peer, xxh3_128(body)));
                assert!(before.0 == peer, "B1: peer {peer} puts {name}, which peer {} has put", before.0);
                assert!(before.1 == xxh3_128(body), "B1: peer {peer} puts {name} with a second body");
                assert!(contents.deleted_body(name).is_none(), "B1: peer {peer} puts {name}, which was deleted");
                assert!(!self.created_names.contains(name), "B3: peer {peer} puts {name}, which was created");
                match place_of(name) {
                    Some(Place::Data { .. }) => {
                        let owns = self.owners.values().any(|owner| *owner == peer);
                        assert!(owns, "L7: peer {peer} puts {name} and has opened no epoch");
                        assert!(body.starts_with(DATA_MAGIC), "{name} is no data segment");
                    }
                    Some(Place::Commit { .. }) => panic!("{name} is put, not created"),
                    None => {}
                }
            }
            Call::Delete { names } => {
                assert!((1..=1000).contains(&names.len()), "{} names to delete", names.len());
                names.iter().for_each(|name| check_delete(peer, name, contents));
            }
            Call::Get { .. } | Call::List { .. } => {}
        }
        self.note_arrived(peer, call);
    }

    /// The same without looking for violations.
    pub fn note_arrived(&mut self, peer: usize, call: &Call) {
        match call {
            Call::Create { name, body } => {
                self.creates.insert((peer, name.clone()), xxh3_128(body));
                self.created_names.insert(name.clone());
                if let Some(Place::Commit { .. }) = place_of(name) {
                    self.unresolved.insert(peer, name.clone());
                }
            }
            Call::Put { name, body } => {
                self.puts.insert(name.clone(), (peer, xxh3_128(body)));
            }
            Call::Get { .. } | Call::List { .. } | Call::Delete { .. } => {}
        }
    }

    fn check_commit(&self, peer: usize, name: &str, place: (u64, u64), call: &Call, contents: &Contents) {
        let (epoch, number) = place;
        assert!(epoch > 0 && number > 0, "{name}: epochs and commits count from 1");
        if let Some(open) = self.unresolved.get(&peer) {
            assert!(open == name, "L2: peer {peer} creates {name} before it knows what became of {open}");
        }
        if number > 1 {
            let before = commit_name(epoch, number - 1);
            let knows = self.known.contains(&(peer, before.clone()));
            assert!(knows, "L1: peer {peer} creates {name} and has neither created nor read {before}");
        }
        let Call::Create { body, .. } = call else { unreachable!("is a create") };
        match call.what() {
            What::Seal => assert!(number > 1, "{name}: a seal in the first commit's place"),
            What::Claim => {
                assert!(body.starts_with(COMMIT_MAGIC), "{name} is no commit");
                let may = epoch == 1 || contents.seal_of(epoch - 1).is_some();
                assert!(may, "L4: peer {peer} opens epoch {epoch}, and the one before is not sealed");
            }
            _ => {
                assert!(body.starts_with(COMMIT_MAGIC), "{name} is no commit");
                let owner = self.owners.get(&epoch);
                assert!(owner == Some(&peer), "L3: peer {peer} writes in epoch {epoch} of peer {owner:?}");
            }
        }
    }

    /// A request was carried out. Panics if an object has two contents by that.
    pub fn carried_out(&mut self, peer: usize, call: &Call, contents: &Contents) {
        let (Call::Create { name, body } | Call::Put { name, body }) = call else { return };
        // A name that was deleted may be sealed anew: by who cannot know (a stale taker).
        let is_stale_seal = call.what() == What::Seal && contents.deleted_body(name).is_some();
        if is_stale_seal || is_trial(name) {
            return;
        }
        let sums = self.stored.entry(name.clone()).or_default();
        sums.insert(xxh3_128(body));
        let is_heeding = contents.conditional == Conditional::Atomic;
        assert!(sums.len() == 1 || !is_heeding, "B4: {name} has two contents");
        if let Some(Place::Commit { epoch, number: 1 }) = place_of(name) {
            self.owners.insert(epoch, peer);
        }
    }

    /// A request was answered. Panics if the answer is one that must never be given.
    pub fn answered(&mut self, peer: usize, call: &Call, result: Result<(), &ObjectError>, contents: &Contents) {
        match (call, result) {
            (Call::Create { name, .. }, Ok(())) => {
                let is_resurrected = call.what() == What::Commit && contents.deleted_body(name).is_some();
                assert!(!is_resurrected, "L6: peer {peer} has created {name}, which was deleted");
                self.known.insert((peer, name.clone()));
                self.resolve(peer, name);
            }
            (Call::Create { name, .. }, Err(ObjectError::Exists)) => self.resolve(peer, name),
            (Call::Get { name, .. }, Ok(())) if matches!(place_of(name), Some(Place::Commit { .. })) => {
                self.known.insert((peer, name.clone()));
                self.resolve(peer, name);
            }
            _ => {}
        }
    }

    /// Names under which something was stored, and how many of them held different contents.
    pub fn count_contents(&self) -> (usize, usize) {
        (self.stored.len(), self.stored.values().filter(|sums| sums.len() > 1).count())
    }

    fn resolve(&mut self, peer: usize, name: &str) {
        if self.unresolved.get(&peer).is_some_and(|open| open == name) {
            self.unresolved.remove(&peer);
        }
    }
}

/// A name that is only there to see how the server treats creates that race.
fn is_trial(name: &str) -> bool {
    name.starts_with("p/")
}

fn check_delete(peer: usize, name: &str, contents: &Contents) {
    let Some(Place::Commit { epoch, number }) = place_of(name) else { return };
    let Some(seal) = contents.seal_of(epoch) else {
        panic!("L5: peer {peer} deletes {name} of an open epoch");
    };
    let is_followed = contents.body(&commit_name(epoch + 1, 1)).is_some();
    assert!(is_followed, "L5: peer {peer} deletes {name}, and no epoch follows");
    let is_kept = number == 1 || number + 1 >= seal;
    assert!(!is_kept, "L5: peer {peer} deletes {name}, which stays for ever (sealed at {seal})");
}

/// Panics if an object's bytes are not what its name says, or its name is none of the layout's.
pub fn assert_layout(contents: &Contents) {
    for name in contents.names() {
        let body: &Bytes = contents.body(&name).expect("is there");
        let fits = match place_of(&name) {
            Some(Place::Commit { .. }) => body.starts_with(COMMIT_MAGIC) || body.starts_with(SEAL_MAGIC),
            Some(Place::Data { .. }) => body.starts_with(DATA_MAGIC),
            None => is_trial(&name),
        };
        assert!(fits, "{name} ({} bytes) has no place in the layout", body.len());
    }
}

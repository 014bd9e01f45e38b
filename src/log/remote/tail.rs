//! The redo since the checkpoint, and in which commits it is found.
//!
//! Recovery must not need a GET for each of thousands of tiny commits (why.md of 2012: 3,000 GETs at a
//! mount). So a commit repeats the redo of those before it while that is little, and links to the
//! few commits that hold the rest: [`LINKS_MAX`] of them. When there would be more, the youngest are
//! merged into the new commit, always enough of them that each byte is written again only a few times
//! (as in a log-structured merge tree).
//!
//! T1 The links of a commit and what it repeats are together the whole redo since the checkpoint.

use super::record::{Link, Repeated};
use crate::log::commit::Birth;
use crate::log::pointer::Sequence;
use bytes::Bytes;
use std::collections::VecDeque;

/// Redo before a commit is repeated while all in it stays below this.
const REPEATED_BYTES_MAX: u64 = 64 << 10;
/// Commits beside the newest that recovery reads.
const LINKS_MAX: usize = 3;
/// More than this is not written twice in one commit: bulk loads have long commits, and a checkpoint
/// comes soon.
const MERGED_BYTES_MAX: u64 = 4 << 20;
/// Then so many links are allowed.
const LONG_LINKS_MAX: usize = 12;

/// The redo of one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The commit.
    pub sequence: Sequence,
    /// The data segments opened since the one before.
    pub births: Vec<Birth>,
    /// The store layer's redo.
    pub body: Bytes,
}

impl Entry {
    fn bytes(&self) -> u64 {
        // Sequence, two counts.
        16 + (self.births.len() * crate::log::commit::BIRTH_BYTES + self.body.len()) as u64
    }
}

/// A commit of this epoch, and the first entry of the tail that is in it rather than in those
/// before.
struct Group {
    link: Link,
    first: Sequence,
    bytes: u64,
}

/// The tail.
#[derive(Default)]
pub struct Tail {
    entries: VecDeque<Entry>,
    groups: Vec<Group>,
    bytes: u64,
}

/// What a commit is to repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    groups: usize,
    entries: usize,
}

impl Tail {
    /// A tail whose entries are all to be repeated: of an epoch that has no commit yet.
    pub fn of(entries: Vec<Entry>) -> Tail {
        let bytes = entries.iter().map(Entry::bytes).sum();
        Tail { entries: entries.into(), groups: Vec::new(), bytes }
    }

    /// Bytes of redo.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What a commit with that entry repeats.
    pub fn plan(&self, own: &Entry) -> Plan {
        let mut groups = self.groups.len();
        let mut merged = own.bytes();
        while let Some(last) = groups.checked_sub(1).map(|last| &self.groups[last]) {
            let too_many = match merged + last.bytes {
                ..=MERGED_BYTES_MAX => groups > LINKS_MAX,
                _ => groups > LONG_LINKS_MAX,
            };
            // Once there are too many, room is made for more than this one, and nothing long is left
            // behind something short.
            let goes_on = groups < self.groups.len()
                && self.groups.len() > LINKS_MAX
                && merged + last.bytes <= MERGED_BYTES_MAX
                && (groups == LINKS_MAX || last.bytes <= merged);
            if merged + last.bytes > REPEATED_BYTES_MAX && !too_many && !goes_on {
                break;
            }
            merged += last.bytes;
            groups -= 1;
        }
        let first = self.groups.get(groups).map(|group| group.first);
        let entries = match first {
            Some(first) => self.entries.iter().filter(|entry| entry.sequence >= first).count(),
            // What no commit of this epoch has yet.
            None if groups == 0 && self.groups.is_empty() => self.entries.len(),
            None => 0,
        };
        Plan { groups, entries }
    }

    /// The links of that plan.
    pub fn links(&self, plan: Plan) -> Vec<Link> {
        self.groups[..plan.groups].iter().map(|group| group.link).collect()
    }

    /// What is repeated: the description, and all births and bodies one after another, with room
    /// for `own`.
    pub fn repeat(&self, plan: Plan, own: &Entry) -> (Vec<Repeated>, Vec<Birth>, Vec<u8>) {
        let entries = || self.entries.range(self.entries.len() - plan.entries..);
        let repeated = entries()
            .map(|entry| Repeated {
                sequence: entry.sequence,
                births: entry.births.len() as u32,
                body_bytes: entry.body.len() as u32,
            })
            .collect();
        let all = || entries().chain([own]);
        let births = all().flat_map(|entry| entry.births.iter().copied()).collect();
        let mut body = Vec::with_capacity(all().map(|entry| entry.body.len()).sum());
        all().for_each(|entry| body.extend_from_slice(&entry.body));
        (repeated, births, body)
    }

    /// The commit of that plan is durable.
    pub fn push(&mut self, plan: Plan, own: Entry, link: Link) {
        let first = self.entries.range(self.entries.len() - plan.entries..).next().map_or(own.sequence, |e| e.sequence);
        self.bytes += own.bytes();
        self.entries.push_back(own);
        let bytes = self.entries.iter().rev().take(plan.entries + 1).map(Entry::bytes).sum();
        self.groups.truncate(plan.groups);
        self.groups.push(Group { link, first, bytes });
    }

    /// A checkpoint holds everything before `redo_from`.
    pub fn forget_before(&mut self, redo_from: Sequence) {
        while self.entries.front().is_some_and(|entry| entry.sequence < redo_from) {
            let entry = self.entries.pop_front().expect("just seen");
            self.bytes -= entry.bytes();
        }
        let keep = self.groups.iter().skip(1).take_while(|next| next.first <= redo_from).count();
        self.groups.drain(..keep);
        if let Some(first) = self.groups.first_mut()
            && first.first < redo_from
        {
            let until = self.groups.get(1).map(|next| next.first);
            let mine = |entry: &&Entry| until.is_none_or(|until| entry.sequence < until);
            let bytes = self.entries.iter().take_while(mine).map(Entry::bytes).sum();
            let first = &mut self.groups[0];
            (first.first, first.bytes) = (redo_from, bytes);
        }
    }

    /// A new epoch begins: no commit of it has anything yet.
    pub fn roll(&mut self) {
        self.groups.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    /// What commits hold, by number: their links, and their entries.
    type Stored = HashMap<u64, (Vec<Link>, Vec<Entry>)>;

    fn entry(sequence: u64, length: usize) -> Entry {
        Entry { sequence: Sequence(sequence), births: Vec::new(), body: vec![sequence as u8; length].into() }
    }

    fn commit(tail: &mut Tail, stored: &mut Stored, own: Entry) -> usize {
        let number = own.sequence.0;
        let plan = tail.plan(&own);
        let links = tail.links(plan);
        let (repeated, _, body) = tail.repeat(plan, &own);
        let mut at = 0;
        let mut entries: Vec<Entry> = repeated
            .iter()
            .map(|repeated| {
                let end = at + repeated.body_bytes as usize;
                let body = body[at..end].to_vec().into();
                at = end;
                Entry { sequence: repeated.sequence, births: Vec::new(), body }
            })
            .collect();
        assert_eq!(body[at..], own.body);
        entries.push(own.clone());
        let written = body.len();
        stored.insert(number, (links, entries));
        tail.push(plan, own, Link { number, checksum: number.into() });
        written
    }

    /// T1.
    fn read(stored: &Stored, newest: u64, redo_from: Sequence) -> Vec<Entry> {
        let (links, last) = &stored[&newest];
        assert!(links.len() <= LONG_LINKS_MAX);
        let linked = links.iter().flat_map(|link| stored[&link.number].1.iter());
        linked.chain(last).filter(|entry| entry.sequence >= redo_from).cloned().collect()
    }

    proptest! {
        #[test]
        fn the_newest_commit_leads_to_the_whole_tail(
            lengths in prop::collection::vec(prop_oneof![0..400usize, 0..400usize, 0..90_000usize, 0..3_000_000usize], 1..60),
            checkpoints in prop::collection::vec((0..60usize, 1..20u64), 0..4),
        ) {
            let (mut tail, mut stored, mut redo_from) = (Tail::default(), Stored::new(), Sequence(1));
            for (at, length) in lengths.iter().enumerate() {
                let sequence = at as u64 + 1;
                for (_, back) in checkpoints.iter().filter(|(when, _)| *when == at) {
                    redo_from = redo_from.max(Sequence(sequence.saturating_sub(*back).max(1)));
                    tail.forget_before(redo_from);
                }
                commit(&mut tail, &mut stored, entry(sequence, *length));
                let expected: Vec<Entry> = (redo_from.0..=sequence).map(|s| entry(s, lengths[s as usize - 1])).collect();
                prop_assert_eq!(read(&stored, sequence, redo_from), expected.clone());
                prop_assert_eq!(tail.bytes(), expected.iter().map(Entry::bytes).sum::<u64>());
            }
        }
    }

    #[test]
    fn tiny_commits_need_few_reads_and_little_writing() {
        let (mut tail, mut stored) = (Tail::default(), Stored::new());
        let mut written = 0;
        for sequence in 1..=10_000 {
            written += commit(&mut tail, &mut stored, entry(sequence, 300));
            assert!(stored[&sequence].0.len() <= LINKS_MAX);
        }
        // Three megabytes in ten thousand commits: about half of what is repeated at most, each time.
        assert!(written / 10_000 < 120 << 10, "{} bytes a commit", written / 10_000);
    }

    #[test]
    fn a_new_epoch_repeats_everything() {
        let mut tail = Tail::default();
        let mut stored = Stored::new();
        for sequence in 1..=5 {
            commit(&mut tail, &mut stored, entry(sequence, 100_000));
        }
        tail.roll();
        commit(&mut tail, &mut stored, entry(6, 0));
        assert!(stored[&6].0.is_empty());
        assert_eq!(stored[&6].1.len(), 6);
    }
}

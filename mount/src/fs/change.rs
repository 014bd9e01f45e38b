//! One change: a transaction, and what it means for the table of what the kernel holds.

use crate::fs::attr::{INO_MAX, Ino};
use crate::fs::entry::{Entry, INLINE_MAX, Ref};
use crate::fs::error::{FsError, Result};
use crate::fs::filesystem::FileSystem;
use crate::fs::fs_record::FsRecord;
use crate::fs::inode::Body;
use crate::fs::key;
use crate::fs::name::Name;
use crate::fs::node::Node;
use crate::fs::records::Records;
use crate::fs::table::{Effect, Known, Place, Stale};
use crate::fs::time::Time;
use kivafs::store::Txn;
use parking_lot::MutexGuard;
use std::sync::atomic::Ordering;

/// A change under way. Dropping it abandons it. While it lives no other change is made, so what it
/// reads stays true until [`Change::commit`] has applied it, to the store and then to the table
/// (F7).
pub(crate) struct Change<'a> {
    /// The transaction; `None` once committed.
    txn: Option<Txn<'a>>,
    fs: &'a FileSystem,
    /// The time of this change.
    pub(crate) now: Time,
    effects: Vec<Effect>,
    doomed: Vec<Ino>,
    /// Nodes that were put, if times of access are kept.
    put: Vec<Ino>,
    record: Option<FsRecord>,
    due: bool,
    _turn: MutexGuard<'a, ()>,
}

impl<'a> Change<'a> {
    /// Begins, and waits for its turn (microseconds: nobody waits for storage meanwhile). A store
    /// that has more to commit than a commit takes has no room for it, which is a miss.
    pub(crate) fn begin(fs: &'a FileSystem) -> Result<Change<'a>> {
        let txn = Some(fs.store().begin_now()?);
        let turn = fs.turn.lock();
        let now = (fs.clock)();
        Ok(Change {
            txn,
            fs,
            now,
            effects: Vec::new(),
            doomed: Vec::new(),
            put: Vec::new(),
            record: None,
            due: false,
            _turn: turn,
        })
    }

    /// The transaction, to read.
    pub(crate) fn txn(&self) -> &Txn<'a> {
        self.txn.as_ref().expect("only commit takes it, and consumes the change")
    }

    /// The transaction, to write.
    pub(crate) fn txn_mut(&mut self) -> &mut Txn<'a> {
        self.txn.as_mut().expect("only commit takes it, and consumes the change")
    }

    /// A node that the caller holds. `Stale`: it is gone.
    pub(crate) fn node(&self, ino: Ino) -> Result<Node> {
        let known = self.fs.table.lock().known(ino);
        let place = match known {
            Known::Gone(_) => return Err(FsError::Stale),
            Known::At(place) => Some(place),
            Known::Elsewhere => None,
        };
        let mut node = Node::find(self.txn(), ino, place)?.ok_or(FsError::Stale)?;
        self.fs.accesses.show(&mut node);
        Ok(node)
    }

    /// A directory that the caller holds. `NotFound`: it was removed.
    pub(crate) fn directory(&self, ino: Ino) -> Result<Node> {
        let node = self.node(ino).map_err(|error| match error {
            FsError::Stale => FsError::NotFound,
            error => error,
        })?;
        node.must_be_directory().map(|()| node)
    }

    /// What a directory has under a name.
    pub(crate) fn child(&self, dir: Ino, name: &Name) -> Result<Option<Node>> {
        let place = Place::of(dir, name);
        let entry = self.txn().entry(place.key())?;
        entry.map(|entry| self.node_of(place, entry)).transpose()
    }

    /// The entries at these places before this change. One miss names what is missing for any of them, or
    /// for the first hundreds.
    pub(crate) fn entries_before(&self, places: &[Place]) -> Result<Vec<Option<Entry>>> {
        let found = self.txn().get_all_before(&places.iter().map(Place::key).collect::<Vec<_>>())?;
        let entry =
            |(place, value): (&Place, Option<_>)| value.map(|value| Txn::found_entry(place.key(), value)).transpose();
        places.iter().zip(found).map(entry).collect()
    }

    /// What has the name at `place`, where that entry was before this change.
    pub(crate) fn child_now(&self, place: Place, before: Option<Entry>) -> Result<Option<Node>> {
        let entry = match self.txn().changed(place.key()) {
            Some(value) => value.clone().map(|value| Txn::found_entry(place.key(), value)).transpose()?,
            None => before,
        };
        entry.map(|entry| self.node_of(place, entry)).transpose()
    }

    fn node_of(&self, place: Place, entry: Entry) -> Result<Node> {
        let mut node = Node::of_entry(self.txn(), place, entry)?;
        self.fs.accesses.show(&mut node);
        Ok(node)
    }

    /// Records a node where it belongs.
    pub(crate) fn put_node(&mut self, node: &Node) {
        if self.fs.keeps_access_times() {
            self.put.push(node.ino);
        }
        match &node.place {
            Some(place) => {
                let entry = Entry::Pair(node.pair()).encode();
                self.txn_mut().put(place.key(), entry);
            }
            None => self.txn_mut().put(&key::inode(node.ino), node.inode.encode()),
        }
    }

    /// Gives a node a name: its pair moves there, or an entry refers to its record. The node itself
    /// is put, too.
    pub(crate) fn put_named(&mut self, node: &mut Node, place: Place) {
        if node.place.is_some() {
            node.place = Some(place);
        } else {
            let entry = Entry::Ref(Ref { ino: node.ino, kind: node.inode.kind });
            self.txn_mut().put(place.key(), entry.encode());
        }
        self.put_node(node);
    }

    /// Removes a name.
    pub(crate) fn delete_name(&mut self, place: &Place) {
        self.txn_mut().delete(place.key());
    }

    /// Makes a pair a node with its own record, which is still to be put. With `named` its entry
    /// stays, as a reference.
    pub(crate) fn promote(&mut self, node: &mut Node, named: bool) {
        let Some(place) = node.place.take() else { return };
        if named {
            let entry = Entry::Ref(Ref { ino: node.ino, kind: node.inode.kind });
            self.txn_mut().put(place.key(), entry.encode());
        }
        self.effects.push(Effect::Promoted(node.ino));
    }

    /// Whether a new node of this form can be a pair.
    pub(crate) fn fits_pair(body: &Body) -> bool {
        matches!(body, Body::Inline(content) if content.len() <= INLINE_MAX)
    }

    /// Notes what the table is to take in once this is committed.
    pub(crate) fn then(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// This change removes something: it may use the space that is kept back for that.
    pub(crate) fn shrinks(&mut self) {
        self.txn_mut().may_use_reserve();
    }

    /// Once this is committed there is work for `deferred_step`.
    pub(crate) fn due(&mut self) {
        self.due = true;
    }

    /// The caller is told of the node by that name.
    pub(crate) fn look(&mut self, node: &Node, place: Place) {
        self.effects.push(Effect::Looked(node.ino, node.form(), place));
    }

    /// Whether the node stays without a name, above all because it is open. If not, it is not opened
    /// before this change is over.
    pub(crate) fn stays(&mut self, ino: Ino) -> bool {
        let stays = self.fs.table.lock().doom_unless_it_stays(ino);
        if !stays {
            self.doomed.push(ino);
        }
        stays
    }

    /// A number that no node ever had (F1); the node is counted (F4).
    pub(crate) fn new_ino(&mut self) -> Result<Ino> {
        let record = self.fs_record()?;
        let ino = record.next_ino;
        if ino.0 == INO_MAX {
            return Err(FsError::NoSpace);
        }
        record.next_ino = Ino(ino.0 + 1);
        record.nodes = record.nodes.checked_add(1).ok_or_else(|| FsError::damaged("number of nodes: too great"))?;
        Ok(ino)
    }

    /// A node is gone for good.
    pub(crate) fn uncount(&mut self) -> Result<()> {
        let record = self.fs_record()?;
        record.nodes = record.nodes.checked_sub(1).ok_or_else(|| FsError::damaged("number of nodes: too small"))?;
        Ok(())
    }

    /// The record of the file system, as this change leaves it.
    pub(crate) fn fs_record(&mut self) -> Result<&mut FsRecord> {
        if self.record.is_none() {
            self.record = self.txn().fs_record()?;
        }
        self.record.as_mut().ok_or_else(|| FsError::damaged("record of the file system: missing"))
    }

    /// Applies everything, first to the store, then to the table, before anyone else has a turn.
    pub(crate) fn commit(self) -> Result<()> {
        self.commit_unasked().map(drop)
    }

    /// The same for a change that the kernel has not asked for: answers what it knows wrongly now.
    pub(crate) fn commit_unasked(mut self) -> Result<Vec<Stale>> {
        let mut txn = self.txn.take().expect("only commit takes it, and consumes the change");
        if let Some(record) = self.record {
            txn.put(key::FS, record.encode());
        }
        txn.commit()?;
        self.put.iter().for_each(|ino| self.fs.accesses.stored(*ino));
        let without_name = |effect: &Effect| if let Effect::Unlinked(ino) = effect { Some(*ino) } else { None };
        let unlinked: Vec<Ino> = self.effects.iter().filter_map(without_name).collect();
        let (stale, was_let_go) = {
            let mut table = self.fs.table.lock();
            let stale = table.apply(std::mem::take(&mut self.effects));
            // Since it was found to stay: then nobody else will have it removed.
            (stale, unlinked.iter().any(|ino| !table.stays(*ino)))
        };
        if self.due || was_let_go {
            self.fs.deferred_due.store(true, Ordering::Relaxed);
        }
        Ok(stale)
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        if !self.doomed.is_empty() {
            let mut table = self.fs.table.lock();
            self.doomed.iter().for_each(|ino| table.spare(*ino));
        }
    }
}

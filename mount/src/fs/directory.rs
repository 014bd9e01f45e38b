//! Reading directories.
//!
//! An open directory holds the view that it was opened with, for at most [`VIEW_LIFE`]; then it goes
//! on in a newer one after the name it has reached. Offset 0 is ".", 1 is "..", and `n + 2` the n-th
//! entry, so an entry that lasts has one offset and appears exactly once. Going on where the last
//! call ended costs nothing; going elsewhere costs a scan of at most [`MARK_EVERY`] entries, from a
//! place remembered on the way.

use crate::fs::attr::{Attr, DirEntry, FileType, Handle, Ino};
use crate::fs::entry::Entry;
use crate::fs::error::{FsError, Result};
use crate::fs::filesystem::{FileSystem, Found};
use crate::fs::inode::Body;
use crate::fs::key;
use crate::fs::name::Name;
use crate::fs::node::Node;
use crate::fs::records::{Records, decoded};
use crate::fs::table::Place;
use kivafs::store::{Cursor, Miss, StoreError, View};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a view is held: space freed since is not reused meanwhile.
const VIEW_LIFE: Duration = Duration::from_secs(60);
/// One in so many entries is remembered, to come back to.
const MARK_EVERY: u64 = 1024;
/// Entries looked at in one go; with attributes each costs a look at its record, and the kernel takes some 200 at
/// once.
const BATCH: usize = 512;
const BATCH_PLUS: usize = 192;
/// Most nodes of which records are fetched in one go: some 100 bytes each, if they lie together.
const AHEAD_MAX: usize = 8192;
/// "." and "..".
const DOTS: u64 = 2;

type Shared = Arc<Mutex<OpenDirectory>>;
/// "." or "..", and what it is.
type Dot = (&'static [u8], Attr);

/// The open directories. Each has a lock of its own, which is held while it is read.
#[derive(Default)]
pub(crate) struct Directories {
    open: Mutex<(u64, HashMap<u64, Shared>)>,
}

struct OpenDirectory {
    ino: Ino,
    view: Option<(View, Instant)>,
    /// Something was read since the view was taken.
    read: bool,
    at: Position,
    /// Positions passed, [`MARK_EVERY`] apart, rising.
    marks: Vec<Position>,
    /// Up to there records were looked for ahead, since one was missing.
    ahead: Option<Position>,
}

/// A place between two entries.
#[derive(Clone, Default)]
struct Position {
    /// How many entries lie before it.
    passed: u64,
    /// The raw name of the last of them.
    after: Option<Box<[u8]>>,
}

/// An entry of the view.
struct Step {
    name: Name,
    /// What to hand out; `None`: the name is gone since.
    listed: Option<Listed>,
}

struct Listed {
    ino: Ino,
    kind: FileType,
    /// The node as it is now, if attributes were asked for.
    node: Option<Node>,
}

impl FileSystem {
    /// Opens a directory for `readdir`. One that was removed while the kernel holds it is empty.
    pub fn opendir(&self, ino: Ino) -> Result<Handle> {
        let view = match self.find(ino)? {
            Found::Node(view, node) => node.must_be_directory().map(|()| Some(view))?,
            Found::Gone(attr) if attr.kind == FileType::Directory => None,
            Found::Gone(_) => return Err(FsError::Stale),
        };
        let directory = OpenDirectory::new(ino, view);
        let mut open = self.directories.open.lock();
        open.0 += 1;
        let number = open.0;
        open.1.insert(number, Arc::new(Mutex::new(directory)));
        Ok(Handle(number))
    }

    /// The end of `opendir`. Of a handle that is not open it is nothing.
    pub fn releasedir(&self, handle: Handle) {
        self.directories.open.lock().1.remove(&handle.0);
    }

    /// Hands out entries from `offset` on (0, or what an earlier entry gave as `next`) until `room`
    /// answers false, which means that it did not take that entry. A call may stop earlier, but
    /// hands out nothing only at the end. Offset 0 begins anew with the directory as it is now.
    ///
    /// With `plus` each entry has the attributes of now, and has been looked up once more; names
    /// that are gone since are left out.
    pub fn readdir(
        &self,
        handle: Handle,
        offset: u64,
        plus: bool,
        room: &mut dyn FnMut(&DirEntry<'_>) -> bool,
    ) -> Result<()> {
        let directory = self.directories.open.lock().1.get(&handle.0).cloned().ok_or(FsError::Stale)?;
        let mut directory = directory.lock();
        if offset == 0 && directory.read {
            *directory = OpenDirectory::new(directory.ino, None);
        }
        let mut given = false;
        if offset < DOTS {
            let Some(dots) = self.dots(directory.ino)? else { return Ok(()) };
            for (number, (name, attr)) in dots.iter().enumerate().skip(offset as usize) {
                let next = number as u64 + 1;
                let attr_if = plus.then_some(attr);
                if !room(&DirEntry { ino: attr.ino, kind: FileType::Directory, name, next, attr: attr_if }) {
                    return Ok(());
                }
                given = true;
            }
        }
        let view = directory.view(self);
        directory.read = true;
        let mut wanted = offset.saturating_sub(DOTS);
        loop {
            // Before the state is looked at in which the nodes are found (F8).
            let version = self.table.lock().version();
            let steps = match directory.seek(&view, wanted).and_then(|()| self.steps(&mut directory, &view, plus)) {
                // What was given is counted: the error comes again with the next call.
                Err(_) if given => return Ok(()),
                steps => steps?,
            };
            let ended = steps.is_empty();
            for step in steps {
                if let Some(listed) = step.listed {
                    let node = listed.node.as_ref();
                    let place = || Place::of(directory.ino, &step.name);
                    if node.is_some_and(|node| !self.table.lock().look(version, node.ino, node.form(), place())) {
                        break;
                    }
                    let attr = node.map(Node::attr);
                    let (name, next) = (step.name.shown(), directory.at.passed + 1 + DOTS);
                    let Listed { ino, kind, .. } = listed;
                    if !room(&DirEntry { ino, kind, name: &name, next, attr: attr.as_ref() }) {
                        if node.is_some() {
                            self.forget(ino, 1);
                        }
                        return Ok(());
                    }
                    given = true;
                }
                directory.pass(step.name.raw());
            }
            if given || ended {
                return Ok(());
            }
            wanted = directory.at.passed;
        }
    }

    /// "." and "..". `None`: the directory was removed.
    fn dots(&self, ino: Ino) -> Result<Option<[Dot; 2]>> {
        let node = match self.node(ino) {
            Err(FsError::Stale) => return Ok(None),
            node => node?.1,
        };
        let Body::Directory { parent, .. } = node.inode.body else { return Err(FsError::NotADirectory) };
        let parent = self.getattr(parent)?;
        Ok(Some([(b".", node.attr()), (b"..", parent)]))
    }

    /// The next entries; none at the end.
    fn steps(&self, directory: &mut OpenDirectory, view: &View, plus: bool) -> Result<Vec<Step>> {
        let limit = if plus { BATCH_PLUS } else { BATCH };
        let mut steps = Vec::new();
        // With attributes: the entries themselves.
        let mut entries = Vec::new();
        let mut damage = None;
        view.visit(&directory.rest(), &mut |key, value| {
            match View::found_entry(key, value.clone()).and_then(|entry| Ok((entry, decoded_name(key)?))) {
                Ok((entry, name)) => {
                    let listed = Listed { ino: entry.ino(), kind: entry.kind(), node: None };
                    steps.push(Step { name, listed: Some(listed) });
                    if plus {
                        entries.push(entry);
                    }
                }
                Err(error) => damage = Some(error),
            }
            if steps.len() < limit && damage.is_none() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        if let Some(error) = damage.filter(|_| steps.is_empty()) {
            return Err(error);
        }
        if plus {
            let now = Cursor::new(self.store().view());
            // As long as nothing has changed since, what was found is what stands there.
            let is_now = view.is_same(now.view());
            for (at, entry) in entries.into_iter().enumerate() {
                match self.current(&now, directory.ino, &steps[at].name, is_now.then_some(entry)) {
                    Ok(listed) => steps[at].listed = listed,
                    Err(FsError::Miss(miss)) => {
                        directory.ahead = Some(directory.at.clone());
                        let miss = self.missing_ahead(directory, view, &now).unwrap_or(miss);
                        if at == 0 {
                            return Err(FsError::Miss(miss));
                        }
                        self.store().fetch_soon(miss);
                        steps.truncate(at);
                        return Ok(steps);
                    }
                    Err(_) if at > 0 => {
                        steps.truncate(at);
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
            // While these are handed out, so that those behind them are there when it is their turn.
            if directory.ahead_is_near()
                && let Some(miss) = self.missing_ahead(directory, view, &now)
            {
                self.store().fetch_soon(miss);
            }
        }
        Ok(steps)
    }
}

impl FileSystem {
    /// What stands under that name now; `known`: if that has been found already.
    fn current(&self, now: &Cursor, dir: Ino, name: &Name, known: Option<Entry>) -> Result<Option<Listed>> {
        let place = Place::of(dir, name);
        let entry = match known {
            Some(entry) => Some(entry),
            None => now.entry(place.key())?,
        };
        let Some(entry) = entry else { return Ok(None) };
        let mut node = Node::of_entry(now, place, entry)?;
        self.accesses.show(&mut node);
        Ok(Some(Listed { ino: node.ino, kind: node.inode.kind, node: Some(node) }))
    }

    /// What is missing of the records of the nodes that come next: each batch of them would else
    /// wait for its own. Twice as many are looked at as were passed, from where that ended the last time.
    fn missing_ahead(&self, directory: &mut OpenDirectory, view: &View, now: &Cursor) -> Option<Miss> {
        let limit = (2 * directory.at.passed as usize).clamp(2 * BATCH_PLUS, AHEAD_MAX);
        let from = directory.ahead.as_ref().unwrap_or(&directory.at);
        let (mut visited, mut last, mut records) = (0, Vec::new(), Vec::new());
        let scanned = view.visit(&directory.behind(from), &mut |key, value| {
            if let Ok(Entry::Ref(target)) = View::found_entry(key, value.clone()) {
                records.push(key::inode(target.ino));
            }
            visited += 1;
            last.clear();
            last.extend_from_slice(key::name_of(key));
            if visited < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        if let Err(FsError::Miss(miss)) = scanned {
            self.store().fetch_soon(miss);
        }
        let after = if visited == 0 { from.after.clone() } else { Some(last.into()) };
        directory.ahead = Some(Position { passed: from.passed + visited as u64, after });
        let missing = records.iter().position(|record| now.get(record).is_err())?;
        match now.view().get_all(&records[missing..]) {
            Err(StoreError::Miss(miss)) => Some(miss),
            _ => None,
        }
    }
}

fn decoded_name(key: &[u8]) -> Result<Name> {
    decoded(key, Name::from_raw(key::name_of(key)))
}

impl Directories {
    /// Lets go of views that have been held for long.
    pub(crate) fn expire(&self) {
        self.each_at_rest(OpenDirectory::expire);
    }

    /// Lets go of all views: they keep space from being used again.
    pub(crate) fn let_go(&self) {
        self.each_at_rest(|directory| directory.view = None);
    }

    /// One that is being read looks after itself.
    fn each_at_rest(&self, act: impl Fn(&mut OpenDirectory)) {
        let open: Vec<Shared> = self.open.lock().1.values().cloned().collect();
        open.iter().filter_map(|directory| directory.try_lock()).for_each(|mut directory| act(&mut directory));
    }
}

impl OpenDirectory {
    fn new(ino: Ino, view: Option<View>) -> OpenDirectory {
        let view = view.map(|view| (view, Instant::now()));
        OpenDirectory { ino, view, read: false, at: Position::default(), marks: Vec::new(), ahead: None }
    }

    fn expire(&mut self) {
        self.view.take_if(|(_, since)| since.elapsed() > VIEW_LIFE);
    }

    fn view(&mut self, fs: &FileSystem) -> View {
        self.expire();
        self.view.get_or_insert_with(|| (fs.store().view(), Instant::now())).0.clone()
    }

    /// The keys of the entries to come.
    fn rest(&self) -> key::Range {
        self.behind(&self.at)
    }

    /// The keys of the entries behind a position.
    fn behind(&self, position: &Position) -> key::Range {
        match &position.after {
            None => key::entries(self.ino),
            Some(raw) => key::entries_after(self.ino, raw),
        }
    }

    /// Whether so much of what was looked for ahead has been passed that it is time to do so again.
    fn ahead_is_near(&mut self) -> bool {
        let passed = self.at.passed;
        self.ahead.as_mut().is_some_and(|ahead| {
            if ahead.passed < passed {
                ahead.clone_from(&self.at);
            }
            ahead.passed - passed <= (passed / 2).clamp(BATCH_PLUS as u64, AHEAD_MAX as u64 / 2)
        })
    }

    /// Goes to where that many entries have been passed, or to the end if there are fewer.
    fn seek(&mut self, view: &View, passed: u64) -> Result<()> {
        if self.at.passed == passed {
            return Ok(());
        }
        let nearest = self.marks.partition_point(|mark| mark.passed <= passed);
        self.at = self.marks[..nearest].last().cloned().unwrap_or_default();
        let missing = passed - self.at.passed;
        let mut names: Vec<Box<[u8]>> = Vec::new();
        view.visit(&self.rest(), &mut |key, _| {
            if names.len() as u64 == missing {
                return ControlFlow::Break(());
            }
            names.push(key::name_of(key).into());
            ControlFlow::Continue(())
        })?;
        names.iter().for_each(|name| self.pass(name));
        Ok(())
    }

    fn pass(&mut self, raw: &[u8]) {
        self.at = Position { passed: self.at.passed + 1, after: Some(raw.into()) };
        let last = self.marks.last().map_or(0, |mark| mark.passed);
        if self.at.passed >= last + MARK_EVERY {
            self.marks.push(self.at.clone());
        }
    }
}

//! The one thread that changes the cache's files.
//!
//! It first finds what earlier runs left, the newest file first, and between two files stores what
//! is put meanwhile. A value is appended to the newest file; a full file is followed by a new one,
//! for which the oldest is deleted when the size is reached. What was used in the file that goes
//! next is rescued: appended again, a little with each value that is stored, so that by the time the
//! newest file is full all of it is. In the long run rescued values get at most half of the space:
//! a cache too small for what is in use then still takes up what is new.
//!
//! Trouble with the disk below (it is full, or fails) ends storing for a while, a second at first
//! and five minutes at last; what there is is served on.

use super::format::VALUE_BYTES_MAX;
use super::index::Slot;
use super::queue::Work;
use super::shelf::{Active, Shelf};
use super::stock::{Stock, Trouble};
use super::{Key, Shared};
use bytes::Bytes;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Bytes that are written in one go, about.
const WRITE_BYTES: usize = 1 << 20;
/// Bytes that are rescued for each that is stored, at most, about: so that they do not come in
/// bursts during which what is put finds the queue full.
const RESCUE_PER_STORED: usize = 4;
/// What may be rescued grows by half of each new file, and to this many halves: what is used often
/// lies close together.
const RESCUE_HALVES_MAX: u64 = 8;
/// How often to look whether the files are still there: what was deleted takes space on the disk
/// until we let go of it.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long to store nothing after a failure: at first, and at last.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// How long to go on storing what waits when the cache is closed.
const DRAIN_MAX: Duration = Duration::from_millis(250);

/// What the thread knows.
pub struct Writer {
    shared: Arc<Shared>,
    stock: Stock,
    /// The files whose content is still to be found, the newest last.
    loading: Vec<Arc<Shelf>>,
    active: Option<Active>,
    /// A file that could not be written to, to be tried again.
    interrupted: Option<Arc<Shelf>>,
    rescue: Option<Rescue>,
    /// Bytes that may be rescued.
    rescue_bytes: u64,
    /// Where the rescued values lie that are not yet written elsewhere.
    moved: Vec<Slot>,
    paused_until: Option<Instant>,
    /// How long the next pause is.
    pause: Duration,
    looked: Instant,
}

/// What is in use in the file that goes next.
struct Rescue {
    victim: Arc<Shelf>,
    /// Slots of the index before this one were looked at.
    slots_done: usize,
}

/// Tells those who wait that the thread has ended, also by a panic.
struct EndMark(Arc<Shared>);

impl Drop for EndMark {
    fn drop(&mut self) {
        self.0.queue.end();
    }
}

impl Writer {
    pub fn new(shared: Arc<Shared>, stock: Stock) -> Writer {
        Writer {
            shared,
            stock,
            loading: Vec::new(),
            active: None,
            interrupted: None,
            rescue: None,
            rescue_bytes: 0,
            moved: Vec::new(),
            paused_until: None,
            pause: PAUSE_MIN,
            looked: Instant::now(),
        }
    }

    /// Works until it is stopped. `found`: the numbers of the files that are there.
    pub fn run(self, found: Vec<u64>) {
        // Last: by then the lock is given back and the files are closed.
        let _mark = EndMark(self.shared.clone());
        let mut writer = self;
        writer.loading = writer.stock.admit(found, &writer.shared);
        writer.load_next(true);
        while !writer.shared.queue.is_stopped() {
            let patience = if writer.loading.is_empty() { LOOK_EVERY } else { Duration::ZERO };
            let work = writer.shared.queue.take(patience);
            if work.looks > 0 || writer.looked.elapsed() >= LOOK_EVERY {
                writer.look();
            }
            writer.store(&work);
            writer.load_next(false);
            writer.done(&work);
        }
        let until = Instant::now() + DRAIN_MAX;
        while Instant::now() < until && writer.loading.is_empty() {
            let work = writer.shared.queue.take(Duration::ZERO);
            if work.values.is_empty() {
                break;
            }
            writer.store(&work);
            writer.done(&work);
        }
        writer.catalog_all();
    }

    fn store(&mut self, work: &Work) {
        let mut left = work.values.iter();
        let outcome = match self.paused_until {
            Some(until) if Instant::now() < until => Err(None),
            _ => self.store_all(&mut left).map_err(Some),
        };
        if let Err(trouble) = outcome {
            self.shared.counters.dropped.fetch_add(left.len() as u64, Ordering::Relaxed);
            self.pause_for(trouble);
        } else if !work.values.is_empty() {
            (self.paused_until, self.pause) = (None, PAUSE_MIN);
        }
    }

    fn done(&self, work: &Work) {
        let bytes = work.values.iter().map(|(_, value)| value.len()).sum();
        self.shared.queue.done(work.values.len(), bytes, work.looks, self.loading.is_empty());
    }

    fn store_all(&mut self, values: &mut std::slice::Iter<'_, (Key, Bytes)>) -> Result<(), Trouble> {
        while let Some((key, value)) = values.as_slice().first() {
            self.store_one(key, value)?;
            values.next();
        }
        self.write_out()
    }

    fn store_one(&mut self, key: &Key, value: &Bytes) -> Result<(), Trouble> {
        assert!(value.len() <= VALUE_BYTES_MAX, "a value of {} bytes", value.len());
        if self.active.as_ref().is_some_and(|active| active.is_buffered(key)) || self.shared.is_stored(key) {
            return Ok(());
        }
        self.make_room(value.len())?.push(key, value);
        self.write_if_much()?;
        self.rescue_some(value.len() * RESCUE_PER_STORED)
    }

    /// The file to append to, with room for a value of that length.
    fn make_room(&mut self, length: usize) -> Result<&mut Active, Trouble> {
        if let Some(shelf) = self.interrupted.take() {
            self.resume(shelf);
        }
        if !self.active.as_ref().is_some_and(|active| active.has_room(length)) {
            if let Some(active) = &mut self.active {
                active.push_catalog();
            }
            self.write_out()?;
            // What is not rescued by now is given up: the victim must be closed before it goes.
            (self.active, self.rescue) = (None, None);
            let created = self.stock.create(&self.shared);
            self.loading.retain(|shelf| self.stock.has(shelf));
            let active = Active::new(created?);
            let half = active.shelf().bytes() / 2;
            self.rescue_bytes = (self.rescue_bytes + half).min(RESCUE_HALVES_MAX * half);
            self.active = Some(active);
            self.begin_rescue();
        }
        Ok(self.active.as_mut().expect("made above"))
    }

    fn write_if_much(&mut self) -> Result<(), Trouble> {
        let is_much = self.active.as_ref().is_some_and(|active| active.buffered().1 >= WRITE_BYTES);
        if is_much { self.write_out() } else { Ok(()) }
    }

    fn write_out(&mut self) -> Result<(), Trouble> {
        let Some(active) = &mut self.active else { return Ok(()) };
        let (values, bytes) = active.buffered();
        if bytes == 0 {
            return Ok(());
        }
        let moved = std::mem::take(&mut self.moved);
        match active.write_out() {
            Ok(placed) => {
                let counters = &self.shared.counters;
                counters.stored.fetch_add(values as u64, Ordering::Relaxed);
                counters.stored_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
                let index = &self.shared.index;
                let displaced = placed.iter().filter(|(key, place)| index.add(index.hash(key), **place)).count();
                counters.evicted.fetch_add(displaced as u64, Ordering::Relaxed);
                moved.into_iter().for_each(|slot| index.remove(slot));
                Ok(())
            }
            Err(error) => {
                self.shared.counters.dropped.fetch_add(values as u64, Ordering::Relaxed);
                self.interrupted = self.active.take().map(|active| active.shelf().clone());
                Err(error.into())
            }
        }
    }

    /// Names what has no catalog yet, so that the next run finds it at once.
    fn catalog_all(&mut self) {
        if let Some(active) = &mut self.active {
            active.push_catalog();
        }
        if let Err(Trouble::Io(error)) = self.write_out() {
            info!("{}: at the end: {error}", self.stock.path());
        }
    }

    /// `None`: a pause goes on.
    fn pause_for(&mut self, trouble: Option<Trouble>) {
        // Readers hold a file for the time of one read: no reason to wait.
        let Some(Trouble::Io(error)) = trouble else { return };
        self.paused_until = Some(Instant::now() + self.pause);
        if self.stock.is_lost() {
            // Found again, or made anew, there is no need for a pause.
            return self.look();
        }
        let path = self.stock.path();
        if self.pause == PAUSE_MIN {
            warn!("the cache in {path} takes up nothing new for a while: {error}");
        } else {
            info!("the cache in {path} still takes up nothing new: {error}");
        }
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    /// Finds what is in one more file.
    fn load_next(&mut self, is_newest: bool) {
        match self.loading.pop() {
            Some(shelf) if is_newest => self.resume(shelf),
            Some(shelf) => {
                if let Err(error) = load(&shelf, &self.shared) {
                    self.tell_unless_stopped(&error);
                }
            }
            None => return,
        }
        if self.loading.is_empty() {
            self.begin_rescue();
        }
    }

    /// Appends to a file whose entries are to be found first.
    fn resume(&mut self, shelf: Arc<Shelf>) {
        match load(&shelf, &self.shared) {
            Ok(tail) => self.active = Some(Active::resume(shelf, tail)),
            Err(error) => self.tell_unless_stopped(&error),
        }
    }

    fn tell_unless_stopped(&self, error: &io::Error) {
        if !self.shared.queue.is_stopped() {
            warn!("the cache in {}: what a file holds cannot be read: {error}", self.stock.path());
        }
    }

    /// Looks which file goes next, if one does. Not before it is known what is in it.
    fn begin_rescue(&mut self) {
        let Some(active) = &self.active else { return };
        if self.rescue.is_some() || !self.loading.is_empty() {
            return;
        }
        let victim = self.stock.next_to_go().filter(|victim| !Arc::ptr_eq(victim, active.shelf()));
        self.rescue = victim.map(|victim| Rescue { victim, slots_done: 0 });
    }

    /// Rescues in step with how full the newest file is.
    fn rescue_some(&mut self, bytes: usize) -> Result<(), Trouble> {
        let mut rescued = 0;
        while let (Some(rescue), Some(active)) = (&mut self.rescue, &mut self.active)
            && rescued <= bytes
        {
            let (filled, units) = active.filled();
            // Done by when seven eighths are full: then what is long still fits in.
            let slots = self.shared.index.slots() as u64;
            let goal = (slots * u64::from(filled) * 8 / (u64::from(units) * 7)).min(slots) as usize;
            if rescue.slots_done >= goal {
                break;
            }
            let slot = self.shared.index.used_in(rescue.slots_done, rescue.victim.id());
            rescue.slots_done += 1;
            let Some(slot) = slot else { continue };
            if let Ok(Some((key, value))) = rescue.victim.read(slot.place(), None) {
                if self.rescue_bytes < value.len() as u64 || !active.has_room(value.len()) {
                    self.rescue = None;
                    break;
                }
                self.rescue_bytes -= value.len() as u64;
                rescued += value.len();
                self.moved.push(slot);
                self.shared.counters.rescued.fetch_add(1, Ordering::Relaxed);
                active.push(&key, &value);
                self.write_if_much()?;
            }
        }
        Ok(())
    }

    /// Looks whether somebody deleted something: its space is to be free then.
    fn look(&mut self) {
        self.looked = Instant::now();
        if self.stock.is_lost() {
            (self.active, self.rescue, self.interrupted) = (None, None, None);
            self.moved.clear();
            self.loading.clear();
            match self.stock.start_again(&self.shared) {
                Ok(loading) => {
                    info!("the cache directory {} was deleted, and made anew", self.stock.path());
                    self.loading = loading;
                    (self.paused_until, self.pause) = (None, PAUSE_MIN);
                    self.load_next(true);
                }
                Err(error) => info!("the cache directory {} is gone: {error}", self.stock.path()),
            }
            return;
        }
        if self.stock.forget_deleted(&self.shared) > 0 {
            info!("the cache in {}: files were deleted", self.stock.path());
            let is_gone = |shelf: &Arc<Shelf>| !self.stock.has(shelf);
            self.loading.retain(|shelf| !is_gone(shelf));
            if self.active.take_if(|active| is_gone(active.shelf())).is_some() {
                self.moved.clear();
            }
            self.interrupted.take_if(|shelf| is_gone(shelf));
            self.rescue.take_if(|rescue| is_gone(&rescue.victim));
        }
    }
}

/// Puts what is in a file into the index. Newer files come first: what is there already stays.
fn load(shelf: &Shelf, shared: &Shared) -> io::Result<super::shelf::Tail> {
    let is_over = || shared.queue.is_stopped();
    shelf.load(&is_over, &mut |record| {
        if !shared.is_stored(&record.key) {
            shared.index.add_if_room(shared.index.hash(&record.key), record.place(shelf.id()));
        }
    })
}

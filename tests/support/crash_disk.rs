//! What a power cut may leave.
//!
//! A [`CrashDisk`] passes calls on and keeps a journal of those that change something. A
//! [`Journal`] yields crash images: for a cut after any number of calls, what the disk may hold
//! then. Calls before the last completed sync are there; each later one has a [`Fate`].

use super::random::Random;
use kivafs::backend::{Disk, MemoryDisk};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::io;
use std::sync::Arc;

/// Disks promise to write this much at once, or nothing of it.
pub const SECTOR_BYTES: usize = 512;

/// One call that changes the disk.
#[derive(Clone, Debug)]
pub enum Call {
    Write {
        offset: usize,
        bytes: Vec<u8>,
    },
    Allocate {
        offset: usize,
        length: usize,
    },
    Punch {
        offset: usize,
        length: usize,
    },
    /// Completed; it began when so many calls had returned, and covers these.
    Sync {
        covers: usize,
    },
}

/// Keeps a journal of the calls to the disk below. A call is in the journal once it has returned,
/// but writes from their beginning: one that fails, or is cut off, may have reached the disk.
pub struct CrashDisk {
    below: Arc<dyn Disk>,
    start: Vec<u8>,
    calls: Mutex<Vec<Call>>,
    /// Writes that have begun and not returned, by their place in the journal.
    writing: Mutex<Vec<usize>>,
}

impl CrashDisk {
    /// A disk whose durable content is what `below` holds now.
    pub fn new(below: Arc<dyn Disk>) -> CrashDisk {
        CrashDisk { start: content_of(&*below), below, calls: Mutex::default(), writing: Mutex::default() }
    }

    /// A disk in memory whose durable content is this.
    pub fn from_bytes(bytes: Vec<u8>) -> CrashDisk {
        CrashDisk::new(Arc::new(MemoryDisk::from_bytes(bytes)))
    }

    /// How many calls there have been: a power cut now is the cut of this number.
    pub fn position(&self) -> usize {
        self.calls.lock().len()
    }

    pub fn journal(&self) -> Journal {
        Journal { start: self.start.clone(), calls: self.calls.lock().clone() }
    }

    /// What a process that is killed now leaves: the machine goes on, so everything is kept.
    pub fn content(&self) -> Vec<u8> {
        loop {
            let bytes = content_of(&*self.below);
            // A disk that grew meanwhile may hold a commit without the data behind its old end, as
            // no disk ever did.
            if self.below.len().expect("length of the disk below") == bytes.len() as u64 {
                return bytes;
            }
        }
    }
}

fn content_of(disk: &dyn Disk) -> Vec<u8> {
    let mut bytes = vec![0; disk.len().expect("length of the disk below") as usize];
    disk.read_at(0, &mut bytes).expect("content of the disk below");
    bytes
}

impl Disk for CrashDisk {
    fn len(&self) -> io::Result<u64> {
        self.below.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.below.read_at(offset, buffer)
    }

    fn reread(&self, offset: u64, length: u64) -> io::Result<()> {
        self.below.reread(offset, length)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let index = {
            let mut calls = self.calls.lock();
            calls.push(Call::Write { offset: offset as usize, bytes: bytes.to_vec() });
            self.writing.lock().push(calls.len() - 1);
            calls.len() - 1
        };
        let outcome = self.below.write_at(offset, bytes);
        self.writing.lock().retain(|other| *other != index);
        outcome
    }

    fn sync(&self) -> io::Result<()> {
        let covers = {
            let calls = self.calls.lock();
            self.writing.lock().iter().copied().min().unwrap_or(calls.len())
        };
        self.below.sync()?;
        self.calls.lock().push(Call::Sync { covers });
        Ok(())
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        self.below.allocate(offset, length)?;
        self.calls.lock().push(Call::Allocate { offset: offset as usize, length: length as usize });
        Ok(())
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        self.below.punch(offset, length)?;
        self.calls.lock().push(Call::Punch { offset: offset as usize, length: length as usize });
        Ok(())
    }

    fn free_space(&self) -> io::Result<u64> {
        self.below.free_space()
    }
}

/// What becomes of the calls since the last completed sync. Numbers count among these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    AllLost,
    AllKept,
    OnlyKept(usize),
    OnlyLost(usize),
    /// Of the last, only these sectors are written, though the disk grew for all of it; all others
    /// are kept.
    LastTorn(Sectors),
    /// Of the last, only these sectors are written, and the disk ends where they do; all others
    /// are lost.
    LastTornAlone(Sectors),
    /// The disk grew for the last one, but its bytes were not written: zeros. Others are kept.
    LastGrewOnly,
    /// Any of them, in any order, each whole or with any of its sectors: chosen by this seed.
    Shuffled(u64),
}

/// Which sectors of a call are written, counted from its first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sectors {
    FirstOnes(usize),
    AllButFirstOnes(usize),
    /// Every second one.
    Odd,
}

/// How many images to make.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Cuts; the first and the last are always among them.
    pub cuts_max: usize,
    /// Images of one cut; all lost, all kept and one torn are always among them.
    pub fates_max: usize,
    /// Shuffled ones among these.
    pub shuffled: usize,
    pub seed: u64,
}

impl Effort {
    /// After how many of so many calls to cut.
    pub fn choose_cuts(self, calls: usize, random: &mut Random) -> Vec<usize> {
        let all = calls + 1;
        if all <= self.cuts_max {
            return (0..all).collect();
        }
        let mut cuts: Vec<usize> = random.permutation(all).into_iter().take(self.cuts_max).collect();
        cuts.extend([0, all - 1]);
        cuts.sort_unstable();
        cuts.dedup();
        cuts
    }
}

/// How many images were made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    pub cuts: usize,
    pub images: usize,
    /// Images that were left out, being the same bytes with the same demands on them.
    pub repeated: usize,
}

impl std::ops::AddAssign for Tried {
    fn add_assign(&mut self, more: Tried) {
        self.cuts += more.cuts;
        self.images += more.images;
        self.repeated += more.repeated;
    }
}

/// A disk after a power cut.
pub struct Image {
    /// After how many calls.
    pub cut: usize,
    pub fate: Fate,
    pub bytes: Vec<u8>,
}

/// What was done to a disk.
#[derive(Clone)]
pub struct Journal {
    start: Vec<u8>,
    calls: Vec<Call>,
}

impl Journal {
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// Shows `visit` the images. `demand` tells what an image of that cut is held to; the same
    /// bytes with the same demand are shown once.
    pub fn for_each_image(&self, effort: Effort, demand: impl Fn(usize) -> u64, mut visit: impl FnMut(Image)) -> Tried {
        let mut random = Random::new(effort.seed);
        let mut tried = Tried::default();
        let mut seen = HashSet::new();
        let mut durable = self.start.clone();
        let mut durable_calls = 0;
        for cut in effort.choose_cuts(self.calls.len(), &mut random) {
            let synced = self.calls[..cut].iter().rev().find_map(|call| match call {
                Call::Sync { covers } => Some(*covers),
                _ => None,
            });
            let synced = synced.unwrap_or(0);
            for call in &self.calls[durable_calls..synced] {
                apply(call, &mut durable);
            }
            durable_calls = synced;
            tried.cuts += 1;
            let unsynced: Vec<&Call> =
                self.calls[synced..cut].iter().filter(|call| !matches!(call, Call::Sync { .. })).collect();
            for fate in choose_fates(&unsynced, effort, &mut random) {
                let bytes = image(&durable, &unsynced, &fate);
                if seen.insert((xxhash_rust::xxh3::xxh3_128(&bytes), bytes.len(), demand(cut))) {
                    tried.images += 1;
                    visit(Image { cut, fate, bytes });
                } else {
                    tried.repeated += 1;
                }
            }
        }
        tried
    }
}

fn choose_fates(unsynced: &[&Call], effort: Effort, random: &mut Random) -> Vec<Fate> {
    let Some(last) = unsynced.last() else { return vec![Fate::AllKept] };
    let mut fates = vec![Fate::AllLost, Fate::AllKept];
    let mut more = Vec::new();
    let sectors = sector_count(last);
    if sectors > 1 {
        fates.push(Fate::LastTorn(Sectors::FirstOnes(1 + random.within(0..sectors - 1))));
        for cut in [1, sectors / 2, sectors - 1] {
            more.extend([
                Fate::LastTorn(Sectors::FirstOnes(cut)),
                Fate::LastTorn(Sectors::AllButFirstOnes(cut)),
                Fate::LastTornAlone(Sectors::FirstOnes(cut)),
            ]);
        }
        more.push(Fate::LastTorn(Sectors::Odd));
    }
    if matches!(last, Call::Write { .. }) {
        more.push(Fate::LastGrewOnly);
    }
    if unsynced.len() > 1 {
        more.extend((0..unsynced.len()).flat_map(|index| [Fate::OnlyKept(index), Fate::OnlyLost(index)]));
        more.extend((0..effort.shuffled).map(|_| Fate::Shuffled(random.next())));
    }
    let room = effort.fates_max.saturating_sub(fates.len());
    if more.len() <= room {
        fates.append(&mut more);
    } else {
        let chosen = random.permutation(more.len()).into_iter().take(room);
        fates.extend(chosen.map(|index| more[index].clone()));
    }
    fates
}

fn image(durable: &[u8], unsynced: &[&Call], fate: &Fate) -> Vec<u8> {
    let mut disk = durable.to_vec();
    let before_last = unsynced.len().saturating_sub(1);
    match fate {
        Fate::AllLost => {}
        Fate::AllKept => unsynced.iter().for_each(|call| apply(call, &mut disk)),
        Fate::OnlyKept(index) => apply(unsynced[*index], &mut disk),
        Fate::OnlyLost(lost) => {
            for (_, call) in unsynced.iter().enumerate().filter(|(index, _)| index != lost) {
                apply(call, &mut disk);
            }
        }
        Fate::LastTorn(sectors) => {
            unsynced[..before_last].iter().for_each(|call| apply(call, &mut disk));
            grow_for(unsynced[before_last], &mut disk);
            apply_sectors(unsynced[before_last], &mut disk, |sector| sectors.contain(sector));
        }
        Fate::LastTornAlone(sectors) => {
            apply_sectors(unsynced[before_last], &mut disk, |sector| sectors.contain(sector));
        }
        Fate::LastGrewOnly => {
            unsynced[..before_last].iter().for_each(|call| apply(call, &mut disk));
            grow_for(unsynced[before_last], &mut disk);
        }
        Fate::Shuffled(seed) => {
            let mut random = Random::new(*seed);
            for index in random.permutation(unsynced.len()) {
                match random.within(0..4) {
                    0 => {}
                    1 => apply_sectors(unsynced[index], &mut disk, |_| random.one_in(2)),
                    _ => apply(unsynced[index], &mut disk),
                }
            }
        }
    }
    disk
}

impl Sectors {
    fn contain(&self, sector: usize) -> bool {
        match self {
            Sectors::FirstOnes(count) => sector < *count,
            Sectors::AllButFirstOnes(count) => sector >= *count,
            Sectors::Odd => sector % 2 == 1,
        }
    }
}

fn range(call: &Call) -> (usize, usize) {
    match call {
        Call::Write { offset, bytes } => (*offset, bytes.len()),
        Call::Allocate { offset, length } | Call::Punch { offset, length } => (*offset, *length),
        Call::Sync { .. } => (0, 0),
    }
}

/// How many sectors a call changes. Allocating changes the length only, and cannot be torn.
fn sector_count(call: &Call) -> usize {
    let (offset, length) = range(call);
    match call {
        Call::Write { .. } | Call::Punch { .. } if length > 0 => {
            (offset + length).div_ceil(SECTOR_BYTES) - offset / SECTOR_BYTES
        }
        _ => 0,
    }
}

fn apply(call: &Call, disk: &mut Vec<u8>) {
    grow_for(call, disk);
    apply_sectors(call, disk, |_| true);
}

/// Applies the sectors of a call that `kept` names, which is asked about each once, in order.
fn apply_sectors(call: &Call, disk: &mut Vec<u8>, mut kept: impl FnMut(usize) -> bool) {
    let (offset, length) = range(call);
    let first = offset / SECTOR_BYTES;
    for sector in (0..sector_count(call)).filter(|sector| kept(*sector)) {
        let start = offset.max((first + sector) * SECTOR_BYTES);
        let end = (offset + length).min((first + sector + 1) * SECTOR_BYTES);
        match call {
            Call::Write { bytes, .. } => {
                grow(disk, end);
                disk[start..end].copy_from_slice(&bytes[start - offset..end - offset]);
            }
            Call::Punch { .. } => {
                let end = end.min(disk.len());
                disk[start.min(end)..end].fill(0);
            }
            Call::Allocate { .. } | Call::Sync { .. } => unreachable!("has no sectors"),
        }
    }
}

/// Gives the disk the length that the call makes it have. Punching does not.
fn grow_for(call: &Call, disk: &mut Vec<u8>) {
    if matches!(call, Call::Write { .. } | Call::Allocate { .. }) {
        let (offset, length) = range(call);
        grow(disk, offset + length);
    }
}

fn grow(disk: &mut Vec<u8>, length: usize) {
    if disk.len() < length {
        disk.resize(length, 0);
    }
}

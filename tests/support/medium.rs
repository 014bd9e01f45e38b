//! What a store lies on, so that the same tests run on each: one file, or a bucket.

use super::bucket::{self, Bucket, Handle, Listing, Weakness};
use super::crash_disk::{CrashDisk, Effort, Fate, Tried};
use super::store::{Sizes, create, create_in};
use kivafs::backend::{Disk, MemoryDisk};
use kivafs::store::{OpenError, OpenOptions, Store};
use std::cell::Cell;
use std::fmt::Debug;
use std::sync::Arc;

/// Something that a store lies on.
pub trait Medium {
    fn create(&self, sizes: Sizes) -> Result<(), OpenError>;

    /// Opens as after a crash: whoever had the store is gone.
    fn open(&self, options: &OpenOptions) -> Result<Store, OpenError>;

    /// Everything that is wrong with the store, every byte of it read.
    fn check(&self) -> Result<Vec<String>, OpenError>;

    /// Panics if something lies there that has no place there.
    fn assert_tidy(&self) {}
}

/// A medium in memory, which can be had at will and copied.
pub trait Simulated: Medium + Sized {
    /// With nothing on it.
    fn empty() -> Self;

    /// What a process that is killed now leaves.
    fn left_by_kill(&self) -> Self;
}

/// A medium that yields crash images.
pub trait CrashMedium: Simulated {
    /// What becomes of changes that are not durable yet.
    type Fate: Clone + Debug + PartialEq;

    const ALL_KEPT: Self::Fate;

    /// Whether nothing is still on its way there: what is found is what will be found again. (Recovery
    /// settles it.)
    fn is_settled(&self) -> bool;

    /// How many calls or events there have been: a crash now is the cut of this number.
    fn position(&self) -> usize;

    /// Shows `visit` the crash images so far. `demand` tells what an image of that cut is held to.
    fn for_each_image(&self, effort: Effort, demand: impl Fn(usize) -> u64, visit: impl FnMut(Image<Self>)) -> Tried;
}

/// What a crash left.
pub struct Image<M: CrashMedium> {
    /// After how many calls.
    pub cut: usize,
    pub fate: M::Fate,
    pub medium: M,
}

/// Panics unless the store there is whole, every byte of it.
#[track_caller]
pub fn assert_whole<M: Medium>(medium: &M, context: &str) {
    let found = medium.check().unwrap_or_else(|error| panic!("{context}: check: {error}"));
    assert!(found.is_empty(), "{context}: check: {found:#?}");
    medium.assert_tidy();
}

/// One file.
pub struct OneFile {
    pub disk: Arc<CrashDisk>,
    /// What the store talks to: the crash disk, or a decorator over it.
    pub front: Arc<dyn Disk>,
}

impl OneFile {
    pub fn of(bytes: Vec<u8>) -> OneFile {
        let disk = Arc::new(CrashDisk::from_bytes(bytes));
        OneFile { front: disk.clone(), disk }
    }
}

impl Medium for OneFile {
    fn create(&self, sizes: Sizes) -> Result<(), OpenError> {
        create(self.front.clone(), sizes)
    }

    fn open(&self, options: &OpenOptions) -> Result<Store, OpenError> {
        Store::open_on(self.front.clone(), options)
    }

    fn check(&self) -> Result<Vec<String>, OpenError> {
        Store::check_on(self.front.clone(), true)
    }
}

impl Simulated for OneFile {
    fn empty() -> OneFile {
        OneFile::of(Vec::new())
    }

    fn left_by_kill(&self) -> OneFile {
        OneFile::of(self.disk.content())
    }
}

impl CrashMedium for OneFile {
    type Fate = Fate;

    const ALL_KEPT: Fate = Fate::AllKept;

    fn is_settled(&self) -> bool {
        true
    }

    fn position(&self) -> usize {
        self.disk.position()
    }

    fn for_each_image(
        &self,
        effort: Effort,
        demand: impl Fn(usize) -> u64,
        mut visit: impl FnMut(Image<OneFile>),
    ) -> Tried {
        self.disk.journal().for_each_image(effort, demand, |image| {
            visit(Image { cut: image.cut, fate: image.fate, medium: OneFile::of(image.bytes) });
        })
    }
}

/// One file in memory, without a journal.
impl Medium for Arc<MemoryDisk> {
    fn create(&self, sizes: Sizes) -> Result<(), OpenError> {
        create(self.clone(), sizes)
    }

    fn open(&self, options: &OpenOptions) -> Result<Store, OpenError> {
        Store::open_on(self.clone(), options)
    }

    fn check(&self) -> Result<Vec<String>, OpenError> {
        Store::check_on(self.clone(), true)
    }
}

impl Simulated for Arc<MemoryDisk> {
    fn empty() -> Arc<MemoryDisk> {
        Arc::default()
    }

    fn left_by_kill(&self) -> Arc<MemoryDisk> {
        Arc::new(MemoryDisk::from_bytes(self.to_bytes()))
    }
}

impl Medium for Bucket {
    fn create(&self, sizes: Sizes) -> Result<(), OpenError> {
        create_in(self.handle(), sizes)
    }

    fn open(&self, options: &OpenOptions) -> Result<Store, OpenError> {
        // Who had it is this very process, which lives.
        Store::open_in(self.handle(), &OpenOptions { takeover: !options.read_only, ..options.clone() })
    }

    fn check(&self) -> Result<Vec<String>, OpenError> {
        Store::check_in(self.handle(), true)
    }

    fn assert_tidy(&self) {
        self.assert_layout();
    }
}

impl Simulated for Bucket {
    fn empty() -> Bucket {
        Bucket::new()
    }

    fn left_by_kill(&self) -> Bucket {
        self.copy()
    }
}

/// A bucket whose every connection is weak.
pub struct WeakBucket {
    pub bucket: Bucket,
    pub weakness: Weakness,
    seed: Cell<u64>,
}

impl WeakBucket {
    pub fn new(weakness: Weakness, seed: u64) -> WeakBucket {
        WeakBucket { bucket: Bucket::new(), weakness, seed: Cell::new(seed) }
    }

    /// A new connection.
    pub fn handle(&self) -> Arc<Handle> {
        let handle = self.bucket.handle();
        self.seed.set(self.seed.get() + 1000);
        handle.weaken(self.weakness, self.seed.get());
        handle
    }

    fn with(&self, bucket: Bucket) -> WeakBucket {
        WeakBucket { bucket, weakness: self.weakness, seed: self.seed.clone() }
    }
}

impl Medium for WeakBucket {
    /// Over a connection that is not weak, so that there is a store in any case.
    fn create(&self, sizes: Sizes) -> Result<(), OpenError> {
        self.bucket.create(sizes)
    }

    fn open(&self, options: &OpenOptions) -> Result<Store, OpenError> {
        Store::open_in(self.handle(), &OpenOptions { takeover: !options.read_only, ..options.clone() })
    }

    /// With a listing that does not lag: what a reader finds may (R12), and these writers delete at once what
    /// no longer belongs to the newest state, without the grace that readers elsewhere need.
    fn check(&self) -> Result<Vec<String>, OpenError> {
        let handle = self.handle();
        handle.weaken(Weakness { listing: Listing::Right, ..self.weakness }, self.seed.get());
        Store::check_in(handle, true)
    }

    fn assert_tidy(&self) {
        self.bucket.assert_layout();
    }
}

impl Simulated for WeakBucket {
    fn empty() -> WeakBucket {
        WeakBucket::new(Weakness::severe(), 0)
    }

    fn left_by_kill(&self) -> WeakBucket {
        self.with(self.bucket.copy())
    }
}

impl CrashMedium for WeakBucket {
    type Fate = bucket::Fate;

    const ALL_KEPT: bucket::Fate = bucket::Fate::AllKept;

    fn is_settled(&self) -> bool {
        self.bucket.is_settled()
    }

    fn position(&self) -> usize {
        self.bucket.position()
    }

    fn for_each_image(
        &self,
        effort: Effort,
        demand: impl Fn(usize) -> u64,
        mut visit: impl FnMut(Image<WeakBucket>),
    ) -> Tried {
        self.bucket.for_each_image(effort, demand, |cut, fate, left| {
            visit(Image { cut, fate, medium: self.with(left) });
        })
    }
}

impl CrashMedium for Bucket {
    type Fate = bucket::Fate;

    const ALL_KEPT: bucket::Fate = bucket::Fate::AllKept;

    fn is_settled(&self) -> bool {
        self.late_count() == 0
    }

    fn position(&self) -> usize {
        self.position()
    }

    fn for_each_image(
        &self,
        effort: Effort,
        demand: impl Fn(usize) -> u64,
        mut visit: impl FnMut(Image<Bucket>),
    ) -> Tried {
        Bucket::for_each_image(self, effort, demand, |cut, fate, medium| visit(Image { cut, fate, medium }))
    }
}

//! Requests to a store whose storage falls silent.

use crate::facade::core::Core;
use crate::facade::crowd::Crowd;
use crate::facade::deferred::Deferred;
use crate::facade::operation::Operation;
use crate::facade::parked::ParkedFigures;
use crate::facade::{Appearance, Manners, SyncMode};
use crate::fs::{
    self, Caller, FileSystem, IfExists, Ino, ROOT, Silence, SilentDisk, WriteAt, coarse_now, open_on, store_on,
};
use crate::meter::Kind;
use bytes::Bytes;
use fuser::{Errno, INodeNo};
use kivafs::backend::MemoryDisk;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::Duration;

const USER: Caller = Caller { uid: 0, gid: 0, umask: 0 };
/// Nobody has to wait for so long.
const LONG: Duration = Duration::from_secs(3600);
/// Whoever waits so long is to be told.
const SHORT: Duration = Duration::from_millis(300);

/// What a request was answered.
type Answer<T> = Receiver<Result<T, Errno>>;

/// A façade without a kernel.
struct Bench {
    disk: Arc<SilentDisk>,
    core: Arc<Core>,
    deferred: Deferred,
    crowd: Crowd,
    /// Its requests wait for the disk.
    is_durable_first: bool,
}

impl Bench {
    fn new(sync: SyncMode, timeout: Duration) -> Bench {
        let disk = Arc::new(SilentDisk::new(Arc::new(MemoryDisk::default())));
        drop(store_on(disk.clone()));
        Bench::on(disk, sync, timeout)
    }

    fn on(disk: Arc<SilentDisk>, sync: SyncMode, timeout: Duration) -> Bench {
        let fs = Arc::new(FileSystem::open(open_on(disk.clone()), coarse_now).unwrap());
        let manners =
            Manners { sync, timeout, held_max: 100_000, serves_keys: false, appearance: Appearance::default() };
        let deferred = Deferred::start(fs.clone(), timeout).unwrap();
        let crowd = Crowd::start(fs.clone(), manners.held_max).unwrap();
        let core = Arc::new(Core::start(fs, manners, deferred.bell(), crowd.watch()).unwrap());
        Bench { disk, core, deferred, crowd, is_durable_first: sync != SyncMode::OnRequest }
    }

    /// A request, as they all come. What is answered at once is answered when this returns, unless it is to be
    /// durable first.
    fn ask<T: Send + 'static>(
        &self,
        kind: Kind,
        bytes: usize,
        call: impl Fn(&FileSystem) -> fs::Result<T> + Send + 'static,
    ) -> Answer<T> {
        let (told, answer) = channel();
        let core = self.core.clone();
        // Nobody listens any more where a test is over.
        let request = move || {
            core.answer(
                Operation::now(kind, INodeNo::ROOT),
                bytes,
                (),
                move |fs, ()| call(fs),
                move |(), done| drop(told.send(done)),
            );
        };
        if self.is_durable_first {
            drop(std::thread::spawn(request))
        } else {
            request()
        }
        answer
    }

    fn create(&self, name: &str) -> Answer<Ino> {
        let name = name.to_owned().into_bytes();
        self.ask(Kind::Create, 0, move |fs| {
            let made = fs.create(USER, ROOT, &name, 0o644, IfExists::Fail)?;
            fs.release(made.ino);
            Ok(made.ino)
        })
    }

    fn write(&self, file: Ino, offset: u64, bytes: Vec<u8>) -> Answer<usize> {
        let bytes = Bytes::from(bytes);
        self.ask(Kind::Write, bytes.len(), move |fs| fs.write(file, WriteAt::Offset(offset), &bytes, false))
    }

    fn read(&self, file: Ino, offset: u64, length: usize) -> Answer<Vec<u8>> {
        self.ask(Kind::Read, 0, move |fs| Ok(fs.read(file, offset, length)?.concat()))
    }

    fn sync(&self) -> Answer<()> {
        let (told, answer) = channel();
        self.core.sync_then(Operation::now(Kind::Fsync, INodeNo::ROOT), move |done| _ = told.send(done));
        answer
    }

    /// A sync by a reader thread that waits for the disk: there is something to be stored, and nobody stores anything.
    fn sync_that_waits(&self) -> Answer<()> {
        let (told, answer) = channel();
        let core = self.core.clone();
        std::thread::spawn(move || {
            core.sync_then(Operation::now(Kind::Fsync, INodeNo::ROOT), move |done| _ = told.send(done));
        });
        self.disk.until_waiting(1);
        answer
    }

    /// Has it end, and the store with it; answers the disk.
    fn end(self) -> Arc<SilentDisk> {
        self.deferred.stop();
        self.crowd.stop();
        self.core.stop();
        self.core.fs.store().close().unwrap();
        self.disk
    }

    /// Returns when nothing is kept of requests that were answered, which is just after that.
    fn until_nothing_is_parked(&self) {
        while self.core.parked_now() != ParkedFigures::default() {
            std::thread::yield_now();
        }
    }

    /// A file of that many times 64 KiB, none of which is in memory.
    fn with_cold_file(sync: SyncMode, timeout: Duration, windows: u64) -> (Bench, Ino) {
        let bench = Bench::new(SyncMode::OnRequest, LONG);
        let file = bench.create("cold").recv().unwrap().unwrap();
        for window in 0..windows {
            bench.write(file, window << 16, random(window)).recv().unwrap().unwrap();
        }
        let bench = Bench::on(bench.end(), sync, timeout);
        let found = bench.ask(Kind::Lookup, 0, |fs| fs.lookup(ROOT, b"cold")).recv().unwrap().unwrap();
        assert_eq!((found.ino, found.size), (file, windows << 16));
        (bench, file)
    }

    /// Has the room of a store whose storage takes no changes used up: makes files until one has to
    /// wait. Answers it, and how many were made before.
    fn use_up_room(&self, prefix: &str) -> (Answer<Ino>, usize) {
        let mut made = 0;
        loop {
            let answer = self.create(&format!("{prefix}{made}"));
            // It may wait for a lock alone, which somebody has for long. But once storage is at a commit that
            // it does not answer, no room comes any more.
            loop {
                match answer.try_recv() {
                    Ok(done) => {
                        done.unwrap();
                        break;
                    }
                    Err(TryRecvError::Disconnected) => panic!("dropped"),
                    Err(TryRecvError::Empty) => {}
                }
                if self.disk.waiting() > 0 && self.core.fs.store().begin_now().is_err() {
                    return (answer, made);
                }
                std::thread::yield_now();
            }
            made += 1;
        }
    }
}

/// Bytes that do not compress.
fn random(seed: u64) -> Vec<u8> {
    let mut state = seed + 1;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(1 << 16).collect()
}

fn now<T>(answer: &Answer<T>) -> T {
    answer.try_recv().expect("it is answered at once").expect("no error")
}

fn refused<T>(answer: &Answer<T>) {
    assert_eq!(answer.recv().unwrap().map(drop), Err(Errno::EIO));
}

#[test]
fn who_waits_for_storage_that_does_not_answer_is_told_and_loses_nothing() {
    let bench = Bench::new(SyncMode::Names, SHORT);
    assert_eq!(bench.sync().recv().unwrap(), Ok(()));
    bench.disk.fall(Silence::CHANGES);
    let made = bench.create("name");
    bench.disk.until_waiting(1);
    let synced = bench.sync();
    refused(&made);
    refused(&synced);
    assert!(bench.core.fs.lookup(ROOT, b"name").is_ok(), "it is not undone");
    bench.disk.fall(Silence::NONE);
    // Nothing was lost, and who asks again gets an answer of its own.
    bench.core.fs.store().sync().unwrap();
    assert!(made.try_recv().is_err() && synced.try_recv().is_err(), "nobody is answered twice");
    let again = FileSystem::open(open_on(bench.end()), coarse_now).unwrap();
    assert!(again.lookup(ROOT, b"name").is_ok(), "it is durable");
}

#[test]
fn what_needs_no_storage_is_answered_however_many_wait_for_it() {
    let (bench, cold) = Bench::with_cold_file(SyncMode::OnRequest, LONG, 64);
    let small = now(&bench.create("small"));
    assert_eq!(now(&bench.write(small, 0, b"content".to_vec())), 7);
    bench.disk.fall(Silence::ALL);
    let (first, made) = bench.use_up_room("a");
    // More than there are threads, of each kind.
    let reads: Vec<_> = (0..40).map(|window| bench.read(cold, window << 16, 1 << 16)).collect();
    let makes: Vec<_> = (0..300).map(|number| bench.create(&format!("b{number}"))).collect();
    let writes: Vec<_> = (0..20).map(|window| bench.write(cold, window << 20, vec![9; 1 << 20])).collect();
    for _ in 0..2 {
        assert_eq!(now(&bench.read(small, 0, 100)), b"content");
        assert_eq!(now(&bench.ask(Kind::Lookup, 0, |fs| fs.lookup(ROOT, b"small"))).ino, small);
        assert_eq!(now(&bench.ask(Kind::Getattr, 0, move |fs| fs.getattr(cold))).size, 64 << 16);
        let handle = now(&bench.ask(Kind::Opendir, 0, |fs| fs.opendir(ROOT)));
        let mut listed = 0;
        bench
            .core
            .fs
            .readdir(handle, 0, true, &mut |_| {
                listed += 1;
                listed < 100
            })
            .unwrap();
        assert_eq!(listed, 100);
        bench.core.fs.releasedir(handle);
        now(&bench.ask(Kind::Statfs, 0, FileSystem::statfs));
        now(&bench.ask(Kind::Open, 0, move |fs| fs.open_file(small)));
        bench.core.fs.release(small);
    }
    assert!(first.try_recv().is_err());
    bench.disk.fall(Silence::READS);
    // Whoever waits for room does not queue behind those who wait for what storage does not give.
    first.recv().unwrap().unwrap();
    makes.iter().for_each(|made| _ = made.recv().unwrap().unwrap());
    bench.disk.fall(Silence::NONE);
    for (window, read) in reads.iter().enumerate() {
        let (read, old) = (read.recv().unwrap().unwrap(), random(window as u64));
        assert!(read == old || read.iter().all(|byte| *byte == 9), "as before one of the writes, or after it");
    }
    writes.iter().for_each(|written| assert_eq!(written.recv().unwrap().unwrap(), 1 << 20));
    bench.until_nothing_is_parked();
    assert!(bench.core.fs.lookup(ROOT, format!("a{made}").as_bytes()).is_ok());
    bench.end();
}

/// R14: of those who want to have something stored one reader thread waits for the disk, and no other.
#[test]
fn while_one_reader_stores_the_others_answer() {
    let bench = Bench::new(SyncMode::OnRequest, LONG);
    let small = now(&bench.create("small"));
    assert_eq!(now(&bench.write(small, 0, b"content".to_vec())), 7);
    bench.disk.fall(Silence::CHANGES);
    let mut syncs = vec![bench.sync_that_waits()];
    for number in 0..20 {
        let made = now(&bench.create(&format!("made{number}")));
        syncs.push(bench.sync());
        assert_eq!(now(&bench.write(made, 0, b"content".to_vec())), 7);
        assert_eq!(now(&bench.read(small, 0, 100)), b"content");
        assert_eq!(now(&bench.ask(Kind::Lookup, 0, |fs| fs.lookup(ROOT, b"small"))).ino, small);
    }
    assert!(syncs.iter().all(|synced| synced.try_recv().is_err()));
    bench.disk.fall(Silence::NONE);
    syncs.iter().for_each(|synced| assert_eq!(synced.recv().unwrap(), Ok(())));
    bench.end();
}

#[test]
fn what_ended_in_an_error_is_not_carried_out_later() {
    let (bench, cold) = Bench::with_cold_file(SyncMode::OnRequest, SHORT, 64);
    bench.disk.fall(Silence::ALL);
    let (first, _) = bench.use_up_room("a");
    let reads: Vec<_> = (0..40).map(|window| bench.read(cold, window << 16, 1 << 16)).collect();
    let makes: Vec<_> = (0..50).map(|number| bench.create(&format!("b{number}"))).collect();
    let writes: Vec<_> = (0..8).map(|window| bench.write(cold, window << 16, vec![9; 1 << 16])).collect();
    refused(&first);
    reads.iter().for_each(refused);
    makes.iter().for_each(refused);
    writes.iter().for_each(refused);
    bench.until_nothing_is_parked();
    bench.disk.fall(Silence::NONE);
    let fs = &bench.core.fs;
    let later = bench.create("later");
    later.recv().unwrap().unwrap();
    for number in 0..50 {
        let name = format!("b{number}");
        assert!(fs.store().patiently(|| fs.lookup(ROOT, name.as_bytes())).is_err());
    }
    for window in 0..64 {
        let read = fs.store().patiently(|| fs.read(cold, window << 16, 1 << 16)).unwrap().concat();
        assert_eq!(read, random(window));
    }
    bench.end();
}

#[test]
fn parked_writes_hold_so_much_memory_and_no_more() {
    const MIB: usize = 1 << 20;
    let bench = Arc::new(Bench::new(SyncMode::OnRequest, LONG));
    let file = now(&bench.create("file"));
    bench.disk.fall(Silence::CHANGES);
    let its = bench.clone();
    // A reader thread with more than can be parked.
    let reader = std::thread::spawn(move || {
        let written: Vec<_> = (0..120).map(|at| its.write(file, at << 20, vec![3; MIB])).collect();
        written.iter().map(|written| written.recv().unwrap().unwrap()).sum::<usize>()
    });
    while bench.core.parked_now().bytes < 32 * MIB {
        std::thread::yield_now();
    }
    assert!(!reader.is_finished() && bench.core.parked_now().bytes < 34 * MIB);
    bench.disk.fall(Silence::NONE);
    assert_eq!(reader.join().unwrap(), 120 * MIB);
    Arc::into_inner(bench).unwrap().end();
}

#[test]
fn the_end_waits_for_no_storage() {
    let (bench, cold) = Bench::with_cold_file(SyncMode::OnRequest, LONG, 4);
    bench.disk.fall(Silence::ALL);
    let (made, _) = bench.use_up_room("a");
    let read = bench.read(cold, 0, 1 << 16);
    bench.disk.until_waiting(2);
    let disk = bench.disk.clone();
    let Bench { core, deferred, crowd, .. } = bench;
    deferred.stop();
    crowd.stop();
    core.stop();
    assert!(made.recv().is_err() && read.recv().is_err(), "dropped, which answers EIO");
    core.fs.store().abandon("nobody wants to wait");
    core.fs.store().close().unwrap_err();
    disk.fall(Silence::NONE);
}

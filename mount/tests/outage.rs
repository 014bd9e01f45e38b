//! A real mount of a store whose storage falls silent for longer than anybody waits.
//!
//! Needs root and /dev/fuse. The mount is served by this very process, so that the storage below can
//! be told to be silent.

// Shared with the store's tests.
#[allow(dead_code, reason = "each test program uses its part")]
#[path = "../../tests/support/silent_disk.rs"]
mod silent_disk;

use assert_fs::TempDir;
use fuser::{Config, Session, SessionACL};
use kivafs::backend::MemoryDisk;
use kivafs::store::{CreateOptions, OpenOptions, Store};
use kivafs_mount::facade::{self, Appearance, Manners, Service, SyncMode};
use kivafs_mount::fs::{FileSystem, check, coarse_now};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use parking_lot::Mutex;
use silent_disk::{Silence, SilentDisk};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

const MIB: usize = 1 << 20;
/// One test at a time: they count this process's threads.
static TURN: Mutex<()> = Mutex::new(());
/// How long a request may last: long enough for the test to look about meanwhile.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Nobody's time is over before the test.
const LONG: Duration = Duration::from_secs(3600);

/// A mount that goes away with this, whatever its storage does.
struct Mounted {
    dir: TempDir,
    store: Arc<Store>,
    service: Option<Service>,
    session: Option<JoinHandle<()>>,
}

fn open_on(disk: &Arc<SilentDisk>) -> Arc<Store> {
    let options = OpenOptions { commit_interval: Duration::from_secs(3600), ..OpenOptions::default() };
    Arc::new(Store::open_on(disk.clone(), &options).unwrap())
}

impl Mounted {
    fn new(disk: &Arc<SilentDisk>, timeout: Duration) -> Mounted {
        let dir = TempDir::new().unwrap();
        let store = open_on(disk);
        let fs = Arc::new(FileSystem::open(store.clone(), coarse_now).unwrap());
        let manners = Manners {
            sync: SyncMode::OnRequest,
            timeout,
            held_max: 100_000,
            serves_keys: false,
            appearance: Appearance::default(),
        };
        let (facade, service) = facade::start(fs, manners).unwrap();
        let fuse: OwnedFd = File::options().read(true).write(true).open("/dev/fuse").expect("needs FUSE").into();
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,default_permissions,max_read={}",
            fuse.as_raw_fd(),
            facade::REQUEST_BYTES_MAX
        );
        let (source, kind) = (Some("silent"), Some("fuse.kivafs"));
        mount(source, dir.path(), kind, MsFlags::empty(), Some(options.as_str())).expect("needs root: it mounts");
        let mut config = Config::default();
        config.acl = SessionACL::All;
        config.n_threads = Some(2);
        let notices = fuse.try_clone().unwrap();
        let session = Session::from_fd(facade, fuse, SessionACL::All, config).unwrap();
        service.notify_by(notices);
        let session = std::thread::spawn(move || {
            // It ends with an error when the connection was aborted.
            let _ = session.run();
        });
        Mounted { dir, store, service: Some(service), session: Some(session) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Requests that the kernel waits for, or keeps back.
    fn requests(&self) -> usize {
        let device = std::fs::metadata(self.dir.path()).unwrap().dev();
        let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
        // The kernel's own form of a device's number.
        let waiting = Path::new(CONNECTIONS).join(format!("{}/waiting", major << 20 | minor));
        std::fs::read_to_string(waiting).unwrap().trim().parse().unwrap()
    }

    /// Takes it down, orderly, and closes the store.
    fn end(mut self) {
        umount2(self.dir.path(), MntFlags::empty()).unwrap();
        self.session.take().unwrap().join().unwrap();
        self.service.take().unwrap().stop();
        self.store.close().unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            // As `kivafs umount --force` does: whoever waits gets an error at once.
            let _ = umount2(self.dir.path(), MntFlags::MNT_FORCE | MntFlags::MNT_DETACH);
            let _ = session.join();
        }
    }
}

/// Where the kernel lists FUSE connections.
const CONNECTIONS: &str = "/sys/fs/fuse/connections";

/// That list, mounted if it was not.
struct Connections {
    mounted: bool,
}

impl Connections {
    fn shown() -> Connections {
        let mounted = Path::new(CONNECTIONS).read_dir().unwrap().next().is_none();
        if mounted {
            mount(Some("fusectl"), CONNECTIONS, Some("fusectl"), MsFlags::empty(), None::<&str>).unwrap();
        }
        Connections { mounted }
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        if self.mounted {
            let _ = umount2(CONNECTIONS, MntFlags::MNT_DETACH);
        }
    }
}

/// Bytes that do not compress.
fn random(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed + 1;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// What `ls`, `stat` and `cat` do; none of it may be answered by the kernel alone.
fn look_about(place: &Mounted, round: usize) {
    let names: Vec<_> = std::fs::read_dir(place.path("dir")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 10);
    assert!(!place.path(&format!("dir/absent {round}")).exists(), "a name that the kernel knows nothing of");
    let mut text = String::new();
    let mut file = File::open(place.path("dir/3")).unwrap();
    // So that it has to ask us.
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "content of 3");
    let df = std::process::Command::new("df").arg(place.dir.path()).output().unwrap();
    assert!(df.status.success());
    assert!(std::fs::read_to_string(place.path(".kivafs/stats")).unwrap().contains("waiting"));
    requests_that_wait(place);
}

/// Requests that wait for something to be read, as the mount itself tells.
fn requests_that_wait(place: &Mounted) -> usize {
    let told = std::fs::read_to_string(place.path(".kivafs/metrics")).unwrap();
    let count = told.lines().find_map(|line| line.strip_prefix("kivafs_waiting_requests{for=\"read\"} "));
    count.unwrap().parse().unwrap()
}

/// Threads of this process whose names begin so.
fn threads(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let comms = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
    comms.filter(|comm| comm.starts_with(name)).count()
}

fn new_store() -> Arc<SilentDisk> {
    let disk = Arc::new(SilentDisk::new(Arc::new(MemoryDisk::default())));
    Store::create_on(disk.clone(), &CreateOptions::default()).unwrap();
    disk
}

/// A file of that length, and a directory of ten short ones, of which nothing but names is in memory.
fn mount_with_files(disk: &Arc<SilentDisk>, timeout: Duration, length: usize) -> Mounted {
    let place = Mounted::new(disk, timeout);
    std::fs::create_dir(place.path("dir")).unwrap();
    for number in 0..10 {
        std::fs::write(place.path(&format!("dir/{number}")), format!("content of {number}")).unwrap();
    }
    std::fs::write(place.path("cold"), random(length, 0)).unwrap();
    place.end();
    let place = Mounted::new(disk, timeout);
    std::fs::metadata(place.path("cold")).unwrap();
    look_about(&place, 0);
    place
}

#[test]
fn what_needs_no_storage_goes_on_while_any_number_wait_for_it_in_vain() {
    let _turn = TURN.lock();
    let disk = new_store();
    let place = mount_with_files(&disk, TIMEOUT, 64 * MIB);
    let before = threads("fetch");
    let files = |name: &str, count: usize| -> Vec<File> {
        (0..count).map(|number| File::create(place.path(&format!("{name} {number}"))).unwrap()).collect()
    };
    let (copies, synced) = (files("copy", 20), files("synced", 10));
    // While a name is made, the kernel lets nobody look for another in that directory.
    let dirs: Vec<PathBuf> = (0..10).map(|number| place.path(&format!("dir {number}"))).collect();
    dirs.iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
    disk.fall(Silence::ALL);
    let mut stalled: Vec<JoinHandle<()>> = Vec::new();
    let mut stall = |work: Box<dyn FnOnce() -> std::io::Result<()> + Send>| {
        stalled.push(std::thread::spawn(move || {
            let done = work();
            assert!(done.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EIO)), "{done:?}");
        }));
    };
    // More than fit into the store's memory, and more readers than threads fetch.
    for mut copy in copies {
        stall(Box::new(move || (0..40).try_for_each(|_| copy.write_all(&[7; MIB]))));
    }
    for number in 0..40 {
        let path = place.path("cold");
        stall(Box::new(move || File::open(path)?.read_exact_at(&mut [0; 4096], (number * MIB) as u64)));
    }
    for mut synced in synced {
        stall(Box::new(move || synced.write_all(b"in vain").and_then(|()| synced.sync_all())));
    }
    for dir in dirs {
        stall(Box::new(move || (0..).try_for_each(|number| File::create(dir.join(number.to_string())).map(drop))));
    }
    // For as long as anybody waits, all of which end in time.
    let mut rounds = 0;
    while stalled.iter().any(|thread| !thread.is_finished()) {
        rounds += 1;
        look_about(&place, rounds);
    }
    assert!(rounds > 3, "{rounds} rounds in {TIMEOUT:?}");
    stalled.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(threads("fetch") <= before);
    // Storage answers again: everything goes on.
    disk.fall(Silence::NONE);
    let mut again = Vec::new();
    File::open(place.path("cold")).unwrap().read_to_end(&mut again).unwrap();
    assert!(again == random(64 * MIB, 0));
    let mut copy = File::create(place.path("copy")).unwrap();
    copy.write_all(&again).unwrap();
    copy.sync_all().unwrap();
    drop(copy);
    place.end();
    let place = Mounted::new(&disk, TIMEOUT);
    assert!(std::fs::read(place.path("copy")).unwrap() == again);
    place.end();
    assert_eq!(check(&open_on(&disk)).unwrap(), Vec::<String>::new());
}

/// Most reads come as read-ahead, of which the kernel sends so many and keeps back the others.
#[test]
fn reads_that_stall_keep_back_no_others() {
    let _turn = TURN.lock();
    let disk = new_store();
    let place = mount_with_files(&disk, LONG, 64 * MIB);
    disk.fall(Silence::ALL);
    let stalled: Vec<_> = (0..200)
        .map(|number| {
            let path = place.path("cold");
            std::thread::spawn(move || File::open(path)?.read_exact_at(&mut [0; 4096], (number * MIB / 4) as u64))
        })
        .collect();
    let _connections = Connections::shown();
    while place.requests() < stalled.len() {
        std::thread::yield_now();
    }
    (0..10).for_each(|round| look_about(&place, round));
    assert!(requests_that_wait(&place) >= 100, "{} are told of", requests_that_wait(&place));
    disk.fall(Silence::NONE);
    stalled.into_iter().for_each(|thread| thread.join().unwrap().unwrap());
    place.end();
}

/// An outage that is over in time is not noticed.
#[test]
fn a_copy_goes_on_after_an_outage() {
    let _turn = TURN.lock();
    let disk = new_store();
    let place = mount_with_files(&disk, LONG, 8 * MIB);
    let (from, to) = (place.path("cold"), place.path("copy"));
    disk.fall(Silence::ALL);
    let copying = std::thread::spawn(move || copy(&from, &to));
    // It has come to where it needs storage.
    disk.until_waiting(1);
    look_about(&place, 1);
    disk.fall(Silence::NONE);
    copying.join().unwrap().unwrap();
    assert!(std::fs::read(place.path("copy")).unwrap() == random(8 * MIB, 0));
    place.end();
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    let (mut from, mut to) = (File::open(from)?, File::create(to)?);
    std::io::copy(&mut from, &mut to)?;
    to.sync_all()
}

/// What `kivafs umount --force` comes to: everybody is told at once, and the end waits for nothing.
#[test]
fn a_forced_end_waits_for_no_storage() {
    let _turn = TURN.lock();
    let disk = new_store();
    let mut place = mount_with_files(&disk, LONG, 8 * MIB);
    disk.fall(Silence::ALL);
    let (cold, new) = (place.path("cold"), place.path("new"));
    let reading = std::thread::spawn(move || std::fs::read(cold));
    let writing = std::thread::spawn(move || copy(Path::new("/dev/zero"), &new));
    disk.until_waiting(2);
    umount2(place.dir.path(), MntFlags::MNT_FORCE | MntFlags::MNT_DETACH).unwrap();
    assert!(reading.join().unwrap().is_err());
    assert!(writing.join().unwrap().is_err_and(|error| error.kind() != ErrorKind::StorageFull));
    place.session.take().unwrap().join().unwrap();
    place.service.take().unwrap().stop();
    place.store.abandon("given up");
    place.store.close().unwrap_err();
    disk.fall(Silence::NONE);
}

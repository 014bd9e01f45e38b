//! The harness' own test: a right log passes every crash image, a wrong one does not.

mod support;

use kivafs::backend::{Disk, MemoryDisk};
use std::sync::Arc;
use support::crash_disk::{Call, CrashDisk, Effort, Fate, Sectors};
use support::faulty_disk::{CallKind, Fault, FaultyDisk, Then};
use support::random::for_each_seed;
use support::toy_log::{Mistake, ToyLog, recover};

const EFFORT: Effort = Effort { cuts_max: 1000, fates_max: 200, shuffled: 20, seed: 7 };

/// How many crash images break "each record is there whole or not at all, in order, none that was
/// acknowledged is missing", of how many.
fn broken_images(mistake: Mistake, seed: u64) -> (usize, usize) {
    let disk = Arc::new(CrashDisk::from_bytes(Vec::new()));
    let mut log = ToyLog::new(disk.clone(), mistake);
    let payloads: Vec<Vec<u8>> = (0..6_u8).map(|index| vec![index + 1; 100 + 700 * usize::from(index)]).collect();
    let mut acknowledged_at = Vec::new();
    for payload in &payloads {
        log.append(payload).unwrap();
        acknowledged_at.push(disk.position());
    }
    let acknowledged = |cut| acknowledged_at.iter().filter(|position| **position <= cut).count();
    let mut broken = 0;
    let tried = disk.journal().for_each_image(
        Effort { seed, ..EFFORT },
        |cut| acknowledged(cut) as u64,
        |image| {
            let found = recover(&image.bytes, mistake);
            broken += usize::from(!payloads.starts_with(&found) || found.len() < acknowledged(image.cut));
        },
    );
    println!("{mistake:?}: {broken} broken, {tried:?}");
    (broken, tried.images)
}

#[test]
fn right_and_wrong_logs_are_told_apart() {
    for_each_seed(3, |seed| {
        let (broken, images) = broken_images(Mistake::Nothing, seed);
        assert_eq!(broken, 0, "a right log");
        assert!(images >= 40, "only {images} images");
        for mistake in [Mistake::NoSync, Mistake::SyncFirst, Mistake::NoChecksum, Mistake::RewritesFirst] {
            assert!(broken_images(mistake, seed).0 > 0, "{mistake:?} passed");
        }
    });
}

#[test]
fn the_same_seed_gives_the_same_images() {
    let images = || {
        let disk = CrashDisk::from_bytes(vec![9; 2000]);
        for index in 0..5_u8 {
            disk.write_at(u64::from(index) * 300, &[index; 900]).unwrap();
        }
        let mut images = Vec::new();
        let effort = Effort { cuts_max: 4, fates_max: 9, ..EFFORT };
        disk.journal().for_each_image(effort, |_| 0, |image| images.push((image.cut, image.bytes)));
        images
    };
    assert_eq!(images(), images());
}

#[test]
fn an_image_is_what_its_fate_says() {
    let disk = CrashDisk::from_bytes(vec![b'-'; 2048]);
    disk.write_at(0, &[b'a'; 512]).unwrap();
    disk.sync().unwrap();
    disk.write_at(512, &[b'b'; 512]).unwrap();
    disk.punch(0, 512).unwrap();
    disk.allocate(2048, 512).unwrap();
    disk.write_at(1024, &[b'c'; 2048]).unwrap();
    assert_eq!(disk.position(), 6);
    let mut images = Vec::new();
    disk.journal().for_each_image(EFFORT, |cut| cut as u64, |image| images.push(image));
    let sectors = |cut: usize, fate: Fate| {
        let image = images.iter().find(|image| image.cut == cut && image.fate == fate);
        let image = image.unwrap_or_else(|| panic!("no image of {cut} {fate:?}"));
        assert!(image.bytes.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
        image.bytes.chunks(512).map(|sector| if sector[0] == 0 { '0' } else { sector[0] as char }).collect::<String>()
    };
    assert_eq!(sectors(0, Fate::AllKept), "----");
    assert_eq!(sectors(1, Fate::AllLost), "----");
    assert_eq!(sectors(1, Fate::AllKept), "a---");
    assert_eq!(sectors(2, Fate::AllKept), "a---", "synced: nothing is open");
    assert_eq!(sectors(6, Fate::AllLost), "a---");
    assert_eq!(sectors(6, Fate::AllKept), "0bcccc");
    assert_eq!(sectors(6, Fate::OnlyKept(0)), "ab--");
    assert_eq!(sectors(6, Fate::OnlyKept(1)), "0---");
    assert_eq!(sectors(6, Fate::OnlyKept(2)), "a---0");
    assert_eq!(sectors(6, Fate::OnlyLost(0)), "0-cccc");
    assert_eq!(sectors(6, Fate::LastTorn(Sectors::FirstOnes(1))), "0bc-00");
    assert_eq!(sectors(6, Fate::LastTorn(Sectors::AllButFirstOnes(1))), "0b-ccc");
    assert_eq!(sectors(6, Fate::LastTorn(Sectors::FirstOnes(3))), "0bccc0");
    assert_eq!(sectors(6, Fate::LastTorn(Sectors::Odd)), "0b-c0c");
    assert_eq!(sectors(6, Fate::LastTornAlone(Sectors::FirstOnes(2))), "a-cc");
    assert_eq!(sectors(6, Fate::LastGrewOnly), "0b--00");
    assert!(images.iter().any(|image| matches!(image.fate, Fate::Shuffled(_))));
}

#[test]
fn a_fault_hits_the_nth_call_and_nothing_else() {
    let below = Arc::new(CrashDisk::from_bytes(Vec::new()));
    let disk = FaultyDisk::new(below.clone());
    disk.arm(Fault { kind: CallKind::Write, nth: 2, errno: libc::EIO, then: Then::Recovers });
    disk.write_at(0, b"first").unwrap();
    disk.sync().unwrap();
    assert!(!disk.happened());
    assert_eq!(disk.write_at(0, b"second").unwrap_err().raw_os_error(), Some(libc::EIO));
    assert!(disk.happened());
    assert_eq!(below.content(), b"secst", "half of it was written");
    disk.write_at(0, b"third").unwrap();

    disk.arm(Fault { kind: CallKind::Sync, nth: 1, errno: libc::EIO, then: Then::ReadsOnly });
    disk.write_at(0, b"more").unwrap();
    disk.sync().unwrap_err();
    assert_eq!(disk.syncs_after_failure(), 0);
    disk.write_at(0, b"even").unwrap_err();
    disk.allocate(0, 1).unwrap_err();
    disk.punch(0, 1).unwrap_err();
    disk.read_at(0, &mut [0; 4]).unwrap();
    disk.sync().unwrap_err();
    assert_eq!(disk.syncs_after_failure(), 1);
    let syncs = below.journal().calls().iter().filter(|call| matches!(call, Call::Sync { .. })).count();
    assert_eq!(syncs, 1, "a sync that fails makes nothing durable");
}

#[test]
fn a_disk_below_that_is_full_says_so_through_the_decorators() {
    let memory = Arc::new(MemoryDisk::default());
    let disk = FaultyDisk::new(Arc::new(CrashDisk::new(memory.clone())));
    memory.set_capacity(8192);
    disk.allocate(0, 4096).unwrap();
    assert_eq!(disk.free_space().unwrap(), 4096);
    assert_eq!(disk.allocate(4096, 8192).unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(disk.len().unwrap(), 4096, "nothing has changed");
}

//! How much there may be, and how much there is.

use crate::place::{Medium, Place, on_each_medium, until};
use crate::{ends_whole, noise, remount};
use nix::sys::statvfs::{Statvfs, statvfs};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

on_each_medium!(
    a_mount_takes_no_more_than_it_may,
    a_store_that_has_more_already_is_read_and_made_smaller,
    the_smaller_of_two_limits_counts,
    files_are_counted,
);

const MIB: u64 = 1 << 20;
/// Of a file.
const SEGMENT: u64 = 4 * MIB;

fn full(dir: &Path) -> Statvfs {
    statvfs(dir).unwrap()
}

fn total(dir: &Path) -> u64 {
    let full = full(dir);
    full.blocks() * full.fragment_size()
}

fn free(dir: &Path) -> u64 {
    let full = full(dir);
    assert_eq!(full.blocks_free(), full.blocks_available());
    full.blocks_free() * full.fragment_size()
}

/// Writes until there is no space; answers how many bytes went in.
fn fill(path: &Path) -> u64 {
    let mut file = File::create(path).unwrap();
    let mut written = 0;
    loop {
        let part = noise(written, MIB as usize / 4);
        match file.write_all(&part) {
            Ok(()) => written += part.len() as u64,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::StorageFull);
                file.sync_all().unwrap();
                return written;
            }
        }
    }
}

/// Within one in a hundred of `whole`, and two segments: what is being filled.
fn near(a: u64, b: u64, whole: u64) -> bool {
    a.abs_diff(b) <= whole / 100 + 2 * SEGMENT
}

fn a_mount_takes_no_more_than_it_may(medium: Medium) {
    const LIMIT: u64 = 512 * MIB;
    let place = Place::new(medium);
    place.mount(&["-o", "max_size=512M"]).silently();
    let dir = &place.dir;
    assert!(near(total(dir), LIMIT, LIMIT), "df says {} MiB", total(dir) / MIB);
    let free_before = free(dir);
    let written = fill(&dir.join("file"));
    assert!(near(written, free_before, LIMIT), "{} MiB free, {} MiB went in", free_before / MIB, written / MIB);
    assert!(near(free(dir), 0, LIMIT), "{} MiB are free in a full store", free(dir) / MIB);
    // What deletes has its own few MiB.
    assert!(total(dir) <= LIMIT + SEGMENT, "df says {} MiB", total(dir) / MIB);
    if medium == Medium::File {
        let on_disk = std::fs::metadata(&place.store).unwrap().blocks() * 512;
        assert!(on_disk <= LIMIT + SEGMENT, "{} MiB", on_disk / MIB);
    }
    // A listing shows what was there when it was begun.
    let mut listing = std::fs::read_dir(dir).unwrap();
    assert!(listing.next().unwrap().is_ok());
    std::fs::remove_file(dir.join("file")).unwrap();
    // Removing so much takes many steps: who comes meanwhile waits for them.
    std::fs::write(dir.join("next"), noise(1, MIB as usize)).unwrap();
    drop(listing);
    std::fs::remove_file(dir.join("next")).unwrap();
    until("there is space again", || near(free(dir), free_before, LIMIT));
    ends_whole(&place);
}

fn a_store_that_has_more_already_is_read_and_made_smaller(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let names: Vec<_> = (0..40).map(|number| place.dir.join(number.to_string())).collect();
    for (number, path) in names.iter().enumerate() {
        std::fs::write(path, noise(number as u64, 4 * MIB as usize)).unwrap();
    }
    let options = ["-o", "max_size=64M"];
    remount(&place, &options);
    assert_eq!(free(&place.dir), 0);
    assert!(std::fs::read(&names[7]).unwrap() == noise(7, 4 * MIB as usize));
    let more = place.dir.join("more");
    let refused = std::fs::write(&more, noise(0, MIB as usize)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::StorageFull);
    // One after the other: none of that may need space that there is not.
    for path in &names[1..] {
        std::fs::remove_file(path).unwrap();
        File::open(&place.dir).unwrap().sync_all().unwrap();
    }
    std::fs::write(&more, noise(0, MIB as usize)).unwrap();
    remount(&place, &options);
    assert!(std::fs::read(&names[0]).unwrap() == noise(0, 4 * MIB as usize));
    ends_whole(&place);
}

fn the_smaller_of_two_limits_counts(medium: Medium) {
    for (made, mounted) in [("512M", "64G"), ("64G", "512M")] {
        let place = Place::bare(medium);
        place.on_store("create", &["--size", made]).silently();
        place.mount(&["-o", &format!("max_size={mounted}")]).silently();
        let total = total(&place.dir);
        assert!(near(total, 512 * MIB, 512 * MIB), "{made}, {mounted}: df says {} MiB", total / MIB);
        ends_whole(&place);
    }
}

fn files_are_counted(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let used = || full(&place.dir).files() - full(&place.dir).files_free();
    let before = used();
    assert_eq!(before, 1, "the root");
    for number in 0..500 {
        let path = place.dir.join(number.to_string());
        match number % 3 {
            0 => std::fs::write(&path, "small").unwrap(),
            1 => std::fs::write(&path, vec![0; 10_000]).unwrap(),
            _ => std::fs::create_dir(&path).unwrap(),
        }
        std::os::unix::fs::symlink("x", path.with_extension("link")).unwrap();
    }
    std::fs::hard_link(place.dir.join("0"), place.dir.join("one more name")).unwrap();
    assert_eq!(used(), before + 1000);
    remount(&place, &[]);
    assert_eq!(used(), before + 1000);
    std::fs::remove_file(place.dir.join("0")).unwrap();
    std::fs::remove_file(place.dir.join("1")).unwrap();
    assert_eq!(used(), before + 999);
    ends_whole(&place);
}

//! The less common half of POSIX, on a real mount. Needs root and /dev/fuse; fails without.
//!
//! All of it for a store in a file and for one in a bucket, and looked at again after a remount.
//!
//! | file | job |
//! |---|---|
//! | `ranges.rs` | fallocate, data and holes, copy_file_range |
//! | `renames.rs` | renameat2 with its flags; overlayfs on top |
//! | `locks.rs` | flock, POSIX and open file description locks |
//! | `other.rs` | a process of its own, that holds locks |
//! | `atime.rs` | times of access |
//! | `sizes.rs` | the largest files, the longest names, the deepest and fullest directories |
//! | `privileges.rs` | when set-user-id and set-group-id bits fall |
//! | `space.rs` | `max_size=`, and what df(1) says |
//! | `refused.rs` | ioctls that are not there |

mod atime;
mod locks;
mod other;
#[path = "../place/mod.rs"]
mod place;
mod privileges;
#[allow(dead_code, reason = "shared with the store's tests, which use all of it")]
#[path = "../../../tests/support/random.rs"]
mod random;
mod ranges;
mod refused;
mod renames;
mod sizes;
mod space;

use place::Place;
use std::fs::File;
use std::path::Path;

/// A file to read and write, made if it is not there.
fn open(path: &Path) -> File {
    File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

/// Unmounts and mounts again with these options.
fn remount(place: &Place, words: &[&str]) {
    place.umounts();
    place.mount(words).silently();
}

/// Unmounts, and looks at every byte of the store.
fn ends_whole(place: &Place) {
    place.umounts();
    place.on_store("check", &["--data"]).silently();
}

/// What random bytes look like: nothing of it compresses.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut random = random::Random::new(seed);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

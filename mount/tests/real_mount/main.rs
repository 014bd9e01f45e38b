//! The `kivafs` binary on a real mount: what is left when its process is killed, and when it is
//! unmounted and mounted again in the midst of work.
//!
//! All of it for a store in a file and for one in a bucket. Needs /dev/fuse; as another user than
//! root, fusermount3 too. A round prints its seed; `KIVAFS_SEED` repeats it, `KIVAFS_ROUNDS` asks for
//! more rounds.
//!
//! | file | job |
//! |---|---|
//! | `served.rs` | a store served by a process that can be killed; the mount that it leaves |
//! | `model.rs` | what a worker's directory holds after each of its operations |
//! | `worker.rs` | a thread that works in its directory, and what it was answered |
//! | `instant.rs` | is what was found the state at one instant, no older than the last fsync? |
//! | `kill.rs` | `kill -9` at random moments |
//! | `kill_weak_s3.rs` | the same to a store in a bucket, through the fault proxy |
//! | `remount.rs` | `umount X; mount X` under load |

mod instant;
mod kill;
mod kill_weak_s3;
mod model;
#[path = "../place/mod.rs"]
mod place;
#[allow(dead_code, reason = "shared with the store's tests, which use all of it")]
#[path = "../../../tests/support/random.rs"]
mod random;
mod remount;
mod served;
#[path = "../../../tests/support/weather.rs"]
mod weather;
mod worker;

/// How many rounds: KIVAFS_ROUNDS, or as many as are usual.
fn rounds(usual: u64) -> u64 {
    number_from("KIVAFS_ROUNDS").unwrap_or(usual)
}

/// The first round's seed: KIVAFS_SEED, or another one each time.
fn first_seed() -> u64 {
    number_from("KIVAFS_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.expect("a clock after 1970").as_secs() % 1_000_000
    })
}

fn number_from(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text:?}")))
}

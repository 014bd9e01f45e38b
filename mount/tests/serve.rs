//! `kivafs serve`: the real program, a real socket, and real kills. `KIVAFS_ROUNDS` asks for more of
//! them; `KIVAFS_SEED` repeats after how many answers each comes. `serve/commands.rs`: what the other
//! commands do through it.

#[path = "serve/commands.rs"]
mod commands;
mod place;
#[allow(dead_code, reason = "shared with the store's tests, which use all of it")]
#[path = "../../tests/support/random.rs"]
mod random;

use assert_fs::TempDir;
use kivafs_mount::kvlds::client::{Client, ClientError};
use kivafs_mount::kvlds::message::{Request, decode_done};
use kivafs_mount::kvlds::server::Address;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use random::{Random, seeds};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A process that serves; killed when dropped.
struct Serving {
    process: Child,
    address: Address,
}

fn kivafs(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kivafs"));
    command.args(words);
    command
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

impl Serving {
    fn start(directory: &Path) -> Serving {
        Serving::start_at(directory, Address::Unix(directory.join("socket")))
    }

    fn start_at(directory: &Path, address: Address) -> Serving {
        let store = directory.join("store");
        let mut process = kivafs(&["serve", text(&store), "--create", "--kvlds", &address.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, format!("{address}: ready\n"));
        Serving { process, address }
    }

    fn client(&self) -> Client {
        Client::connect(&self.address).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id() as i32), signal).unwrap();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn store_of(directory: &TempDir) -> PathBuf {
    directory.path().join("store")
}

#[test]
fn what_is_set_is_a_file_and_what_is_put_is_a_key() {
    let directory = TempDir::new().unwrap();
    let mut serving = Serving::start(directory.path());
    assert!(serving.client().change(&Request::Set { key: b"a/b", value: b"value" }).unwrap());
    serving.signal(Signal::SIGTERM);
    assert!(serving.process.wait().unwrap().success());
    assert!(!directory.path().join("socket").exists());
    let store = store_of(&directory);
    let said = kivafs(&["get", text(&store), "a%2Fb"]).output().unwrap();
    assert_eq!((said.status.code(), &said.stdout[..]), (Some(0), &b"value"[..]), "{said:?}");
    let mut put = kivafs(&["put", text(&store), "file"]).stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut put.stdin.take().unwrap(), b"content").unwrap();
    assert!(put.wait().unwrap().success());
    let serving = Serving::start(directory.path());
    assert_eq!(serving.client().get(b"file").unwrap().unwrap(), b"content");
    assert_eq!(serving.client().get(b"a/b").unwrap().unwrap(), b"value");
}

#[test]
fn a_socket_that_is_served_is_not_taken_away() {
    let directory = TempDir::new().unwrap();
    let serving = Serving::start(directory.path());
    let socket = directory.path().join("socket");
    let other = directory.path().join("other");
    let said = kivafs(&["serve", text(&other), "--create", "--kvlds", text(&socket)]).output().unwrap();
    assert_eq!(said.status.code(), Some(1));
    let line = String::from_utf8(said.stderr).unwrap();
    assert_eq!(line, format!("kivafs: {}: another process serves this socket\n", socket.display()));
    assert_eq!(serving.client().get(b"key").unwrap(), None);
    assert!(!other.exists(), "what was made for it is gone again");
    // Who wants the store is told where to ask.
    let said = kivafs(&["get", text(&store_of(&directory)), "key"]).output().unwrap();
    assert_eq!(said.status.code(), Some(3));
    let line = String::from_utf8(said.stderr).unwrap();
    assert!(line.contains(&format!("served at {} by pid {}", socket.display(), serving.process.id())), "{line}");
}

#[test]
fn the_socket_has_the_mode_that_it_is_asked_for() {
    use std::os::unix::fs::PermissionsExt;
    let directory = TempDir::new().unwrap();
    let words = ["serve", "store", "--create", "--kvlds", "socket", "--mode", "0666"];
    let mut process = kivafs(&words).current_dir(directory.path()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let mode = std::fs::metadata(directory.path().join("socket")).unwrap().permissions().mode();
    kill(Pid::from_raw(process.id() as i32), Signal::SIGTERM).unwrap();
    assert!(process.wait().unwrap().success());
    assert_eq!(mode & 0o777, 0o666);
    let said = kivafs(&["serve", "store", "--kvlds", "socket", "-o", "kvlds=other"]).output().unwrap();
    assert_eq!(said.status.code(), Some(2), "{said:?}");
}

/// A number that each SET has; the newest that was SET is also the value of one key that all of them
/// share.
const SHARED: &[u8] = b"newest";

fn number_of(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().expect("eight bytes"))
}

/// SETs one number after another, from `first` on, many in flight, until the connection is lost; the
/// process is killed when `count` were answered. Answers which were, and the end of what was asked.
fn set_until_killed(serving: &Serving, first: u64, count: usize) -> (BTreeSet<u64>, u64) {
    const IN_FLIGHT: u64 = 2000;
    let mut client = serving.client();
    let (mut answered, mut asked) = (BTreeSet::new(), 0);
    let ended = loop {
        // Each number is two requests: its own key, then the one that all share.
        while asked - (answered.len() as u64) < IN_FLIGHT {
            let number = (first + asked / 2).to_be_bytes();
            let key = if asked % 2 == 0 { &number[..] } else { SHARED };
            client.ask(&Request::Set { key, value: &number });
            asked += 1;
        }
        if let Err(error) = client.flush() {
            break ClientError::Io(error);
        }
        match client.receive() {
            Ok((id, record)) => {
                assert!(decode_done(&record).unwrap());
                answered.insert(id);
            }
            Err(error) => break error,
        }
        if answered.len() == count {
            serving.signal(Signal::SIGKILL);
        }
    };
    assert!(matches!(ended, ClientError::Io(_)), "{ended}");
    assert!(answered.len() >= count);
    (answered, first + asked.div_ceil(2))
}

/// C1, C2: whenever it is killed, what was acknowledged is there, and what else is there was asked for
/// before anything that is not. The socket that it left is no obstacle.
#[test]
fn killed_while_much_is_set_it_loses_nothing_that_was_acknowledged() {
    let rounds = std::env::var("KIVAFS_ROUNDS").map_or(50, |rounds| rounds.parse().expect("a number"));
    let seed = seeds(1)[0];
    println!("KIVAFS_SEED={seed}");
    let mut random = Random::new(seed);
    let directory = TempDir::new().unwrap();
    let mut acknowledged: BTreeSet<u64> = BTreeSet::new();
    let (mut newest, mut first, mut next) = (None, 0, 0);
    for round in 0..=rounds {
        let serving = Serving::start(directory.path());
        let (mut there, mut shared) = (BTreeSet::new(), None);
        let mut each = |(key, value): (&[u8], &[u8])| match key {
            SHARED => shared = Some(number_of(value)),
            key => {
                assert_eq!(key, value, "round {round}");
                there.insert(number_of(key));
            }
        };
        serving.client().range(b"", b"", &mut each).unwrap();
        let lost = acknowledged.difference(&there).next();
        assert_eq!(lost, None, "round {round}: acknowledged, and not there, as maybe others");
        let new: Vec<u64> = there.range(first..).copied().collect();
        assert!(new.iter().copied().eq((first..next).take(new.len())), "round {round}: a hole from {first} on");
        let last = there.last().copied();
        assert!(newest <= shared && shared <= last, "round {round}: {newest:?} was set, {shared:?} is there");
        // What is there once stays.
        (acknowledged, newest, first) = (there, shared, next);
        if round == rounds {
            break;
        }
        let (answered, end) = set_until_killed(&serving, first, random.within(1..1500));
        let of_kind = |kind| answered.iter().filter(move |id| *id % 2 == kind).map(|id| first + id / 2);
        acknowledged.extend(of_kind(0));
        newest = newest.max(of_kind(1).max());
        next = end;
    }
    let said = kivafs(&["check", "--data", text(&store_of(&directory))]).output().unwrap();
    assert!(said.status.success(), "{said:?}");
}

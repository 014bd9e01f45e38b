//! `kivafs serve`: the real program, a real socket, and real kills.

use assert_fs::TempDir;
use kivafs_mount::kvlds::client::{Client, ClientError};
use kivafs_mount::kvlds::message::{Request, decode_done};
use kivafs_mount::kvlds::server::Address;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
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
        let (store, socket) = (directory.join("store"), directory.join("socket"));
        let mut process = kivafs(&["serve", text(&store), "--create", "--kvlds", text(&socket)])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, format!("{}: ready\n", socket.display()));
        Serving { process, address: Address::Unix(socket) }
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

/// C1: whenever it is killed, each key that was acknowledged is there, and the socket that it left is
/// no obstacle.
#[test]
fn killed_while_much_is_set_it_loses_nothing_that_was_acknowledged() {
    let rounds = std::env::var("KIVAFS_ROUNDS").map_or(8_u64, |rounds| rounds.parse().expect("a number"));
    let directory = TempDir::new().unwrap();
    let mut acknowledged: BTreeSet<u64> = BTreeSet::new();
    let mut first: u64 = 0;
    for round in 0..rounds {
        let serving = Serving::start(directory.path());
        let mut client = serving.client();
        for number in &acknowledged {
            client.ask(&Request::Get { key: &number.to_be_bytes() });
            client.flush().unwrap();
            let (_, record) = client.receive().unwrap();
            assert_eq!(record[5..], number.to_le_bytes(), "round {round}: key {number}");
        }
        let mut client = serving.client();
        let (mut asked, mut answered) = (0_u64, 0_u64);
        let ended = loop {
            while asked - answered < 2000 {
                let number: u64 = first + asked;
                client.ask(&Request::Set { key: &number.to_be_bytes(), value: &number.to_le_bytes() });
                asked += 1;
            }
            if let Err(error) = client.flush() {
                break ClientError::Io(error);
            }
            match client.receive() {
                Ok((id, record)) => {
                    assert!(decode_done(&record).unwrap());
                    acknowledged.insert(first + id);
                    answered += 1;
                }
                Err(error) => break error,
            }
            if answered == 500 * (round + 1) {
                serving.signal(Signal::SIGKILL);
            }
        };
        assert!(matches!(ended, ClientError::Io(_)), "{ended}");
        assert!(answered >= 500 * (round + 1));
        first += asked;
    }
    let said = kivafs(&["check", "--data", text(&store_of(&directory))]).output().unwrap();
    assert!(said.status.success(), "{said:?}");
}

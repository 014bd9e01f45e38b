//! Keys over a socket, through the library: what a client may rely on.
//!
//! | file | job |
//! |---|---|
//! | `kvlds/history.rs` | what was asked about one key and answered: does one order explain it? |
//! | `kvlds/concurrent.rs` | random clients at once, also such as vanish, whose histories must be explained |
//! | `kvlds/loss.rs` | streams that end, or go wrong, at any byte |
//! | `kvlds/golden.rs` | every kind of packet, as bytes |
//! | `kvlds/crowd.rs` | a thousand connections |

#[path = "kvlds/concurrent.rs"]
mod concurrent;
#[path = "kvlds/crowd.rs"]
mod crowd;
#[path = "kvlds/golden.rs"]
mod golden;
#[path = "kvlds/history.rs"]
mod history;
#[path = "kvlds/loss.rs"]
mod loss;
#[allow(dead_code, reason = "shared with the store's tests, which use all of it")]
#[path = "../../tests/support/random.rs"]
mod random;
#[allow(dead_code, reason = "shared with the store's tests, which use all of it")]
#[path = "../../tests/support/silent_disk.rs"]
mod silent_disk;

use assert_fs::TempDir;
use kivafs::backend::{Disk, MemoryDisk};
use kivafs::store::{CreateOptions, OpenOptions, Store};
use kivafs_mount::fs::{FileSystem, If, KeyChange, Name, coarse_now};
use kivafs_mount::kvlds::client::{Client, ClientError};
use kivafs_mount::kvlds::message::{Request, decode_done, decode_value};
use kivafs_mount::kvlds::server::{Address, ListenError, Server, Socket, USUAL_MODE};
use kivafs_mount::kvlds::wire;
use silent_disk::{Silence, SilentDisk};
use std::collections::HashSet;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A store in memory, served; nothing of it is committed unless somebody asks for that.
struct Served {
    directory: TempDir,
    disk: Arc<MemoryDisk>,
    fs: Arc<FileSystem>,
    server: Server,
}

fn open(disk: Arc<dyn Disk>) -> Arc<FileSystem> {
    let options = OpenOptions { commit_interval: Duration::from_secs(3600), ..OpenOptions::default() };
    let store = Store::open_on(disk, &options).unwrap();
    Arc::new(FileSystem::open(Arc::new(store), coarse_now).unwrap())
}

fn serve(fs: &Arc<FileSystem>, address: &Address) -> Result<Server, ListenError> {
    Server::start(fs.clone(), Socket::listen(address, USUAL_MODE)?, None)
}

impl Served {
    fn new() -> Served {
        let disk = Arc::new(MemoryDisk::default());
        Store::create_on(disk.clone(), &CreateOptions::default()).unwrap();
        let fs = open(disk.clone());
        let directory = TempDir::new().unwrap();
        let server = serve(&fs, &Address::Unix(directory.path().join("socket"))).unwrap();
        Served { directory, disk, fs, server }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    fn client(&self) -> Client {
        Client::connect(&Address::Unix(self.socket())).unwrap()
    }
}

fn value_of(fs: &FileSystem, key: &[u8]) -> Option<Vec<u8>> {
    let key = Name::from_raw(key).unwrap();
    let value = fs.store().patiently(|| fs.value_of(&fs.store().view(), &key)).unwrap();
    value.map(|value| value.to_vec())
}

#[test]
fn each_request_is_answered() {
    let served = Served::new();
    let mut client = served.client();
    let (key, old, value) = (&b"key"[..], &b"value"[..], &b"new"[..]);
    let steps = [
        (Request::Modify { key, value }, false),
        (Request::Cas { key, old, value }, false),
        (Request::Cad { key, old }, false),
        (Request::Add { key, value: old }, true),
        (Request::Add { key, value }, false),
        (Request::Cas { key, old: value, value }, false),
        (Request::Cas { key, old, value }, true),
        (Request::Modify { key, value: old }, true),
        (Request::Cad { key, old: value }, false),
        (Request::Cad { key, old }, true),
        (Request::Delete { key }, true),
        (Request::Set { key, value: b"" }, true),
        (Request::Set { key: b"", value: &[255; 255] }, true),
        (Request::Set { key: &[255; 255], value: b"last" }, true),
    ];
    for (request, is_done) in steps {
        assert_eq!(client.change(&request).unwrap(), is_done, "{request:?}");
    }
    assert_eq!(client.get(b"key").unwrap(), Some(Vec::new()));
    assert_eq!(client.get(b"none").unwrap(), None);
    for (start, end, count) in [(&b""[..], &b""[..], 3), (b"\0", b"", 2), (b"", b"key", 1), (b"key", b"key", 0)] {
        let mut pairs = Vec::new();
        client.range(start, end, &mut |(key, value)| pairs.push((key.to_vec(), value.to_vec()))).unwrap();
        assert_eq!(pairs.len(), count, "{start:?} to {end:?}: {pairs:?}");
    }
}

/// A change is acknowledged when it is durable, however many are under way.
#[test]
fn what_is_acknowledged_is_there_after_a_crash() {
    const COUNT: u32 = 20_000;
    let served = Served::new();
    let mut client = served.client();
    let mut acknowledged = HashSet::new();
    let mut asked = 0;
    while acknowledged.len() < COUNT as usize / 2 {
        while asked < COUNT && asked - (acknowledged.len() as u32) < 3000 {
            let id = client.ask(&Request::Set { key: &asked.to_be_bytes(), value: &asked.to_le_bytes() });
            assert_eq!(id, u64::from(asked));
            asked += 1;
        }
        client.flush().unwrap();
        let (id, record) = client.receive().unwrap();
        assert!(decode_done(&record).unwrap());
        assert!(acknowledged.insert(id as u32));
    }
    let image = MemoryDisk::from_bytes(served.disk.to_bytes());
    let fs = open(Arc::new(image));
    for number in acknowledged {
        assert_eq!(value_of(&fs, &number.to_be_bytes()), Some(number.to_le_bytes().to_vec()), "{number}");
    }
}

/// A read shows nothing that a crash could take back: what was written through the file system, and is
/// not durable yet, becomes so before it is answered.
#[test]
fn what_is_read_is_durable() {
    let served = Served::new();
    let caller = kivafs_mount::fs::Caller { uid: 0, gid: 0, umask: 0 };
    served.fs.put_path(caller, b"file", &mut &b"content"[..]).unwrap();
    assert!(!served.fs.store().is_durable());
    assert_eq!(served.client().get(b"file").unwrap().unwrap(), b"content");
    let image = open(Arc::new(MemoryDisk::from_bytes(served.disk.to_bytes())));
    assert_eq!(value_of(&image, b"file").unwrap(), b"content");
}

/// A disk that can fall silent, with "kept", "changed" and "removed" on it, served; and one more client,
/// whose changes of the last two wait for that disk.
fn with_changes_under_way() -> (Arc<SilentDisk>, Served, Client) {
    let disk = Arc::new(MemoryDisk::default());
    Store::create_on(disk.clone(), &CreateOptions::default()).unwrap();
    let silent = Arc::new(SilentDisk::new(disk.clone()));
    let fs = open(silent.clone());
    let directory = TempDir::new().unwrap();
    let server = serve(&fs, &Address::Unix(directory.path().join("socket"))).unwrap();
    let served = Served { directory, disk, fs, server };
    let mut writer = served.client();
    for key in [&b"kept"[..], b"changed", b"removed"] {
        assert!(writer.change(&Request::Set { key, value: b"old" }).unwrap());
    }
    silent.fall(Silence::CHANGES);
    writer.ask(&Request::Set { key: b"changed", value: b"new" });
    writer.ask(&Request::Delete { key: b"removed" });
    writer.flush().unwrap();
    silent.until_waiting(1);
    (silent, served, writer)
}

/// Who reads what nobody is changing does not wait for storage; who reads what somebody is, does.
#[test]
fn what_is_durable_is_read_at_once() {
    let (silent, served, mut writer) = with_changes_under_way();
    let mut reader = served.client();
    let changed = [&b"changed"[..], b"removed"].map(|key| reader.ask(&Request::Get { key }));
    let same = [&b"kept"[..], b"none"].map(|key| reader.ask(&Request::Get { key }));
    reader.flush().unwrap();
    let mut answers = Vec::new();
    let mut receive = || {
        let (id, record) = reader.receive().unwrap();
        answers.push((id, decode_value(&record).unwrap().map(<[u8]>::to_vec)));
    };
    receive();
    receive();
    silent.fall(Silence::NONE);
    receive();
    receive();
    let expected = [(same[0], Some("old")), (same[1], None), (changed[0], Some("new")), (changed[1], None)];
    let expected = expected.map(|(id, value)| (id, value.map(|value| value.as_bytes().to_vec())));
    assert_eq!(answers, expected);
    for _ in 0..2 {
        assert!(decode_done(&writer.receive().unwrap().1).unwrap());
    }
}

/// When storage has failed, what it did not take counts as never done.
#[test]
fn after_a_failure_what_was_durable_is_read() {
    let (silent, served, _writer) = with_changes_under_way();
    let mut reader = served.client();
    let changed = reader.ask(&Request::Get { key: b"changed" });
    reader.flush().unwrap();
    served.fs.store().abandon("of this test");
    let (id, record) = reader.receive().unwrap();
    assert_eq!((id, decode_value(&record).unwrap()), (changed, Some(&b"old"[..])));
    let mut pairs = Vec::new();
    reader.range(b"", b"", &mut |(key, value)| pairs.push((key.to_vec(), value.to_vec()))).unwrap();
    assert_eq!(pairs, [&b"changed"[..], b"kept", b"removed"].map(|key| (key.to_vec(), b"old".to_vec())));
    assert_eq!(reader.get(b"removed").unwrap().unwrap(), b"old");
    silent.fall(Silence::NONE);
}

/// Pages of long keys take many times as much in memory as on the disk: those of one batch pushed each other out of a
/// small cache, and were fetched for ever.
#[test]
fn a_batch_whose_pages_do_not_find_room_together_is_answered() {
    const KEYS: u32 = 60_000;
    let key = |number: u32| [&[b'p'; 251][..], &number.to_be_bytes()].concat();
    let disk = Arc::new(MemoryDisk::default());
    Store::create_on(disk.clone(), &CreateOptions::default()).unwrap();
    let fill = |fs: Arc<FileSystem>| {
        let changes: Vec<KeyChange> = (0..KEYS)
            .map(|number| KeyChange {
                key: Name::from_raw(&key(number)).unwrap(),
                only: If::Always,
                value: Some(number.to_be_bytes().to_vec().into()),
            })
            .collect();
        let mut made = 0;
        while made < changes.len() {
            made += fs.store().patiently(|| fs.change_keys(&changes[made..])).unwrap().outcomes.len();
        }
        fs.store().close().unwrap();
    };
    fill(open(disk.clone()));
    let store = Store::open_on(disk, &OpenOptions { cache_bytes: 0, ..OpenOptions::default() }).unwrap();
    let fs = Arc::new(FileSystem::open(Arc::new(store), coarse_now).unwrap());
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("socket");
    let _server = serve(&fs, &Address::Unix(socket.clone())).unwrap();
    let mut stream = UnixStream::connect(socket).unwrap();
    // If it is never answered, that is told.
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let numbers: Vec<u32> = (0..KEYS).step_by(150).map(|number| number * 7 % KEYS).collect();
    let (mut reads, mut changes) = (Vec::new(), Vec::new());
    for number in &numbers {
        let (key, id) = (key(*number), u64::from(*number));
        wire::push(&mut reads, id, |out| Request::Get { key: &key }.encode(out));
        wire::push(&mut changes, id, |out| Request::Modify { key: &key, value: b"new" }.encode(out));
    }
    for requests in [reads, changes] {
        stream.write_all(&requests).unwrap();
        let (mut answers, mut seen) = (Vec::new(), HashSet::new());
        while seen.len() < numbers.len() {
            let mut part = [0; 4096];
            let length = stream.read(&mut part).expect("an answer");
            assert!(length > 0, "the connection was dropped");
            answers.extend_from_slice(&part[..length]);
            while let Some(packet) = wire::front(&answers, 100).unwrap() {
                assert!(seen.insert(packet.id), "answered twice");
                let bytes = packet.bytes();
                answers.drain(..bytes);
            }
        }
    }
}

#[test]
fn what_makes_no_sense_ends_its_own_connection_only() {
    let served = Served::new();
    let mut other = served.client();
    let packet = |record: &[u8]| {
        let mut packet = Vec::new();
        wire::push(&mut packet, 1, |out| out.extend_from_slice(record));
        packet
    };
    let mut flipped = packet(b"\0\0\x01\0");
    flipped[20] ^= 1;
    // The header alone: nobody waits for such a record.
    let huge = packet(&[0; 100_000])[..16].to_vec();
    let wrong = [packet(b"\0\0\x01\x99"), packet(b"\0\0\x01\0\0"), packet(b"\0\0\x01\x30\x09key"), flipped, huge];
    for bytes in wrong {
        let mut stream = UnixStream::connect(served.socket()).unwrap();
        stream.write_all(&bytes).unwrap();
        let mut rest = Vec::new();
        // Ended in either way.
        let ended = stream.read_to_end(&mut rest);
        assert!(ended.is_err() || rest.is_empty(), "{rest:?}");
        assert!(other.change(&Request::Set { key: b"key", value: b"value" }).unwrap());
    }
}

#[test]
fn a_request_in_many_parts_is_one_request() {
    let served = Served::new();
    let mut stream = UnixStream::connect(served.socket()).unwrap();
    let mut packet = Vec::new();
    wire::push(&mut packet, 7, |out| Request::Set { key: b"key", value: b"value" }.encode(out));
    for byte in &packet {
        stream.write_all(&[*byte]).unwrap();
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(wire::front(&answer, 100).unwrap().unwrap().id, 7);
    assert_eq!(value_of(&served.fs, b"key").unwrap(), b"value");
}

#[test]
fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
    let served = Served::new();
    let address = Address::Unix(served.socket());
    assert_eq!(std::fs::metadata(served.socket()).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(serve(&served.fs, &address), Err(ListenError::InUse(_))));
    assert!(served.client().get(b"key").unwrap().is_none(), "it is served as before");
    let Served { directory, fs, server, .. } = served;
    drop(server);
    let path = directory.path().join("socket");
    assert!(!path.exists());
    // What a killed process leaves.
    drop(UnixListener::bind(&path).unwrap());
    let server = serve(&fs, &address).unwrap();
    let mut client = Client::connect(&address).unwrap();
    assert!(client.get(b"key").unwrap().is_none());
    drop(server);
    assert!(matches!(client.get(b"key"), Err(ClientError::Io(_))), "its connections have ended");
    std::fs::write(&path, "a file").unwrap();
    assert!(matches!(serve(&fs, &address), Err(ListenError::NoSocket(_))));
}

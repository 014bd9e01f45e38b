//! A session whose kernel is this test.

use crate::request::{BATCH_FORGET, CREATE, FORGET, LOOKUP, READ, WRITE};
use fuser::{Config, Session, SessionACL};
use kivafs::backend::MemoryDisk;
use kivafs::store::{CreateOptions, OpenOptions, Store};
use kivafs_mount::facade::{self, Appearance, Manners, Service, SyncMode};
use kivafs_mount::fs::{FileSystem, check, coarse_now};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socketpair, sockopt::ReceiveTimeout,
    sockopt::SndBuf,
};
use nix::sys::time::TimeVal;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// What any packet fits into: a read is at most 1 MiB.
const PACKET_BYTES_MAX: usize = 2 << 20;
/// In front of each request, and of each answer.
const REQUEST_HEADER_BYTES: usize = 40;
const ANSWER_HEADER_BYTES: usize = 16;
const INIT: u32 = 26;
const DESTROY: u32 = 38;
/// Nobody has to wait for so long, on any machine.
const PATIENCE_SECONDS: i64 = 120;

pub struct Wild {
    kernel: OwnedFd,
    unique: u64,
    session: JoinHandle<std::io::Result<()>>,
    service: Service,
    store: Arc<Store>,
    disk: Arc<MemoryDisk>,
}

impl Wild {
    /// A new store, and a session that has been greeted.
    pub fn start() -> Wild {
        let disk = Arc::new(MemoryDisk::default());
        Store::create_on(disk.clone(), &CreateOptions::default()).unwrap();
        let store = Arc::new(Store::open_on(disk.clone(), &OpenOptions::default()).unwrap());
        let fs = Arc::new(FileSystem::open(store.clone(), coarse_now).unwrap());
        let timeout = Duration::from_secs(PATIENCE_SECONDS as u64);
        let manners = Manners {
            sync: SyncMode::OnRequest,
            timeout,
            held_max: 100,
            serves_keys: false,
            appearance: Appearance::default(),
        };
        let (facade, service) = facade::start(fs, manners).unwrap();
        let (kernel, served) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        for socket in [&kernel, &served] {
            setsockopt(socket, SndBuf, &(2 * PACKET_BYTES_MAX)).unwrap();
        }
        setsockopt(&kernel, ReceiveTimeout, &TimeVal::new(PATIENCE_SECONDS, 0)).unwrap();
        service.notify_by(served.try_clone().unwrap());
        let session = std::thread::spawn(move || {
            let mut config = Config::default();
            config.acl = SessionACL::All;
            Session::from_fd(facade, served, SessionACL::All, config)?.run()
        });
        let mut wild = Wild { kernel, unique: 0, session, service, store, disk };
        let mut greeting = Vec::new();
        // Version 7.41, 128 KiB of read-ahead, every flag there is but those of other protocols.
        for word in [7, 41, 128 << 10, u32::MAX, 0] {
            greeting.extend_from_slice(&u32::to_le_bytes(word));
        }
        greeting.resize(64, 0);
        wild.ask(INIT, 0, &greeting).expect("greeted");
        wild
    }

    /// Sends a request and waits for its answer; forgetting has none. None: an error, or no answer.
    pub fn ask(&mut self, opcode: u32, node: u64, body: &[u8]) -> Option<Vec<u8>> {
        self.unique += 1;
        let mut packet = Vec::new();
        packet.extend_from_slice(&((REQUEST_HEADER_BYTES + body.len()) as u32).to_le_bytes());
        packet.extend_from_slice(&opcode.to_le_bytes());
        packet.extend_from_slice(&self.unique.to_le_bytes());
        packet.extend_from_slice(&node.to_le_bytes());
        // User 1000 of group 100, in process 1.
        for word in [1000, 100, 1, 0] {
            packet.extend_from_slice(&u32::to_le_bytes(word));
        }
        packet.extend_from_slice(body);
        send(self.kernel.as_raw_fd(), &packet, MsgFlags::empty()).expect("the session takes every request");
        if matches!(opcode, FORGET | BATCH_FORGET) { None } else { self.answer_to(self.unique) }
    }

    fn answer_to(&mut self, unique: u64) -> Option<Vec<u8>> {
        let mut packet = vec![0; PACKET_BYTES_MAX];
        loop {
            let length = recv(self.kernel.as_raw_fd(), &mut packet, MsgFlags::empty()).expect("an answer in time");
            assert!(length >= ANSWER_HEADER_BYTES, "the session has ended, with {length} bytes");
            let word = |at: usize| u32::from_le_bytes(packet[at..at + 4].try_into().unwrap());
            assert_eq!(word(0) as usize, length, "an answer tells its length");
            // Others are what the kernel is told without having asked, or answers that nobody waits for.
            if u64::from_le_bytes(packet[8..16].try_into().unwrap()) == unique {
                let errno = word(4) as i32;
                assert!((-133..=0).contains(&errno), "errno {errno}");
                return (errno == 0).then(|| packet[ANSWER_HEADER_BYTES..length].to_vec());
            }
        }
    }

    /// A file can be made, written and read.
    pub fn assert_serves(&mut self) {
        let mut create = Vec::new();
        for word in [2, 0o100_644, 0, 0] {
            create.extend_from_slice(&u32::to_le_bytes(word));
        }
        create.extend_from_slice(b"well-behaved\0");
        let made = self.ask(CREATE, 1, &create).expect("a file");
        let node = u64::from_le_bytes(made[..8].try_into().unwrap());
        let mut write = vec![0; 40];
        write[16..20].copy_from_slice(&5_u32.to_le_bytes());
        write.extend_from_slice(b"hello");
        assert_eq!(self.ask(WRITE, node, &write).expect("a write")[..4], 5_u32.to_le_bytes());
        let mut read = vec![0; 40];
        read[16..20].copy_from_slice(&100_u32.to_le_bytes());
        assert_eq!(self.ask(READ, node, &read).expect("a read"), b"hello");
        assert!(self.ask(LOOKUP, 1, b"well-behaved\0").is_some());
    }

    /// Ends the session and the store; answers what is wrong with what it left.
    pub fn end(mut self) -> Vec<String> {
        self.ask(DESTROY, 0, &[]);
        self.session.join().expect("no thread has panicked").expect("the session ended as it should");
        self.service.stop();
        self.store.close().unwrap();
        drop(self.store);
        let store = Store::open_on(self.disk, &OpenOptions::default()).unwrap();
        check(&store).unwrap()
    }
}

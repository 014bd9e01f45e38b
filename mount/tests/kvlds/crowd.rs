//! A thousand connections at once, each with requests in flight.

use crate::Served;
use kivafs_mount::kvlds::client::Client;
use kivafs_mount::kvlds::message::{Request, decode_done, decode_value};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

const CONNECTIONS: u32 = 1000;
/// Both ends of each are here, and what else is open.
const FILES: u64 = 2 * CONNECTIONS as u64 + 200;
/// Requests of each: that many SETs and a GET.
const SETS: u8 = 7;

fn make_room_for_files() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if soft < FILES {
        assert!(hard >= FILES, "{FILES} open files are needed, and the limit is {hard}: raise it with 'ulimit -Hn'");
        setrlimit(Resource::RLIMIT_NOFILE, FILES, hard).unwrap();
    }
}

fn key(connection: u32, number: u8) -> [u8; 5] {
    let [a, b, c, d] = connection.to_be_bytes();
    [a, b, c, d, number]
}

#[test]
fn a_thousand_connections_are_served_at_once() {
    make_room_for_files();
    let served = Served::new();
    let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| served.client()).collect();
    for (number, client) in (0..).zip(&mut clients) {
        for set in 0..SETS {
            client.ask(&Request::Set { key: &key(number, set), value: &number.to_le_bytes() });
        }
        client.ask(&Request::Get { key: b"none" });
        client.flush().unwrap();
    }
    // All have asked before anybody reads an answer.
    for (number, client) in (0..).zip(&mut clients) {
        let mut answered: Vec<u64> = (0..=SETS)
            .map(|_| {
                let (id, record) = client.receive().unwrap();
                match id == u64::from(SETS) {
                    true => assert_eq!(decode_value(&record).unwrap(), None),
                    false => assert!(decode_done(&record).unwrap()),
                }
                id
            })
            .collect();
        answered.sort_unstable();
        assert!(answered.into_iter().eq(0..=u64::from(SETS)), "connection {number}");
    }
    // Each of them still is.
    for (number, client) in (0..).zip(&mut clients) {
        let theirs = (number + 1) % CONNECTIONS;
        assert_eq!(client.get(&key(theirs, SETS - 1)).unwrap().unwrap(), theirs.to_le_bytes());
    }
}

//! Streams of requests that end, or go wrong, at any byte: what was whole before it is carried out, in
//! its order, and nothing else; the answers that come are right; nobody else notices.

use crate::Served;
use crate::history::{Answer, Asked, State};
use kivafs_mount::kvlds::client::{Client, ClientError};
use kivafs_mount::kvlds::message::decode_done;
use kivafs_mount::kvlds::wire;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

/// Longest record of an answer here.
const RECORD_MAX: usize = 100;

/// Requests one after another, each of which depends on those before, about two keys that belong to
/// this stream only.
struct Script {
    stream: Vec<u8>,
    /// Where each request's packet ends.
    ends: Vec<usize>,
    answers: Vec<Answer>,
    keys: [Vec<u8>; 2],
    /// What both keys have after the first n requests.
    states: Vec<[State; 2]>,
}

impl Script {
    /// All have the same length, whatever the number.
    fn new(number: usize) -> Script {
        let keys = ["one", "two"].map(|key| format!("{number:06}{key}").into_bytes());
        let value = |text: &str| text.as_bytes().to_vec();
        let steps = [
            (0, Asked::Add(value("a"))),
            (1, Asked::Set(value("b"))),
            (0, Asked::Cas(value("a"), value("c"))),
            (0, Asked::Cas(value("a"), value("d"))),
            (1, Asked::Modify(value(""))),
            (0, Asked::Delete),
            (0, Asked::Modify(value("e"))),
            (1, Asked::Cad(value(""))),
            (1, Asked::Add(value("f"))),
            (0, Asked::Set(value("g"))),
        ];
        let mut script =
            Script { stream: Vec::new(), ends: Vec::new(), answers: Vec::new(), keys, states: vec![[None, None]] };
        for (id, (key, asked)) in steps.into_iter().enumerate() {
            wire::push(&mut script.stream, id as u64, |record| asked.about(&script.keys[key]).encode(record));
            script.ends.push(script.stream.len());
            let mut states = script.states[id].clone();
            let (state, answer) = asked.carried_out(&states[key]);
            states[key] = state;
            script.states.push(states);
            script.answers.push(answer);
        }
        script
    }

    /// How many requests are whole in the first `bytes` bytes.
    fn whole(&self, bytes: usize) -> usize {
        self.ends.iter().filter(|end| **end <= bytes).count()
    }

    /// What both keys have, at one instant.
    fn found(&self, client: &mut Client) -> [State; 2] {
        let mut found = HashMap::new();
        let end = [&self.keys[1][..], b"\0"].concat();
        client
            .range(&self.keys[0], &end, &mut |(key, value)| drop(found.insert(key.to_vec(), value.to_vec())))
            .unwrap();
        self.keys.each_ref().map(|key| found.remove(key))
    }

    /// Asserts that the stream has right answers to requests among the first `whole` ones; how many.
    #[track_caller]
    fn right_answers(&self, mut stream: &[u8], whole: usize) -> usize {
        let mut seen = vec![false; whole];
        while let Some(packet) = wire::front(stream, RECORD_MAX).unwrap() {
            let id = packet.id as usize;
            assert!(!std::mem::replace(&mut seen[id], true), "answered twice: {id}");
            assert_eq!(Answer::Done(decode_done(packet.record).unwrap()), self.answers[id], "{id}");
            stream = &stream[packet.bytes()..];
        }
        seen.into_iter().filter(|seen| *seen).count()
    }
}

/// All that comes until the connection ends in whichever way.
fn rest_of(mut stream: UnixStream) -> Vec<u8> {
    let (mut rest, mut part) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut part) {
        rest.extend_from_slice(&part[..count]);
    }
    rest
}

#[test]
fn of_a_stream_that_ends_whole_requests_are_carried_out_and_answered() {
    let served = Served::new();
    let mut other = served.client();
    for cut in 0..=Script::new(0).stream.len() {
        let script = Script::new(cut);
        let mut stream = UnixStream::connect(served.socket()).unwrap();
        stream.write_all(&script.stream[..cut]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let whole = script.whole(cut);
        assert_eq!(script.right_answers(&rest_of(stream), whole), whole, "cut at {cut}");
        assert_eq!(script.found(&mut other), script.states[whole], "cut at {cut}");
    }
}

/// Nobody reads answers any more: what is whole may be carried out or not, but in its order, each whole,
/// and no request without those before it.
#[test]
fn of_a_connection_that_is_lost_a_prefix_is_carried_out() {
    let served = Served::new();
    let mut other = served.client();
    let scripts: Vec<Script> = (0..=Script::new(0).stream.len()).map(Script::new).collect();
    let is_prefix = |script: &Script, cut, found: &[State; 2]| script.states[..=script.whole(cut)].contains(found);
    for (cut, script) in scripts.iter().enumerate() {
        let mut stream = UnixStream::connect(served.socket()).unwrap();
        stream.write_all(&script.stream[..cut]).unwrap();
        drop(stream);
        let found = script.found(&mut other);
        assert!(is_prefix(script, cut, &found), "cut at {cut}: {found:?}");
    }
    // And what came late.
    for (cut, script) in scripts.iter().enumerate() {
        let found = script.found(&mut other);
        assert!(is_prefix(script, cut, &found), "cut at {cut}: {found:?}");
    }
}

/// Lost after some answers were read: what they said is so.
#[test]
fn what_was_answered_before_a_connection_is_lost_is_carried_out() {
    let served = Served::new();
    let mut other = served.client();
    let count = Script::new(0).answers.len();
    for number in 0..20 * count {
        let script = Script::new(number);
        let mut stream = UnixStream::connect(served.socket()).unwrap();
        stream.write_all(&script.stream).unwrap();
        let mut answers = vec![0; (number % count) * (wire::OVERHEAD_BYTES + 4)];
        stream.read_exact(&mut answers).unwrap();
        drop(stream);
        let answered = script.right_answers(&answers, count);
        assert_eq!(answered, number % count);
        let found = script.found(&mut other);
        assert!(script.states[answered..].contains(&found), "{answered} answered: {found:?}");
    }
}

/// A byte that is wrong makes its packet wrong. What stands before it is carried out and answered, in
/// one read with it or not; then the connection ends, and nothing behind it is carried out.
#[test]
fn what_stands_before_what_makes_no_sense_is_carried_out_and_answered() {
    let served = Served::new();
    let mut other = served.client();
    for at in 0..Script::new(0).stream.len() {
        let script = Script::new(at);
        let mut bytes = script.stream.clone();
        bytes[at] ^= 1 << (at % 8);
        let mut stream = UnixStream::connect(served.socket()).unwrap();
        stream.write_all(&bytes).unwrap();
        let whole = script.whole(at);
        assert_eq!(script.right_answers(&rest_of(stream), whole), whole, "wrong at {at}");
        assert_eq!(script.found(&mut other), script.states[whole], "wrong at {at}");
    }
}

/// The other end: answers that end at any byte are an error, never a wrong answer.
#[test]
fn a_client_takes_no_answer_that_is_not_whole() {
    let mut answer = Vec::new();
    wire::push(&mut answer, 0, |record| record.extend_from_slice(b"\0\0\0\0\x05value"));
    for cut in 0..answer.len() {
        let directory = assert_fs::TempDir::new().unwrap();
        let path = directory.path().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let part = answer[..cut].to_vec();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // The request, so that it ends in good order.
            stream.read_exact(&mut [0; 28]).unwrap();
            stream.write_all(&part).unwrap();
        });
        let mut client = Client::connect(&kivafs_mount::kvlds::server::Address::Unix(path)).unwrap();
        assert!(matches!(client.get(b"key"), Err(ClientError::Io(_))), "cut at {cut}");
        server.join().unwrap();
    }
}

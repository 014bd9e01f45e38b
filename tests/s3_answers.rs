//! The S3 backend against servers that answer oddly, late, or not at all.

#[path = "support/bucket_client.rs"]
mod bucket_client;
#[path = "support/canned.rs"]
mod canned;

use bucket_client::{later, open, wait};
use bytes::Bytes;
use canned::{Answer, Canned, Request};
use kivafs::backend::{Done, ObjectError, Objects, S3};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

fn bucket_of(server: &Canned) -> S3 {
    open(&server.endpoint(), "bucket", |_| {})
}

/// What a bucket on that server gives; it lives until it has.
fn ask<T: Send + 'static>(server: &Canned, begin: impl FnOnce(&S3, Done<T>)) -> Result<T, ObjectError> {
    let s3 = bucket_of(server);
    wait(|done| begin(&s3, done))
}

/// What a GET gives when the server answers all with this.
fn get_answered(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Result<Bytes, ObjectError> {
    let server = Canned::start(answer);
    ask(&server, |s3, done| s3.get("a", Some(2..5), done))
}

fn create_answered(status: &'static str, code: &'static str) -> Result<(), ObjectError> {
    let server = Canned::start(move |_| Answer::error(status, code));
    let outcome = ask(&server, |s3, done| s3.create("a", Bytes::from_static(b"x"), done));
    assert_eq!(server.requests(), 1, "nothing is tried again here");
    outcome
}

#[track_caller]
fn is_unknown_with(outcome: Result<impl std::fmt::Debug, ObjectError>, piece: &str) {
    let Err(ObjectError::Unknown(text)) = &outcome else { panic!("{outcome:?}") };
    assert!(text.contains(piece), "{text}");
}

#[test]
fn a_range_is_cut_out_of_a_whole_object() {
    let whole = |_: &Request| Answer::with("200 OK", "", b"0123456789");
    assert_eq!(get_answered(whole), Ok(Bytes::from_static(b"234")));
    assert_eq!(get_answered(|_| Answer::with("200 OK", "", b"012")), Ok(Bytes::from_static(b"2")));
    assert_eq!(get_answered(|_| Answer::with("200 OK", "", b"01")), Ok(Bytes::new()));
    // What lies behind the range is not waited for.
    let endless = |_: &Request| Answer::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n0123456789".into());
    assert_eq!(get_answered(endless), Ok(Bytes::from_static(b"234")));
}

#[test]
fn half_a_body_is_no_answer() {
    let half = |headers: &str| format!("HTTP/1.1 206 Partial Content\r\n{headers}\r\n\r\n2").into_bytes();
    let cut = half("content-length: 3\r\ncontent-range: bytes 2-4/10");
    is_unknown_with(get_answered(move |_| Answer::Last(cut.clone())), "broke off after 1 bytes");
    let chunked = half("transfer-encoding: chunked\r\ncontent-range: bytes 2-4/10\r\n\r\n5");
    is_unknown_with(get_answered(move |_| Answer::Last(chunked.clone())), "broke off");
    for range in ["bytes 2-2/10", "bytes 1-3/10", "bytes 2-5/10", "nonsense"] {
        let headers = format!("content-range: {range}\r\n");
        is_unknown_with(get_answered(move |_| Answer::with("206 Partial Content", &headers, b"234")), range);
    }
}

#[test]
fn answers_that_say_nothing_of_the_outcome_are_unknown() {
    is_unknown_with(create_answered("500 Internal Server Error", "InternalError"), "answered 500 InternalError");
    is_unknown_with(create_answered("502 Bad Gateway", "BadGateway"), "502");
    let garbage = Canned::start(|_| Answer::Last(b"220 mail ready\r\n".into()));
    is_unknown_with(ask(&garbage, |s3, done| s3.create("a", Bytes::new(), done)), "no answer from http://");
    let mute = Canned::start(|_| Answer::Last(Vec::new()));
    is_unknown_with(ask(&mute, |s3, done| s3.create("a", Bytes::new(), done)), "no answer from http://");
    assert_eq!(mute.requests(), 1, "nothing is tried again here");
    is_unknown_with(get_answered(|_| Answer::with("404 Not Found", "", b"")), "is it an S3 server?");
    let no_xml = Canned::start(|_| Answer::with("200 OK", "", b"<html>"));
    is_unknown_with(ask(&no_xml, |s3, done| s3.list("", 1, done)), "LIST of s3://bucket/");
}

#[test]
fn a_server_that_is_busy_is_told_apart_from_one_that_refuses() {
    for (status, code) in [("503 Slow Down", "SlowDown"), ("409 Conflict", "ConditionalRequestConflict")] {
        let outcome = create_answered(status, code);
        assert!(matches!(outcome, Err(ObjectError::Slow(_))), "{outcome:?}");
    }
    let outcome = create_answered("501 Not Implemented", "NotImplemented");
    assert!(matches!(&outcome, Err(ObjectError::Refused(text)) if text.contains("conditional PUT")), "{outcome:?}");
    let elsewhere = Canned::start(|_| Answer::with("301 Moved", "x-amz-bucket-region: eu-west-1\r\n", b""));
    let outcome = ask(&elsewhere, |s3, done| s3.put("a", Bytes::new(), done));
    assert!(matches!(&outcome, Err(ObjectError::Refused(text)) if text.ends_with("region=eu-west-1")), "{outcome:?}");
}

#[test]
fn each_request_is_what_servers_of_all_kinds_take() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let heads = Arc::clone(&seen);
    let server = Canned::start(move |request| {
        heads.lock().expect("no panic").push((
            request.head.lines().next().unwrap_or("").to_owned(),
            request.header("if-none-match").map(str::to_owned),
            request.header("content-md5").map(str::to_owned),
            request.header("transfer-encoding").or(request.header("content-encoding")).map(str::to_owned),
        ));
        match request.method() {
            "POST" => Answer::with("200 OK", "", b"<DeleteResult></DeleteResult>"),
            _ => Answer::with("200 OK", "", b""),
        }
    });
    let s3 = open(&server.endpoint(), "bucket", |options| options.prefix = "p".into());
    wait(|done| s3.create("c", Bytes::from_static(b"x"), done)).expect("create");
    wait(|done| s3.put("c", Bytes::from_static(b"x"), done)).expect("put");
    wait(|done| s3.delete(vec!["d".into()], done)).expect("delete");
    wait(|done| s3.delete(vec!["d".into(), "e".into()], done)).expect("delete");
    let seen = seen.lock().expect("no panic");
    let of = |index: usize| (seen[index].0.split(' ').take(2).collect::<Vec<_>>().join(" "), seen[index].1.as_deref());
    assert_eq!(of(0), ("PUT /bucket/p/c?x-id=PutObject".into(), Some("*")));
    assert_eq!(of(1), ("PUT /bucket/p/c?x-id=PutObject".into(), None));
    assert_eq!(of(2), ("DELETE /bucket/p/d?x-id=DeleteObject".into(), None));
    assert_eq!(of(3), ("POST /bucket/?delete".into(), None));
    assert!(seen[3].2.is_some(), "Content-MD5");
    assert!(seen.iter().all(|request| request.3.is_none()), "bodies are sent as they are: {seen:?}");
}

#[test]
fn what_is_deleted_but_for_an_error_is_not_deleted() {
    let answer = "<DeleteResult><Error><Key>p/e</Key><Code>InternalError</Code></Error></DeleteResult>";
    let server = Canned::start(|_| Answer::with("200 OK", "", answer.as_bytes()));
    let s3 = open(&server.endpoint(), "bucket", |options| options.prefix = "p".into());
    is_unknown_with(
        wait(|done| s3.delete(vec!["d".into(), "e".into()], done)),
        "DELETE of s3://bucket/p/e: InternalError",
    );
}

#[test]
fn a_get_that_takes_long_is_sent_again_and_the_first_good_answer_wins() {
    let server = Canned::start(|request| match request.number {
        0 => Answer::Hold,
        _ => Answer::with("206 Partial Content", "content-range: bytes 2-4/10\r\n", b"234"),
    });
    let s3 = bucket_of(&server);
    assert_eq!(wait(|done| s3.get("a", Some(2..5), done)), Ok(Bytes::from_static(b"234")));
    assert_eq!((server.requests(), s3.usage().gets), (2, 2));
    // What is not a GET is never sent twice.
    let held = Canned::start(|_| Answer::Hold);
    let s3 = bucket_of(&held);
    assert!(wait(|done| s3.list("", 1, done)).is_err());
    assert_eq!((held.requests(), s3.usage().lists), (1, 1));
}

#[test]
fn a_request_without_an_answer_ends() {
    let server = Canned::start(|_| Answer::Hold);
    let s3 = bucket_of(&server);
    let answer = later(|done| s3.create("a", Bytes::from_static(b"x"), done));
    let text = format!("PUT of s3://bucket/a: no answer from {} within 11 s", server.endpoint());
    assert_eq!(answer.wait(), Err(ObjectError::Unknown(text.into())));
}

/// Begins some of each kind, more than go out at once; each counts in the place of its number.
fn begin_many(s3: &S3, number: usize, counts: &Arc<Vec<AtomicUsize>>, ended: &mpsc::Sender<bool>) {
    fn done<T>(index: usize, counts: &Arc<Vec<AtomicUsize>>, ended: &mpsc::Sender<bool>) -> Done<T> {
        let (counts, ended) = (Arc::clone(counts), ended.clone());
        Box::new(move |outcome: Result<T, ObjectError>| {
            counts[index].fetch_add(1, Ordering::SeqCst);
            let _ = ended.send(matches!(outcome, Err(ObjectError::Unknown(_))));
        })
    }
    for index in (0..number).step_by(5) {
        s3.create("a", Bytes::from_static(b"x"), done(index, counts, ended));
        s3.put("a", Bytes::from_static(b"x"), done(index + 1, counts, ended));
        s3.get("a", None, done(index + 2, counts, ended));
        s3.list("a", 1, done(index + 3, counts, ended));
        s3.delete(vec!["a".into()], done(index + 4, counts, ended));
    }
}

#[test]
fn everybody_hears_once_when_it_is_dropped() {
    const NUMBER: usize = 500;
    let (arrived_sender, arrived) = mpsc::channel();
    let server = Canned::start(move |_| {
        arrived_sender.send(()).expect("the test goes on");
        Answer::Hold
    });
    let s3 = bucket_of(&server);
    let counts: Arc<Vec<_>> = Arc::new((0..NUMBER).map(|_| AtomicUsize::new(0)).collect());
    let (ended, ends) = mpsc::channel();
    begin_many(&s3, NUMBER, &counts, &ended);
    // 16 creates and 16 others are under way, the rest waits.
    (0..32).for_each(|_| arrived.recv().expect("a request"));
    drop(s3);
    assert!((0..NUMBER).all(|_| ends.recv().expect("an end")), "all are unknown");
    drop(ended);
    assert!(ends.recv().is_err(), "nobody is left who could call");
    assert!(counts.iter().all(|count| count.load(Ordering::SeqCst) == 1));
    assert_eq!(server.requests(), 32);
}

#[test]
fn it_may_be_dropped_by_an_answer() {
    let server = Canned::start(|request| match request.method() {
        "DELETE" => Answer::with("204 No Content", "", b""),
        _ => Answer::Hold,
    });
    let s3 = Arc::new(Mutex::new(Some(bucket_of(&server))));
    let held = Arc::clone(&s3);
    let with = |action: &dyn Fn(&S3)| action(s3.lock().expect("no panic").as_ref().expect("not dropped yet"));
    let (sender, outcomes) = mpsc::channel();
    let other = sender.clone();
    with(&|s3| {
        let other = other.clone();
        s3.put("a", Bytes::new(), Box::new(move |outcome| other.send(outcome).expect("the test waits")));
    });
    with(&|s3| {
        let (held, sender) = (Arc::clone(&held), sender.clone());
        s3.delete(
            vec!["a".into()],
            Box::new(move |outcome| {
                drop(held.lock().expect("no panic").take());
                sender.send(outcome).expect("the test waits");
            }),
        );
    });
    let outcomes = [outcomes.recv().expect("one"), outcomes.recv().expect("the other")];
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    assert!(outcomes.iter().any(|outcome| matches!(outcome, Err(ObjectError::Unknown(_)))), "{outcomes:?}");
}

//! Each fault, as an S3 client meets it before a real server.

mod client;

use bytes::Bytes;
use client::{Failure, PATIENCE, Scene, said};
use kivafs_fault_proxy::{Kind, Told};
use std::time::{Duration, Instant};

/// What the newest request met.
fn newest(scene: &Scene) -> kivafs_fault_proxy::Entry {
    assert!(scene.proxy.wait(PATIENCE, |log| log.last().is_some_and(|entry| entry.ended.is_some())));
    scene.proxy.log().pop().unwrap()
}

/// Bytes, none like its neighbour.
fn bytes(length: usize) -> Bytes {
    (0..length).map(|index| (index * 7 + index / 251) as u8).collect()
}

#[test]
fn without_faults_everything_passes_as_it_is() {
    let scene = Scene::new();
    let large = bytes(5 << 20);
    scene.client.put("d/1", large.clone()).unwrap();
    scene.client.create("e1/c1", "first").unwrap();
    assert_eq!(scene.client.create("e1/c1", "second"), said(412, "PreconditionFailed"));
    scene.client.put("empty", "").unwrap();
    assert_eq!(scene.beside.get("d/1"), Ok(large.clone()));
    assert_eq!(scene.client.get("d/1"), Ok(large.clone()));
    assert_eq!(scene.client.get_range("d/1", "bytes=1000000-1000009"), Ok(large.slice(1_000_000..1_000_010)));
    assert_eq!(scene.client.get("e1/c1"), Ok(Bytes::from("first")));
    assert_eq!(scene.client.get("empty"), Ok(Bytes::new()));
    assert_eq!(scene.client.head("d/1"), Ok(5 << 20));
    assert_eq!(scene.client.get("nothing"), said(404, "NoSuchKey"));
    assert_eq!(scene.client.list("", 1000), Ok(vec!["d/1".to_owned(), "e1/c1".to_owned(), "empty".to_owned()]));
    assert_eq!(scene.client.list("e", 1), Ok(vec!["e1/c1".to_owned()]));
    scene.client.delete("e1/c1").unwrap();
    scene.client.delete_many(&["d/1", "empty", "nothing"]).unwrap();
    assert_eq!(scene.client.list("", 1000), Ok(vec![]));

    assert!(scene.proxy.wait(PATIENCE, |log| log.iter().all(|entry| entry.ended.is_some())));
    let counts = scene.proxy.counts();
    assert_eq!((counts.puts, counts.creates, counts.gets, counts.heads), (2, 2, 5, 1));
    assert_eq!((counts.lists, counts.deletes, counts.others), (3, 2, 0));
    assert_eq!((counts.requests(), counts.reached, counts.most_at_once), (15, 15, 1));
    assert!(counts.bytes_up >= (5 << 20) + 11 && counts.bytes_down >= (5 << 20) + 15, "{counts:?}");
    assert!(counts.faults.is_empty());
    let log = scene.proxy.log();
    let first = &log[0];
    assert_eq!(
        (first.number, first.kind, first.server, first.told),
        (1, Kind::Put, Some(200), Some(Told::Status(200)))
    );
    assert_eq!(first.name, format!("{}/d/1", scene.client.prefix));
    assert_eq!(first.body.unwrap().length, 5 << 20);
    assert_eq!((log[2].kind, log[2].server), (Kind::Create, Some(412)));
    assert_ne!(log[1].body, log[2].body);
    assert_eq!(log[13].name, first.name, "a DELETE of many is noted with the first");
    assert_eq!(scene.proxy.violations(), []);
}

#[test]
fn answers_of_500_and_503_before_and_after_the_server_acts() {
    let scene = Scene::new();
    scene.proxy.plan("put * nth=1 error; put * nth=2 slow-down; put * nth=3 error-after; get * nth=1 error-after");
    assert_eq!(scene.client.create("x", "body"), said(500, "InternalError"));
    assert_eq!(scene.client.create("x", "body"), said(503, "SlowDown"));
    assert_eq!(scene.beside.get("x"), said(404, "NoSuchKey"));
    let entry = newest(&scene);
    assert_eq!((entry.reached, entry.server, entry.told), (false, None, Some(Told::Status(503))));
    assert_eq!((entry.body.unwrap().length, entry.faults), (4, vec!["slow-down"]));
    assert_eq!(scene.client.create("x", "body"), said(500, "InternalError"));
    assert_eq!(newest(&scene).server, Some(200));
    assert_eq!(scene.beside.get("x"), Ok(Bytes::from("body")));
    assert_eq!(scene.client.create("x", "body"), said(412, "PreconditionFailed"));
    assert_eq!(scene.client.get("x"), said(500, "InternalError"));
    assert_eq!(scene.client.get("x"), Ok(Bytes::from("body")));
    assert_eq!(scene.proxy.counts().faults, [("error", 1), ("error-after", 2), ("slow-down", 1)].into());
    assert_eq!(scene.proxy.violations(), []);
}

#[test]
fn resets_before_and_after_the_server_acts() {
    let scene = Scene::new();
    scene.proxy.plan("put * nth=1 reset; put * nth=2 lost-reply; get * nth=1 reset; delete * nth=1 lost-reply");
    assert_eq!(scene.client.create("x", "body"), Err(Failure::Broken));
    assert_eq!(scene.beside.get("x"), said(404, "NoSuchKey"));
    assert_eq!(newest(&scene).told, Some(Told::Nothing));
    assert_eq!(scene.client.create("x", "body"), Err(Failure::Broken));
    assert_eq!(scene.beside.get("x"), Ok(Bytes::from("body")));
    assert_eq!((newest(&scene).server, newest(&scene).told), (Some(200), Some(Told::Nothing)));
    assert_eq!(scene.client.create("x", "body"), said(412, "PreconditionFailed"));
    assert_eq!(scene.client.get("x"), Err(Failure::Broken));
    assert_eq!(scene.client.delete("x"), Err(Failure::Broken));
    assert_eq!(scene.beside.get("x"), said(404, "NoSuchKey"));
}

#[test]
fn halves_of_bodies() {
    let scene = Scene::new();
    let body = bytes(3 << 20);
    scene.proxy.plan("put * nth=1 cut-request; get * nth=1 cut-reply; list * nth=1 cut-reply; put * nth=3 cut-reply");
    assert_eq!(scene.client.put("x", body.clone()), Err(Failure::Broken));
    let entry = newest(&scene);
    assert_eq!((entry.reached, entry.server, entry.body.unwrap().length), (true, None, 3 << 20));
    assert_eq!(scene.beside.get("x"), said(404, "NoSuchKey"), "of half a body it makes nothing");
    scene.client.put("x", body.clone()).unwrap();
    let down = scene.proxy.counts().bytes_down;
    assert_eq!(scene.client.get("x"), Err(Failure::Broken));
    assert_eq!(newest(&scene).told, Some(Told::Status(200)));
    assert_eq!(scene.proxy.counts().bytes_down - down, (3 << 20) / 2);
    assert_eq!(scene.client.get("x"), Ok(body));
    assert_eq!(scene.client.list("", 10), Err(Failure::Broken));
    assert_eq!(scene.client.put("y", "acted"), Err(Failure::Broken));
    assert_eq!(scene.beside.get("y"), Ok(Bytes::from("acted")));
}

#[test]
fn bits_that_flip() {
    let scene = Scene::new();
    let body = bytes(100_000);
    scene.proxy.plan("put * nth=1 flip-request; get * nth=1 flip-reply");
    assert_eq!(scene.client.put("x", body.clone()), said(400, "XAmzContentSHA256Mismatch"));
    scene.client.put("x", body.clone()).unwrap();
    let flipped = scene.client.get("x").unwrap();
    let differences: u32 = flipped.iter().zip(&body).map(|(found, sent)| (found ^ sent).count_ones()).sum();
    assert_eq!((flipped.len(), differences), (body.len(), 1));
    assert_eq!(scene.client.get("x"), Ok(body));
    assert_eq!(scene.proxy.violations(), []);
}

#[test]
fn a_late_upload() {
    let scene = Scene::new();
    scene.proxy.plan("create * nth=1 late=400ms; create * nth=2 late-hang=1us");
    assert_eq!(scene.client.create("x", "body"), Err(Failure::Broken));
    assert_eq!(newest(&scene).server, None);
    assert!(scene.proxy.wait(PATIENCE, |log| log[0].server == Some(200)));
    assert_eq!(scene.beside.get("x"), Ok(Bytes::from("body")));
    // Here the client gives up by itself.
    let impatient = scene.client.impatient(&scene.proxy.endpoint());
    assert_eq!(impatient.create("y", "body"), Err(Failure::Silent));
    assert!(scene.proxy.wait(PATIENCE, |log| log[1].server == Some(200)));
    assert_eq!(scene.client.create("y", "body"), said(412, "PreconditionFailed"));
}

#[test]
fn a_late_upload_of_a_name_that_was_deleted() {
    let scene = Scene::new();
    scene.proxy.plan("create * nth=1 hold");
    let impatient = scene.client.impatient(&scene.proxy.endpoint());
    assert_eq!(impatient.create("c5", "from the old writer"), Err(Failure::Silent));
    assert!(scene.proxy.wait(PATIENCE, |log| log[0].held));
    scene.client.create("c5", "from the new writer").unwrap();
    scene.client.delete("c5").unwrap();
    scene.proxy.release();
    assert!(scene.proxy.wait(PATIENCE, |log| log[0].server == Some(200)));
    assert_eq!(scene.beside.get("c5"), Ok(Bytes::from("from the old writer")));
    assert_eq!(scene.proxy.violations().len(), 1);
}

#[test]
fn no_answer_at_all() {
    let scene = Scene::new();
    scene.proxy.plan("put * nth=1 hang");
    let impatient = scene.client.impatient(&scene.proxy.endpoint());
    assert_eq!(impatient.put("x", "body"), Err(Failure::Silent));
    let entry = newest(&scene);
    assert_eq!((entry.reached, entry.told), (false, Some(Told::Nothing)));
    impatient.put("x", "body").unwrap();
}

#[test]
fn an_answer_that_is_held() {
    let scene = Scene::new();
    scene.proxy.plan("create * nth=1 hold-reply");
    let endpoint = scene.proxy.endpoint();
    std::thread::scope(|scope| {
        let other = scene.client.at(&endpoint);
        let create = scope.spawn(move || other.create("x", "body"));
        assert!(scene.proxy.wait(PATIENCE, |log| log.first().is_some_and(|entry| entry.held)));
        assert_eq!(scene.beside.get("x"), Ok(Bytes::from("body")));
        assert_eq!(scene.proxy.log()[0].told, None);
        scene.proxy.release();
        assert_eq!(create.join().unwrap(), Ok(()));
    });
}

#[test]
fn delays_and_a_narrow_way() {
    let scene = Scene::new();
    scene.client.put("x", bytes(400_000)).unwrap();
    let took = |what: &dyn Fn()| {
        let start = Instant::now();
        what();
        start.elapsed()
    };
    scene.proxy.plan("any * delay=100ms; get * delay-reply=20ms..50ms");
    assert!(took(&|| scene.client.put("y", "body").unwrap()) >= Duration::from_millis(100));
    assert!(took(&|| drop(scene.client.get("y").unwrap())) >= Duration::from_millis(120));
    assert_eq!(newest(&scene).faults, ["delay", "delay-reply"]);
    scene.proxy.plan("bandwidth=1000KiB");
    assert!(took(&|| assert_eq!(scene.client.get("x").unwrap(), bytes(400_000))) >= Duration::from_millis(390));
    assert!(took(&|| scene.client.put("z", bytes(400_000)).unwrap()) >= Duration::from_millis(390));
    assert_eq!(scene.beside.get("z").unwrap(), bytes(400_000));
}

#[test]
fn shares_and_numbers_follow_from_the_seed() {
    let outcomes = |seed: u64| -> Vec<bool> {
        let scene = Scene::with(seed, 1);
        scene.proxy.plan("get e1/c* p=0.5 from=5 times=8 slow-down; any * p=0.3 delay=0ms..1ms");
        (0..40).map(|index| scene.client.get(&format!("e1/c{}", index % 4)) == said(503, "SlowDown")).collect()
    };
    let first = outcomes(1);
    assert_eq!(first, outcomes(1), "under another prefix");
    assert_ne!(first, outcomes(2));
    assert!(first[..4].iter().all(|is_hit| !is_hit), "{first:?}");
    assert_eq!(first.iter().filter(|is_hit| **is_hit).count(), 8);
    assert!(first[4..14].iter().any(|is_hit| !is_hit), "{first:?}");
}

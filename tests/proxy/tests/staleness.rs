//! Answers from another time, and what may be counted on all the same (C7).

mod client;

use bytes::Bytes;
use client::{PATIENCE, Scene, said};

#[test]
fn a_get_after_an_overwrite_or_a_delete_finds_what_was_there_before() {
    let scene = Scene::with(1, 2);
    // From now on bodies are kept.
    scene.proxy.plan("get x stale=1000s");
    let (here, there) = (scene.client.at(&scene.proxy.endpoint()), scene.at(1));
    here.put("x", "one, the first").unwrap();
    // With nothing older to show, the truth is shown.
    assert_eq!(here.get("x"), Ok(Bytes::from("one, the first")));
    here.put("x", "two").unwrap();
    scene.proxy.plan("get,head x at=0 nth=1 stale=1000s; get,head x at=1 from=2 stale=1000s");
    for _ in 0..3 {
        assert_eq!(here.get("x"), Ok(Bytes::from("one, the first")), "an address goes on showing it");
    }
    assert_eq!(here.head("x"), Ok(14));
    assert_eq!(here.get_range("x", "bytes=5-7"), Ok(Bytes::from("the")));
    assert_eq!(here.get_range("x", "bytes=9-99"), Ok(Bytes::from("first")));
    assert_eq!(here.get_range("x", "bytes=14-99"), said(416, "InvalidRange"));
    assert_eq!(there.get("x"), Ok(Bytes::from("two")), "the other address has its own");
    there.delete("x").unwrap();
    assert_eq!(there.get("x"), Ok(Bytes::from("two")));
    assert_eq!(there.head("x"), Ok(3));
    assert_eq!(here.get("x"), Ok(Bytes::from("one, the first")));
    assert_eq!(scene.beside.get("x"), said(404, "NoSuchKey"));
    let log = scene.proxy.log();
    let stale = log.iter().filter(|entry| entry.faults == ["stale"]);
    assert!(stale.clone().count() == 10 && stale.clone().all(|entry| !entry.reached), "{log:?}");
    assert_eq!(scene.proxy.violations().len(), 1, "the overwrite");
}

#[test]
fn staleness_ends() {
    let scene = Scene::new();
    scene.proxy.plan("get * stale=200ms");
    // Until it is not too late already.
    let shown = |name: &String| {
        scene.client.put(name, "one").unwrap();
        scene.client.delete(name).unwrap();
        scene.client.get(name) == Ok(Bytes::from("one"))
    };
    let name = (0..).map(|round| format!("x{round}")).find(shown).unwrap();
    let gone = said(404, "NoSuchKey");
    while scene.client.get(&name) != gone {}
    assert_eq!(scene.client.get(&name), gone);
}

#[test]
fn a_404_stays_where_it_was_seen() {
    let scene = Scene::with(1, 2);
    scene.proxy.plan("get,head * missing=1000s");
    let there = scene.at(1);
    assert_eq!(scene.client.get("x"), said(404, "NoSuchKey"));
    scene.client.create("x", "body").unwrap();
    scene.client.create("y", "body").unwrap();
    assert_eq!(scene.client.get("x"), said(404, "NoSuchKey"));
    assert!(scene.client.head("x").is_err());
    // Nobody asked for these before they were created: they are seen (C7).
    assert_eq!(there.get("x"), Ok(Bytes::from("body")));
    assert_eq!(scene.client.get("y"), Ok(Bytes::from("body")));
    // Only a create tells the truth.
    assert_eq!(scene.client.create("x", "body"), said(412, "PreconditionFailed"));
    assert_eq!(scene.proxy.counts().faults, [("missing", 2)].into());
}

#[test]
fn a_list_hides_what_is_new_and_shows_what_is_deleted() {
    let scene = Scene::new();
    scene.beside.put("c0", "old").unwrap();
    for name in ["c1", "c2", "c3", "other"] {
        scene.client.create(name, "body").unwrap();
    }
    scene.client.delete("c2").unwrap();
    scene.client.delete_many(&["other"]).unwrap();
    let names = |list: &[&str]| Ok(list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    assert_eq!(scene.client.list("", 1000), names(&["c0", "c1", "c3"]));
    scene.proxy.plan("list * list-hides=1000s");
    assert_eq!(scene.client.list("", 1000), names(&["c0"]));
    assert_eq!(scene.client.list("c", 2), names(&["c0"]));
    scene.proxy.plan("list * list-shows=1000s");
    assert_eq!(scene.client.list("", 1000), names(&["c0", "c1", "c2", "c3", "other"]));
    assert_eq!(scene.client.list("c", 2), names(&["c0", "c1"]));
    assert_eq!(scene.client.list("o", 2), names(&["other"]));
    scene.proxy.plan("list * nth=1 list-hides=1000s; list * nth=1 list-shows=1000s");
    assert_eq!(scene.client.list("", 1000), names(&["c0", "c2", "other"]));
    assert_eq!(scene.client.list("", 1000), names(&["c0", "c1", "c3"]));
}

#[test]
fn what_was_created_is_seen_whatever_is_stale() {
    let scene = Scene::with(7, 3);
    let plan = "get,head * p=0.5 stale=0s..2s; get,head * p=0.5 missing=0s..2s; list * p=0.5 list-hides=0s..2s; \
                list * p=0.5 list-shows=0s..2s";
    scene.proxy.plan(plan);
    let clients = [scene.at(0), scene.at(1), scene.at(2)];
    for index in 0..30 {
        let (name, body) = (format!("e1/c{index}"), Bytes::from(format!("body {index}")));
        clients[index % 3].create(&name, body.clone()).unwrap();
        if index >= 3 {
            clients[index % 3].delete(&format!("e1/c{}", index - 3)).unwrap();
        }
        for client in &clients {
            assert_eq!(client.get(&name), Ok(body.clone()));
            // Asked for before it is created, it may or may not be seen afterwards.
            assert_eq!(client.get(&format!("e2/c{index}")), said(404, "NoSuchKey"));
        }
    }
    let counts = scene.proxy.counts();
    assert!(scene.proxy.wait(PATIENCE, |log| log.iter().all(|entry| entry.ended.is_some())));
    assert!(!counts.faults.contains_key("stale"), "what is there is not stale: {counts:?}");
    assert_eq!(scene.proxy.violations(), []);
}

//! The bucket's own test: what the tests of the log in a bucket rely on.

mod support;

use bytes::Bytes;
use kivafs::backend::{ObjectError, Objects, Usage};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use support::bucket::{
    Bucket, Conditional, Cut, Damage, Delivery, Fate, Fault, Filter, Handle, How, Listing, OnTheWay, Place, Point,
    Weakness, What, ask, commit_name, data_name, place_of,
};
use support::crash_disk::Effort;
use support::random::for_each_seed;

fn create(handle: &Handle, name: &str, body: &str) -> Result<(), ObjectError> {
    ask(|done| handle.create(name, Bytes::copy_from_slice(body.as_bytes()), done))
}

fn put(handle: &Handle, name: &str, body: &str) -> Result<(), ObjectError> {
    ask(|done| handle.put(name, Bytes::copy_from_slice(body.as_bytes()), done))
}

fn get(handle: &Handle, name: &str) -> Result<String, ObjectError> {
    ask(|done| handle.get(name, None, done)).map(|body| String::from_utf8(body.to_vec()).unwrap())
}

fn list(handle: &Handle, prefix: &str, max: u32) -> Vec<String> {
    ask(|done| handle.list(prefix, max, done)).unwrap()
}

fn delete(handle: &Handle, names: &[&str]) -> Result<(), ObjectError> {
    ask(|done| handle.delete(names.iter().map(|name| (*name).to_owned()).collect(), done))
}

/// Begins a create whose outcome is looked at later.
fn begin_create(handle: &Handle, name: &str, body: &str) -> Receiver<Result<(), ObjectError>> {
    let (answer, answered) = channel();
    handle.create(name, Bytes::copy_from_slice(body.as_bytes()), Box::new(move |result| answer.send(result).unwrap()));
    answered
}

fn is_unknown<T: std::fmt::Debug>(result: Result<T, ObjectError>) {
    assert!(matches!(result, Err(ObjectError::Unknown(_))), "{result:?}");
}

/// Panics unless `act` breaks that rule.
#[track_caller]
fn breaks(rule: &str, act: impl FnOnce()) {
    let panic = catch_unwind(AssertUnwindSafe(act)).expect_err("no rule was broken");
    let message = panic.downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(message.starts_with(&format!("{rule}: ")), "{rule}, not: {message}");
}

const COMMIT: &str = "kivafsC1 a commit";
const SEAL: &str = "kivafsE1 a seal";
const DATA: &str = "kivafsD1 data";

#[test]
fn names_are_those_of_the_layout() {
    assert_eq!(commit_name(1, 2), "efffffffffffffffe/cfffffffffffffffd");
    assert_eq!(place_of(&commit_name(1, 2)), Some(Place::Commit { epoch: 1, number: 2 }));
    assert_eq!(place_of(&data_name(9)), Some(Place::Data { number: 9 }));
    assert!(commit_name(2, 1) < commit_name(1, 9) && commit_name(1, 3) < commit_name(1, 2), "the newest first");
    for name in ["", "d", "d/9", "e1/c1", "dffffffffffffffff/1", "d/FFFFFFFFFFFFFFFF", "d/+ffffffffffffffe"] {
        assert_eq!(place_of(name), None, "{name}");
    }
}

#[test]
fn objects_are_created_once_and_read_in_ranges() {
    let bucket = Bucket::new();
    let (one, other) = (bucket.handle(), bucket.handle());
    create(&one, "a", "hello").unwrap();
    assert_eq!(create(&other, "a", "bye"), Err(ObjectError::Exists));
    assert_eq!(create(&one, "a", "hello"), Err(ObjectError::Exists), "also for who created it");
    put(&other, "b/1", "world").unwrap();
    put(&other, "b/1", "world").unwrap();
    assert_eq!(get(&other, "a").unwrap(), "hello");
    assert_eq!(ask(|done| other.get("a", Some(1..3), done)).unwrap(), "el");
    assert_eq!(ask(|done| other.get("a", Some(3..99), done)).unwrap(), "lo", "cut where the object ends");
    assert_eq!(get(&one, "c"), Err(ObjectError::Missing));
    assert_eq!(list(&one, "", 10), ["a", "b/1"]);
    assert_eq!(list(&one, "", 1), ["a"]);
    assert_eq!(list(&one, "b/", 10), ["b/1"]);
    delete(&one, &["a", "c"]).unwrap();
    assert_eq!(get(&one, "a"), Err(ObjectError::Missing));
    assert_eq!(one.usage(), Usage { puts: 2, gets: 2, lists: 3, deletes: 1, bytes_up: 10, bytes_down: 0 });
    assert_eq!(other.usage(), Usage { puts: 3, gets: 3, bytes_up: 13, bytes_down: 9, ..Usage::default() });
    assert_eq!(bucket.arrived(What::Get), 5);
}

#[test]
fn a_name_is_put_by_one_peer_with_one_body() {
    let bucket = Bucket::new();
    let (one, other) = (bucket.handle(), bucket.handle());
    put(&one, "a", "x").unwrap();
    breaks("B1", || drop(put(&one, "a", "y")));
    breaks("B1", || drop(put(&other, "a", "x")));
    breaks("B3", || drop(create(&other, "a", "x")));
    delete(&other, &["a"]).unwrap();
    breaks("B1", || drop(put(&one, "a", "x")));
    create(&one, "c", "x").unwrap();
    breaks("B2", || drop(create(&one, "c", "y")));
    breaks("B3", || drop(put(&one, "c", "x")));
    // Attempts that were lost count as well.
    one.arm(Fault { what: None, nth: 1, count: 2, how: How::Undone });
    is_unknown(put(&one, "lost", "x"));
    breaks("B1", || drop(put(&one, "lost", "y")));
    is_unknown(create(&one, "lost, too", "x"));
    breaks("B2", || drop(create(&one, "lost, too", "y")));
}

/// A bucket with epochs 1 (sealed at 5) and 2, each of a peer of its own.
fn two_epochs() -> (Bucket, Arc<Handle>, Arc<Handle>) {
    let bucket = Bucket::new();
    let (first, second) = (bucket.handle(), bucket.handle());
    for number in 1..5 {
        create(&first, &commit_name(1, number), COMMIT).unwrap();
    }
    put(&first, &data_name(1), DATA).unwrap();
    get(&second, &commit_name(1, 4)).unwrap();
    create(&second, &commit_name(1, 5), SEAL).unwrap();
    create(&second, &commit_name(2, 1), COMMIT).unwrap();
    (bucket, first, second)
}

#[test]
fn a_log_that_keeps_the_rules_is_let_through() {
    let (bucket, first, second) = two_epochs();
    bucket.assert_layout();
    assert_eq!((bucket.seal_of(1), bucket.seal_of(2)), (Some(5), None));
    assert_eq!((bucket.epoch(), bucket.commits_of(1)), (2, vec![1, 2, 3, 4, 5]));
    // The fenced one finds the seal.
    assert_eq!(create(&first, &commit_name(1, 5), COMMIT), Err(ObjectError::Exists));
    assert_eq!(get(&first, &commit_name(1, 5)).unwrap(), SEAL);
    put(&second, &data_name(2), DATA).unwrap();
    create(&second, &commit_name(2, 2), COMMIT).unwrap();
    delete(&second, &[&commit_name(1, 2), &commit_name(1, 3)]).unwrap();
    assert_eq!(bucket.commits_of(1), [1, 4, 5]);
    let kinds = [What::Claim, What::Commit, What::Seal, What::Data, What::Delete];
    assert_eq!(kinds.map(|what| bucket.arrived(what)), [2, 5, 1, 2, 1]);
}

#[test]
fn each_rule_of_the_log_is_noticed_when_it_is_broken() {
    breaks("L1", || {
        let (_bucket, _, second) = two_epochs();
        drop(create(&second, &commit_name(2, 3), COMMIT));
    });
    breaks("L1", || {
        let (bucket, ..) = two_epochs();
        drop(create(&bucket.handle(), &commit_name(2, 2), SEAL));
    });
    breaks("L2", || {
        let (_bucket, _, second) = two_epochs();
        second.arm(Fault { what: None, nth: 1, count: 1, how: How::LostReply });
        is_unknown(create(&second, &commit_name(2, 2), COMMIT));
        drop(create(&second, &commit_name(3, 1), COMMIT));
    });
    breaks("L3", || {
        let (_bucket, first, _) = two_epochs();
        get(&first, &commit_name(1, 5)).unwrap();
        get(&first, &commit_name(2, 1)).unwrap();
        drop(create(&first, &commit_name(2, 2), COMMIT));
    });
    breaks("L4", || {
        let (_bucket, _, second) = two_epochs();
        drop(create(&second, &commit_name(3, 1), COMMIT));
    });
    for kept in [commit_name(1, 1), commit_name(1, 4), commit_name(1, 5), commit_name(2, 1)] {
        breaks("L5", || {
            let (_bucket, _, second) = two_epochs();
            drop(delete(&second, &[&kept]));
        });
    }
    breaks("L7", || {
        let (bucket, ..) = two_epochs();
        drop(put(&bucket.handle(), &data_name(7), DATA));
    });
    breaks("L8", || {
        let (_bucket, _, second) = two_epochs();
        drop(put(&second, &commit_name(2, 2), COMMIT));
    });
    // A peer that retries a commit which others have deleted meanwhile, against L5.
    breaks("L6", || {
        let (bucket, first, second) = two_epochs();
        get(&second, &commit_name(1, 4)).unwrap();
        bucket.damage(&Damage::Remove(commit_name(1, 4)));
        drop(create(&first, &commit_name(1, 4), COMMIT));
    });
}

#[test]
fn a_lost_reply_is_done_and_a_refusal_is_not() {
    let bucket = Bucket::new();
    let handle = bucket.handle();
    let armed = |how| {
        handle.arm(Fault { what: Some(What::Other), nth: 1, count: 1, how });
    };
    armed(How::LostReply);
    is_unknown(create(&handle, "a", "x"));
    assert_eq!(create(&handle, "a", "x"), Err(ObjectError::Exists));
    armed(How::Undone);
    is_unknown(create(&handle, "b", "x"));
    create(&handle, "b", "x").unwrap();
    armed(How::Slow);
    assert!(matches!(create(&handle, "c", "x"), Err(ObjectError::Slow(_))));
    armed(How::Refused);
    assert!(matches!(create(&handle, "c", "x"), Err(ObjectError::Refused(_))));
    assert_eq!(get(&handle, "c"), Err(ObjectError::Missing));
    assert_eq!(handle.happened(), 4);
    armed(How::Late);
    is_unknown(create(&handle, "c", "x"));
    create(&bucket.handle(), "c", "y").unwrap();
    assert_eq!((bucket.late_count(), bucket.land_late(), bucket.late_count()), (1, 0, 0), "it came too late");
    assert_eq!(get(&handle, "c").unwrap(), "y");
    handle.arm(Fault { what: Some(What::Get), nth: 2, count: 2, how: How::Missing });
    let found: Vec<bool> = (0..4).map(|_| get(&handle, "a").is_ok()).collect();
    assert_eq!(found, [true, false, false, true]);
}

#[test]
fn what_was_missing_stays_missing_for_a_while() {
    let bucket = Bucket::new();
    let (weak, strong) = (bucket.handle(), bucket.handle());
    weak.weaken(Weakness { missing_for: 2, deleted_for: 1, ..Weakness::default() }, 1);
    assert_eq!(get(&weak, "a"), Err(ObjectError::Missing));
    create(&weak, "a", "x").unwrap();
    assert_eq!(get(&strong, "a").unwrap(), "x");
    assert_eq!(get(&weak, "a"), Err(ObjectError::Missing), "though it has created it itself");
    assert_eq!(get(&weak, "a"), Err(ObjectError::Missing));
    assert_eq!(get(&weak, "a").unwrap(), "x");
    create(&strong, "b", "x").unwrap();
    assert_eq!(get(&weak, "b").unwrap(), "x", "no 404 came before");
    delete(&strong, &["a"]).unwrap();
    assert_eq!(get(&weak, "a").unwrap(), "x", "from before");
    assert_eq!(get(&weak, "a"), Err(ObjectError::Missing));
}

#[test]
fn listings_are_weak_in_each_way() {
    let bucket = Bucket::new();
    let handle = bucket.handle();
    ["c", "a", "b", "d"].iter().for_each(|name| create(&handle, name, "x").unwrap());
    delete(&handle, &["d"]).unwrap();
    let shown = |listing| {
        handle.weaken(Weakness { listing, ..Weakness::default() }, 1);
        list(&handle, "", 10)
    };
    assert_eq!(shown(Listing::Right), ["a", "b", "c"]);
    assert_eq!(shown(Listing::HidesNewest(2)), ["c"]);
    assert_eq!(shown(Listing::HidesNewest(9)), [""; 0]);
    assert_eq!(shown(Listing::ShowsDeleted), ["a", "b", "c", "d"]);
    assert_eq!(shown(Listing::Empty), [""; 0]);
    handle.weaken(Weakness { listing: Listing::Refused, ..Weakness::default() }, 1);
    assert!(matches!(ask(|done| handle.list("", 1, done)), Err(ObjectError::Refused(_))));
}

#[test]
fn severe_weakness_lets_everything_happen_and_some_succeed() {
    for_each_seed(3, |seed| {
        let bucket = Bucket::new();
        let handle = bucket.handle();
        handle.weaken(Weakness::severe(), seed);
        let mut lost = 0;
        for index in 0..300 {
            let name = format!("object {index}");
            let result = create(&handle, &name, "x");
            let is_there = bucket.body(&name).is_some();
            match result {
                Ok(()) => assert!(is_there),
                Err(ObjectError::Slow(_)) => assert!(!is_there),
                Err(ObjectError::Unknown(_)) => lost += usize::from(is_there),
                Err(error) => panic!("{error}"),
            }
        }
        assert!(lost > 5 && bucket.names().len() > 200, "{lost} lost replies");
        assert!(bucket.late_count() < 10, "what is late has come by now, nearly all");
    });
}

#[test]
fn a_peer_that_is_cut_off_changes_nothing_more_and_others_go_on() {
    let bucket = Bucket::new();
    let (victim, other) = (bucket.handle(), bucket.handle());
    victim.cut_after(2, Cut::killed(OnTheWay::Lost));
    create(&victim, "a", "x").unwrap();
    assert!(!victim.is_cut());
    is_unknown(create(&victim, "b", "x"));
    assert!(victim.is_cut() && bucket.body("b").is_some(), "done, but the answer is lost");
    is_unknown(create(&victim, "c", "x"));
    is_unknown(get(&victim, "a"));
    assert_eq!(bucket.names(), ["a", "b"]);
    create(&other, "c", "y").unwrap();
    assert_eq!(victim.effects(), 2);

    // One that is not even told: as in a process that is gone.
    let gone = bucket.handle();
    gone.cut(Cut { on_the_way: OnTheWay::Lost, is_told: false });
    let answered = begin_create(&gone, "d", "x");
    assert!(answered.try_recv().is_err());
    assert!(bucket.body("d").is_none());
}

#[test]
fn a_gate_holds_back_and_lets_go_in_any_order() {
    let bucket = Bucket::new();
    let (one, other) = (bucket.handle(), bucket.handle());
    let gate = bucket.gate(Filter::of(What::Other).named("x"), Point::Arrival);
    let first = begin_create(&one, "x", "first");
    let second = begin_create(&other, "x", "second");
    create(&one, "y", "passes").unwrap();
    let (held_first, held_second) = (gate.wait(), gate.wait());
    assert_eq!((held_first.peer, held_second.peer), (one.peer, other.peer));
    gate.open();
    assert!(first.try_recv().is_err(), "not answered yet");
    held_second.carry_out();
    held_first.carry_out();
    assert_eq!((first.recv().unwrap(), second.recv().unwrap()), (Err(ObjectError::Exists), Ok(())));

    // What nobody has taken goes on when the gate is opened.
    let gate = bucket.gate(Filter::any().by(one.peer), Point::Arrival);
    let third = begin_create(&one, "z", "third");
    assert_eq!(gate.len(), 1);
    gate.open();
    third.recv().unwrap().unwrap();

    // Carried out, but the answer waits; and is lost.
    let gate = bucket.gate(Filter::of(What::Other), Point::Answer);
    let fourth = begin_create(&one, "late answer", "x");
    assert!(bucket.body("late answer").is_some());
    gate.wait().lose_reply();
    is_unknown(fourth.recv().unwrap());
    let fifth = begin_create(&one, "fifth", "x");
    gate.wait().go_on();
    fifth.recv().unwrap().unwrap();
    gate.open();

    // Held back while its peer dies: it may be carried out all the same, or come late, or never.
    let gate = bucket.gate(Filter::any().by(one.peer), Point::Arrival);
    let names = ["done", "late", "lost", "left to its lot"];
    let answers = names.map(|name| begin_create(&one, name, "x"));
    let [done, late, lost, left] = [gate.wait(), gate.wait(), gate.wait(), gate.wait()];
    one.cut(Cut::killed(OnTheWay::Lost));
    done.lose_reply();
    let late = late.time_out();
    drop(lost);
    left.go_on();
    answers.into_iter().for_each(|answer| is_unknown(answer.recv().unwrap()));
    let is_there = || names.map(|name| bucket.body(name).is_some());
    assert_eq!(is_there(), [true, false, false, false]);
    assert!(late.land());
    assert_eq!(is_there(), [true, true, false, false]);
}

#[test]
fn a_pool_answers_everything_in_another_order() {
    for_each_seed(3, |seed| {
        let bucket = Bucket::new();
        bucket.deliver(Delivery::Pool { threads: 3, latency: Duration::ZERO, seed });
        let handle = bucket.handle();
        let (answer, answered) = channel();
        for index in 0..100 {
            let answer = answer.clone();
            handle.put(&format!("{index}"), Bytes::new(), Box::new(move |_| answer.send(index).unwrap()));
        }
        let order: Vec<i32> = answered.into_iter().take(100).collect();
        assert!(!order.is_sorted());
        assert_eq!(bucket.names().len(), 100);
        bucket.deliver(Delivery::AtOnce);
        create(&handle, "at once", "x").unwrap();
    });
}

#[test]
fn a_request_begun_by_an_answer_is_carried_out_too() {
    for delivery in [Delivery::AtOnce, Delivery::Pool { threads: 1, latency: Duration::ZERO, seed: 1 }] {
        let bucket = Bucket::new();
        bucket.deliver(delivery);
        let handle = bucket.handle();
        let again = handle.clone();
        let (answer, answered) = channel();
        handle.create(
            "a",
            Bytes::new(),
            Box::new(move |_| again.create("b", Bytes::new(), Box::new(move |result| answer.send(result).unwrap()))),
        );
        answered.recv().unwrap().unwrap();
        assert_eq!(bucket.names(), ["a", "b"]);
    }
}

/// How many of 16 racing creates win.
fn winners(bucket: &Bucket) -> usize {
    bucket.deliver(Delivery::Pool { threads: 16, latency: Duration::from_millis(20), seed: 1 });
    let won = Arc::new(AtomicUsize::new(0));
    let answers: Vec<_> =
        (0..16).map(|racer| begin_create(&bucket.handle(), "raced for", &format!("{racer}"))).collect();
    for answer in answers {
        match answer.recv().unwrap() {
            Ok(()) => drop(won.fetch_add(1, Ordering::Relaxed)),
            Err(error) => assert_eq!(error, ObjectError::Exists),
        }
    }
    won.load(Ordering::Relaxed)
}

#[test]
fn only_a_server_that_heeds_conditions_lets_one_racer_win() {
    assert_eq!(winners(&Bucket::new()), 1);
    let racy = Bucket::with(Conditional::Racy);
    assert!(winners(&racy) > 1);
    assert_eq!(
        create(&racy.handle(), "raced for", "x"),
        Err(ObjectError::Exists),
        "one after the other it seems right"
    );
    assert_eq!(winners(&Bucket::with(Conditional::Ignored)), 16);
}

const EFFORT: Effort = Effort { cuts_max: 1000, fates_max: 100, shuffled: 20, seed: 3 };

/// All images of a bucket: cut, fate, names that are there, and how many changes are still late.
fn images(bucket: &Bucket) -> Vec<(usize, Fate, String, usize)> {
    let mut images = Vec::new();
    bucket.for_each_image(
        EFFORT,
        |cut| cut as u64,
        |cut, fate, left| {
            images.push((cut, fate, left.names().concat(), left.late_count()));
        },
    );
    images
}

#[test]
fn an_image_is_what_its_fate_says() {
    let bucket = Bucket::new();
    let handle = bucket.handle();
    create(&handle, "a", "x").unwrap();
    let settled = bucket.position();
    let gate = bucket.gate(Filter::any(), Point::Arrival);
    let answers = ["b", "c", "d"].map(|name| begin_create(&handle, name, "x"));
    let held = [gate.wait(), gate.wait(), gate.wait()];
    let open = bucket.position();
    held.into_iter().for_each(|held| held.carry_out());
    gate.open();
    answers.into_iter().for_each(|answer| answer.recv().unwrap().unwrap());
    delete(&handle, &["a"]).unwrap();
    handle.arm(Fault { what: None, nth: 1, count: 1, how: How::Undone });
    is_unknown(create(&handle, "e", "x"));

    let images = images(&bucket);
    let image = |cut: usize, fate: Fate| {
        let found = images.iter().find(|image| (image.0, image.1) == (cut, fate));
        found.map(|(_, _, names, late)| (names.as_str(), *late))
    };
    assert_eq!(image(0, Fate::AllKept), Some(("", 0)));
    assert_eq!(image(1, Fate::AllLost), Some(("", 0)));
    assert_eq!(image(1, Fate::AllKept), Some(("a", 0)));
    assert_eq!(image(1, Fate::AllLate), Some(("", 1)));
    assert_eq!(image(settled, Fate::AllKept), Some(("a", 0)));
    assert_eq!(image(settled, Fate::AllLost), None, "nothing is open");
    assert_eq!(image(open, Fate::AllLost), Some(("a", 0)));
    assert_eq!(image(open, Fate::OnlyKept(1)), Some(("ac", 0)));
    assert_eq!(image(open, Fate::OnlyLost(1)), Some(("abd", 0)));
    assert_eq!(image(open, Fate::AllLate), Some(("a", 3)));
    let end = bucket.position();
    assert_eq!(image(end, Fate::AllLost), Some(("bcd", 0)), "nobody knows of the last");
    assert_eq!(image(end, Fate::AllKept), Some(("bcde", 0)));
    assert!(images.iter().any(|image| matches!(image.1, Fate::Shuffled(_)) && image.3 == 1 && image.2 == "ac"));
    assert_eq!(bucket.at(settled).names(), ["a"]);
}

#[test]
fn what_is_late_in_an_image_comes_in_time() {
    let bucket = Bucket::new();
    create(&bucket.handle(), "a", "x").unwrap();
    bucket.for_each_image(
        EFFORT,
        |_| 0,
        |_, fate, left| {
            if fate == Fate::AllLate {
                let handle = left.handle();
                let looks = (0..100).take_while(|_| get(&handle, "a").is_err()).count();
                assert!((0..100).contains(&looks), "it never came");
            }
        },
    );
}

#[test]
fn rules_outlive_a_crash() {
    let bucket = Bucket::new();
    put(&bucket.handle(), "a", "x").unwrap();
    let mut tried = 0;
    bucket.for_each_image(
        EFFORT,
        |_| 0,
        |cut, _, left| {
            let handle = left.handle();
            if cut == 0 {
                put(&handle, "a", "y").unwrap();
            } else {
                breaks("B1", || drop(put(&handle, "a", "x")));
                tried += 1;
            }
        },
    );
    assert!(tried >= 2, "lost or not, the name was used");
}

#[test]
fn damage_is_done_to_a_copy_only() {
    let bucket = Bucket::new();
    let handle = bucket.handle();
    ["ab", "cd"].iter().for_each(|name| create(&handle, name, name).unwrap());
    let damaged = |damage: Damage| {
        let copy = bucket.copy();
        copy.damage(&damage);
        copy.names().iter().map(|name| format!("{name}={:?}", copy.body(name).unwrap())).collect::<Vec<_>>().join(" ")
    };
    let (ab, cd) = (|| "ab".to_owned(), || "cd".to_owned());
    assert_eq!(damaged(Damage::Flip { name: ab(), at: 1, mask: 0x20 }), r#"ab=b"aB" cd=b"cd""#);
    assert_eq!(damaged(Damage::Cut { name: ab(), length: 1 }), r#"ab=b"a" cd=b"cd""#);
    assert_eq!(damaged(Damage::Zero { name: ab() }), r#"ab=b"\0\0" cd=b"cd""#);
    assert_eq!(damaged(Damage::Swap(ab(), cd())), r#"ab=b"cd" cd=b"ab""#);
    assert_eq!(damaged(Damage::Duplicate(ab(), "e".into())), r#"ab=b"ab" cd=b"cd" e=b"ab""#);
    assert_eq!(damaged(Damage::Remove(ab())), r#"cd=b"cd""#);
    assert_eq!(get(&handle, "ab").unwrap(), "ab");
}

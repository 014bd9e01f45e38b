//! Races of machines that share a bucket, each interleaving by name (R8 to R11, C4, C5).
//!
//! Requests are held back at gates and let go in the order that the race needs. Besides what each test
//! looks at, every request is held to the rules in `support/bucket/rules`: above all that no name is
//! ever used for two contents. W is the old writer, T a taker, V somebody in between.

mod support;

use kivafs::store::{OpenError, OpenOptions, Store, StoreError};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;
use support::bucket::{Fault, Filter, Held, How, OnTheWay, Point, What, commit_name};
use support::machine::{
    LateClaim, Machine, Opening, answer, assert_fenced, assert_holds, eager, final_state, is_seal, new_store,
    next_place, refused, taking_over, with_writer,
};
use support::random::Random;
use support::store::{Change, SMALL, commit, difference};

// R8: epochs and seals.

/// T reads epoch 2 to its end and sleeps. W goes on and closes; V opens epoch 3 and its cleaner deletes
/// what stands in the place of T's seal. T wakes: its seal succeeds, its claim does not.
#[test]
fn a_stale_taker_seals_a_cleaned_epoch_and_is_refused() {
    let (bucket, w) = with_writer();
    let place = next_place(&bucket);
    let (t, seal) = Opening::until(&bucket, What::Seal, taking_over());
    assert_eq!(seal.name(), commit_name(place.0, place.1));
    w.save_many("later", 10);
    w.close();
    let v = Machine::start(&bucket);
    v.clean(&bucket, place.0);
    v.save("acknowledged", "by v").unwrap();
    assert!(bucket.body(seal.name()).is_none(), "cleaned");
    seal.carry_out();
    refused(t);
    assert!(is_seal(&bucket, place), "the seal did succeed");
    v.save("acknowledged", "again").unwrap();
    drop(v);
    assert_holds(&bucket, "acknowledged", Some("again"));
}

/// The same, but V has closed, too: nobody holds the store, T may have it, as it is now.
#[test]
fn a_stale_taker_of_a_store_that_nobody_holds_gets_it_as_it_is() {
    let (bucket, w) = with_writer();
    let epoch = bucket.epoch();
    let (t, seal) = Opening::until(&bucket, What::Seal, taking_over());
    w.save_many("later", 10);
    w.close();
    let v = Machine::start(&bucket);
    v.clean(&bucket, epoch);
    v.save("acknowledged", "by v").unwrap();
    let state = v.state();
    v.close();
    seal.carry_out();
    let t = t.end().unwrap();
    let found = t.state();
    assert!(found == state, "{}", difference(&found, &state));
    t.close();
    assert_holds(&bucket, "acknowledged", Some("by v"));
}

/// T's seal comes after W has gone on: it meets W's commit, T reads on, and nothing of W's is lost.
#[test]
fn a_stale_taker_of_an_open_epoch_reads_on() {
    let (bucket, w) = with_writer();
    let place = next_place(&bucket);
    let (t, seal) = Opening::until(&bucket, What::Seal, taking_over());
    w.save_many("later", 10);
    let state = w.state();
    seal.carry_out();
    let t = t.end().unwrap();
    assert!(!is_seal(&bucket, place) && is_seal(&bucket, (place.0, place.1 + 10)));
    let found = t.state();
    assert!(found == state, "{}", difference(&found, &state));
    assert_fenced(w.save("too late", "w"));
    t.close();
    assert_holds(&bucket, "too late", None);
}

#[test]
fn a_taker_that_dies_between_seal_and_claim_is_in_nobodys_way() {
    for fate in [LateClaim::Lost, LateClaim::BeforeTheNext, LateClaim::AfterTheNext] {
        let (bucket, w) = with_writer();
        let state = w.state();
        let place = next_place(&bucket);
        let dying = bucket.handle();
        let gate = bucket.gate(Filter::of(What::Claim).by(dying.peer), Point::Arrival);
        let opening = Opening::begin(dying.clone(), OpenOptions { timeout: Duration::ZERO, ..taking_over() });
        let claim = gate.wait();
        gate.open();
        assert!(is_seal(&bucket, place), "{fate:?}");
        dying.cut(support::bucket::Cut::killed(OnTheWay::Lost));
        let claim = claim.time_out();
        assert!(opening.end().is_err(), "{fate:?}");
        // W meets the seal, whoever comes next.
        let Err(StoreError::Poisoned(_)) = w.save("too late", "w") else { panic!("{fate:?}: acknowledged") };
        let next = match fate {
            LateClaim::Lost => {
                let next = Machine::open(&bucket, &taking_over()).unwrap();
                drop(claim);
                next
            }
            LateClaim::AfterTheNext => {
                let next = Machine::open(&bucket, &taking_over()).unwrap();
                assert!(!claim.land(), "there is an epoch of that number");
                next
            }
            LateClaim::BeforeTheNext => {
                assert!(claim.land());
                Machine::take_over(&bucket)
            }
        };
        let found = next.state();
        assert!(found == state, "{fate:?}: {}", difference(&found, &state));
        next.save("next", "acknowledged").unwrap();
        drop(next);
        assert_holds(&bucket, "next", Some("acknowledged"));
    }
}

/// The claim of a taker that was given up for dead lands before the next one's, which is on its way and
/// was told to take over whatever it finds.
#[test]
fn a_late_claim_of_one_given_up_for_dead_is_taken_over() {
    let (bucket, _w) = with_writer();
    let handle = bucket.handle();
    let gate = bucket.gate(Filter::of(What::Claim).by(handle.peer), Point::Arrival);
    let first = Opening::begin(handle, taking_over());
    let claim = gate.wait().time_out();
    let retry = gate.wait();
    let (second, other_claim) = Opening::until(&bucket, What::Claim, taking_over());
    assert!(claim.land());
    other_claim.carry_out();
    let second = second.end().unwrap();
    // The first was not told, and asks again: its own claim stands, but an epoch follows.
    retry.carry_out();
    gate.open();
    assert_fenced(first.end().unwrap().save("first", "too late"));
    second.save("second", "acknowledged").unwrap();
    drop(second);
    assert_holds(&bucket, "second", Some("acknowledged"));
}

/// Two takers step by step, in every order of their seals and claims.
#[test]
fn of_two_takers_exactly_one_wins() {
    for order in ["AABB", "ABAB", "ABBA", "BAAB", "BABA", "BBAA"] {
        let (bucket, w) = with_writer();
        let state = w.state();
        let handles = [bucket.handle(), bucket.handle()];
        let gates = handles.each_ref().map(|handle| {
            [What::Seal, What::Claim].map(|what| bucket.gate(Filter::of(what).by(handle.peer), Point::Arrival))
        });
        let openings = handles.map(|handle| Opening::begin(handle, taking_over()));
        // Both have read the epoch to its end before either does anything.
        let mut seals = gates.each_ref().map(|[seals, _]| Some(seals.wait()));
        for taker in order.bytes().map(|letter| usize::from(letter - b'A')) {
            match seals[taker].take() {
                Some(seal) => seal.carry_out(),
                None => gates[taker][1].wait().carry_out(),
            }
        }
        let outcomes = openings.map(Opening::end);
        drop(gates);
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{order}");
        for outcome in outcomes {
            match outcome {
                Ok(winner) => {
                    let found = winner.state();
                    assert!(found == state, "{order}: {}", difference(&found, &state));
                    winner.save("winner", order).unwrap();
                }
                Err(OpenError::InUse { .. }) => {}
                Err(error) => panic!("{order}: {error}"),
            }
        }
        assert_fenced(w.save("too late", "w"));
        assert_holds(&bucket, "winner", Some(order));
    }
}

/// A commit that W has sent, and T's seal of the same number: whichever comes first.
#[test]
fn a_commit_and_a_seal_race_for_one_place() {
    for commit_is_first in [true, false] {
        let (bucket, w) = with_writer();
        w.put("raced", "w");
        let gate = bucket.gate(Filter::of(What::Commit).by(w.peer()), Point::Arrival);
        let synced = w.begin_sync();
        let commit = gate.wait();
        let (t, seal) = Opening::until(&bucket, What::Seal, taking_over());
        assert_eq!(commit.name(), seal.name());
        let (first, second) = if commit_is_first { (commit, seal) } else { (seal, commit) };
        first.carry_out();
        second.carry_out();
        gate.open();
        let t = t.end().unwrap();
        if commit_is_first {
            answer(&synced).unwrap();
        } else {
            assert_fenced(answer(&synced));
        }
        assert_eq!(t.get("raced").is_some(), commit_is_first);
        assert_fenced(w.save("too late", "w"));
    }
}

/// An accident, then: nothing is written, and the error says who has it.
#[test]
fn a_live_store_is_not_taken_by_accident() {
    let bucket = new_store(SMALL);
    let serving_at = Some(PathBuf::from("/mnt/here"));
    let w = Machine::open(&bucket, &OpenOptions { serving_at: serving_at.clone(), ..eager() }).unwrap();
    let names = bucket.names();
    let stranger = bucket.handle();
    match Store::open_in(stranger.clone(), &eager()) {
        Err(OpenError::InUse { holder, .. }) => {
            assert!(holder.remote && holder.here && holder.since.is_some() && holder.host.is_some(), "{holder:?}");
            assert_eq!((holder.pid, holder.serving_at), (std::process::id(), serving_at));
        }
        other => panic!("{:?}", other.err()),
    }
    assert_eq!((bucket.names(), stranger.effects()), (names, 0));
    w.save("goes on", "w").unwrap();
    w.close();
    Machine::start(&bucket).close();
}

#[test]
fn a_fenced_writer_says_who_has_the_store_and_goes_on_reading() {
    let (bucket, w) = with_writer();
    let place = Some(PathBuf::from("/mnt/there"));
    w.put("unsaved", "w");
    let t = Machine::open(&bucket, &OpenOptions { serving_at: place, ..taking_over() }).unwrap();
    let before = w.state();
    let cause = assert_fenced(answer(&w.begin_sync()));
    assert!(cause.contains("/mnt/there") && cause.contains(&std::process::id().to_string()), "{cause}");
    for _ in 0..2 {
        assert_eq!(assert_fenced(w.save("too late", "w")), cause, "the first cause");
        let found = w.state();
        assert!(found == before, "{}", difference(&found, &before));
    }
    assert!(w.store.close().is_err());
    drop(w);
    assert_eq!(t.get("unsaved"), None);
    t.save("t", "acknowledged").unwrap();
}

// R9: what is deleted.

#[test]
fn a_cleaned_epoch_keeps_its_first_its_last_and_its_seal() {
    let (bucket, w) = with_writer();
    let epoch = bucket.epoch();
    w.save_many("more", 20);
    let state = w.state();
    w.close();
    let seal = bucket.seal_of(epoch).unwrap();
    let v = Machine::start(&bucket);
    v.clean(&bucket, epoch);
    assert_eq!(bucket.commits_of(epoch), [1, seal - 1, seal]);
    v.kill(OnTheWay::Lost);
    let mut found = final_state(&bucket);
    found.remove(&b"cleaning"[..]);
    assert!(found == state, "{}", difference(&found, &state));
}

/// How W's last commit before it was stopped fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Undead {
    /// It landed, and the reply was lost.
    Landed,
    /// It was lost.
    Lost,
    /// It comes when everything is over.
    Late,
}

/// W's commit lands, or not, and W is stopped for days. Others take over, write, clean and close, some
/// times. W wakes and tries that commit again: it is acknowledged only if it is in the store.
#[test]
fn an_undead_commit_is_acknowledged_only_if_it_is_there() {
    for fate in [Undead::Landed, Undead::Lost, Undead::Late] {
        for takers in [1, 3] {
            let (bucket, w) = with_writer();
            w.put("undead", "w");
            let gate = bucket.gate(Filter::any().by(w.peer()), Point::Arrival);
            let synced = w.begin_sync();
            let commit = gate.wait();
            let late = match fate {
                Undead::Landed => {
                    commit.lose_reply();
                    None
                }
                Undead::Lost => {
                    commit.lose();
                    None
                }
                Undead::Late => Some(commit.time_out()),
            };
            let retry = gate.wait();
            for taker in 0..takers {
                let epoch = bucket.epoch();
                let t = Machine::take_over(&bucket);
                assert_eq!(t.get("undead").is_some(), fate == Undead::Landed, "{fate:?}");
                t.save_many(&format!("taker {taker}"), 10);
                t.clean(&bucket, epoch);
                t.close();
            }
            if let Some(late) = late {
                assert!(!late.land(), "its place is taken");
            }
            retry.carry_out();
            gate.open();
            match fate {
                Undead::Landed => answer(&synced).unwrap_or_else(|error| panic!("it is there: {error}")),
                Undead::Lost | Undead::Late => drop(assert_fenced(answer(&synced))),
            }
            assert_fenced(w.save("undead", "again"));
            drop(w);
            assert_holds(&bucket, "undead", (fate == Undead::Landed).then_some("w"));
        }
    }
}

/// W is stopped before it sends its commit, for any length of time (SIGSTOP).
#[test]
fn a_stopped_writer_is_never_acknowledged_however_long_it_slept() {
    for takers in 1..5 {
        let (bucket, w) = with_writer();
        w.put("stopped", "w");
        let gate = bucket.gate(Filter::any().by(w.peer()), Point::Arrival);
        let synced = w.begin_sync();
        let commit = gate.wait();
        for taker in 0..takers {
            let epoch = bucket.epoch();
            let t = Machine::take_over(&bucket);
            t.save_many(&format!("taker {taker}"), 10);
            t.clean(&bucket, epoch);
            t.close();
        }
        commit.carry_out();
        gate.open();
        assert_fenced(answer(&synced));
        assert_fenced(w.save("stopped", "again"));
        drop(w);
        assert_holds(&bucket, "stopped", None);
    }
}

/// A writer that slept deletes what it wanted to delete before: nobody misses it.
#[test]
fn a_late_delete_of_a_fenced_writer_hurts_nobody() {
    let bucket = new_store(SMALL);
    let w = Machine::start(&bucket);
    let mut random = Random::new(1);
    let fill = |machine: &Machine, random: &mut Random| {
        let changes: Vec<Change> =
            (0..3).map(|key| Change::Put(format!("large {key}").into_bytes(), random.bytes(5000))).collect();
        commit(&machine.store, &changes).unwrap();
        machine.store.checkpoint().unwrap();
    };
    fill(&w, &mut random);
    let gate = bucket.gate(Filter::of(What::Delete).by(w.peer()), Point::Arrival);
    // Until a delete is on its way.
    let mut rounds = 0;
    while gate.len() == 0 {
        fill(&w, &mut random);
        rounds += 1;
        assert!(rounds < 50, "nothing is ever deleted");
    }
    let delete = gate.wait();
    let state = w.state();
    answer(&w.begin_sync()).unwrap();
    let t = Machine::take_over(&bucket);
    delete.carry_out();
    gate.open();
    fill(&t, &mut random);
    let expected = t.state();
    assert_ne!(expected, state);
    t.kill(OnTheWay::Lost);
    let found = final_state(&bucket);
    assert!(found == expected, "{}", difference(&found, &expected));
}

// R10: one name, one content; unknown is not failed.

/// W's first attempt times out and lands late; meanwhile more changes come in.
#[test]
fn a_commit_is_tried_again_with_the_same_bytes() {
    let (bucket, w) = with_writer();
    w.put("first", "w");
    let gate = bucket.gate(Filter::of(What::Commit).by(w.peer()), Point::Arrival);
    let synced = w.begin_sync();
    let first = gate.wait();
    let body = |held: &Held| match &held.call {
        support::bucket::Call::Create { body, .. } => body.clone(),
        other => panic!("{other:?}"),
    };
    let (name, bytes) = (first.name().to_owned(), body(&first));
    let late = first.time_out();
    w.put("second", "w");
    let synced_too = w.begin_sync();
    for _ in 0..3 {
        let again = gate.wait();
        assert_eq!((again.name(), body(&again)), (&name[..], bytes.clone()));
        again.lose();
    }
    let again = gate.wait();
    assert!(late.land());
    again.carry_out();
    answer(&synced).unwrap();
    let second = gate.wait();
    assert_ne!(second.name(), name);
    second.carry_out();
    gate.open();
    answer(&synced_too).unwrap();
    drop(w);
    assert_holds(&bucket, "second", Some("w"));
}

/// Nobody is told that a change failed whose commit may still land; and it is not lost if it does.
#[test]
fn unknown_is_not_failed() {
    for lands in [true, false] {
        let (bucket, w) = with_writer();
        w.put("unknown", "w");
        let gate = bucket.gate(Filter::of(What::Commit).by(w.peer()), Point::Arrival);
        let synced = w.begin_sync();
        let late = gate.wait().time_out();
        let _retry = gate.wait();
        w.put("behind", "w");
        assert!(synced.try_recv().is_err());
        assert_eq!(w.get("unknown").as_deref(), Some("w"), "it stays in memory");
        if lands {
            assert!(late.land());
        }
        w.kill(OnTheWay::Lost);
        assert_holds(&bucket, "unknown", lands.then_some("w"));
    }
}

/// The reply to one request of each kind is lost.
#[test]
fn a_lost_reply_is_recognised() {
    for what in [What::Claim, What::Commit, What::Seal, What::Data, What::Get, What::List, What::Delete] {
        let bucket = new_store(SMALL);
        Machine::start(&bucket).kill(OnTheWay::Lost);
        let handle = bucket.handle();
        handle.arm(Fault { what: Some(what), nth: 1, count: 2, how: How::LostReply });
        let machine =
            Machine::open_by(handle.clone(), &taking_over()).unwrap_or_else(|error| panic!("{what:?}: {error}"));
        let mut random = Random::new(2);
        for round in 0..12 {
            let changes = [Change::Put(format!("large {}", round % 3).into_bytes(), random.bytes(9000))];
            commit(&machine.store, &changes).unwrap();
            machine.store.checkpoint().unwrap_or_else(|error| panic!("{what:?}: {error}"));
            machine.save("round", &format!("{round}")).unwrap_or_else(|error| panic!("{what:?}: {error}"));
        }
        assert!(handle.happened() > 0, "{what:?}");
        let expected = machine.state();
        machine.close();
        let found = final_state(&bucket);
        assert!(found == expected, "{what:?}: {}", difference(&found, &expected));
    }
}

/// 412 for its own commit, and for a while a 404 when it looks whose it is.
#[test]
fn a_lost_reply_is_recognised_behind_a_cached_404() {
    let (bucket, w) = with_writer();
    w.handle.arm(Fault { what: Some(What::Commit), nth: 1, count: 1, how: How::LostReply });
    w.handle.arm(Fault { what: Some(What::Get), nth: 1, count: 4, how: How::Missing });
    w.save("lost", "w").unwrap();
    assert_eq!(w.handle.happened(), 5);
    w.save("next", "w").unwrap();
    drop(w);
    assert_holds(&bucket, "next", Some("w"));
}

/// 412, and nobody can read whose it is: nothing is acknowledged.
#[test]
fn a_commit_whose_owner_cannot_be_read_is_not_acknowledged() {
    let bucket = new_store(SMALL);
    let w = Machine::open(&bucket, &OpenOptions { timeout: Duration::from_millis(500), ..eager() }).unwrap();
    w.save_many("w", 3);
    w.handle.arm(Fault { what: Some(What::Commit), nth: 1, count: 1, how: How::LostReply });
    w.handle.arm(Fault { what: Some(What::Get), nth: 1, count: usize::MAX / 2, how: How::Missing });
    for _ in 0..2 {
        let result = w.save("whose", "w");
        assert!(matches!(result, Err(StoreError::Poisoned(_))), "{result:?}");
    }
    assert_eq!(w.get("w 1").as_deref(), Some("w"), "it goes on reading what it has");
}

/// 503 and 409 mean nothing but "again, later"; so does a refusal that ends.
#[test]
fn what_was_refused_for_now_is_tried_again() {
    for how in [How::Slow, How::Refused, How::Undone] {
        let (bucket, w) = with_writer();
        for what in [What::Commit, What::Data] {
            w.handle.arm(Fault { what: Some(what), nth: 1, count: 2, how });
        }
        let large = [Change::Put(b"large".to_vec(), Random::new(3).bytes(9000))];
        commit(&w.store, &large).unwrap();
        w.store.checkpoint().unwrap_or_else(|error| panic!("{how:?}: {error}"));
        w.save("small", "w").unwrap_or_else(|error| panic!("{how:?}: {error}"));
        assert_eq!(w.handle.happened(), 4, "{how:?}");
        drop(w);
        assert_holds(&bucket, "small", Some("w"));
    }
}

// R11: data segments.

/// Fenced W still uploads a data segment while T uploads its own.
#[test]
fn a_late_data_segment_meets_no_successors() {
    let (bucket, w) = with_writer();
    let gate = bucket.gate(Filter::of(What::Data).by(w.peer()), Point::Arrival);
    let large = |seed: u64| [Change::Put(b"large".to_vec(), Random::new(seed).bytes(9000))];
    commit(&w.store, &large(1)).unwrap();
    let checkpointing = std::thread::scope(|scope| {
        let checkpoint = scope.spawn(|| w.store.checkpoint());
        let held = gate.wait();
        let late = held.time_out();
        // It tries again; that is held back, too, until W is dead.
        let retry = gate.wait();
        let used: BTreeSet<String> = BTreeSet::from([retry.name().to_owned()]);
        let t = Machine::take_over(&bucket);
        commit(&t.store, &large(2)).unwrap();
        t.store.checkpoint().unwrap();
        t.save("t", "acknowledged").unwrap();
        let names = bucket.names();
        assert!(names.iter().any(|name| name.starts_with("d/")) && names.iter().all(|name| !used.contains(name)));
        let expected = t.state();
        assert!(late.land());
        retry.carry_out();
        gate.open();
        let found = t.state();
        assert!(found == expected, "{}", difference(&found, &expected));
        t.save_many("goes on", 5);
        let expected = t.state();
        t.kill(OnTheWay::Lost);
        let found = final_state(&bucket);
        assert!(found == expected, "{}", difference(&found, &expected));
        checkpoint.join().expect("does not panic")
    });
    assert!(checkpointing.is_err(), "W is fenced");
}

/// What was uploaded and never referred to is deleted by the next writer.
#[test]
fn data_that_no_commit_refers_to_is_deleted() {
    let (bucket, w) = with_writer();
    let state = w.state();
    let gate = bucket.gate(Filter::of(What::Commit).by(w.peer()), Point::Arrival);
    // More than a commit takes inside.
    let mut random = Random::new(1);
    let changes: Vec<Change> =
        (0..6).map(|key| Change::Put(format!("large {key}").into_bytes(), random.bytes(9000))).collect();
    changes.chunks(1).for_each(|change| commit(&w.store, change).unwrap());
    let _synced = w.begin_sync();
    let _commit = gate.wait();
    let data = || bucket.names().into_iter().filter(|name| name.starts_with("d/")).collect::<Vec<_>>();
    let garbage = data();
    assert!(!garbage.is_empty(), "all fits inside");
    w.kill(OnTheWay::Lost);
    let t = Machine::take_over(&bucket);
    let found = t.state();
    assert!(found == state, "{}", difference(&found, &state));
    t.save_many("t", 10);
    t.close();
    let v = Machine::start(&bucket);
    v.save_many("v", 10);
    v.close();
    assert!(data().iter().all(|name| !garbage.contains(name)), "{garbage:?} is still there");
}

//! The end of the log in a bucket: how it is found however weak the bucket is (R12), and what becomes of
//! it when a writer rolls, dies or closes; what opening it costs. As in `s3_races`: W is the old writer, T a taker.

mod support;

use kivafs::backend::{ObjectError, Objects};
use kivafs::store::{CreateOptions, OpenError, OpenOptions, Store, StoreError};
use std::sync::mpsc::Receiver;
use std::time::Duration;
use support::bucket::{
    Bucket, Conditional, Delivery, Filter, Listing, OnTheWay, Point, Weakness, What, ask, commit_name,
};
use support::machine::{
    LateClaim, Machine, Opening, answer, assert_fenced, assert_holds, eager, final_state, new_store, next_place,
    taking_over, with_writer,
};
use support::random::Random;
use support::store::{Change, SMALL, Sizes, State, USUAL, commit, difference, read_only, read_state, unhurried};

// R12: what is found is a lower bound.

/// T has looked for the next commit before W created it, and keeps getting that 404.
#[test]
fn a_cached_404_hides_no_acknowledged_commit() {
    for looks in [1, 3, 6] {
        let (bucket, w) = with_writer();
        let (epoch, number) = next_place(&bucket);
        let handle = bucket.handle();
        handle.weaken(Weakness { missing_for: looks, listing: Listing::HidesNewest(3), ..Weakness::default() }, 1);
        for ahead in 0..4 {
            let name = commit_name(epoch, number + ahead);
            assert_eq!(ask(|done| handle.get(&name, None, done)).unwrap_err(), ObjectError::Missing);
        }
        w.save_many("hidden", 3);
        let expected = w.state();
        let t = Machine::open_by(handle, &taking_over()).unwrap();
        let found = t.state();
        assert!(found == expected, "{}", difference(&found, &expected));
        assert_fenced(w.save("too late", "w"));
    }
}

/// T has looked for the next epoch before V opened it.
#[test]
fn a_cached_404_hides_no_epoch() {
    let (bucket, w) = with_writer();
    let handle = bucket.handle();
    let next = commit_name(bucket.epoch() + 1, 1);
    handle.weaken(Weakness { missing_for: 3, listing: Listing::Empty, ..Weakness::default() }, 1);
    assert_eq!(ask(|done| handle.get(&next, None, done)).unwrap_err(), ObjectError::Missing);
    w.close();
    let v = Machine::start(&bucket);
    v.save("acknowledged", "v").unwrap();
    let expected = v.state();
    let t = Machine::open_by(handle, &taking_over()).unwrap();
    let found = t.state();
    assert!(found == expected, "{}", difference(&found, &expected));
    assert_fenced(v.save("too late", "v"));
}

/// A store of several epochs, cleaned ones among them, and every state that was acknowledged.
fn many_epochs(sizes: Sizes) -> (Bucket, Vec<State>) {
    let bucket = new_store(sizes);
    let mut states = vec![State::new()];
    let mut random = Random::new(7);
    for round in 0..5 {
        let machine = Machine::take_over(&bucket);
        for number in 0..12 {
            let key = format!("{} {}", round % 2, number).into_bytes();
            let length = if number % 5 == 0 { 3000 } else { 700 };
            commit(&machine.store, &[Change::Put(key, random.bytes(length))]).unwrap();
            answer(&machine.begin_sync()).unwrap();
            states.push(machine.state());
        }
        if round == 2 {
            let epochs: Vec<u64> = (1..bucket.epoch()).collect();
            for epoch in epochs {
                machine.clean(&bucket, epoch);
            }
            states.push(machine.state());
        }
        match round % 2 {
            0 => machine.close(),
            _ => machine.kill(OnTheWay::Lost),
        }
    }
    (bucket, states)
}

#[test]
fn the_end_is_found_however_weak_the_listing_is() {
    let (bucket, states) = many_epochs(SMALL);
    let expected = &states[states.len() - 1];
    let hidden = (1..=bucket.names().len()).map(Listing::HidesNewest);
    let listings = [Listing::Right, Listing::ShowsDeleted, Listing::Empty, Listing::Refused].into_iter().chain(hidden);
    for listing in listings {
        let weak = |bucket: &Bucket| {
            let handle = bucket.handle();
            handle.weaken(Weakness { listing, ..Weakness::default() }, 1);
            handle
        };
        // A reader may lag.
        let copy = bucket.copy();
        let reader = weak(&copy);
        let store = Store::open_in(reader.clone(), &OpenOptions { timeout: Duration::from_secs(2), ..read_only() });
        match store {
            Ok(store) => match read_state(&store) {
                Ok(found) => assert!(states.contains(&found), "{listing:?}: never was like that"),
                Err(StoreError::Gone(_)) => {}
                Err(error) => panic!("{listing:?}: read: {error}"),
            },
            // Its segment table, or a page that the redo changes, may have gone.
            Err(OpenError::Damaged { what, .. }) => assert!(what.contains("try again"), "{listing:?}: read: {what}"),
            Err(error) => panic!("{listing:?}: read: {error}"),
        }
        assert_eq!(reader.effects(), 0, "{listing:?}: a reader changes nothing");
        let writer = Machine::open_by(weak(&copy), &OpenOptions { timeout: Duration::from_secs(2), ..taking_over() });
        let writer = writer.unwrap_or_else(|error| panic!("{listing:?}: write: {error}"));
        let found = writer.state();
        assert!(found == *expected, "{listing:?}: {}", difference(&found, expected));
        writer.save("next", "acknowledged").unwrap();
        writer.kill(OnTheWay::Lost);
        assert_holds(&copy, "next", Some("acknowledged"));
    }
}

/// A LIST from before epoch 3 was opened shows the last commit of epoch 2 or its seal. The commit's redo is
/// in others, too, which were deleted since.
#[test]
fn a_listing_from_before_the_cleaning_hides_nothing() {
    let bucket = new_store(USUAL);
    let w = Machine::start(&bucket);
    let mut random = Random::new(4);
    for round in 0..8 {
        let changes: Vec<Change> =
            (0..40).map(|key| Change::Put(format!("{round} {key}").into_bytes(), random.bytes(1000))).collect();
        commit(&w.store, &changes).unwrap();
        answer(&w.begin_sync()).unwrap();
    }
    let epoch = bucket.epoch();
    w.kill(OnTheWay::Lost);
    let v = Machine::take_over(&bucket);
    v.clean(&bucket, epoch);
    let expected = v.state();
    v.kill(OnTheWay::Lost);
    for hidden in 1..bucket.names().len() {
        let copy = bucket.copy();
        let handle = copy.handle();
        handle.weaken(Weakness { listing: Listing::HidesNewest(hidden), ..Weakness::default() }, 1);
        let options = OpenOptions { timeout: Duration::from_secs(2), ..taking_over() };
        let t = Machine::open_by(handle, &options).unwrap_or_else(|error| panic!("{hidden} hidden: {error}"));
        let found = t.state();
        assert!(found == expected, "{hidden} hidden: {}", difference(&found, &expected));
        t.kill(OnTheWay::Lost);
    }
}

/// A reader of a state from before much was deleted gets it right, or is told.
#[test]
fn a_reader_of_an_old_state_is_told_when_it_is_gone() {
    let bucket = new_store(SMALL);
    let w = Machine::start(&bucket);
    let mut random = Random::new(5);
    let mut fill = |machine: &Machine| {
        let changes: Vec<Change> =
            (0..3).map(|key| Change::Put(format!("large {key}").into_bytes(), random.bytes(9000))).collect();
        commit(&machine.store, &changes).unwrap();
        machine.store.checkpoint().unwrap();
    };
    fill(&w);
    let before = w.state();
    let options = OpenOptions { timeout: Duration::from_secs(1), ..read_only() };
    let reader = Machine::open(&bucket, &options).unwrap();
    for _ in 0..30 {
        fill(&w);
    }
    match read_state(&reader.store) {
        Ok(found) => assert!(found == before, "{}", difference(&found, &before)),
        Err(StoreError::Gone(_)) => {}
        Err(error) => panic!("{error}"),
    }
    assert!(bucket.arrived(What::Delete) > 0);
    let again = Machine::open(&bucket, &options).unwrap();
    let (found, expected) = (again.state(), w.state());
    assert!(found == expected, "{}", difference(&found, &expected));
}

// Servers that keep no writers apart.

#[test]
fn a_server_that_lets_several_creates_win_is_refused() {
    for conditional in [Conditional::Racy, Conditional::Ignored] {
        let bucket = Bucket::with(conditional);
        bucket.deliver(Delivery::Pool { threads: 16, latency: Duration::from_millis(5), seed: 1 });
        let error = Store::create_in(bucket.handle(), &CreateOptions::default()).expect_err("must be refused");
        assert!(error.to_string().contains("unsafe_no_fencing"), "names the cure: {error}");
        assert!(bucket.epoch() == 0, "{conditional:?}: there is a store all the same");

        let options = CreateOptions { unsafe_no_fencing: true, ..CreateOptions::default() };
        Store::create_in(bucket.handle(), &options).unwrap();
        let error = Machine::open(&bucket, &eager()).err().expect("refused again");
        assert!(error.to_string().contains("unsafe_no_fencing"), "{error}");
        let options = OpenOptions { unsafe_no_fencing: true, ..eager() };
        let machine = Machine::open(&bucket, &options).unwrap();
        machine.save("at your own risk", "yes").unwrap();
        machine.close();
        let reader = Machine::open(&bucket, &read_only()).unwrap();
        assert_eq!(reader.get("at your own risk").as_deref(), Some("yes"));
    }
}

// Rolling.

/// Commits after which a writer opens the next epoch, at most.
const ROLLS_WITHIN: usize = 10_000;

/// Saves until that request of this machine is held back.
fn save_until(machine: &Machine, gate: &support::bucket::Gate) -> Receiver<Result<(), StoreError>> {
    for number in 0..ROLLS_WITHIN {
        machine.put("rolling", &format!("{number}"));
        let synced = machine.begin_sync();
        loop {
            if gate.len() > 0 {
                return synced;
            }
            match synced.recv_timeout(Duration::from_millis(1)) {
                Ok(result) => {
                    result.unwrap();
                    break;
                }
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    panic!("it never rolls");
}

#[test]
fn a_writer_rolls_and_cleans_behind_itself() {
    let (bucket, w) = with_writer();
    let epoch = bucket.epoch();
    let gate = bucket.gate(Filter::of(What::Claim).by(w.peer()), Point::Arrival);
    let synced = save_until(&w, &gate);
    assert!(bucket.seal_of(epoch).is_some());
    gate.wait().carry_out();
    gate.open();
    answer(&synced).unwrap();
    assert_eq!(bucket.epoch(), epoch + 1);
    w.clean(&bucket, epoch);
    assert_eq!(bucket.commits_of(epoch).len(), 3);
    let expected = w.state();
    w.kill(OnTheWay::Lost);
    let found = final_state(&bucket);
    assert!(found == expected, "{}", difference(&found, &expected));
}

/// T has the store: what W had begun is not acknowledged, and what T saves stays.
fn assert_taken(bucket: &Bucket, t: Machine, synced: &Receiver<Result<(), StoreError>>) {
    assert_fenced(answer(synced));
    t.save("t", "acknowledged").unwrap();
    drop(t);
    assert_holds(bucket, "t", Some("acknowledged"));
}

/// T's seal comes before W's own.
#[test]
fn a_taker_seals_before_the_writer_that_rolls() {
    let (bucket, w) = with_writer();
    let gate = bucket.gate(Filter::of(What::Seal).by(w.peer()), Point::Arrival);
    let synced = save_until(&w, &gate);
    let seal = gate.wait();
    let t = Machine::take_over(&bucket);
    seal.carry_out();
    gate.open();
    assert_taken(&bucket, t, &synced);
}

/// W has sealed its epoch to open the next one. It lives: nobody takes the store from it by accident;
/// who wants to can, and W learns it.
#[test]
fn a_writer_that_rolls_still_holds_the_store() {
    let (bucket, w) = with_writer();
    let gate = bucket.gate(Filter::of(What::Claim).by(w.peer()), Point::Arrival);
    let synced = save_until(&w, &gate);
    let claim = gate.wait();
    match Machine::open(&bucket, &eager()) {
        Err(OpenError::InUse { .. }) => {}
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("taken by accident"),
    }
    let t = Machine::take_over(&bucket);
    claim.carry_out();
    gate.open();
    assert_taken(&bucket, t, &synced);
}

/// W rolls while T is on its way: T was told to take the store from W, and does.
#[test]
fn a_writer_that_has_rolled_meanwhile_is_taken_over_all_the_same() {
    let (bucket, w) = with_writer();
    let (t, seal) = Opening::until(&bucket, What::Seal, taking_over());
    let gate = bucket.gate(Filter::of(What::Claim).by(w.peer()), Point::Arrival);
    let synced = save_until(&w, &gate);
    gate.wait().carry_out();
    gate.open();
    answer(&synced).unwrap();
    w.save("rolled", "acknowledged").unwrap();
    seal.carry_out();
    let t = t.end().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(t.get("rolled").as_deref(), Some("acknowledged"));
    assert_fenced(w.save("too late", "w"));
}

/// W dies between its own seal and the next epoch; its claim may come late.
#[test]
fn a_writer_that_dies_while_it_rolls_is_taken_over() {
    for lands in [LateClaim::Lost, LateClaim::BeforeTheNext, LateClaim::AfterTheNext] {
        let (bucket, w) = with_writer();
        let gate = bucket.gate(Filter::of(What::Claim).by(w.peer()), Point::Arrival);
        drop(save_until(&w, &gate));
        let claim = gate.wait();
        let last = w.get("rolling").unwrap().parse::<usize>().unwrap();
        w.handle.cut(support::bucket::Cut::killed(OnTheWay::Lost));
        let claim = claim.time_out();
        gate.open();
        drop(w);
        let t = match lands {
            LateClaim::Lost => Machine::take_over(&bucket),
            LateClaim::BeforeTheNext => {
                assert!(claim.land());
                Machine::take_over(&bucket)
            }
            LateClaim::AfterTheNext => {
                let t = Machine::take_over(&bucket);
                assert!(!claim.land());
                t
            }
        };
        let found = t.get("rolling").unwrap().parse::<usize>().unwrap();
        assert!(found + 1 >= last, "{lands:?}: {found} of {last}");
        t.save("t", "acknowledged").unwrap();
        drop(t);
        assert_holds(&bucket, "t", Some("acknowledged"));
    }
}

// Closing.

/// The seal that closing makes is a courtesy: without it the store is held by who is gone.
#[test]
fn closing_seals_and_a_lost_seal_costs_a_question() {
    let (bucket, w) = with_writer();
    let epoch = bucket.epoch();
    w.close();
    assert!(bucket.seal_of(epoch).is_some());
    let again = Machine::start(&bucket);
    let gate = bucket.gate(Filter::of(What::Seal).by(again.peer()), Point::Arrival);
    again.put("last", "acknowledged");
    let closing = std::thread::spawn(move || again.store.close());
    let seal = gate.wait();
    // A taker is quicker: everything is durable, so closing has succeeded all the same.
    let t = Machine::take_over(&bucket);
    seal.carry_out();
    gate.open();
    closing.join().expect("closing does not panic").unwrap();
    assert_eq!(t.get("last").as_deref(), Some("acknowledged"));
}

/// Two make a store in one bucket at the same time.
#[test]
fn of_two_creators_one_makes_the_store() {
    let bucket = Bucket::new();
    let gate = bucket.gate(Filter::of(What::Claim), Point::Arrival);
    let creators = [bucket.handle(), bucket.handle()]
        .map(|handle| std::thread::spawn(move || Store::create_in(handle, &CreateOptions::default())));
    let (first, second) = (gate.wait(), gate.wait());
    first.carry_out();
    second.carry_out();
    gate.open();
    let outcomes = creators.map(|creator| creator.join().expect("creating does not panic"));
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert!(outcomes.iter().any(|outcome| matches!(outcome, Err(OpenError::Exists(_)))), "{outcomes:?}");
    assert!(matches!(Store::create_in(bucket.handle(), &CreateOptions::default()), Err(OpenError::Exists(_))));
    Machine::open(&bucket, &unhurried()).unwrap().close();
    bucket.assert_layout();
}

// What opening, reading and ending cost and leave.

/// Who only reads may have to end while the bucket is silent, too.
#[test]
fn a_reader_that_waits_is_told_when_its_store_is_given_up() {
    let (bucket, w) = with_writer();
    let mut random = Random::new(1);
    let large: Vec<Change> =
        (0..20).map(|key| Change::Put(format!("large {key}").into_bytes(), random.bytes(9000))).collect();
    large.chunks(1).for_each(|change| commit(&w.store, change).unwrap());
    w.close();
    let reader = Machine::open(&bucket, &OpenOptions { cache_bytes: 0, ..read_only() }).unwrap();
    let gate = bucket.gate(Filter::of(What::Get).by(reader.peer()), Point::Arrival);
    let told = std::thread::scope(|scope| {
        let reading = scope.spawn(|| read_state(&reader.store));
        let _held = gate.wait();
        reader.store.abandon("its mount has to end");
        reading.join().expect("does not panic")
    });
    assert!(matches!(&told, Err(StoreError::Io(cause)) if cause.contains("given up")), "{told:?}");
}

/// What an earlier mount left to be deleted needs no checkpoint of this one: a claim and a seal are all.
#[test]
fn who_changes_nothing_writes_two_objects() {
    let bucket = new_store(SMALL);
    let options = OpenOptions { grace: Duration::from_secs(600), ..unhurried() };
    let w = Machine::open(&bucket, &options).unwrap();
    let mut random = Random::new(1);
    for _ in 0..40 {
        let overwritten: Vec<Change> =
            (0..6).map(|key| Change::Put(format!("large {key}").into_bytes(), random.bytes(9000))).collect();
        overwritten.chunks(1).for_each(|change| commit(&w.store, change).unwrap());
        w.store.checkpoint().unwrap();
    }
    w.close();
    let again = Machine::open(&bucket, &options).unwrap();
    again.store.close().unwrap();
    assert_eq!(again.store.usage().map(|usage| (usage.puts, usage.deletes)), Some((2, 0)));
}

/// The commit that brings a checkpoint does not link to what the checkpoint holds: whoever opens the store
/// reads its birth, the seal, that commit and the segment table, and no old redo.
#[test]
fn a_checkpoint_is_found_without_the_redo_before_it() {
    // More redo than a commit repeats.
    let bucket = new_store(USUAL);
    let w = Machine::start(&bucket);
    let mut random = Random::new(1);
    for key in 0..60 {
        commit(&w.store, &[Change::Put(format!("{key}").into_bytes(), random.bytes(3000))]).unwrap();
        w.store.sync().unwrap();
    }
    w.store.checkpoint().unwrap();
    w.close();
    let reader = bucket.handle();
    Store::info_in(reader.clone(), Duration::from_secs(5)).unwrap();
    assert_eq!(reader.usage().gets, 4);
}

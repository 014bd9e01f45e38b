//! Locks: the kernel's own, between processes on one machine.

use crate::other::{Hold, KINDS, Kind, Other, Patience, lock};
use crate::place::{Medium, Place, on_each_medium, until};
use crate::{ends_whole, open};
use std::path::PathBuf;

on_each_medium!(
    an_exclusive_lock_keeps_others_out_and_a_shared_one_does_not,
    who_waits_gets_the_lock_when_it_is_free,
    a_lock_ends_with_its_holder,
    a_lock_is_raised_and_lowered,
    closing_any_descriptor_ends_the_locks_of_a_process_but_not_those_of_a_description,
);

fn with_file(medium: Medium) -> (Place, PathBuf) {
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let path = place.dir.join("file");
    std::fs::write(&path, "content").unwrap();
    (place, path)
}

fn refused(answer: &str) -> bool {
    answer == "EAGAIN" || answer == "EACCES"
}

fn an_exclusive_lock_keeps_others_out_and_a_shared_one_does_not(medium: Medium) {
    let (place, path) = with_file(medium);
    let mut other = Other::start(&path);
    let file = open(&path);
    for kind in KINDS {
        lock(&file, kind, Hold::Shared, Patience::Try).unwrap();
        assert_eq!(other.locks(kind, Hold::Shared), "done");
        assert!(refused(&other.locks(kind, Hold::Exclusive)), "{kind:?}");
        assert_eq!(other.locks(kind, Hold::Nothing), "done");
        lock(&file, kind, Hold::Exclusive, Patience::Try).unwrap();
        assert!(refused(&other.locks(kind, Hold::Shared)), "{kind:?}");
        lock(&file, kind, Hold::Nothing, Patience::Try).unwrap();
        assert_eq!(other.locks(kind, Hold::Exclusive), "done");
        assert!(lock(&file, kind, Hold::Shared, Patience::Try).is_err(), "{kind:?}");
        assert_eq!(other.locks(kind, Hold::Nothing), "done");
    }
    drop(file);
    other.end();
    ends_whole(&place);
}

fn who_waits_gets_the_lock_when_it_is_free(medium: Medium) {
    let (place, path) = with_file(medium);
    let mut others = [Other::start(&path), Other::start(&path)];
    for kind in KINDS {
        let file = open(&path);
        lock(&file, kind, Hold::Exclusive, Patience::Try).unwrap();
        for other in &mut others {
            other.ask(kind, Hold::Shared, Patience::Wait);
            until("it waits", || other.waits());
        }
        // By hand, and with the last descriptor.
        match kind {
            Kind::Posix => lock(&file, kind, Hold::Nothing, Patience::Try).unwrap(),
            Kind::Flock | Kind::OpenFile => drop(file),
        }
        for other in &mut others {
            assert_eq!(other.answer(), "done", "{kind:?}");
        }
        for other in &mut others {
            assert_eq!(other.locks(kind, Hold::Nothing), "done");
        }
    }
    others.into_iter().for_each(Other::end);
    ends_whole(&place);
}

fn a_lock_ends_with_its_holder(medium: Medium) {
    let (place, path) = with_file(medium);
    for kind in KINDS {
        for how in [Other::end, Other::kill] {
            let mut holder = Other::start(&path);
            assert_eq!(holder.locks(kind, Hold::Exclusive), "done");
            let mut waiting = Other::start(&path);
            waiting.ask(kind, Hold::Exclusive, Patience::Wait);
            until("it waits", || waiting.waits());
            how(holder);
            assert_eq!(waiting.answer(), "done", "{kind:?}");
            waiting.end();
        }
        let file = open(&path);
        lock(&file, kind, Hold::Exclusive, Patience::Try).unwrap();
    }
    ends_whole(&place);
}

fn a_lock_is_raised_and_lowered(medium: Medium) {
    let (place, path) = with_file(medium);
    let mut other = Other::start(&path);
    let file = open(&path);
    for kind in KINDS {
        lock(&file, kind, Hold::Shared, Patience::Try).unwrap();
        lock(&file, kind, Hold::Exclusive, Patience::Try).unwrap();
        assert!(refused(&other.locks(kind, Hold::Shared)), "{kind:?}");
        lock(&file, kind, Hold::Shared, Patience::Try).unwrap();
        assert_eq!(other.locks(kind, Hold::Shared), "done", "{kind:?}");
        assert!(lock(&file, kind, Hold::Exclusive, Patience::Try).is_err(), "{kind:?}: two share it");
        assert_eq!(other.locks(kind, Hold::Nothing), "done");
        // flock gives up the old lock where it can't have the new one.
        lock(&file, kind, Hold::Exclusive, Patience::Try).unwrap();
        lock(&file, kind, Hold::Nothing, Patience::Try).unwrap();
    }
    drop(file);
    other.end();
    ends_whole(&place);
}

fn closing_any_descriptor_ends_the_locks_of_a_process_but_not_those_of_a_description(medium: Medium) {
    let (place, path) = with_file(medium);
    let file = open(&path);
    for kind in KINDS {
        let mut holder = Other::start(&path);
        assert_eq!(holder.locks(kind, Hold::Exclusive), "done");
        holder.open_and_close();
        let done = lock(&file, kind, Hold::Exclusive, Patience::Try);
        assert_eq!(done.is_ok(), kind == Kind::Posix, "{kind:?}");
        holder.close();
        lock(&file, kind, Hold::Exclusive, Patience::Wait).unwrap();
        lock(&file, kind, Hold::Nothing, Patience::Try).unwrap();
        holder.end();
    }
    drop(file);
    ends_whole(&place);
}

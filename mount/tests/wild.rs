//! Requests that no kernel would send: impossible offsets, lengths, names, flags, modes and inode
//! numbers, requests that are cut short or followed by too much, in any order. A session reads them from a
//! socket as it would from /dev/fuse. It must answer each, stay alive, and leave a store that is whole.
//!
//! Two things the library that reads them takes the kernel's word for, and would panic: how many bytes come
//! with a write or an attribute's value, and that a time is one (the kernel cuts what is beyond the ends).
//! So these are not spoilt.
//!
//! A failure prints the requests, as few as show it.

#[path = "wild/request.rs"]
mod request;
#[path = "wild/session.rs"]
mod session;

use proptest::prelude::*;
use proptest::sample::Index;
use request::{Draw, Field, Known, OPERATIONS, draw};
use session::Wild;

/// How a request's bytes are spoiled after it was made.
#[derive(Clone, Debug)]
enum Spoil {
    No,
    /// This part of them is all there is.
    Cut(Index),
    /// More follow.
    More(Vec<u8>),
    /// One byte is another.
    Flip(Index, u8),
    /// None of them is what it was.
    Noise(Vec<u8>),
}

fn spoil() -> impl Strategy<Value = Spoil> {
    prop_oneof![
        12 => Just(Spoil::No),
        1 => any::<Index>().prop_map(Spoil::Cut),
        1 => prop::collection::vec(any::<u8>(), 1..100).prop_map(Spoil::More),
        1 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Spoil::Flip(at, byte)),
        1 => prop::collection::vec(any::<u8>(), 0..300).prop_map(Spoil::Noise),
    ]
}

fn spoiled(mut body: Vec<u8>, spoil: &Spoil) -> Vec<u8> {
    match spoil {
        Spoil::No => {}
        Spoil::Cut(at) if !body.is_empty() => body.truncate(at.index(body.len())),
        Spoil::Flip(at, byte) if !body.is_empty() => {
            let at = at.index(body.len());
            body[at] = *byte;
        }
        Spoil::Cut(_) | Spoil::Flip(..) => {}
        Spoil::More(more) => body.extend_from_slice(more),
        Spoil::Noise(noise) => body.clone_from(noise),
    }
    body
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, max_shrink_time: 120_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_asked_the_session_lives_and_the_store_is_whole(
        requests in prop::collection::vec((0..OPERATIONS.len(), any::<[u64; 24]>(), spoil()), 1..120),
    ) {
        let mut wild = Wild::start();
        let mut known = Known::default();
        for (operation, choices, spoil) in requests {
            let (opcode, fields) = OPERATIONS[operation];
            let (node, body) = draw(&mut Draw::new(&choices), fields, &known);
            let is_trusted = fields.iter().any(|field| matches!(field, Field::Length | Field::Seconds));
            let body = if is_trusted { body } else { spoiled(body, &spoil) };
            let reply = wild.ask(opcode, node, &body);
            known.learn(opcode, &reply);
        }
        // Somebody who behaves is served as if nothing had been.
        wild.assert_serves();
        let wrong = wild.end();
        prop_assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

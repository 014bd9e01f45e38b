//! The way of a request: it arrives, may be held back, is carried out or not, may be held back again,
//! and is answered, or not.

use super::super::random::Random;
use super::call::{Answer, Call, Reply, What};
use super::contents::{self, Contents};
use super::gate::{Point, Stop};
use super::journal::{Journal, Left};
use super::pool::Pool;
use super::rules::Rules;
use super::weak::{Connection, Effect, Plan, Told};
use kivafs::backend::{ObjectError, Usage};
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

pub struct Shared {
    pub state: Mutex<State>,
    /// Something has arrived at a gate.
    pub arrived: Condvar,
}

pub struct State {
    pub contents: Contents,
    pub rules: Rules,
    pub journal: Journal,
    pub connections: Vec<Connection>,
    pub usages: Vec<Usage>,
    /// How often each kind of request has arrived, lost ones included.
    pub arrived: HashMap<What, u64>,
    pub arrived_count: u64,
    pub stops: Vec<Stop>,
    pub held: BTreeMap<u64, Request>,
    pub late: VecDeque<LateChange>,
    pub pool: Option<Pool>,
}

/// A request on its way.
pub struct Request {
    pub number: u64,
    pub peer: usize,
    pub call: Call,
    /// Its place in the journal, if it changes something.
    pub change: Option<usize>,
    pub reply: Reply,
    pub plan: Plan,
    /// No object of its name was there when it arrived.
    pub was_free: bool,
    /// What came of it, once it was carried out.
    pub result: Option<Result<Answer, ObjectError>>,
    /// The test has decided what becomes of it, whatever becomes of its peer.
    pub is_decided: bool,
}

/// A change without an answer that is still on its way.
pub struct LateChange {
    pub number: u64,
    pub peer: usize,
    pub call: Call,
    pub change: Option<usize>,
    pub was_free: bool,
    /// Carried out when so many requests have arrived in all; `None`: when the test says so.
    pub due: Option<u64>,
}

impl Shared {
    /// A bucket that holds what is left. `peers`: how many there have been; their numbers are not
    /// used again. What is late comes at moments chosen by the seed.
    pub fn new(left: Left, peers: usize, seed: u64) -> Shared {
        let mut random = Random::new(seed);
        let mut journal = Journal::new(left.contents.clone(), left.rules.clone());
        let late = left.late.into_iter().map(|(peer, call)| {
            let change = Some(journal.arrived(peer, &call));
            let due = Some(1 + random.within(0..60) as u64);
            LateChange { number: u64::MAX, peer, call, change, was_free: true, due }
        });
        let late = late.collect();
        let state = State {
            contents: left.contents,
            rules: left.rules,
            journal,
            connections: (0..peers).map(|_| Connection::new(0)).collect(),
            usages: vec![Usage::default(); peers],
            arrived: HashMap::new(),
            arrived_count: 0,
            stops: Vec::new(),
            held: BTreeMap::new(),
            late,
            pool: None,
        };
        Shared { state: Mutex::new(state), arrived: Condvar::new() }
    }

    /// A request arrives.
    pub fn begin(self: &Arc<Shared>, peer: usize, call: Call, reply: Reply) {
        let request = {
            let mut state = self.state.lock();
            let request = state.arrive(peer, call, reply);
            match state.stop(request, Point::Arrival) {
                Some(request) => request,
                None => {
                    self.arrived.notify_all();
                    return;
                }
            }
        };
        self.forward(request);
    }

    fn forward(self: &Arc<Shared>, request: Request) {
        let mut state = self.state.lock();
        match &mut state.pool {
            Some(pool) => pool.push(request),
            None => {
                drop(state);
                self.finish(request);
            }
        }
    }

    /// Carries out a request, as far as that is its lot, and answers it.
    pub fn finish(&self, mut request: Request) {
        let mut state = self.state.lock();
        if request.result.is_none() {
            state.carry_out(&mut request);
            match state.stop(request, Point::Answer) {
                Some(free) => request = free,
                None => {
                    self.arrived.notify_all();
                    return;
                }
            }
        }
        let (reply, result) = state.answer(request);
        drop(state);
        match result {
            Some(result) => reply.send(result),
            // In a process that is gone nothing hears of it, not even that nobody will answer.
            None => std::mem::forget(reply),
        }
    }

    /// A request that was held back goes on; with `plan`, like that.
    pub fn resume(self: &Arc<Shared>, number: u64, plan: Option<Plan>) {
        let request = {
            let mut state = self.state.lock();
            let Some(mut request) = state.held.remove(&number) else { return };
            if let Some(plan) = plan {
                assert!(
                    request.result.is_none() || plan.effect == Effect::Now,
                    "{} was carried out already",
                    request.call.name()
                );
                request.is_decided = true;
                request.plan = plan;
            }
            request
        };
        self.forward(request);
    }
}

impl State {
    fn arrive(&mut self, peer: usize, call: Call, reply: Reply) -> Request {
        self.arrived_count += 1;
        *self.arrived.entry(call.what()).or_insert(0) += 1;
        while let Some(at) = self.late.iter().position(|late| late.due.is_some_and(|due| due <= self.arrived_count)) {
            let late = self.late.remove(at).expect("found just now");
            self.carry_out_late(late);
        }
        let was_cut = self.connections[peer].cut.is_some();
        // What is done by a process that is gone is nobody's fault.
        if !was_cut {
            self.rules.arrive(peer, &call, &self.contents);
        }
        self.count(peer, &call);
        let plan = self.connections[peer].plan(&call);
        let is_on_its_way = call.changes() && !was_cut;
        let change = is_on_its_way.then(|| self.journal.arrived(peer, &call));
        let was_free = self.contents.body(call.name()).is_none();
        Request {
            number: self.arrived_count,
            peer,
            call,
            change,
            reply,
            plan,
            was_free,
            result: None,
            is_decided: was_cut,
        }
    }

    fn count(&mut self, peer: usize, call: &Call) {
        let usage = &mut self.usages[peer];
        match call {
            Call::Create { body, .. } | Call::Put { body, .. } => {
                usage.puts += 1;
                usage.bytes_up += body.len() as u64;
            }
            Call::Get { .. } => usage.gets += 1,
            Call::List { .. } => usage.lists += 1,
            Call::Delete { .. } => usage.deletes += 1,
        }
    }

    /// Holds a request back, if a gate does at this point; else gives it back.
    fn stop(&mut self, request: Request, point: Point) -> Option<Request> {
        let holds = |stop: &&mut Stop| stop.point == point && stop.filter.matches(request.peer, &request.call);
        let Some(stop) = self.stops.iter_mut().find(holds) else { return Some(request) };
        stop.queue.push_back(request.number);
        self.held.insert(request.number, request);
        None
    }

    pub fn stop_mut(&mut self, number: u64) -> Option<&mut Stop> {
        self.stops.iter_mut().find(|stop| stop.number == number)
    }

    /// Carries it out as planned.
    fn carry_out(&mut self, request: &mut Request) {
        let connection = &mut self.connections[request.peer];
        if let Some(cut) = connection.cut
            && !request.is_decided
        {
            request.plan = connection.plan_on_the_way(cut, &request.call);
        }
        let unknown = || Err(ObjectError::Unknown("the connection was reset".into()));
        request.result = Some(match request.plan.effect {
            Effect::Now => self.carry_out_now(request),
            Effect::Never => unknown(),
            Effect::Late(after) => {
                self.late.push_back(LateChange {
                    number: request.number,
                    peer: request.peer,
                    call: request.call.clone(),
                    change: request.change,
                    was_free: request.was_free,
                    due: after.map(|after| self.arrived_count + after),
                });
                unknown()
            }
        });
    }

    fn carry_out_now(&mut self, request: &mut Request) -> Result<Answer, ObjectError> {
        let (peer, call) = (request.peer, &request.call);
        let connection = &mut self.connections[peer];
        match call {
            Call::Get { name, range } => {
                if connection.sees_missing(name) {
                    return Err(ObjectError::Missing);
                }
                let result = match (self.contents.body(name), self.contents.deleted_body(name)) {
                    (None, Some(body)) if connection.sees_deleted(name) => {
                        Ok(Answer::Body(contents::part(body, range.clone())))
                    }
                    _ => self.contents.carry_out(call, true),
                };
                if result == Err(ObjectError::Missing) {
                    connection.note_missing(name);
                }
                result
            }
            Call::List { prefix, max } => Ok(Answer::Names(self.contents.list(prefix, *max, connection.listing()))),
            Call::Create { .. } | Call::Put { .. } | Call::Delete { .. } => {
                let result = self.change(peer, call, request.change, request.was_free);
                if let Some(told) = self.connections[peer].count_effect() {
                    request.plan.told = told;
                }
                result
            }
        }
    }

    fn change(
        &mut self,
        peer: usize,
        call: &Call,
        change: Option<usize>,
        was_free: bool,
    ) -> Result<Answer, ObjectError> {
        let result = self.contents.carry_out(call, was_free);
        if result.is_ok() {
            self.rules.carried_out(peer, call, &self.contents);
        }
        if let Some(change) = change {
            self.journal.carried_out(change);
        }
        result
    }

    pub fn take_late(&mut self, number: u64) -> Option<LateChange> {
        let at = self.late.iter().position(|late| late.number == number)?;
        self.late.remove(at)
    }

    /// Takes over what is late in another bucket.
    pub fn adopt_late(&mut self, from: &State) {
        for late in &from.late {
            let change = Some(self.journal.arrived(late.peer, &late.call));
            let due = late.due.map(|due| self.arrived_count + due.saturating_sub(from.arrived_count));
            self.late.push_back(LateChange { call: late.call.clone(), change, due, ..*late });
        }
    }

    /// Whether it changed something.
    pub fn carry_out_late(&mut self, late: LateChange) -> bool {
        self.change(late.peer, &late.call, late.change, late.was_free).is_ok()
    }

    /// What a request is answered, and that in the books.
    fn answer(&mut self, request: Request) -> (Reply, Option<Result<Answer, ObjectError>>) {
        let truth = request.result.expect("was carried out, or not, before it is answered");
        let result = match request.plan.told {
            Told::Truth => truth,
            Told::Unknown => Err(ObjectError::Unknown("no answer".into())),
            Told::Slow => Err(ObjectError::Slow("SlowDown".into())),
            Told::Refused => Err(ObjectError::Refused("AccessDenied".into())),
            Told::Missing => Err(ObjectError::Missing),
            Told::Nothing => return (request.reply, None),
        };
        if let Some(change) = request.change {
            self.journal.answered(change, &result);
        }
        if let Ok(Answer::Body(body)) = &result {
            self.usages[request.peer].bytes_down += body.len() as u64;
        }
        let outcome = result.as_ref().map(|_| ());
        self.rules.answered(request.peer, &request.call, outcome, &self.contents);
        (request.reply, Some(result))
    }
}

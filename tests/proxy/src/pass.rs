//! One request's way: to the server and back, with what happens to it.

use crate::body::{Flow, Tally};
use crate::judge::{Act, Verdict};
use crate::listing::{as_it_was, names_to_delete};
use crate::past::Object;
use crate::record::Ticket;
use crate::request::{Asked, Kind};
use crate::serve::{Connection, Inner};
use crate::upstream::Upstream;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{
    ACCEPT_RANGES, CONNECTION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG, HeaderName, HeaderValue,
    LAST_MODIFIED, TRANSFER_ENCODING,
};
use hyper::http::{request, response};
use hyper::{Request, Response, StatusCode};
use parking_lot::Mutex;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// What the client gets instead of an answer.
pub(crate) enum NoAnswer {
    /// Its connection is reset.
    Reset,
    /// It waits for ever.
    Never(Ticket),
}

type Outcome = Result<Response<Flow>, NoAnswer>;

/// Takes a request all the way. Goes on when the client has gone: what it has sent is on its way.
pub(crate) async fn pass(connection: Arc<Connection>, request: Request<Incoming>) -> Outcome {
    if !connection.is_passable().await {
        return Err(NoAnswer::Reset);
    }
    let (head, body) = request.into_parts();
    let mut asked = match Asked::read(&head) {
        Ok(asked) => asked,
        Err(what) => {
            let message = format!("the fault proxy does not understand {what}");
            return Ok(failure(StatusCode::NOT_IMPLEMENTED, "NotImplemented", &message));
        }
    };
    let proxy = connection.proxy.clone();
    let ticket = proxy.record.begin(&asked, connection.door, connection.address);
    let keeps = matches!(asked.kind, Kind::Put | Kind::Create) && proxy.state.lock().judge.remembers();
    let tally = Tally::new(&proxy.record, if keeps { proxy.remember_bytes / 4 } else { 0 });
    let mut body = Flow::passing(body).tallied(tally.clone()).paced(proxy.up.clone());
    if asked.kind == Kind::DeleteMany {
        let bytes = collect(body).await?;
        asked.names = names_to_delete(&String::from_utf8_lossy(&bytes));
        asked.name = asked.names.first().cloned().unwrap_or_default();
        proxy.record.update(ticket.number(), |entry| entry.name.clone_from(&asked.name));
        body = Flow::whole(bytes);
    }
    let verdict = proxy.state.lock().decide(&asked, connection.address, connection.door);
    ticket.met(&verdict.words);
    tokio::time::sleep(verdict.delay).await;
    let way = Way { proxy, connection, head, asked, number: ticket.number(), tally };
    Arc::new(way).go(body, verdict, ticket).await
}

/// All of a body. Who broke it off waits for no answer.
async fn collect(body: Flow) -> Result<Bytes, NoAnswer> {
    body.collect().await.map(|body| body.to_bytes()).map_err(|_| NoAnswer::Reset)
}

/// A request that was read and recorded.
struct Way {
    proxy: Arc<Inner>,
    connection: Arc<Connection>,
    head: request::Parts,
    asked: Asked,
    /// Its number in the log.
    number: u64,
    tally: Arc<Mutex<Tally>>,
}

impl Way {
    async fn go(self: Arc<Way>, body: Flow, verdict: Verdict, ticket: Ticket) -> Outcome {
        let upstream = &self.connection.upstream;
        let streams =
            matches!(verdict.act, Act::Pass | Act::ErrorAfter | Act::LostReply | Act::CutReply | Act::HoldReply);
        // What the server does not get, or not now, the client sends all the same.
        let body = if streams {
            body
        } else {
            let bytes = collect(body).await?;
            self.judge_body();
            Flow::whole(bytes)
        };
        let reply = match &verdict.act {
            Act::Error => return self.tell(internal_error(), &verdict, ticket).await,
            Act::SlowDown => {
                let slow_down =
                    failure(StatusCode::SERVICE_UNAVAILABLE, "SlowDown", "Please reduce your request rate.");
                return self.tell(slow_down, &verdict, ticket).await;
            }
            Act::Missing => {
                let missing = failure(StatusCode::NOT_FOUND, "NoSuchKey", "The specified key does not exist.");
                return self.tell(missing, &verdict, ticket).await;
            }
            Act::Stale(object) => {
                return self.tell(object_as_it_was(object, self.asked.range.as_deref()), &verdict, ticket).await;
            }
            Act::Reset => return Err(NoAnswer::Reset),
            Act::Hang => return Err(NoAnswer::Never(ticket)),
            Act::CutRequest => {
                if !body.is_end_stream() {
                    // The connection that breaks is no other request's.
                    self.ask(&Upstream::new(&self.proxy.server), body.cut()).await.ok();
                }
                return Err(NoAnswer::Reset);
            }
            Act::Late(after) => {
                self.ask_late(body, *after);
                return Err(NoAnswer::Reset);
            }
            Act::LateHang(after) => {
                self.ask_late(body, *after);
                return Err(NoAnswer::Never(ticket));
            }
            Act::LostReply => {
                self.ask(upstream, body).await.ok();
                return Err(NoAnswer::Reset);
            }
            Act::ErrorAfter => {
                self.ask(upstream, body).await.ok();
                return self.tell(internal_error(), &verdict, ticket).await;
            }
            Act::Hold => {
                self.hold().await;
                self.ask(upstream, body).await
            }
            Act::HoldReply => {
                let reply = self.ask(upstream, body).await;
                self.hold().await;
                reply
            }
            Act::FlipRequest(bit) => self.ask(upstream, body.flipped(*bit)).await,
            Act::Pass | Act::CutReply | Act::FlipReply(_) => self.ask(upstream, body).await,
        };
        let Ok(reply) = reply else { return Err(NoAnswer::Reset) };
        let answer = self.shape(reply, &verdict).await?;
        self.tell(answer, &verdict, ticket).await
    }

    /// Sends the request to the server, and takes note of what it says.
    async fn ask(&self, upstream: &Upstream, body: Flow) -> io::Result<Response<Incoming>> {
        let mut request = Request::new(body);
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = self.head.uri.clone();
        *request.headers_mut() = self.head.headers.clone();
        strip(request.headers_mut());
        self.proxy.record.reached(self.number);
        let reply = upstream.send(request).await;
        self.judge_body();
        if let Ok(reply) = &reply {
            self.learn(reply);
        }
        reply
    }

    /// Sends it later, come what may.
    fn ask_late(self: &Arc<Way>, body: Flow, after: Duration) {
        let way = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            way.ask(&Upstream::new(&way.proxy.server), body).await.ok();
        });
    }

    /// Once all of a PUT's body has come: is it the body that its name had before?
    fn judge_body(&self) {
        let Some(sum) = self.tally.lock().first_sum() else { return };
        self.proxy.record.update(self.number, |entry| entry.body = Some(sum));
        if matches!(self.asked.kind, Kind::Put | Kind::Create) {
            self.proxy.record.tried(self.asked.kind, &self.asked.name, self.connection.door, sum);
        }
    }

    fn learn(&self, reply: &Response<Incoming>) {
        let status = reply.status();
        let Asked { kind, name, .. } = &self.asked;
        let sum = self.tally.lock().sum();
        if *kind == Kind::Create && status.is_success() {
            let sum = sum.expect("the server has taken all of the body, so all of it has passed");
            self.proxy.record.created(name, sum);
        }
        let past = &mut self.proxy.state.lock().past;
        match kind {
            Kind::Put | Kind::Create if status.is_success() => past.written(name, self.written(reply)),
            Kind::Delete | Kind::DeleteMany if status.is_success() => {
                self.asked.all_names().iter().for_each(|name| past.deleted(name));
            }
            Kind::Get | Kind::Head if status == StatusCode::NOT_FOUND => past.missed(self.connection.address, name),
            _ => {}
        }
        self.proxy.record.update(self.number, |entry| entry.server = Some(status.as_u16()));
    }

    /// The object that this PUT has made.
    fn written(&self, reply: &Response<Incoming>) -> Object {
        let header = |name: HeaderName| reply.headers().get(name).cloned().unwrap_or(HeaderValue::from_static(""));
        let told = |name: &HeaderName| *name == CONTENT_TYPE || name.as_str().starts_with("x-amz-meta-");
        let headers = self.head.headers.iter().filter(|(name, _)| told(name));
        let mut tally = self.tally.lock();
        Object {
            etag: header(ETAG),
            modified: header(DATE),
            headers: headers.map(|(name, value)| (name.clone(), value.clone())).collect(),
            length: tally.sum().map_or(0, |sum| sum.length),
            body: tally.take(),
        }
    }

    /// Stuck, until somebody releases it.
    async fn hold(&self) {
        let (release, released) = oneshot::channel();
        self.proxy.holds.lock().push(release);
        self.proxy.record.update(self.number, |entry| entry.held = true);
        released.await.ok();
        self.proxy.record.update(self.number, |entry| entry.held = false);
    }

    /// The server's answer as the client shall see it.
    async fn shape(&self, reply: Response<Incoming>, verdict: &Verdict) -> Outcome {
        let (mut head, body) = reply.into_parts();
        strip(&mut head.headers);
        // What is done to a body, half way or to one of its bits, is done where its length is known.
        let is_spoilt = matches!(verdict.act, Act::CutReply | Act::FlipReply(_));
        let is_other_list = !verdict.hides.is_zero() || !verdict.shows.is_zero();
        let flow = if is_other_list && head.status == StatusCode::OK {
            let list = whole(&mut head, body).await?;
            let list = String::from_utf8_lossy(&list);
            Flow::whole(as_it_was(&list, &self.asked, &self.proxy.state.lock().past, verdict.hides, verdict.shows))
        } else if is_spoilt && body.size_hint().exact().is_none() {
            Flow::whole(whole(&mut head, body).await?)
        } else {
            Flow::passing(body)
        };
        let flow = flow.paced(self.proxy.down.clone());
        let flow = match verdict.act {
            // There is no half of nothing.
            Act::CutReply if flow.is_end_stream() => return Err(NoAnswer::Reset),
            Act::CutReply => flow.cut(),
            Act::FlipReply(bit) => flow.flipped(bit),
            _ => flow,
        };
        Ok(Response::from_parts(head, flow))
    }

    async fn tell(&self, answer: Response<Flow>, verdict: &Verdict, ticket: Ticket) -> Outcome {
        tokio::time::sleep(verdict.delay_reply).await;
        ticket.told(answer.status().as_u16());
        Ok(answer.map(|flow| flow.ending(ticket)))
    }
}

/// All of an answer's body, whose length is then known.
async fn whole(head: &mut response::Parts, body: Incoming) -> Result<Bytes, NoAnswer> {
    head.headers.remove(CONTENT_LENGTH);
    head.headers.remove(TRANSFER_ENCODING);
    collect(Flow::passing(body)).await
}

/// What concerns one connection only.
fn strip(headers: &mut hyper::HeaderMap) {
    headers.remove(CONNECTION);
    headers.remove("keep-alive");
}

fn internal_error() -> Response<Flow> {
    let message = "We encountered an internal error. Please try again.";
    failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
}

/// An error as S3 tells it.
fn failure(status: StatusCode, code: &str, message: &str) -> Response<Flow> {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>{message}</Message>\
         <RequestId>fault-proxy</RequestId></Error>"
    );
    let mut response = Response::new(Flow::whole(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    response
}

/// What a GET or HEAD found when the object was there.
fn object_as_it_was(object: &Object, range: Option<&str>) -> Response<Flow> {
    let body = object.body.clone().expect("only what was kept is shown");
    let length = body.len() as u64;
    let part = match range.map(|range| read_range(range, length)) {
        None => None,
        Some(Some(part)) => Some(part),
        Some(None) => {
            return failure(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange", "The range lies outside of the object.");
        }
    };
    let shown = part.clone().map_or(body.clone(), |part| body.slice(part.start as usize..part.end as usize));
    let mut response = Response::new(Flow::whole(shown));
    let headers = response.headers_mut();
    headers.extend(object.headers.iter().cloned());
    headers.insert(ETAG, object.etag.clone());
    headers.insert(LAST_MODIFIED, object.modified.clone());
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(part) = part {
        let text = format!("bytes {}-{}/{length}", part.start, part.end - 1);
        headers.insert(CONTENT_RANGE, HeaderValue::from_str(&text).expect("digits"));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}

/// The bytes that a Range header names, cut where the object ends. None: there are none.
fn read_range(text: &str, length: u64) -> Option<Range<u64>> {
    let (start, end) = text.strip_prefix("bytes=")?.split_once('-')?;
    let range = match (start.parse().ok(), end.parse::<u64>().ok()) {
        (Some(start), Some(end)) => start..end.saturating_add(1).min(length),
        (Some(start), None) => start..length,
        (None, Some(last)) => length.saturating_sub(last)..length,
        (None, None) => return None,
    };
    (!range.is_empty()).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::read_range;

    #[test]
    fn ranges_are_cut_where_the_object_ends() {
        assert_eq!(read_range("bytes=2-4", 10), Some(2..5));
        assert_eq!(read_range("bytes=2-40", 10), Some(2..10));
        assert_eq!(read_range("bytes=2-", 10), Some(2..10));
        assert_eq!(read_range("bytes=-3", 10), Some(7..10));
        assert_eq!(read_range("bytes=10-12", 10), None);
        assert_eq!(read_range("bytes=", 10), None);
    }
}

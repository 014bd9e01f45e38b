//! One attempt: a request, sent once, with a time limit, and its answer checked.
//!
//! How bodies are protected on the way. Up: the SDK signs their SHA-256, over https too, and a server
//! refuses a body that does not fit it (Ceph does, with XAmzContentSHA256Mismatch; a test flips a
//! bit on the way). That takes 0.6 ms of processor a MiB; a Content-MD5 beside it would take 1.4 ms
//! more and find nothing else. Down: their length is checked here, their content by whoever stored
//! them and has their checksum. Lists of names to delete carry a Content-MD5, since some servers
//! insist on it.

use super::body::Expected;
use super::classify::{Kind, Request, Target, is_connect_failure};
use super::counters::Counters;
use super::resolver::Addresses;
use crate::backend::ObjectError;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::interceptors::{BeforeTransmitInterceptorContextMut, BeforeTransmitInterceptorContextRef};
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::{BoxError, ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use aws_smithy_runtime_api::client::connection::CaptureSmithyConnection;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use bytes::Bytes;
use md5::{Digest, Md5};
use std::error::Error;
use std::future::Future;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::timeout;

/// What an attempt may take beside the time for its body.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A body that moves more slowly than this is given up.
const BYTES_PER_SECOND_MIN: u64 = 1 << 20;

/// Sends requests, each once.
pub(super) struct Attempts {
    pub client: Client,
    pub target: Target,
    pub addresses: Arc<Addresses>,
    pub counters: Counters,
}

impl Attempts {
    /// PUT; a conditional one if `kind` is [`Kind::Create`].
    pub async fn put(&self, kind: Kind, name: &str, body: Bytes) -> Result<(), ObjectError> {
        let attempt = self.attempt(kind, name);
        let body_bytes = body.len();
        let put = self.client.put_object().bucket(attempt.bucket()).key(attempt.key()).body(ByteStream::from(body));
        let put = if kind == Kind::Create { put.if_none_match("*") } else { put };
        self.counters.put(body_bytes);
        let answer = put.customize().interceptor(attempt.peer.clone()).send();
        attempt.success(body_bytes as u64, answer).await.map(drop)
    }

    /// GET of an object, or of a range of it, cut where it ends.
    pub async fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Bytes, ObjectError> {
        let attempt = self.attempt(Kind::Get, name);
        let header = range.as_ref().map(|range| format!("bytes={}-{}", range.start, range.end - 1));
        let get = self.client.get_object().bucket(attempt.bucket()).key(attempt.key()).set_range(header);
        self.counters.get();
        let answer = get.customize().interceptor(attempt.peer.clone()).send();
        let answer = match attempt.within(0, answer).await? {
            Ok(answer) => answer,
            // The object ends before the range begins.
            Err(SdkError::ServiceError(error)) if error.raw().status().as_u16() == 416 => return Ok(Bytes::new()),
            Err(error) => return Err(attempt.failure(&error)),
        };
        let expected = Expected::parse(range.as_ref(), answer.content_length, answer.content_range.as_deref())
            .map_err(|fault| attempt.request.unknown(fault))?;
        let body = expected.collect(answer.body, |bytes| self.counters.received(bytes));
        attempt.within(expected.bytes(), body).await?.map_err(|fault| attempt.request.unknown(fault))
    }

    /// The first names that begin with `prefix`.
    pub async fn list(&self, prefix: &str, max: u32) -> Result<Vec<String>, ObjectError> {
        let max = max as usize;
        let mut names: Vec<String> = Vec::new();
        let mut token = None;
        loop {
            let attempt = self.attempt(Kind::List, prefix);
            let list = self.client.list_objects_v2().bucket(attempt.bucket()).prefix(attempt.key());
            let list = list.max_keys((max - names.len()) as i32).set_continuation_token(token);
            self.counters.list();
            let answer = list.customize().interceptor(attempt.peer.clone()).send();
            let page = attempt.success(0, answer).await?;
            let found = page.contents().iter().filter_map(|object| self.target.place.name_of(object.key()?));
            names.extend(found.take(max - names.len()).map(str::to_owned));
            // A page may be shorter than was asked for though more is to come.
            token = page.next_continuation_token;
            if names.len() == max || page.is_truncated != Some(true) || token.is_none() {
                return Ok(names);
            }
        }
    }

    /// DELETE of all of them.
    pub async fn delete(&self, names: &[String]) -> Result<(), ObjectError> {
        match names {
            [name] => self.delete_one(name).await,
            names => self.delete_many(names).await,
        }
    }

    async fn delete_one(&self, name: &str) -> Result<(), ObjectError> {
        let attempt = self.attempt(Kind::Delete, name);
        let delete = self.client.delete_object().bucket(attempt.bucket()).key(attempt.key());
        self.counters.delete();
        let answer = delete.customize().interceptor(attempt.peer.clone()).send();
        match attempt.within(0, answer).await? {
            Ok(_) => Ok(()),
            Err(error) if is_gone(error.code()) => Ok(()),
            Err(error) => Err(attempt.failure(&error)),
        }
    }

    async fn delete_many(&self, names: &[String]) -> Result<(), ObjectError> {
        let attempt = self.attempt(Kind::Delete, &names[0]);
        let object = |name: &String| ObjectIdentifier::builder().key(self.target.place.key(name)).build();
        let objects: Result<Vec<ObjectIdentifier>, _> = names.iter().map(object).collect();
        let objects = objects.expect("each has its key");
        let list = Delete::builder().set_objects(Some(objects)).quiet(true).build().expect("it has its objects");
        let delete = self.client.delete_objects().bucket(attempt.bucket()).delete(list);
        self.counters.delete();
        let answer = delete.customize().interceptor(attempt.peer.clone()).interceptor(ContentMd5).send();
        let answer = attempt.success(0, answer).await?;
        // What went well is not listed.
        let Some(failed) = answer.errors().iter().find(|error| !is_gone(error.code())) else { return Ok(()) };
        let name = failed.key().and_then(|key| self.target.place.name_of(key)).unwrap_or_default();
        let said = [failed.code(), failed.message()].map(Option::unwrap_or_default).join(" ");
        Err(self.attempt(Kind::Delete, name).request.unknown(said.trim_end()))
    }

    fn attempt<'a>(&'a self, kind: Kind, name: &'a str) -> Attempt<'a> {
        let request = Request { target: &self.target, kind, name };
        Attempt { request, peer: Peer::default(), addresses: &self.addresses }
    }
}

/// What one request is, and to which address it went.
struct Attempt<'a> {
    request: Request<'a>,
    peer: Peer,
    addresses: &'a Arc<Addresses>,
}

impl Attempt<'_> {
    fn bucket(&self) -> &str {
        &self.request.target.place.bucket
    }

    fn key(&self) -> String {
        self.request.target.place.key(self.request.name)
    }

    /// The answer, if it comes in time and is a success.
    async fn success<T, E>(
        &self,
        body_bytes: u64,
        answer: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, ObjectError>
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        self.within(body_bytes, answer).await?.map_err(|error| self.failure(&error))
    }

    /// What the future gives, if it does so within the time for a body of that length.
    async fn within<T>(&self, body_bytes: u64, future: impl Future<Output = T>) -> Result<T, ObjectError> {
        let limit = ANSWER_TIMEOUT + Duration::from_secs(body_bytes.div_ceil(BYTES_PER_SECOND_MIN));
        timeout(limit, future).await.map_err(|_| {
            if let Some(address) = self.peer.address() {
                self.addresses.no_answer(address);
            }
            let server = &self.request.target.server;
            self.request.unknown(format_args!("no answer from {server} within {} s", limit.as_secs()))
        })
    }

    fn failure<E>(&self, error: &SdkError<E, HttpResponse>) -> ObjectError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        if matches!(error, SdkError::DispatchFailure(_)) {
            self.addresses.suspect(if is_connect_failure(error) { None } else { self.peer.address() });
        }
        self.request.classify(error)
    }
}

/// An object that is to be deleted and is not there.
fn is_gone(code: Option<&str>) -> bool {
    matches!(code, Some("NoSuchKey" | "NoSuchVersion"))
}

/// Sees which connection a request goes out on.
#[derive(Clone, Debug, Default)]
struct Peer(Arc<OnceLock<CaptureSmithyConnection>>);

impl Peer {
    /// The address at its other end; None if there was no connection.
    fn address(&self) -> Option<IpAddr> {
        Some(self.0.get()?.get()?.remote_addr()?.ip())
    }
}

impl Intercept for Peer {
    fn name(&self) -> &'static str {
        "Peer"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(connection) = config.load::<CaptureSmithyConnection>() {
            self.0.get_or_init(|| connection.clone());
        }
        Ok(())
    }
}

/// Adds the header that DeleteObjects needs on servers that know none of the newer checksums.
#[derive(Debug)]
struct ContentMd5;

impl Intercept for ContentMd5 {
    fn name(&self) -> &'static str {
        "ContentMd5"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request_mut();
        if let Some(body) = request.body().bytes() {
            let digest = aws_smithy_types::base64::encode(Md5::digest(body));
            request.headers_mut().insert("content-md5", digest);
        }
        Ok(())
    }
}

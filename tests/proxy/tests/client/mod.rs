//! An S3 client that makes one attempt and says what came of it, and the real server for it.
#![allow(dead_code, reason = "each test program uses its part")]

#[path = "../../../support/ceph.rs"]
pub mod ceph;

use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use bytes::Bytes;
use ceph::{Ceph, ceph, fresh_prefix};
use kivafs_fault_proxy::{Door, Proxy, ProxyOptions};
use std::time::Duration;
use tokio::runtime::Runtime;

/// Far more than anything takes that is not stuck.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server's answer: status and code.
    Said(u16, String),
    /// No answer, or no whole one.
    Broken,
    /// No answer within the client's time-out.
    Silent,
}

pub fn said<T>(status: u16, code: &str) -> Result<T, Failure> {
    Err(Failure::Said(status, code.to_owned()))
}

/// A client of one endpoint. Names are below a prefix of its own.
pub struct Client {
    s3: aws_sdk_s3::Client,
    runtime: Runtime,
    bucket: &'static str,
    pub prefix: String,
}

impl Client {
    pub fn new(endpoint: &str, prefix: &str, time_out: Duration) -> Client {
        let Ceph { key, secret, bucket, .. } = *ceph();
        let http = aws_smithy_http_client::Builder::new().build_http();
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .credentials_provider(Credentials::new(key, secret, None, None, "test"))
            .region(Region::new("us-east-1"))
            .endpoint_url(endpoint)
            .force_path_style(true)
            .http_client(http)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(time_out).build())
            .build();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Client { s3: aws_sdk_s3::Client::from_conf(config), runtime, bucket, prefix: prefix.to_owned() }
    }

    /// The same bucket and prefix by another endpoint.
    pub fn at(&self, endpoint: &str) -> Client {
        Client::new(endpoint, &self.prefix, PATIENCE)
    }

    pub fn impatient(&self, endpoint: &str) -> Client {
        Client::new(endpoint, &self.prefix, Duration::from_millis(300))
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    pub fn put(&self, name: &str, body: impl Into<Bytes>) -> Result<(), Failure> {
        let put = self.s3.put_object().bucket(self.bucket).key(self.key(name)).body(body.into().into());
        self.runtime.block_on(put.send()).map(drop).map_err(failure)
    }

    pub fn create(&self, name: &str, body: impl Into<Bytes>) -> Result<(), Failure> {
        let put = self.s3.put_object().bucket(self.bucket).key(self.key(name)).if_none_match("*");
        self.runtime.block_on(put.body(body.into().into()).send()).map(drop).map_err(failure)
    }

    pub fn get(&self, name: &str) -> Result<Bytes, Failure> {
        self.get_whole(name, None)
    }

    pub fn get_range(&self, name: &str, range: &str) -> Result<Bytes, Failure> {
        self.get_whole(name, Some(range.to_owned()))
    }

    fn get_whole(&self, name: &str, range: Option<String>) -> Result<Bytes, Failure> {
        self.runtime.block_on(async {
            let answer = self.s3.get_object().bucket(self.bucket).key(self.key(name)).set_range(range);
            let answer: GetObjectOutput = answer.send().await.map_err(failure)?;
            let body = answer.body.collect().await.map_err(|_| Failure::Broken)?;
            Ok(body.into_bytes())
        })
    }

    /// The object's length.
    pub fn head(&self, name: &str) -> Result<i64, Failure> {
        let head = self.s3.head_object().bucket(self.bucket).key(self.key(name));
        self.runtime.block_on(head.send()).map(|answer| answer.content_length.unwrap()).map_err(failure)
    }

    pub fn delete(&self, name: &str) -> Result<(), Failure> {
        let delete = self.s3.delete_object().bucket(self.bucket).key(self.key(name));
        self.runtime.block_on(delete.send()).map(drop).map_err(failure)
    }

    /// At most `max` names that begin with `start`.
    pub fn list(&self, start: &str, max: i32) -> Result<Vec<String>, Failure> {
        let list = self.s3.list_objects_v2().bucket(self.bucket).prefix(self.key(start)).max_keys(max);
        let answer = self.runtime.block_on(list.send()).map_err(failure)?;
        let keys = answer.contents().iter().map(|object| object.key().unwrap());
        Ok(keys.map(|key| key.strip_prefix(&self.key("")).unwrap().to_owned()).collect())
    }

    /// One request for many names.
    pub fn delete_many(&self, names: &[&str]) -> Result<(), Failure> {
        let objects = names.iter().map(|name| ObjectIdentifier::builder().key(self.key(name)).build().unwrap());
        let objects = Delete::builder().set_objects(Some(objects.collect())).build().unwrap();
        let delete = self.s3.delete_objects().bucket(self.bucket).delete(objects);
        self.runtime.block_on(delete.send()).map(drop).map_err(failure)
    }
}

fn failure<E: ProvideErrorMetadata + std::fmt::Debug>(
    error: SdkError<E, aws_sdk_s3::config::http::HttpResponse>,
) -> Failure {
    match error {
        SdkError::ServiceError(answer) => {
            let code = answer.err().code().unwrap_or("").to_owned();
            Failure::Said(answer.raw().status().as_u16(), code)
        }
        SdkError::TimeoutError(_) => Failure::Silent,
        SdkError::DispatchFailure(failure) if failure.is_timeout() => Failure::Silent,
        SdkError::DispatchFailure(_) | SdkError::ResponseError(_) => Failure::Broken,
        other => panic!("no attempt was made: {other:?}"),
    }
}

/// A proxy before the real server, and a client on each side of it.
pub struct Scene {
    pub proxy: Proxy,
    /// Through the proxy.
    pub client: Client,
    /// Past it: what is really there.
    pub beside: Client,
}

impl Scene {
    pub fn new() -> Scene {
        Scene::with(1, 1)
    }

    pub fn with(seed: u64, addresses: usize) -> Scene {
        let options = ProxyOptions { seed, addresses, ..ProxyOptions::to(&ceph().endpoint) };
        let proxy = Proxy::start(options).unwrap();
        let beside = Client::new(&ceph().endpoint, &fresh_prefix(), PATIENCE);
        Scene { client: beside.at(&proxy.endpoint()), beside, proxy }
    }

    /// A client at another of the proxy's addresses.
    pub fn at(&self, address: usize) -> Client {
        self.client.at(&format!("http://{}", self.proxy.addresses()[address]))
    }

    pub fn door(&self) -> (Door, Client) {
        let door = self.proxy.door().unwrap();
        let client = self.client.at(&door.endpoint());
        (door, client)
    }
}

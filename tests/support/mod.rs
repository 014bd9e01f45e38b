//! What the integration tests share. Files, in reading order: `random` (seeded choices), `scratch`
//! (directories), `crash_disk` (what a power cut may leave), `faulty_disk` (calls that fail),
//! `silent_disk` (calls that are not answered), `forgetful_disk` (what could not be flushed is in memory on),
//! `toy_log` (a log so simple that it can be seen to be right or wrong: the harness' own test),
//! `bucket` (a bucket in memory: weak, failing, shared), `store` (transactions over a store and over a
//! map, side by side), `medium` (what a store lies on), `compare` (a store on it against a map), `machine`
//! (machines that share a bucket), `succession` (each takes the store over from the one before),
//! `crash_run` (a store on a medium that crashes, and what its images are held to), `ceph` (a real S3
//! server). Only for who tests against that server: `bucket_client` (an S3 client of it), `weather` (what
//! happens to requests on the way there) and `proxied` (a bucket of it behind the fault proxy).
#![allow(dead_code, reason = "each test program uses its part")]

pub mod bucket;
pub mod ceph;
pub mod compare;
pub mod crash_disk;
pub mod crash_run;
pub mod faulty_disk;
pub mod forgetful_disk;
pub mod machine;
pub mod medium;
pub mod random;
pub mod scratch;
pub mod silent_disk;
pub mod store;
pub mod succession;
pub mod toy_log;

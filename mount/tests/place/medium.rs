//! What a store lies on, so that the same tests run on each: a local file, or a bucket of the real
//! S3 server.

use super::ceph::{ceph, fresh_prefix};
use std::path::{Path, PathBuf};

/// What a store lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    File,
    Bucket,
}

impl Medium {
    /// The name of a store that nobody has made yet. A file is in `dir`.
    pub fn new_store(self, dir: &Path) -> PathBuf {
        match self {
            Medium::File => dir.join("store"),
            Medium::Bucket => format!("s3://{}/{}", ceph().bucket, fresh_prefix()).into(),
        }
    }

    /// What programs that use such a store find in their environment.
    pub fn environment(self) -> Vec<(String, String)> {
        match self {
            Medium::File => Vec::new(),
            Medium::Bucket => {
                let ceph = ceph();
                let endpoint = [("AWS_ENDPOINT_URL", ceph.endpoint.as_str())];
                let all = ceph.environment().into_iter().chain(endpoint);
                all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
            }
        }
    }
}

/// Makes each of these functions a test of a store in a file, and one of a store in a bucket. (A
/// function that is not named is dead code, of which the compiler warns.)
macro_rules! on_each_medium {
    ($($test:ident),+ $(,)?) => {
        mod in_a_file {
            $(#[test]
            fn $test() {
                super::$test(super::Medium::File);
            })+
        }

        mod in_a_bucket {
            $(#[test]
            fn $test() {
                super::$test(super::Medium::Bucket);
            })+
        }
    };
}
pub(crate) use on_each_medium;

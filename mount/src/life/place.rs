//! Where a store is: in a local file, or in a bucket.
//!
//! Nobody else tells the one from the other: what they do differently is asked for here.

use kivafs::backend::{ObjectError, Objects, S3, S3Options};
use kivafs::store::{CreateOptions, Info, OpenError, OpenOptions, Store};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Where a store is.
#[derive(Clone, Debug)]
pub enum Place {
    /// In this file: absolute, links followed, so that one store has one name for everybody.
    File(PathBuf),
    /// In this bucket, or the part of one under a prefix.
    Bucket(Bucket),
}

/// A bucket, and how it is reached. Nothing is asked of it before something is asked of the store:
/// until then there are no threads either.
#[derive(Clone)]
pub struct Bucket {
    options: S3Options,
    timeout: Duration,
    reached: Arc<OnceLock<Arc<dyn Objects>>>,
}

impl Bucket {
    /// Reached as these options say; who looks at the store waits for an answer for so long.
    pub fn new(options: S3Options, timeout: Duration) -> Bucket {
        Bucket { options, timeout, reached: Arc::default() }
    }

    fn reach(&self) -> Result<Arc<dyn Objects>, OpenError> {
        if let Some(objects) = self.reached.get() {
            return Ok(objects.clone());
        }
        let failed = |error: ObjectError| OpenError::Io {
            path: self.to_string().into(),
            error: std::io::Error::other(error.to_string()),
        };
        let objects: Arc<dyn Objects> = Arc::new(S3::open(self.options.clone()).map_err(failed)?);
        Ok(self.reached.get_or_init(|| objects).clone())
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&bucket_name(&self.options.bucket, &self.options.prefix))
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.options.fmt(f)
    }
}

/// What people call it, and what the list of mounts shows.
pub fn bucket_name(bucket: &str, prefix: &str) -> String {
    match prefix {
        "" => format!("s3://{bucket}"),
        prefix => format!("s3://{bucket}/{prefix}"),
    }
}

impl Place {
    /// What the list of mounts shows, and what names the store on a command line.
    pub fn name(&self) -> PathBuf {
        match self {
            Place::File(path) => path.clone(),
            Place::Bucket(bucket) => bucket.to_string().into(),
        }
    }

    /// How its bucket is reached, if it is in one.
    pub fn s3(&self) -> Option<&S3Options> {
        match self {
            Place::File(_) => None,
            Place::Bucket(bucket) => Some(&bucket.options),
        }
    }

    /// Makes a new, empty store.
    pub fn create(&self, options: &CreateOptions) -> Result<(), OpenError> {
        match self {
            Place::File(path) => Store::create_at(path, options),
            Place::Bucket(bucket) => Store::create_in(bucket.reach()?, options),
        }
    }

    /// Opens the store.
    pub fn open(&self, options: &OpenOptions) -> Result<Store, OpenError> {
        match self {
            Place::File(path) => Store::open_at(path, options),
            Place::Bucket(bucket) => Store::open_in(bucket.reach()?, options),
        }
    }

    /// Looks at the store, also while somebody holds it.
    pub fn info(&self) -> Result<Info, OpenError> {
        match self {
            Place::File(path) => Store::info_at(path),
            Place::Bucket(bucket) => Store::info_in(bucket.reach()?, bucket.timeout),
        }
    }

    /// Takes back the creation of a store to which nothing was written. What was created in a
    /// bucket stays: no name there is ever used for a second time, and an empty store is opened by
    /// who tries again.
    pub fn unmake(&self) {
        match self {
            Place::File(path) => {
                if let Err(error) = std::fs::remove_file(path) {
                    tracing::warn!("{}: cannot remove the store that was just made: {error}", path.display());
                }
            }
            Place::Bucket(bucket) => tracing::info!("{bucket}: the store that was just made stays, empty"),
        }
    }

    /// Would a mount at `dir` hide the store's own file?
    pub fn lies_in(&self, dir: &Path) -> bool {
        match self {
            Place::File(path) => path.starts_with(dir),
            Place::Bucket(_) => false,
        }
    }

    /// How often to look again at a store whose holder is about to end: a look at a bucket costs
    /// requests, and the end of the holder's process, which is watched, ends such a wait as well.
    pub fn look_interval(&self) -> Duration {
        match self {
            Place::File(_) => Duration::ZERO,
            Place::Bucket(_) => Duration::from_secs(2),
        }
    }

    /// Is the store still held when its holder is gone? A file's lock is not.
    pub fn stays_held(&self) -> bool {
        match self {
            Place::File(_) => false,
            Place::Bucket(_) => true,
        }
    }

    /// Can storage stay away for so long that who ends must not wait for it? A disk answers, or
    /// the kernel holds us anyway.
    pub fn may_be_away(&self) -> bool {
        match self {
            Place::File(_) => false,
            Place::Bucket(_) => true,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File(path) => path.display().fmt(f),
            Place::Bucket(bucket) => bucket.fmt(f),
        }
    }
}

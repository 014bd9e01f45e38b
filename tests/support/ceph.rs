//! A real S3 server, which `tests/real/ceph.sh` installs and starts.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::SystemTime;

/// The server, up, and a bucket in it.
pub struct Ceph {
    /// `http://127.0.0.1:7481`, or what KIVAFS_TEST_S3 says.
    pub endpoint: String,
    pub key: &'static str,
    pub secret: &'static str,
    pub bucket: &'static str,
}

impl Ceph {
    /// What a program's environment needs for its requests to be signed.
    pub fn environment(&self) -> [(&'static str, &str); 3] {
        [("AWS_ACCESS_KEY_ID", self.key), ("AWS_SECRET_ACCESS_KEY", self.secret), ("AWS_REGION", "us-east-1")]
    }
}

/// The server, started by whoever asks first. It goes on after the test.
pub fn ceph() -> &'static Ceph {
    static CEPH: OnceLock<Ceph> = OnceLock::new();
    CEPH.get_or_init(|| Ceph { endpoint: start(), key: "testkey", secret: "testsecret", bucket: "kivafs-test" })
}

fn start() -> String {
    // Packages of this workspace lie at different depths.
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|folder| folder.join("tests/real/ceph.sh"))
        .find(|script| script.exists())
        .expect("tests/real/ceph.sh above this package");
    let started = Command::new(script).arg("start").stdin(Stdio::null()).output().expect("tests/real/ceph.sh runs");
    assert!(started.status.success(), "tests/real/ceph.sh start:\n{}", String::from_utf8_lossy(&started.stderr));
    String::from_utf8(started.stdout).expect("an endpoint in UTF-8").trim().to_owned()
}

/// A prefix that nobody has used, without a slash at its end: what a test leaves in the bucket stays
/// there until the server is wiped.
pub fn fresh_prefix() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock that is set");
    format!("{:x}-{}-{}", now.as_micros(), std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

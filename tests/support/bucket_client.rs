//! What tests of the S3 backend share: keys, opening, and waiting for one answer.

use kivafs::backend::{Done, ObjectError, S3, S3Options};
use std::io::Write;
use std::path::PathBuf;
use std::sync::{OnceLock, mpsc};

/// What the real server knows.
pub const KEY: &str = "testkey";
pub const SECRET: &str = "testsecret";

/// Keys for the tests, in a file that the environment names, with some wrong ones beside them: the
/// profiles `wrong-key`, `wrong-secret` and `empty`.
pub fn set_keys() {
    static SET: OnceLock<()> = OnceLock::new();
    SET.get_or_init(|| {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("keys-{}", std::process::id()));
        let mut file = std::fs::File::create(&path).expect("a file of keys");
        let profile = |name: &str, key: &str, secret: &str| {
            format!("[{name}]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
        };
        let text = [
            profile("default", KEY, SECRET),
            profile("wrong-key", "nobody", SECRET),
            profile("wrong-secret", KEY, "guessed"),
            "[empty]\noutput = json\n".into(),
        ];
        file.write_all(text.concat().as_bytes()).expect("keys written");
        // SAFETY: before any thread of this process looks at the environment other than through
        // std, which locks it: nothing was opened yet.
        unsafe {
            for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"] {
                std::env::remove_var(name);
            }
            std::env::set_var("AWS_SHARED_CREDENTIALS_FILE", &path);
            std::env::set_var("AWS_CONFIG_FILE", path.with_extension("none"));
        }
    });
}

/// A bucket at that endpoint; `change` may change the options.
pub fn open(endpoint: &str, bucket: &str, change: impl FnOnce(&mut S3Options)) -> S3 {
    set_keys();
    let mut options = S3Options { bucket: bucket.into(), endpoint: Some(endpoint.into()), ..S3Options::default() };
    change(&mut options);
    S3::open(options).expect("options in order")
}

/// Begins something and waits for its answer.
pub fn wait<T: Send + 'static>(begin: impl FnOnce(Done<T>)) -> Result<T, ObjectError> {
    later(begin).wait()
}

/// Begins something.
pub fn later<T: Send + 'static>(begin: impl FnOnce(Done<T>)) -> Later<T> {
    let (sender, receiver) = mpsc::channel();
    begin(Box::new(move |outcome| sender.send(outcome).expect("somebody waits")));
    Later(receiver)
}

/// An answer that will come.
pub struct Later<T>(mpsc::Receiver<Result<T, ObjectError>>);

impl<T> Later<T> {
    pub fn wait(self) -> Result<T, ObjectError> {
        self.0.recv().expect("an answer")
    }
}

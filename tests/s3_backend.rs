//! The S3 backend against a real server.

#[path = "support/bucket_client.rs"]
mod bucket_client;
#[path = "support/ceph.rs"]
#[allow(dead_code, reason = "each test program uses its part")]
mod ceph;

use bucket_client::{Later, later, open, wait};
use bytes::Bytes;
use ceph::{ceph, fresh_prefix};
use kivafs::backend::{ObjectError, Objects, S3, S3Options, Usage};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

fn endpoint() -> String {
    ceph().endpoint.clone()
}

fn server() -> SocketAddr {
    endpoint().trim_start_matches("http://").parse().expect("an endpoint that is an address")
}

/// A prefix in the server's bucket that nobody has used.
fn bucket() -> S3 {
    bucket_with(|options| options.prefix = fresh_prefix())
}

fn bucket_with(change: impl FnOnce(&mut S3Options)) -> S3 {
    open(&endpoint(), ceph().bucket, change)
}

fn create(s3: &S3, name: &str, body: impl Into<Bytes>) -> Result<(), ObjectError> {
    wait(|done| s3.create(name, body.into(), done))
}

fn put(s3: &S3, name: &str, body: impl Into<Bytes>) {
    wait(|done| s3.put(name, body.into(), done)).expect("put");
}

fn get(s3: &S3, name: &str, range: Option<Range<u64>>) -> Result<Bytes, ObjectError> {
    wait(|done| s3.get(name, range, done))
}

fn list(s3: &S3, prefix: &str, max: u32) -> Vec<String> {
    wait(|done| s3.list(prefix, max, done)).expect("list")
}

fn delete(s3: &S3, names: &[&str]) -> Result<(), ObjectError> {
    let names = names.iter().map(|name| name.to_string()).collect();
    wait(|done| s3.delete(names, done))
}

/// Bytes that differ from place to place and by seed.
fn noise(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let words = std::iter::from_fn(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Some(state.to_le_bytes())
    });
    words.take(length.div_ceil(8)).flatten().take(length).collect()
}

#[test]
fn of_racing_creates_exactly_one_succeeds() {
    let prefix = fresh_prefix();
    let writers = [(); 2].map(|()| bucket_with(|options| options.prefix = prefix.clone()));
    for round in 0..50 {
        let name = format!("race/{round}");
        let body = |racer: usize| Bytes::from(format!("{round} {racer}"));
        let racer = |racer: usize| later(|done| writers[racer % 2].create(&name, body(racer), done));
        let racers: Vec<_> = (0..16).map(racer).collect();
        let answers: Vec<_> = racers.into_iter().map(Later::wait).collect();
        let winners: Vec<usize> = (0..16).filter(|racer| answers[*racer].is_ok()).collect();
        assert_eq!(winners.len(), 1, "round {round}: {answers:?}");
        assert_eq!(answers.iter().filter(|answer| **answer == Err(ObjectError::Exists)).count(), 15, "{answers:?}");
        assert_eq!(get(&writers[1], &name, None), Ok(body(winners[0])));
    }
}

#[test]
fn a_create_racing_with_a_delete_succeeds_once_after_it_or_not_at_all() {
    let s3 = bucket();
    let mut after = 0;
    for round in 0..50 {
        let name = format!("race/{round}");
        create(&s3, &name, "first").expect("a new name");
        let body = |racer: usize| Bytes::from(format!("{round} {racer}"));
        let mut racers: Vec<_> = (0..8).map(|racer| later(|done| s3.create(&name, body(racer), done))).collect();
        let deleted = later(|done| s3.delete(vec![name.clone()], done));
        racers.extend((8..15).map(|racer| later(|done| s3.create(&name, body(racer), done))));
        let answers: Vec<_> = racers.into_iter().map(Later::wait).collect();
        deleted.wait().expect("a delete succeeds whatever is there");
        let winners: Vec<usize> = (0..15).filter(|racer| answers[*racer].is_ok()).collect();
        let left = get(&s3, &name, None);
        match winners[..] {
            [] => assert_eq!(left, Err(ObjectError::Missing), "{answers:?}"),
            [winner] => assert_eq!(left, Ok(body(winner)), "{answers:?}"),
            _ => panic!("{answers:?}"),
        }
        after += winners.len();
    }
    println!("a create came after the delete in {after} of 50 rounds");
}

#[test]
fn an_object_is_read_whole_or_in_ranges_cut_where_it_ends() {
    let s3 = bucket();
    let body = noise(1, 100_000);
    put(&s3, "a", body.clone());
    put(&s3, "empty", "");
    assert_eq!(get(&s3, "a", None), Ok(body.clone()));
    for range in [0..1, 99_999..100_000, 0..100_000, 1234..56_789] {
        let part = body.slice(range.start as usize..range.end as usize);
        assert_eq!(get(&s3, "a", Some(range)), Ok(part));
    }
    assert_eq!(get(&s3, "a", Some(99_990..200_000)), Ok(body.slice(99_990..)));
    assert_eq!(get(&s3, "a", Some(100_000..100_001)), Ok(Bytes::new()));
    assert_eq!(get(&s3, "a", Some(1 << 40..1 << 41)), Ok(Bytes::new()));
    assert_eq!(get(&s3, "empty", None), Ok(Bytes::new()));
    assert_eq!(get(&s3, "empty", Some(0..10)), Ok(Bytes::new()));
    assert_eq!(get(&s3, "none", None), Err(ObjectError::Missing));
    assert_eq!(get(&s3, "none", Some(0..10)), Err(ObjectError::Missing));
}

#[test]
fn a_list_has_the_first_names_in_order_and_no_others() {
    let prefix = fresh_prefix();
    let s3 = bucket_with(|options| options.prefix = prefix.clone());
    let beside = bucket_with(|options| options.prefix = format!("{prefix}x"));
    put(&beside, "d/0", "not below the prefix");
    for name in ["e2/c1", "d/2", "e1/c2", "d/1", "e1/c1", "d/10"] {
        put(&s3, name, "x");
    }
    assert_eq!(list(&s3, "", 1000), ["d/1", "d/10", "d/2", "e1/c1", "e1/c2", "e2/c1"]);
    assert_eq!(list(&s3, "e1/", 1000), ["e1/c1", "e1/c2"]);
    assert_eq!(list(&s3, "d/", 2), ["d/1", "d/10"]);
    assert_eq!(list(&s3, "", 1), ["d/1"]);
    assert!(list(&s3, "f", 1000).is_empty());
    let at_top = bucket_with(|_| {});
    assert_eq!(list(&at_top, &format!("{prefix}/e"), 1), [format!("{prefix}/e1/c1")]);
}

#[test]
fn many_are_deleted_at_once_and_what_is_not_there_is_no_error() {
    let s3 = bucket();
    let names: Vec<String> = (0..40).map(|number| format!("d/{number:03}")).collect();
    let puts: Vec<_> = names.iter().map(|name| later(|done| s3.put(name, Bytes::from_static(b"x"), done))).collect();
    puts.into_iter().for_each(|put| put.wait().expect("put"));
    delete(&s3, &["d/000"]).expect("one");
    delete(&s3, &["d/000"]).expect("one that is gone");
    delete(&s3, &["d/000", "d/001", "nothing", "d/002"]).expect("several, some of them gone");
    assert_eq!(list(&s3, "d/", 1000), names[3..]);
    let all = (0..1000).map(|number| format!("d/{number:03}")).collect();
    wait(|done| s3.delete(all, done)).expect("as many as there can be");
    assert!(list(&s3, "d/", 1000).is_empty());
}

#[test]
fn big_bodies_go_up_and_come_down_in_parallel() {
    const BYTES: usize = 16 << 20;
    let s3 = bucket();
    let bodies: Vec<Bytes> = (0..16).map(|number| noise(number, BYTES)).collect();
    let put = |number: usize| later(|done| s3.put(&number.to_string(), bodies[number].clone(), done));
    let puts: Vec<_> = (0..16).map(put).collect();
    puts.into_iter().for_each(|put| put.wait().expect("put"));
    let get_one = |number: usize| later(|done| s3.get(&number.to_string(), None, done));
    let gets: Vec<_> = (0..16).map(get_one).collect();
    for (get, body) in gets.into_iter().zip(&bodies) {
        assert!(get.wait().expect("get") == *body);
    }
    let half = BYTES as u64 / 2;
    assert!(get(&s3, "3", Some(half..2 * half)).expect("get") == bodies[3].slice(half as usize..));
    // A quarter of a gigabyte that nobody needs.
    wait(|done| s3.delete((0..16).map(|number| number.to_string()).collect(), done)).expect("delete");
}

#[test]
fn every_request_and_byte_is_counted() {
    let s3 = bucket();
    assert_eq!(s3.usage(), Usage::default(), "opening sends nothing");
    create(&s3, "a", "12345").expect("create");
    let so_far = Usage { puts: 1, bytes_up: 5, ..Usage::default() };
    assert_eq!(s3.usage(), so_far);
    assert_eq!(create(&s3, "a", "12345"), Err(ObjectError::Exists));
    put(&s3, "b", noise(1, 100_000));
    let so_far = Usage { puts: 3, bytes_up: 100_010, ..so_far };
    assert_eq!(s3.usage(), so_far);
    get(&s3, "a", None).expect("get");
    get(&s3, "b", Some(50_000..50_100)).expect("get");
    get(&s3, "b", Some(100_000..100_001)).expect("get");
    assert_eq!(get(&s3, "c", None), Err(ObjectError::Missing));
    let so_far = Usage { gets: 4, bytes_down: 105, ..so_far };
    assert_eq!(s3.usage(), so_far);
    list(&s3, "", 10);
    delete(&s3, &["a"]).expect("delete");
    delete(&s3, &["a", "b", "c"]).expect("delete");
    assert_eq!(s3.usage(), Usage { lists: 1, deletes: 2, ..so_far });
}

/// What each kind of request answers.
fn errors_of_all(s3: &S3) -> Vec<ObjectError> {
    let errors = [
        create(s3, "a", "x").err(),
        wait(|done| s3.put("a", Bytes::from_static(b"x"), done)).err(),
        get(s3, "a", None).err(),
        get(s3, "a", Some(0..10)).err(),
        wait(|done| s3.list("a", 1, done)).err(),
        delete(s3, &["a"]).err(),
        delete(s3, &["a", "b"]).err(),
    ];
    errors.into_iter().map(|error| error.expect("no success")).collect()
}

#[track_caller]
fn all_are_refused_with(s3: &S3, text: &str) {
    for error in errors_of_all(s3) {
        assert_eq!(error, ObjectError::Refused(text.into()));
    }
}

#[track_caller]
fn all_are_unknown_with(s3: &S3, text: &str) {
    for error in errors_of_all(s3) {
        assert_eq!(error, ObjectError::Unknown(text.into()));
    }
}

#[test]
fn what_the_server_refuses_is_said_in_one_line_with_the_cure() {
    let server = endpoint();
    all_are_refused_with(
        &open(&server, "kivafs-no-such-bucket", |_| {}),
        &format!(
            "there is no bucket 'kivafs-no-such-bucket' at {server}: make it first, or correct its name or the endpoint"
        ),
    );
    let with_profile = |profile: &str| bucket_with(|options| options.profile = Some(profile.into()));
    all_are_refused_with(
        &with_profile("wrong-key"),
        &format!("{server} does not know the access key: correct AWS_ACCESS_KEY_ID or the profile, or the endpoint"),
    );
    all_are_refused_with(
        &with_profile("wrong-secret"),
        &format!(
            "{server} refuses the signature: the secret key does not belong to the access key (correct \
             AWS_SECRET_ACCESS_KEY or the profile)"
        ),
    );
    all_are_refused_with(
        &with_profile("empty"),
        "the profile 'empty' has no S3 keys: write them to ~/.aws/credentials, or correct profile=",
    );
    all_are_refused_with(
        &with_profile("typo"),
        "there is no profile 'typo' in ~/.aws/credentials or ~/.aws/config: correct profile=",
    );
    let tls = server.replace("http:", "https:");
    all_are_refused_with(
        &open(&tls, ceph().bucket, |_| {}),
        &format!("{tls} does not speak TLS: write http:// if it is meant"),
    );
}

#[test]
fn what_cannot_be_reached_is_named_with_the_reason() {
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let nobody = format!("http://127.0.0.1:{port}");
    all_are_unknown_with(&open(&nobody, ceph().bucket, |_| {}), &format!("cannot reach {nobody}: connection refused"));
    let nobody = format!("http://localhost:{port}");
    all_are_unknown_with(&open(&nobody, ceph().bucket, |_| {}), &format!("cannot reach {nobody}: connection refused"));
    for error in errors_of_all(&open("http://nowhere.invalid", ceph().bucket, |_| {})) {
        let ObjectError::Unknown(text) = error else { panic!("{error:?}") };
        assert!(text.starts_with("cannot reach http://nowhere.invalid: failed to lookup address"), "{text}");
    }
}

#[test]
fn options_that_cannot_work_are_refused_before_anything_is_sent() {
    bucket_client::set_keys();
    let refused = |options: S3Options| match S3::open(options) {
        Err(ObjectError::Refused(text)) => text.to_string(),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it opened"),
    };
    let options = || S3Options { bucket: "b".into(), endpoint: Some(endpoint()), ..S3Options::default() };
    assert_eq!(refused(S3Options::default()), "no bucket is named: write s3://BUCKET/PREFIX");
    assert!(refused(S3Options { endpoint: Some("host:7480".into()), ..options() }).contains("http://"));
    let tls = || S3Options { endpoint: Some("https://localhost".into()), ..options() };
    let missing = S3Options { ca_file: Some("/no/such/file".into()), ..tls() };
    assert!(refused(missing).starts_with("cannot read the certificates in /no/such/file: No such file"));
    let no_pem = S3Options { ca_file: Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")), ..tls() };
    assert!(refused(no_pem).ends_with("Cargo.toml holds no certificate in PEM form"));
    assert!(refused(S3Options { concurrency: 0, ..options() }).contains("at least one"));
}

#[test]
fn a_name_is_looked_up_and_the_bucket_is_called_what_people_call_it() {
    let s3 =
        open(&endpoint().replace("127.0.0.1", "localhost"), ceph().bucket, |options| options.prefix = "/a/b/".into());
    assert_eq!(s3.name(), "s3://kivafs-test/a/b");
    assert_eq!(get(&s3, "none", None), Err(ObjectError::Missing));
}

/// Passes bytes on to the real server, a bit of each of the bodies "to be damaged" flipped.
fn damaging_relay() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(server()).expect("the server");
            let (from, to) = (client.try_clone().expect("a handle"), server.try_clone().expect("a handle"));
            std::thread::spawn(move || pass_on(from, to, b"to be damaged"));
            std::thread::spawn(move || pass_on(server, client, b"nothing like it"));
        }
    });
    address
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, damaged: &[u8]) {
    use std::io::{Read, Write};
    let mut piece = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        if let Some(at) = piece[..count].windows(damaged.len()).position(|window| window == damaged) {
            piece[at] ^= 1;
        }
        if to.write_all(&piece[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

#[test]
fn a_body_that_is_damaged_on_the_way_up_is_refused_by_the_server() {
    let relay = format!("http://{}", damaging_relay());
    let s3 = open(&relay, ceph().bucket, |options| options.prefix = fresh_prefix());
    put(&s3, "good", "to be left alone");
    for outcome in [create(&s3, "a", "to be damaged"), wait(|done| s3.put("b", Bytes::from("to be damaged"), done))] {
        let Err(ObjectError::Unknown(text)) = &outcome else { panic!("{outcome:?}") };
        assert!(text.contains("XAmzContentSHA256Mismatch"), "{text}");
    }
    assert_eq!(list(&s3, "", 10), ["good"]);
}

/// A certificate for `localhost`, in a file; and a server that has it in front of the real one.
fn tls_relay(runtime: &Runtime) -> (PathBuf, u16) {
    let made = rcgen::generate_simple_self_signed(["localhost".into()]).expect("a certificate");
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.pem", fresh_prefix()));
    std::fs::write(&path, made.cert.pem()).expect("certificate written");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| {
            config.with_no_client_auth().with_single_cert(vec![CertificateDer::from(made.cert.der().to_vec())], key)
        })
        .expect("a server's configuration");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    runtime.spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A client that does not trust us hangs up.
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let mut server = tokio::net::TcpStream::connect(server()).await.expect("the server");
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    (path, port)
}

#[test]
fn https_is_spoken_with_servers_whose_certificates_are_trusted() {
    let runtime = Runtime::new().expect("a runtime");
    let (certificate, port) = tls_relay(&runtime);
    let server = format!("https://localhost:{port}");
    let trusting = open(&server, ceph().bucket, |options| {
        options.prefix = fresh_prefix();
        options.ca_file = Some(certificate.clone());
    });
    let body = noise(7, 3 << 20);
    create(&trusting, "a", body.clone()).expect("create");
    assert_eq!(get(&trusting, "a", None), Ok(body));
    all_are_refused_with(
        &open(&server, ceph().bucket, |_| {}),
        &format!(
            "{server} shows a certificate that is not trusted (unknown authority): give its authority with ca= \
             or AWS_CA_BUNDLE"
        ),
    );
    let by_address = format!("https://127.0.0.1:{port}");
    all_are_refused_with(
        &open(&by_address, ceph().bucket, |options| options.ca_file = Some(certificate)),
        &format!(
            "{by_address} shows a certificate that is not trusted (made for another name): give its authority with \
             ca= or AWS_CA_BUNDLE"
        ),
    );
}

#[test]
fn it_is_opened_used_and_dropped_on_the_threads_of_another_runtime() {
    Runtime::new().expect("a runtime").block_on(async {
        let s3 = bucket();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        s3.create(
            "a",
            Bytes::from_static(b"x"),
            Box::new(move |outcome| sender.send(outcome).expect("somebody waits")),
        );
        assert_eq!(receiver.await, Ok(Ok(())));
        drop(s3);
    });
}

#[test]
fn keys_come_from_the_environment() {
    // The environment is the process': another one.
    const CHILD: &str = "KIVAFS_TEST_KEYS_FROM";
    const TEST: &str = "keys_come_from_the_environment";
    if std::env::var(CHILD).is_ok() {
        let options = S3Options { bucket: ceph().bucket.into(), endpoint: Some(endpoint()), ..S3Options::default() };
        let outcome = get(&S3::open(options).expect("options in order"), "none", None);
        println!("outcome: {outcome:?}");
        return;
    }
    let child = |set: &[(&str, &str)]| {
        let mut command = std::process::Command::new(std::env::current_exe().expect("a path"));
        command.args([TEST, "--exact", "--nocapture"]).env(CHILD, "1");
        command.env("HOME", "/nonexistent").env("AWS_EC2_METADATA_DISABLED", "true");
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE"] {
            command.env_remove(name);
        }
        let output = command.envs(set.iter().copied()).output().expect("the same program");
        String::from_utf8(output.stdout).expect("text")
    };
    let with_keys = child(&[("AWS_ACCESS_KEY_ID", ceph().key), ("AWS_SECRET_ACCESS_KEY", ceph().secret)]);
    assert!(with_keys.contains("outcome: Err(Missing)"), "{with_keys}");
    let without = child(&[]);
    assert!(without.contains("outcome: Err(Refused(\"no S3 keys were found: set AWS_ACCESS_KEY_ID"), "{without}");
}

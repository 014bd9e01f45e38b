//! get, put, ls and rm through a server: the real program at both ends.

use crate::place::{Said, kivafs};
use crate::{Serving, text};
use assert_fs::TempDir;
use kivafs_mount::kvlds::message::Request;
use kivafs_mount::kvlds::server::Address;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

/// `kivafs put WORDS`, with that on stdin.
fn put(words: &[&OsStr], content: &[u8]) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kivafs"));
    let command = command.arg("put").args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may have had enough before the end.
    drop(child.stdin.take().unwrap().write_all(content));
    Said(child.wait_with_output().unwrap())
}

#[test]
fn what_is_put_can_be_listed_got_and_removed() {
    let directory = TempDir::new().unwrap();
    let serving = Serving::start(directory.path());
    let socket = directory.path().join("socket");
    let at = ["--kvlds".as_ref(), socket.as_os_str()];
    let all = [0, 255, b'\n'].repeat(85);
    put(&[&at[..], &["a%2Fb".as_ref()]].concat(), &all).silently();
    assert_eq!(serving.client().get(b"a/b").unwrap().unwrap(), all);
    let file = directory.path().join("file");
    std::fs::write(&file, "from a file").unwrap();
    put(&[&at[..], &["/100%".as_ref(), file.as_os_str()]].concat(), b"").silently();
    for name in ["%-", "%2Ekivafs"] {
        put(&[&at[..], &[name.as_ref()]].concat(), b"").silently();
    }
    let longest = b"%00".repeat(255);
    put(&[&at[..], &[OsStr::from_bytes(&longest)]].concat(), b"longest").silently();
    assert_eq!(serving.client().get(&[0; 255]).unwrap().unwrap(), b"longest");

    let get = |name: &str| kivafs([&["get".as_ref()], &at[..], &[name.as_ref()]].concat());
    assert_eq!(get("a%2Fb").silently().0.stdout, all);
    assert_eq!(get("100%").silently().text(), "from a file");
    assert_eq!(get("%-").silently().text(), "");
    let list = || kivafs([&["ls".as_ref()], &at[..]].concat()).silently().text();
    assert_eq!(list(), ["%-", &"%00".repeat(255), "%2Ekivafs", "100%", "a%2Fb", ""].join("\n"));

    let rm = |name: &str| kivafs([&["rm".as_ref()], &at[..], &[name.as_ref()]].concat());
    rm("%2Ekivafs").silently();
    rm("a%2Fb").silently();
    get("a%2Fb").fails(1, &["a%2Fb", "no such key"]);
    rm("a%2Fb").silently();
    assert_eq!(list().lines().count(), 3);
}

#[test]
fn a_value_that_is_too_long_is_refused_and_nothing_changes() {
    let directory = TempDir::new().unwrap();
    let serving = Serving::start(directory.path());
    let socket = directory.path().join("socket");
    let words = ["--kvlds".as_ref(), socket.as_os_str(), "key".as_ref()];
    put(&words, &[1; 255]).silently();
    put(&words, &[2; 256]).fails(1, &["key", "at most 255 bytes", "as a file"]);
    put(&words, &[3; 1 << 20]).fails(1, &["key", "at most 255 bytes"]);
    assert_eq!(serving.client().get(b"key").unwrap().unwrap(), [1; 255]);
}

#[test]
fn a_directory_has_no_value_and_stays() {
    let directory = TempDir::new().unwrap();
    let store = directory.path().join("store");
    let link = directory.path().join("link");
    kivafs(["create".as_ref(), store.as_os_str()]).silently();
    // No command makes a directory without a mount: the library does.
    let options = kivafs::store::OpenOptions::default();
    let opened = std::sync::Arc::new(kivafs::store::Store::open_at(&store, &options).unwrap());
    let fs = kivafs_mount::fs::FileSystem::open(opened.clone(), kivafs_mount::fs::coarse_now).unwrap();
    let (caller, root) = (kivafs_mount::fs::Caller { uid: 0, gid: 0, umask: 0 }, kivafs_mount::fs::ROOT);
    opened.patiently(|| fs.mkdir(caller, root, b"dir", 0o755)).unwrap();
    opened.close().unwrap();
    drop((fs, opened));

    let _serving = Serving::start(directory.path());
    let socket = directory.path().join("socket");
    // By way of a link to the socket as well.
    std::os::unix::fs::symlink(&socket, &link).unwrap();
    let words = ["--kvlds", text(&link), "dir"];
    kivafs([&["get"], &words[..]].concat()).fails(1, &["dir", "a directory"]);
    kivafs([&["rm"], &words[..]].concat()).fails(1, &["dir", "no regular file"]);
    put(&words.map(OsStr::new), b"value").fails(1, &["dir", "no regular file"]);
}

#[test]
fn a_server_that_is_not_there_is_told_with_its_cure() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("socket");
    let told = || {
        for command in ["get", "put", "rm"] {
            let words = [command, "--kvlds", text(&socket), "key"];
            kivafs(words).fails(1, &[text(&socket), "nobody serves keys there", "kivafs serve STORE --kvlds"]);
        }
        kivafs(["ls", "--kvlds", text(&socket)]).fails(1, &["nobody serves keys there"]);
    };
    told();
    // What a killed server leaves, and what is no socket at all.
    drop(UnixListener::bind(&socket).unwrap());
    told();
    std::fs::remove_file(&socket).unwrap();
    std::fs::write(&socket, "").unwrap();
    told();
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    kivafs(["get", "--kvlds", &unused.to_string(), "key"]).fails(1, &[&unused.to_string(), "nobody serves"]);
}

#[test]
fn a_server_that_ends_or_is_none_is_told() {
    let directory = TempDir::new().unwrap();
    for (answer, why) in
        [(&b""[..], "the server has closed the connection"), (b"HTTP/1.1 400 Bad\r\n\r\n", "no server")]
    {
        let socket = directory.path().join(why);
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                // All that is asked, so that the client gets to hear the answer.
                stream.read_exact(&mut [0; 28]).unwrap();
                stream.write_all(answer).unwrap();
            });
            kivafs(["get", "--kvlds", text(&socket), "key"]).fails(1, &[why]);
        });
    }
}

#[test]
fn a_wrong_command_line_is_one_line_before_anybody_is_asked() {
    let missing = "/nobody/is/here";
    for (words, told) in [
        (&["get"][..], "NAME is missing"),
        (&["put"], "NAME is missing"),
        (&["rm"], "NAME is missing"),
        (&["get", "a", "b"], "--kvlds"),
        (&["rm", "a", "b"], "--kvlds"),
        (&["put", "a", "b", "c"], "--kvlds"),
        (&["ls", "a"], "takes no NAME"),
        (&["ls", "a", "b"], "--kvlds"),
        (&["get", "a", "-o", "cache=1M"], "-o <OPTIONS>"),
        (&["rm", "a", "--takeover"], "nothing to take over"),
        (&["put", "a", "--takeover"], "nothing to take over"),
        (&["get", "a/b"], "%2F"),
        (&["get", ".kivafs"], "not the file name of a key"),
        (&["put", "/"], "%-"),
        (&["rm", &"x".repeat(256)], "255 bytes"),
    ] {
        let words = [&words[..1], &["--kvlds", missing], &words[1..]].concat();
        kivafs(words).fails(2, &[told]);
    }
    // As before without it.
    kivafs(["get", "/store"]).fails(2, &["<PATH>"]);
    kivafs(["put", "/store"]).fails(2, &["<PATH>"]);
    kivafs(["rm"]).fails(2, &["<STORE>"]);
    kivafs(["ls"]).fails(2, &["<STORE>"]);
    let help = kivafs(["get", "--help"]).silently().text();
    assert!(help.contains("kivafs get --kvlds <PATH|ADDRESS:PORT> <NAME>"), "{help}");
}

#[test]
fn a_server_on_an_address_is_asked_as_one_on_a_path() {
    let directory = TempDir::new().unwrap();
    // Free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let serving = Serving::start_at(directory.path(), Address::Tcp(free));
    put(&["--kvlds", &free.to_string(), "key"].map(OsStr::new), b"value").silently();
    assert_eq!(serving.client().get(b"key").unwrap().unwrap(), b"value");
    assert!(serving.client().change(&Request::Delete { key: b"key" }).unwrap());
    kivafs(["get", "--kvlds", &free.to_string(), "key"]).fails(1, &["no such key"]);
}

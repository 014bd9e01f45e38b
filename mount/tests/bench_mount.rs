//! `kivafs bench mount` and `kivafs bench growth`: the real program, on tiny sizes: each row is there, its
//! figures can be true, and nothing is left behind.

mod place;

use assert_fs::TempDir;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use place::{Said, kivafs};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

const SMALL: [&str; 6] = ["--files", "80", "--big", "2M", "--rounds", "1"];

/// Neither files, nor mounts, nor processes.
#[track_caller]
fn nothing_is_left(dir: &Path) {
    let left: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
    let dir = dir.canonicalize().unwrap();
    let name = dir.to_str().unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(name), "{mounts}");
    // Who served has said how it went, and ends.
    let ours = format!("{name}/kivafs-bench-");
    place::until("no process is left", || {
        let processes = std::fs::read_dir("/proc").unwrap().map(|process| process.unwrap().path().join("cmdline"));
        let mut words = processes.map(|path| std::fs::read(path).unwrap_or_default());
        !words.any(|words| String::from_utf8_lossy(&words).replace('\0', " ").contains(&ours))
    });
}

/// The numbers that stand before some words.
fn numbers_before(line: &str, words: &str) -> Vec<f64> {
    let parts: Vec<&str> = line.split(words).collect();
    let before = parts[..parts.len() - 1].iter().map(|part| part.split([' ', '(']).next_back().unwrap());
    before.map(|number| number.parse().unwrap_or_else(|_| panic!("no number before '{words}': {line}"))).collect()
}

#[test]
fn each_row_is_there_and_nothing_is_left() {
    let (directory, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (dir, svg) = (directory.path().to_str().unwrap(), elsewhere.path().join("mount.svg"));
    let words = ["bench", "mount", dir, "-o", "cache=16M,threads=3", "--svg", svg.to_str().unwrap()];
    let text = kivafs([&words[..], &SMALL].concat()).silently().text();
    nothing_is_left(directory.path());
    let names: Vec<&str> = text.lines().map(|line| line[..11].trim_end()).collect();
    let expected = [
        "mount",
        "create 1",
        "create 2",
        "stat cold",
        "stat warm",
        "list",
        "read",
        "rename",
        "unlink",
        "write",
        "write text",
        "read cold",
        "read text",
        "random r",
        "random w",
        "fsync 1",
        "fsync 16",
        "fsync copy",
        "file 1",
        "file 16",
        "bounds",
    ];
    assert_eq!(names, expected, "{text}");
    let line = |name: &str| text.lines().find(|line| line[..11].trim_end() == name).unwrap();
    for name in &expected[1..expected.len() - 1] {
        let line = line(name);
        let rates = [numbers_before(line, " k/s"), numbers_before(line, " MiB/s")].concat();
        assert!(rates.len() == 3 && rates.iter().all(|rate| *rate >= 0.0), "{line}");
        let is_bound = ["create", "stat", "list", "file"].iter().any(|start| name.starts_with(start));
        assert!(!is_bound || line.contains("(bound "), "{line}");
        // What it cost: nothing for who only looks.
        let looks = ["stat cold", "stat warm", "list", "read", "read cold", "read text", "random r"].contains(name);
        let [commits, written] = [" commits", " MiB written"].map(|words| numbers_before(line, words)[0]);
        assert!((commits > 0.0) != looks && (written == 0.0 || !looks), "{line}");
    }
    // 8 files, and as many commits at least; each of 16 threads has two.
    assert!(numbers_before(line("file 1"), " commits")[0] >= 8.0, "{text}");
    assert!((1.0..=40.0).contains(&numbers_before(line("file 16"), " commits")[0]), "{text}");
    // What fits into a commit is written there, and maybe once more when it makes room.
    let written = ["write", "write text"].map(|name| numbers_before(line(name), " bytes written a byte")[0]);
    assert!((1.0..3.0).contains(&written[0]) && (0.2..1.0).contains(&written[1]), "{text}");
    let drawn = std::fs::read_to_string(&svg).unwrap();
    assert!(drawn.contains("create 1") && drawn.contains("file 16"), "{drawn}");
}

#[test]
fn a_store_that_grows_is_looked_at_and_nothing_is_left() {
    let (directory, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (dir, svg) = (directory.path().to_str().unwrap(), elsewhere.path().join("growth.svg"));
    let words = ["bench", "growth", dir, "--files", "1500", "--first", "100", "-o", "cache=16M"];
    let by_mount = ["--svg", svg.to_str().unwrap()];
    for more in [&by_mount[..], &["--library"]] {
        let text = kivafs([&words, more].concat()).silently().text();
        nothing_is_left(directory.path());
        let names: Vec<&str> = text.lines().map(|line| line[..11].trim_end()).collect();
        assert_eq!(names, ["growth", "100", "1000", "1500"], "{text}");
        for line in text.lines().skip(1) {
            let units = ["k/s", "ms after kill -9", "MiB resident", "MiB of disk"];
            let figures = units.map(|unit| numbers_before(line, &format!(" {unit}"))[0]);
            assert!(figures.iter().all(|figure| *figure > 0.0), "{line}");
        }
    }
    assert!(std::fs::read_to_string(&svg).unwrap().contains("resident memory"));
}

#[test]
fn an_interrupt_leaves_nothing_behind() {
    for command in ["mount", "growth"] {
        let directory = TempDir::new().unwrap();
        let mut bench = Command::new(env!("CARGO_BIN_EXE_kivafs"))
            .args(["bench", command, directory.path().to_str().unwrap()])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(bench.stdout.as_mut().unwrap()).read_line(&mut first).unwrap();
        assert!(first.starts_with(command), "{first}");
        place::until("something is mounted", || {
            std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(directory.path().to_str().unwrap())
        });
        kill(Pid::from_raw(bench.id() as i32), Signal::SIGINT).unwrap();
        Said(bench.wait_with_output().unwrap()).fails(1, &["interrupted"]);
        nothing_is_left(directory.path());
    }
}

#[test]
fn what_cannot_be_is_one_line() {
    for command in ["mount", "growth"] {
        kivafs(["bench", command, "/none"]).fails(1, &["/none", "give one that is there"]);
        kivafs(["bench", command, "--files", "0"]).fails(2, &["--files"]);
        kivafs(["bench", command, "-o", "bogus"]).fails(2, &["bogus", "cache=SIZE"]);
        kivafs(["bench", command, "-o", "ro"]).fails(2, &["'ro'"]);
    }
    kivafs(["bench", "mount", "--big", "5K"]).fails(2, &["--big"]);
    kivafs(["bench", "ceiling", "/none"]).fails(1, &["/none"]);
    let directory = TempDir::new().unwrap();
    kivafs([&["bench", "mount", directory.path().to_str().unwrap(), "-o", "path_style"], &SMALL[..]].concat())
        .fails(1, &["path_style"]);
    nothing_is_left(directory.path());
}

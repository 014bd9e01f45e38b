//! `kivafs bench kv`: the real program, on tiny sizes: each row is there, its figures can be true, and
//! nothing is left behind.

mod place;

use assert_fs::TempDir;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use place::{Said, kivafs};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().next().is_none()
}

/// The number that stands before some words.
#[track_caller]
fn number_before(line: &str, words: &str) -> f64 {
    let (before, _) = line.split_once(words).unwrap_or_else(|| panic!("'{words}' is not in: {line}"));
    before.split_whitespace().last().unwrap().parse().unwrap_or_else(|_| panic!("no number before '{words}': {line}"))
}

#[test]
fn each_row_is_there_and_nothing_is_left() {
    let directory = TempDir::new().unwrap();
    let dir = directory.path().to_str().unwrap();
    let said = kivafs(["bench", "kv", dir, "--pairs", "4096", "--seconds", "1", "--rounds", "1", "-o", "cache=16M"]);
    let text = said.silently().text();
    assert!(is_empty(directory.path()));
    let names: Vec<&str> = text.lines().map(|line| line[..11].trim_end()).collect();
    let expected = [
        "store", "insert", "extract", "read", "hot spot", "update", "mixed", "lone SET", "restart", "size", "keys",
        "tree",
    ];
    assert_eq!(names, expected, "{text}");
    let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap();
    assert!(line("store").contains(dir) && line("store").contains("4096 pairs of 40 + 40 bytes"), "{text}");
    for name in ["insert", "extract", "read", "hot spot", "update", "mixed", "lone SET", "keys", "tree"] {
        let figures = ["k/s", "us of CPU", "bytes written each"].map(|unit| number_before(line(name), unit));
        let written = match name {
            // Opening and closing a store writes a little.
            "extract" | "read" | "hot spot" => 0.0..64.0,
            // The hashes of a pair do not compress; a change goes to the log, and later to a page.
            "insert" | "keys" | "tree" => 64.0..1000.0,
            "update" | "mixed" => 16.0..5000.0,
            // A commit for each.
            _ => 500.0..100_000.0,
        };
        assert!(figures[0] > 0.0 && figures[1] >= 0.0 && written.contains(&figures[2]), "{text}");
    }
    let times = line("lone SET").split("p50 ").skip(1).map(|part| part.split_whitespace().next().unwrap());
    let times: Vec<f64> = times.map(|time| time.parse().unwrap()).collect();
    assert!(times.len() == 2 && times.iter().all(|time| *time > 0.0), "{text}");
    let restart = line("restart");
    let answered = restart.rsplit_once("after ").unwrap().1;
    let (ready, answered) = (number_before(restart, " ms, first"), number_before(answered, " ms"));
    assert!(0.0 < ready && ready <= answered, "{text}");
    let size = ["bytes a pair", "without what"].map(|words| number_before(line("size"), words));
    assert!(size[0] >= size[1], "{text}");
}

#[test]
fn an_interrupt_leaves_nothing_behind() {
    let directory = TempDir::new().unwrap();
    let mut bench = Command::new(env!("CARGO_BIN_EXE_kivafs"))
        .args(["bench", "kv", directory.path().to_str().unwrap(), "--pairs", "4096"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(bench.stdout.as_mut().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("store ") && !is_empty(directory.path()), "{first}");
    kill(Pid::from_raw(bench.id() as i32), Signal::SIGINT).unwrap();
    Said(bench.wait_with_output().unwrap()).fails(1, &["interrupted"]);
    assert!(is_empty(directory.path()));
}

#[test]
fn what_cannot_be_is_one_line() {
    kivafs(["bench", "kv", "/none"]).fails(1, &["/none", "give one that is there"]);
    kivafs(["bench", "kv", "--pairs", "0"]).fails(2, &["--pairs"]);
    kivafs(["bench", "kv", "-o", "bogus"]).fails(2, &["bogus", "cache=SIZE"]);
    let directory = TempDir::new().unwrap();
    let deep = directory.path().join("d".repeat(100));
    std::fs::create_dir(&deep).unwrap();
    kivafs(["bench".as_ref(), "kv".as_ref(), deep.as_os_str()]).fails(1, &["a shorter one"]);
    kivafs(["bench", "kv", directory.path().to_str().unwrap(), "--pairs", "1", "-o", "path_style"])
        .fails(1, &["path_style"]);
    assert!(is_empty(&deep) && std::fs::read_dir(directory.path()).unwrap().count() == 1);
}

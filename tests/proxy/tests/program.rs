//! The program: its arguments, commands and exit code.

mod client;

use client::ceph::{ceph, fresh_prefix};
use client::{Client, Failure, PATIENCE, said};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// The program, running; killed if a test fails.
struct Program {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    endpoint: String,
}

impl Program {
    fn start(arguments: &[&str]) -> Program {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kivafs-fault-proxy"));
        command.args(["--upstream", &ceph().endpoint]).args(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut endpoint = String::new();
        output.read_line(&mut endpoint).unwrap();
        Program { input: child.stdin.take(), child, output, endpoint: endpoint.trim().to_owned() }
    }

    /// Gives a command, and waits until it has been carried out.
    fn command(&mut self, line: &str) -> String {
        let input = self.input.as_mut().unwrap();
        writeln!(input, "{line}\ncounts").unwrap();
        let mut answer = String::new();
        while !answer.lines().last().is_some_and(|line| line.starts_with("Counts {")) {
            assert_ne!(self.output.read_line(&mut answer).unwrap(), 0, "it has ended");
        }
        answer
    }

    /// Its exit code at the end of its input.
    fn end(mut self) -> Option<i32> {
        drop(self.input.take());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn it_does_as_it_is_told() {
    let mut program =
        Program::start(&["--listen", "127.0.0.1:0", "--seed", "3", "--delay-ms", "30", "--plan", "put y slow-down"]);
    let client = Client::new(&program.endpoint, &fresh_prefix(), PATIENCE);
    let start = Instant::now();
    client.create("x", "body").unwrap();
    assert!(start.elapsed() >= Duration::from_millis(30));
    assert_eq!(client.put("y", "body"), said(503, "SlowDown"));
    program.command("refuse");
    assert_eq!(client.get("x"), Err(Failure::Broken));
    program.command("hang");
    assert_eq!(client.impatient(&program.endpoint).get("x"), Err(Failure::Silent));
    program.command("resume");
    assert!(client.get("x").is_ok());
    program.command("plan get * error");
    assert_eq!(client.get("x"), said(500, "InternalError"));
    assert!(program.command("violations").starts_with("[]\n"));
    assert!(program.command("nonsense").contains("creates: 1"));
    assert_eq!(program.end(), Some(0));
}

#[test]
fn two_contents_of_a_name_are_its_failure() {
    let program = Program::start(&[]);
    let client = Client::new(&program.endpoint, &fresh_prefix(), PATIENCE);
    client.put("x", "one").unwrap();
    client.put("x", "two").unwrap();
    assert_eq!(program.end(), Some(1));
}

#[test]
fn wrong_usage_is_refused() {
    for arguments in [
        &[][..],
        &["--upstream"],
        &["--upstream", "https://x:1"],
        &["--upstream", "http://x:1", "--plan", "x"],
        &["-v", "1"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kivafs-fault-proxy"));
        let output = command.args(arguments).stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8(output.stderr).unwrap().starts_with("kivafs-fault-proxy: "), "{arguments:?}");
    }
}

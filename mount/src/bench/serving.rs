//! A server of keys to measure: this very program, started as a user would.

use crate::bench::figures::{Answer, text};
use crate::kvlds::client::Client;
use crate::kvlds::server::Address;
use crate::life::written;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A process that serves the store of a directory; killed when dropped.
pub struct Serving {
    process: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Serving {
    /// Serves the store `store` in `dir`, which is made if there is none; returns when it is ready.
    /// `options`: what stands behind `-o`.
    pub fn start(dir: &Path, options: &str) -> Answer<Serving> {
        let (socket, log) = (dir.join("socket"), dir.join("log"));
        let mut command = Command::new(std::env::current_exe().map_err(text)?);
        command.arg("serve").arg(dir.join("store")).arg("--create").arg("--kvlds").arg(&socket);
        if !options.is_empty() {
            command.args(["-o", options]);
        }
        command.args(["-o", "log=debug"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let stderr = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let process = command.stderr(stderr).spawn().map_err(text)?;
        let mut serving = Serving { process, socket, log };
        let mut said = String::new();
        if let Some(stdout) = &mut serving.process.stdout {
            BufReader::new(stdout).read_line(&mut said).map_err(text)?;
        }
        match said.ends_with(": ready\n") {
            true => Ok(serving),
            false => {
                drop(serving.process.wait());
                Err(serving.complaint().unwrap_or_else(|| "kivafs serve: ended at once".into()))
            }
        }
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A connection to it.
    pub fn client(&self) -> Answer<Client> {
        let connected = Client::connect(&Address::Unix(self.socket.clone()));
        connected.map_err(|error| format!("{}: {error}", self.socket.display()))
    }

    /// Ends it as a power cut would, as far as a process can.
    pub fn kill(&mut self) -> Answer<()> {
        self.process.kill().map_err(text)?;
        self.process.wait().map(drop).map_err(text)
    }

    /// Ends it; answers the bytes that it wrote to its store, from its start to its end.
    pub fn end(&mut self) -> Answer<u64> {
        // If it has ended already, its status says how.
        let _ = kill(Pid::from_raw(self.process.id() as i32), Signal::SIGTERM);
        if !self.process.wait().map_err(text)?.success() {
            return Err(self.complaint().unwrap_or_else(|| "kivafs serve: ended with an error".into()));
        }
        let log = std::fs::read_to_string(&self.log).map_err(text)?;
        let told = written::told(&log).map(|activity| activity.commit_bytes + activity.data_bytes);
        told.ok_or_else(|| "kivafs serve: did not say what it wrote".into())
    }

    /// The last thing that it had to say against what went on: the protocol has no answer for errors. To
    /// be asked for when it has ended.
    pub fn complaint(&self) -> Option<String> {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let complaint = |line: &str| {
            let marks = ["kivafs: ", "ERROR ", "WARN "];
            marks.iter().find_map(|mark| line.split_once(mark).map(|(_, said)| said.to_string()))
        };
        log.lines().rev().find_map(complaint)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // In vain if it has ended, as it should.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

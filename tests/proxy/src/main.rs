//! The proxy as a program. It prints its endpoint, then reads commands from its standard input, one a
//! line; at the end of that it ends.

use kivafs_fault_proxy::{Outage, Proxy, ProxyOptions};
use std::io::BufRead;
use std::process::ExitCode;

const USAGE: &str = "\
usage: kivafs-fault-proxy --upstream http://HOST:PORT [OPTION...]

  --listen IP:PORT    default 127.0.0.1:0, any port
  --addresses N       listen at so many addresses, from that one on (default 1, at most 4)
  --seed N            of all random decisions (default 1)
  --delay-ms N        every request takes so much longer
  --plan WORDS|FILE   what happens to which request: see the docs of Plan
  --stay              go on when the input ends (with & it ends at once)

commands, from the input:
  hang | refuse | resume    an outage, and its end
  plan WORDS|FILE           from now on that happens
  release                   what is held goes on
  counts | violations       print them
  quit                      as the end of the input

exit code: 0; 1 if a name was written with two contents; 2 for wrong usage
";

/// What the command line asks for.
struct Asked {
    options: ProxyOptions,
    plan: String,
    stays: bool,
}

fn main() -> ExitCode {
    let asked = match read_arguments(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(what) => {
            eprint!("kivafs-fault-proxy: {what}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&asked) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("kivafs-fault-proxy: {error}");
            ExitCode::from(2)
        }
    }
}

fn read_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Asked, String> {
    let mut asked = Asked { options: ProxyOptions::to(""), plan: String::new(), stays: false };
    while let Some(option) = arguments.next() {
        if option == "--stay" {
            asked.stays = true;
            continue;
        }
        let value = arguments.next().ok_or_else(|| format!("{option}: a value is missing"))?;
        let wrong = || format!("{option}: {value}?");
        match option.as_str() {
            "--listen" => asked.options.listen = value.parse().map_err(|_| wrong())?,
            "--upstream" => asked.options.upstream.clone_from(&value),
            "--addresses" => {
                asked.options.addresses = value.parse().ok().filter(|n| (1..=4).contains(n)).ok_or_else(wrong)?;
            }
            "--seed" => asked.options.seed = value.parse().map_err(|_| wrong())?,
            "--delay-ms" => {
                let milliseconds: u64 = value.parse().map_err(|_| wrong())?;
                asked.plan += &format!("any * delay={milliseconds}ms\n");
            }
            "--plan" => asked.plan += &words(&value)?,
            _ => return Err(format!("{option}?")),
        }
    }
    if asked.options.upstream.is_empty() {
        return Err("--upstream is missing".to_owned());
    }
    Ok(asked)
}

/// A plan's words, or those in the file of that name.
fn words(value: &str) -> Result<String, String> {
    if !std::path::Path::new(value).exists() {
        return Ok(value.to_owned());
    }
    std::fs::read_to_string(value).map_err(|error| format!("{value}: {error}"))
}

fn run(asked: &Asked) -> Result<ExitCode, String> {
    let plan = asked.plan.parse().map_err(|error| format!("{error}"))?;
    let proxy = Proxy::start(asked.options.clone()).map_err(|error| error.to_string())?;
    proxy.set(plan);
    println!("{}", proxy.endpoint());
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|error| error.to_string())?;
        if line.trim() == "quit" {
            return Ok(end(&proxy));
        }
        if let Err(what) = command(&proxy, line.trim()) {
            eprintln!("kivafs-fault-proxy: {what}");
        }
    }
    if asked.stays {
        loop {
            std::thread::park();
        }
    }
    Ok(end(&proxy))
}

fn command(proxy: &Proxy, line: &str) -> Result<(), String> {
    match line.split_once(' ').unwrap_or((line, "")) {
        ("", _) => {}
        ("hang", "") => proxy.outage(Outage::Hang),
        ("refuse", "") => proxy.outage(Outage::Refuse),
        ("resume", "") => proxy.outage(Outage::None),
        ("release", "") => proxy.release(),
        ("plan", value) => proxy.set(words(value)?.parse().map_err(|error| format!("{error}"))?),
        ("counts", "") => println!("{:?}", proxy.counts()),
        ("violations", "") => println!("{:?}", proxy.violations()),
        _ => return Err(format!("no command: {line}")),
    }
    Ok(())
}

/// Says what was seen.
fn end(proxy: &Proxy) -> ExitCode {
    eprintln!("{:?}", proxy.counts());
    let violations = proxy.violations();
    for violation in &violations {
        eprintln!("{violation:?}");
    }
    if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

//! Where the log goes: stderr, a file, or syslog.

use crate::life::LifeError;
use crate::life::plan::{LogPlace, MountOptions};
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Opens the log of a serving process and makes a bug (a panic of any thread) end it, said there:
/// stderr leads nowhere in the background, and a server without one of its threads must not go on.
pub fn open(options: &MountOptions, background: bool) -> Result<(), LifeError> {
    let format = tracing_subscriber::fmt().with_max_level(options.log_level).with_ansi(false).with_target(false);
    // What libraries tell of every request, down to whose key signed it, is for nobody who reads this.
    let others = LevelFilter::WARN.min(options.log_level.into());
    let ours = Targets::new().with_target("kivafs", options.log_level).with_default(others);
    match &options.log {
        LogPlace::File(path) => {
            let file = std::fs::File::options()
                .create(true)
                .append(true)
                .open(path)
                .map_err(|error| LifeError::system(format!("{}: cannot log there", path.display()), error))?;
            format.with_writer(Arc::new(file)).finish().with(ours).init();
        }
        LogPlace::Usual if background => {
            let syslog = Syslog::open().map_err(|error| LifeError::system("syslog", error))?;
            format.without_time().with_level(false).with_writer(syslog).finish().with(ours).init();
        }
        LogPlace::Usual => format.with_writer(std::io::stderr).finish().with(ours).init(),
    }
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!("a bug in kivafs: {panic}: please report it");
        print(panic);
        std::process::abort();
    }));
    Ok(())
}

/// The local syslog daemon, as syslog(3) talks to it. What it does not take at once is lost:
/// nothing here ever waits for it.
struct Syslog {
    socket: UnixDatagram,
}

impl Syslog {
    fn open() -> std::io::Result<Syslog> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Syslog { socket })
    }
}

/// One message.
struct Message<'a> {
    socket: &'a UnixDatagram,
    priority: u8,
}

impl<'a> MakeWriter<'a> for Syslog {
    type Writer = Message<'a>;

    fn make_writer(&'a self) -> Message<'a> {
        Message { socket: &self.socket, priority: priority(Level::INFO) }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Message<'a> {
        Message { socket: &self.socket, priority: priority(*meta.level()) }
    }
}

/// Facility "daemon" (3), and syslog's numbers for the levels.
fn priority(level: Level) -> u8 {
    let severity = match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    };
    3 << 3 | severity
}

impl Write for Message<'_> {
    /// The formatter hands over each message whole.
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        let mut datagram = format!("<{}>kivafs[{}]: ", self.priority, std::process::id()).into_bytes();
        datagram.extend_from_slice(text.trim_ascii_end());
        let _ = self.socket.send_to(&datagram, "/dev/log");
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

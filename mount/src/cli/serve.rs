//! serve: keys over a socket, without a mount.

use crate::cli::failure::Failure;
use crate::cli::given::{self, takeover};
use crate::cli::options::{Unknown, address, parse_options};
use crate::cli::place;
use crate::cli::words::ServeWords;
use crate::life::plan::MountOptions;
use crate::life::serve_keys::{KeyPlan, serve_keys};

pub fn serve(words: &ServeWords) -> Result<(), Failure> {
    let lists = given::texts(&words.store.options)?;
    let options: MountOptions = parse_options(lists, Unknown::Refuse).map_err(Failure::Usage)?;
    if options.kvlds.is_some() {
        return Err(Failure::Usage(
            "option 'kvlds': without a mount the socket is said with --kvlds and --mode".into(),
        ));
    }
    let store = place::store(&words.store.store, &options.store, Unknown::Refuse)?;
    let takeover = takeover(&words.takeover, &store)?;
    let address =
        address(&words.kvlds).map_err(|error| Failure::Usage(format!("--kvlds '{}': {error}", words.kvlds)))?;
    Ok(serve_keys(&KeyPlan { store, create: words.create, takeover, address, mode: words.mode, options })?)
}

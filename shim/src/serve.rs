//! `-socket PATH` without an action: serves there, in this very process. `start` ends in the same place by a fork; this is for a
//! supervisor that starts the shim itself, tells its clients where it listens, and keeps the process.

use std::path::{Path, PathBuf};

use crate::args::Args;
use crate::bootstrap::{Config, Environment, Outcome, oom_score};
use crate::error::{Context, Error, Kind, Result};
use crate::resident::Inheritance;
use crate::socket::{self, Claim};

/// Takes the socket.
///
/// # Errors
/// There is no namespace or id, or somebody listens there.
pub fn serve(args: &Args) -> Result<Outcome> {
    for (value, flag) in [(&args.namespace, "-namespace"), (&args.id, "-id")] {
        if value.is_empty() {
            return Err(Error::invalid(format!("serving {} needs {flag}", args.socket)));
        }
    }
    let environment = Environment::read();
    let here = || std::env::current_dir().context(|| "find the working directory, the bundle".to_owned());
    let bundle = if args.bundle.as_os_str().is_empty() { here()? } else { absolute(&args.bundle)? };
    let socket = absolute(Path::new(&args.socket))?;
    let Claim::Ours(listening) = socket::claim(&socket)? else {
        return Err(Error::new(Kind::AlreadyExists, format!("another process serves {} already", socket.display())));
    };
    Ok(Outcome::Serve(Box::new(Inheritance {
        config: Config {
            namespace: args.namespace.clone(),
            id: args.id.clone(),
            address: args.address.clone(),
            ttrpc_address: environment.ttrpc_address,
            publish_binary: args.publish_binary.clone(),
            debug: args.debug,
            bundle,
            socket,
        },
        listening,
        shim_cgroup: Ok(String::new()),
        // The supervisor's to choose.
        oom_score: oom_score(nix::unistd::getpid()),
        core_scheduling: environment.core_scheduling,
    })))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).context(|| format!("find {}", path.display()))
}

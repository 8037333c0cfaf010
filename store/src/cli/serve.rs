//! The daemon's life: log, store, socket, signals.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;

use super::args;
use super::output::{Done, Failure};
use crate::collector::Collector;
use crate::config::{self, Config};
use crate::error::{Context, Error, Result};
use crate::service::session::Running;
use crate::service::{Shared, server};
use crate::store::Store;

/// How long threads that still work are waited for at the end. What they do is recovered at the next start.
const LAST: Duration = Duration::from_secs(10);

pub(super) fn serve(args: args::Serve, socket: PathBuf) -> Done {
    let usage = |error: Error| Failure::usage(error.message);
    let level = args.log_level.or_else(|| super::variable("TARE_STORE_LOG"));
    start_log(level.as_deref().unwrap_or("info")).map_err(usage)?;
    let config = args.config.config(socket, &config::environment).map_err(usage)?;
    // Everything here is ours alone, whatever the caller's mask was.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::internal(format!("make an event loop: {error}")))?;
    let served = runtime.block_on(run(config));
    runtime.shutdown_timeout(LAST);
    if let Err(error) = &served {
        tracing::error!("{error}");
    }
    Ok(served?)
}

async fn run(config: Config) -> Result<()> {
    let (mut term, mut int) = (listen_for(SignalKind::terminate())?, listen_for(SignalKind::interrupt())?);
    let socket = config.socket.clone();
    let store = Store::open(config)?;
    let listener = server::listen(&socket)?;
    let collector = Collector::start(&store);
    tracing::info!(
        root = %store.config.root.display(),
        socket = %socket.display(),
        version = env!("CARGO_PKG_VERSION"),
        "serving"
    );
    notify("READY=1");
    let told = async {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        tracing::info!("asked to end");
        notify("STOPPING=1");
    };
    let shared = Shared { store: store.clone(), collector, running: Running::default() };
    let served = server::serve(listener, &shared, told).await;
    tracing::info!("ended");
    served
}

fn listen_for(kind: SignalKind) -> Result<tokio::signal::unix::Signal> {
    signal(kind).context(|| "listen for signals".to_owned())
}

fn start_log(level: &str) -> Result<()> {
    let level: LevelFilter = level.parse().map_err(|_| {
        Error::invalid(format!("{level:?} is no level of logging: use error, warn, info, debug or trace"))
    })?;
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .with_max_level(level)
        .init();
    Ok(())
}

/// Tells the service manager, if there is one (sd_notify(3)). It serves whether or not that hears it.
fn notify(state: &str) {
    let Some(path) = config::environment("NOTIFY_SOCKET") else { return };
    let address = match path.to_string_lossy().strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let sent = address.and_then(|it| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &it));
    if let Err(error) = sent {
        tracing::warn!(%error, "tell the service manager");
    }
}

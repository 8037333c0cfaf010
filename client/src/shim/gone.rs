//! What is left of a container whose shim is gone: by the shim's own program as long as there is a bundle to work in, and by the
//! runtime alone where somebody removed that.

use std::path::PathBuf;
use std::process::Command;

use super::{command, is_alive, run, runtime};
use crate::client::Client;
use crate::disk::gone;
use crate::error::{Context, Error, Result};
use crate::record::Container;
use crate::records::short;
use crate::store::NAMESPACE;

/// Whether there is anything of a container's run. After a boot there is nothing.
pub(crate) fn is_anything_left(client: &Client, id: &str) -> bool {
    client.paths.bundle(id).is_dir() || state(client, id).is_dir()
}

/// What the runtime keeps of a container.
fn state(client: &Client, id: &str) -> PathBuf {
    client.paths.runtime().join(NAMESPACE).join(id)
}

/// Cleans up after a shim that is gone: ends the container's processes, removes its cgroup, state and mounts.
///
/// # Errors
/// A program cannot be run or fails.
pub fn clean_up(client: &Client, record: &Container) -> Result<()> {
    let bundle = client.paths.bundle(&record.id);
    if !bundle.is_dir() {
        return without_bundle(client, record);
    }
    let what = || format!("clean up with {}", client.programs.shim.display());
    let mut command = command(client, &record.id, &bundle);
    let output = run(command.arg("-bundle").arg(&bundle).arg("delete"), &[], &what)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::failed(format!("{}: {}", what(), String::from_utf8_lossy(&output.stderr).trim())))
}

/// The shim's program would not know the runtime and its root: they are written in the bundle.
fn without_bundle(client: &Client, record: &Container) -> Result<()> {
    let address = &record.state.shim;
    if let Some(socket) = address.strip_prefix("unix://").map(PathBuf::from)
        && socket.starts_with(client.paths.shims())
        && !is_alive(address)
    {
        gone(std::fs::remove_file(&socket)).context(|| format!("remove {}", socket.display()))?;
    }
    if !state(client, &record.id).is_dir() {
        return Ok(());
    }
    let runtime = runtime::of(client, record);
    let what =
        || format!("end container {} with {runtime} delete --force, since its bundle is gone", short(&record.id));
    let mut command = Command::new(&runtime);
    command.arg("--root").arg(client.paths.runtime().join(NAMESPACE)).args(["delete", "--force", &record.id]);
    let output = command.current_dir("/").output().context(what)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::failed(format!("{}: {}", what(), String::from_utf8_lossy(&output.stderr).trim())))
}

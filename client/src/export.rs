//! `export`: a container's root as a tar archive, without what is mounted in it.

use std::io::{BufWriter, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::OpenTreeFlags;

use crate::archive::Out;
use crate::client::Client;
use crate::error::{Context, Error, Result};
use crate::record::{Container, Status};
use crate::{events, records, root};

/// Writes the archive to `output`, a new file or one that it replaces, or to standard output.
///
/// # Errors
/// There is no such container, standard output is a terminal, or a call fails. A half-written file is removed.
pub async fn export(client: &Client, name: &str, output: Option<&Path>) -> Result<()> {
    let record = records::find(client, name)?;
    let Some(path) = output else {
        let out = std::io::stdout();
        if out.is_terminal() {
            return Err(Error::usage("cowardly refusing to save to a terminal: use the -o flag or redirect"));
        }
        return write(client, &record, out.lock()).await;
    };
    let directory = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !directory.is_dir() {
        return Err(Error::usage(format!("{} is not a directory: make it first", directory.display())));
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}~", std::process::id()));
    let fresh = path.with_file_name(name);
    let what = || format!("write {}", path.display());
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(&fresh).context(what)?;
    let written = match write(client, &record, file).await {
        Ok(()) => std::fs::rename(&fresh, path).context(what),
        failed => failed,
    };
    written.inspect_err(|_| {
        // The first failure is the one to tell.
        let _ = std::fs::remove_file(&fresh);
    })
}

async fn write(client: &Client, record: &Container, out: impl Write) -> Result<()> {
    let root = open(client, record).await?;
    let mut archive = Out::new(BufWriter::with_capacity(128 << 10, out));
    archive.add_contents(root.as_fd())?;
    archive.finish()?;
    events::container(&client.paths, "export", record, &[]);
    Ok(())
}

/// Its root alone. Of a container that runs it is the mount that it runs on: the kernel does not like another of the same directories.
async fn open(client: &Client, record: &Container) -> Result<OwnedFd> {
    if matches!(record.state.status, Status::Running | Status::Paused) {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        if let Ok(root) = rustix::mount::open_tree(CWD, client.paths.bundle(&record.id).join("rootfs"), flags)
            && !crate::tree::names_of(root.as_fd())?.is_empty()
        {
            return Ok(root);
        }
    }
    root::view(&client.store.mounts(&record.snapshot).await?)
}

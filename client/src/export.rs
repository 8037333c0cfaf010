//! `export`: a container's root as a tar archive, without what is mounted in it.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::OpenTreeFlags;

use crate::archive::Out;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::outfile::OutFile;
use crate::record::{Container, Status};
use crate::{events, records, root};

/// Writes the archive to `output`, a new file or one that it replaces, or to standard output.
///
/// # Errors
/// There is no such container, standard output is a terminal, or a call fails. A half-written file is removed.
pub async fn export(client: &Client, name: &str, output: Option<&Path>) -> Result<()> {
    let record = records::find(client, name)?;
    match output {
        Some(path) => {
            let mut file = OutFile::open(path)?;
            write(client, &record, &mut file).await?;
            file.finish()
        }
        None if io::stdout().is_terminal() => {
            Err(Error::usage("export writes an archive to standard output, which is a terminal: use -o FILE or a pipe"))
        }
        None => write(client, &record, io::stdout().lock()).await,
    }
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

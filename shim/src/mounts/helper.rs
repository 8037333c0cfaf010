//! File systems that a program serves, which another program mounts.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::Mount;
use crate::error::{Context, Error, Result};

/// How much of what it says is repeated.
const SAID: u64 = 4096;

/// The program that mounts this type, and the type it is told: `fuse3.fuse-overlayfs` is `mount.fuse3 … -t fuse-overlayfs`.
pub(super) fn program(kind: &str) -> Option<(&'static str, &str)> {
    let (family, kind) = kind.split_once('.')?;
    match family {
        "fuse" => Some(("mount.fuse", kind)),
        "fuse3" => Some(("mount.fuse3", kind)),
        _ => None,
    }
}

/// Runs it until it has mounted; what serves the file system goes on by itself.
pub(super) fn mount(mount: &Mount, target: &Path) -> Result<()> {
    let Some((program, kind)) = program(&mount.kind) else { return Ok(()) };
    let what = || format!("run {program} to mount {} on {}", mount.kind, target.display());
    // A file, not a pipe: what goes on serving may hold it open for as long as the container lives.
    let mut said = File::from(memfd_create(c"said", MFdFlags::MFD_CLOEXEC).context(what)?);
    let copy = || said.try_clone().map(OwnedFd::from).map(Stdio::from);
    let mut command = Command::new(program);
    command.arg(&mount.source).arg(target);
    for option in &mount.options {
        command.arg("-o").arg(option);
    }
    command.arg("-t").arg(kind).stdin(Stdio::null()).stdout(copy().context(what)?).stderr(copy().context(what)?);
    let status = command.status().context(what)?;
    if status.success() {
        return Ok(());
    }
    let mut text = Vec::new();
    said.rewind().and_then(|()| (&said).take(SAID).read_to_end(&mut text)).context(what)?;
    Err(Error::internal(format!("{}: {status}: {}", what(), String::from_utf8_lossy(&text).trim())))
}

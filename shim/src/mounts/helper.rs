//! File systems that a program serves, which another program mounts.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::Mount;
use crate::command;
use crate::error::{Error, Result};

/// How much of what it says is repeated.
const SAID: usize = 4096;
/// Nothing else is served meanwhile.
const WITHIN: Duration = Duration::from_secs(60);

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
    let what = || format!("mount {} on {} with {program}", mount.kind, target.display());
    let mut command = Command::new(program);
    command.arg(&mount.source).arg(target);
    for option in &mount.options {
        command.arg("-o").arg(option);
    }
    command.arg("-t").arg(kind);
    // Whatever the failure is: that a program is missing does not mean that the container is.
    let output = command::run(&mut command, WITHIN).map_err(|error| Error::internal(format!("{}: {error}", what())))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [&String::from_utf8_lossy(&output.stdout), &*output.stderr].concat();
    let said = said.trim();
    let said = &said[..said.floor_char_boundary(SAID)];
    Err(Error::internal(format!("{}: {}: {said}", what(), output.status)))
}

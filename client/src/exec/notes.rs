//! Which execs a shim knows of by us. It forgets one that has ended when it is told to, and who would tell it may have gone: nobody looks on
//! at a detached one, a person leaves, a client is killed. So each exec begins with telling it of those of others.
//!
//! ```text
//! RUN/containers/<id>/<exec>.exec    there from before the shim knows of it until it has forgotten it; locked by whoever is at it
//! ```

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::background::Turn;
use crate::error::{Kind, Result};
use crate::record::Status;
use crate::shim::Shim;

/// How the files' names end.
const EXTENSION: &str = "exec";
/// What waits for output that nobody takes is not waited for: the shim goes on by itself, and the next exec finds it done.
const PATIENCE: Duration = Duration::from_secs(1);

/// Of one exec; it stays until the shim has forgotten that.
#[derive(Debug)]
pub(super) struct Note {
    path: PathBuf,
    _turn: Turn,
}

impl Note {
    /// Before the shim knows of it; None if this id is taken.
    ///
    /// # Errors
    /// The container's directory is gone: `NotFound`.
    pub(super) fn make(directory: &Path, id: &str) -> Result<Option<Self>> {
        let path = directory.join(id).with_extension(EXTENSION);
        // Whoever collects may have come in between, and taken it for that of one that is gone.
        let turn = Turn::take_new(&path)?.filter(|turn| !turn.is_over());
        Ok(turn.map(|turn| Self { path, _turn: turn }))
    }

    /// The shim has forgotten it, or never knew of it.
    pub(super) fn remove(&self) {
        // What stays is removed by whoever collects.
        let _ = fs::remove_file(&self.path);
    }
}

/// Has the shim forget what has ended, and what nobody will start any more.
pub(super) async fn collect(shim: &Shim, directory: &Path) {
    let _ = tokio::time::timeout(PATIENCE, forget(shim, directory)).await;
}

async fn forget(shim: &Shim, directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let notes = entries.flatten().map(|it| it.path()).filter(|it| it.extension() == Some(OsStr::new(EXTENSION)));
    for path in notes {
        let Some(id) = path.file_stem().and_then(OsStr::to_str) else { continue };
        let Ok(Some(turn)) = Turn::take_old(&path) else { continue };
        if turn.is_over() {
            continue;
        }
        let gone = match shim.state(id).await {
            Ok(process) if matches!(process.status, Status::Exited | Status::Created) => {
                shim.delete(id).await.map(drop)
            }
            Ok(_) => continue,
            Err(error) => Err(error),
        };
        if gone.is_ok() || gone.is_err_and(|error| error.kind == Kind::NotFound) {
            let _ = fs::remove_file(&path);
        }
    }
}

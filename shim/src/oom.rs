//! Kills for lack of memory, in one cgroup.

use crate::cgroup::Cgroup;
use crate::error::{Error, Kind, Result};

/// Sees each OOM kill in a cgroup (and in those below it), from its making on.
///
/// ```text
/// let watch = OomWatch::new(&cgroup)?;            // after `create`, before `start`; in tokio's context
/// while watch.next().await.is_some() { publish(TaskOOM) }
/// // on init's exit, before its event: if watch.check() { publish(TaskOOM) }
/// ```
#[derive(Debug)]
pub struct OomWatch {
    _cgroup: Cgroup,
}

impl OomWatch {
    /// Begins to watch `cgroup`. A kill between here and the first [`next`](Self::next) is not lost.
    pub fn new(cgroup: &Cgroup) -> Result<Self> {
        Err(Error::new(Kind::Unimplemented, format!("watch the memory of {}", cgroup.display())))
    }

    /// Waits for an OOM kill; several at once may be one. None when the cgroup is gone, for ever. Cancel safe.
    pub async fn next(&mut self) -> Option<()> {
        None
    }

    /// Whether there was a kill that [`next`](Self::next) has not yet told, which this call then has. Never blocks.
    ///
    /// For the exit of init: what killed it is told before it.
    pub fn check(&mut self) -> bool {
        false
    }
}

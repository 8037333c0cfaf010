//! What a cgroup has used, as containerd's messages say it.

use tare_proto::Any;

use crate::cgroup::Cgroup;
use crate::error::{Error, Kind, Result};

/// The statistics of `cgroup`: `io.containerd.cgroups.v1.Metrics` or `io.containerd.cgroups.v2.Metrics`, by what it is.
///
/// What the host does not count is left out; only a cgroup that is gone is an error (`NotFound`).
pub fn stats(cgroup: &Cgroup) -> Result<Any> {
    Err(Error::new(Kind::Unimplemented, format!("read the statistics of {}", cgroup.display())))
}

//! The place of the driver that asks systemd for slices and scopes; what it would do is refused until it is there.

use crate::error::Error;

/// The refusal of the systemd manager.
pub(crate) fn unavailable() -> Error {
    Error::unsupported(
        "the systemd cgroup manager is not available: use --cgroup-manager cgroupfs, and a cgroupsPath that is a path",
    )
}

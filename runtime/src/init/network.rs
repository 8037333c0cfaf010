//! The container's own network namespace: its loopback device is set up.

use crate::error::{Context, Result};
use crate::sys;

/// Sets the loopback device up. Only for a namespace that was made for this container: one that is joined is its
/// owner's affair.
pub fn loopback_up() -> Result<()> {
    sys::net::loopback_up().on("set up", "the loopback device")
}

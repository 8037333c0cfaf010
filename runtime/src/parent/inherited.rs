//! Descriptors that the caller left open in this process: some are for the container, none else may get into it.

use crate::error::{Context, Error, Result};
use crate::sys::fds;

/// Checks that the `preserved` descriptors after standard error came from the caller, and marks everything behind them
/// close-on-exec, so that no hook, helper or container inherits it.
pub fn settle(preserved: u32) -> Result<()> {
    // A number that is open but close-on-exec is one of our own (the log): what is inherited cannot be.
    if let Some(number) = (3..3 + preserved).find(|&number| !fds::survives_exec(number)) {
        return Err(Error::invalid(format!(
            "--preserve-fds (with LISTEN_FDS: {preserved} descriptors): descriptor {number} is not open in the calling process"
        )));
    }
    fds::close_on_exec_from(3 + preserved).on("mark close-on-exec", "the caller's descriptors")
}

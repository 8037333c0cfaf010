//! The outside of a container's terminal: who gets its master end, and the relay of a foreground `run` or `exec`.
//!
//! The inside (making the pty, /dev/console, the payload's stdio) is `init::console`. Nothing here enters a container.

mod raw;
mod relay;
mod socket;

pub use self::relay::{adopt, relay};
pub use self::socket::{connect_console, send_master, send_pidfd};

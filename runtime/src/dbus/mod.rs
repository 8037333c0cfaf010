//! A client of D-Bus, as small as one question to a service manager needs: no thread, no event loop, no proxies.
//!
//! [`Connection`] speaks to a bus or straight to a peer, waits no longer than it is told to, and reads no message longer
//! than a limit. [`Value`] is what can be sent; of what comes back only strings and numbers are read. It must not know
//! whom it talks to about what.
//!
//! Own code, because what there is asks the bus for the rights of its own uid, which is another one in a user namespace,
//! expects a bus where there is only a peer, or brings threads or a C library.

pub mod address;
mod connection;
mod reading;
mod sasl;
mod value;
mod wire;

pub use connection::{Broken, Call, Connection, Deadline, Failure, Link, Refusal};
pub use reading::{Body, Message, MessageType};
pub use value::{Type, Value};

#[cfg(test)]
pub(crate) mod mock;

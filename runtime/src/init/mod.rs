//! init: the container's first process, from its clone to the program it executes. The container's view only.

pub mod cwd;
pub mod home;
pub mod keyring;
pub mod namespaces;
pub mod network;

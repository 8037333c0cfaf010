//! init: the container's first process, from its clone to the program it executes. The container's view only.

pub mod namespaces;
pub mod network;

//! The `tare` program: an OCI runtime for Linux.
fn main() {}

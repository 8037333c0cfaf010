//! The parent: the host's view.

pub mod idmap;

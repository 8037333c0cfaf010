//! The cgroups of a container: made from a plan, joined, read, changed, removed.
pub mod layout;
pub use layout::Layout;

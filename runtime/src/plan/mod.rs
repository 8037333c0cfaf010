//! Spec → Plan: pure, no side effect.

pub mod cgroup;
pub mod hooks;
pub mod namespaces;
pub mod netdev;
pub mod process;
pub mod rdt;

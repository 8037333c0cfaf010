//! Spec → Plan: pure, no side effect.

pub mod cgroup;
pub mod cgroup_view;
pub mod devices;
pub mod hooks;
pub mod mounts;
pub mod namespaces;
pub mod netdev;
pub mod process;
pub mod rdt;
pub mod seccomp;
pub mod sysctl;

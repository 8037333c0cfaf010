//! init: the container's first process, from its clone to the program it executes. The container's view only.

pub mod attributes;
pub mod cgroup_mount;
pub mod console;
mod copy_up;
pub mod credentials;
pub mod cwd;
pub mod devices;
pub mod exec;
mod filesystem;
pub mod home;
pub mod keyring;
pub mod mask;
pub mod mounts;
pub mod namespaces;
pub mod network;
pub mod path;
pub mod rootfs;
pub mod seccomp;
pub mod sysctl;

//! The end-to-end tests: one program, one module a subject. The harness is described in the `integration` library.

#![allow(clippy::disallowed_methods)]

mod apparmor;
mod attributes;
mod callers;
mod cgroup;
mod checkpoint;
mod commands;
mod errors;
mod events;
mod faults;
mod harness;
mod hooks;
mod lifecycle;
mod mounts;
mod namespaces;
mod netdev;
mod notify;
mod ordinary;
mod process;
mod program;
mod rdt;
mod scale;
mod seccomp_agent;
mod security;
mod security_mounts;
mod security_process;
mod selinux;
mod systemd;
mod terminal;
mod unified;
mod update;

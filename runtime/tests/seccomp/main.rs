//! The seccomp compiler against libseccomp, and its programs in the kernel.

mod bpf;
mod docker;
mod equality;
mod errors;
mod kernel;
mod libseccomp;
mod random;
mod tree;

use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

/// A profile of the shape of Docker's default one, for where there is no Docker: what an unprivileged container may call, three rules with conditions.
const DEFAULT: &str = include_str!("default.json");

/// The linux.seccomp of a JSON value.
fn profile(value: Value) -> LinuxSeccomp {
    serde_json::from_value(value).expect("a profile")
}

/// A profile with one entry after another.
fn with_rules(default: &str, rules: &[Value]) -> LinuxSeccomp {
    profile(json!({"defaultAction": default, "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"], "syscalls": rules}))
}

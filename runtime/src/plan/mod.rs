//! Spec → Plan: pure, no side effect.

pub mod hooks;
pub mod namespaces;
pub mod process;

//! Spec → Plan: pure, no side effect.

pub mod namespaces;

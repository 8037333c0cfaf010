//! Spec → Plan: pure, no side effect.

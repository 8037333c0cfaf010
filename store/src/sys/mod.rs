//! System calls that nix does not wrap: the only unsafe code.

#![allow(unsafe_code)]

pub mod file;
pub mod passed;

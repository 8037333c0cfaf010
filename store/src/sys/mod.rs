//! System calls that nix does not wrap: the only unsafe code.

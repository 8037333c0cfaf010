//! From a record and an image to what a runtime is told.

pub mod capabilities;

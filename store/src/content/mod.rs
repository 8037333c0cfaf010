//! Blobs by digest, and what is still coming.
pub mod digest;

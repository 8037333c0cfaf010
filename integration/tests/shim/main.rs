//! The shim's end-to-end tests: one program, one module a subject. The client they use is `integration::shim_client`.

#![allow(clippy::disallowed_methods)]

mod churn;
mod client;
mod containerd;
mod cri;
mod docker;
mod failures;
mod held;
mod layers;
mod resources;
mod sandbox;
mod statistics;
mod tasks;

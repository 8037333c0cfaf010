//! What the end-to-end tests and the benchmarks share: a harness round any OCI runtime with runc's command line.
//!
//! ```no_run
//! use integration::{Runtime, skip};
//! use serde_json::json;
//!
//! let rt = Runtime::from_env();                            // private --root and work directory, removed at drop
//! let out = rt.run(&rt.bundle(&["/bin/echo", "hello"]));   // foreground; waits for the end
//! assert_eq!(out.ok().stdout, "hello\n");
//!
//! let bundle = rt
//!     .bundle(&["/bin/probe", "wait"])                     // says "ready", then waits for SIGTERM and ends with 0
//!     .set("/process/user/uid", json!(1000))
//!     .push("/mounts", json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs"}))
//!     .edit(|config| config["hostname"] = json!("other"));
//! let container = rt.create(&bundle, &[]).unwrap();        // the error is the Output, printed whole
//! container.start().ok();
//! assert_eq!(container.status(), "running");
//! assert_eq!(container.exec(&["id", "-u"]).ok().stdout, "1000\n");
//! container.kill("KILL").ok();
//! container.wait_exit();                                   // by pidfd; reaps init
//! container.delete().ok();
//!
//! let out = rt.run(&rt.bundle(&["/no/such"])).fails();     // panics, with everything known, if it succeeded
//! assert!(out.error().contains("no such file or directory"));
//! # if true { skip!("this kernel has no such thing") }     // prints and counts the skip, and returns
//! ```
//!
//! - **Which runtime.** `TARE_BIN`, or else the newer of the built `release` and `debug` `tare`. With
//!   `TARE_BIN=/usr/sbin/runc` the same tests judge runc, which tells a wrong test from a wrong runtime.
//! - **What is a test's own.** Everything a test makes carries its tag ([`Runtime::tag`]): ids, directories, cgroups, the
//!   environment of each runtime process. A test that names a cgroup or a path itself puts the tag into it. Tests run in
//!   parallel, so none may look at what does not carry its tag, nor wait for "any child".
//! - **Leaks.** [`Leaks`] compares mounts, cgroups, processes, state and descriptors before and after. When a [`Runtime`] is
//!   dropped and the test has not failed, it deletes its containers and then fails the test if anything is left over; so
//!   every test is a leak test.
//! - **Waiting** is for events: [`Container::wait_exit`] (pidfd), [`wait::file`] (inotify), [`Console::accept`],
//!   and every call of the runtime has a deadline ([`wait::deadline`]) after which it is killed and the test fails.
//! - **Output of a container** goes to files, not pipes ([`Container::stdout`]), since a detached container outlives the call.
//! - **The processes left behind.** The test process is a child subreaper, as conmon and the shims are, so that a detached
//!   container's init becomes its child; it is reaped by pid, in [`Container::wait_exit`] and when the guard is dropped; a detached exec's
//!   process by [`Orphan`], in time for the end of init, which waits for it.
//! - **What busybox cannot tell** is told by `probe` (`src/bin/probe.rs`), which every root file system holds as `/bin/probe`.
//! - **Skips.** [`skip!`] says what the machine lacks; `integration/test` counts them. A silent return is a bug in a test.

// clippy.toml says what the runtime must not do; tests and benchmarks may make files, wait and exit as they like.
#![allow(clippy::disallowed_methods)]

mod bundle;
mod console;
mod container;
pub mod cri_client;
pub mod cri_streams;
mod leaks;
mod output;
pub mod recorded_disk;
pub mod registry;
mod runtime;
pub mod shim_client;
mod skip;
pub mod store;
pub mod sys;
pub mod wait;
pub mod world;

pub use bundle::{Bundle, build_rootfs, default_config};
pub use console::Console;
pub use container::{Container, Orphan};
pub use leaks::Leaks;
pub use output::Output;
pub use runtime::{Running, Runtime, built, built_for_debugging, in_path, probe_path, under_test};
pub use skip::report_skip;

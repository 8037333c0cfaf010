//! What a seccomp filter costs: compiling it, and each system call under it, beside libseccomp's filter for the same
//! profile (without the part that runc puts in front).
//!
//! `cargo bench -p tare --bench seccomp`. Figures are medians; the ratios are what counts.

#[path = "../tests/seccomp/bpf.rs"]
mod bpf;
#[path = "../tests/seccomp/docker.rs"]
mod docker;
#[path = "../tests/seccomp/libseccomp.rs"]
#[allow(dead_code, reason = "shared with the tests, which use all of it")]
mod libseccomp;
#[path = "../tests/seccomp/tree.rs"]
mod tree;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use nix::sched::CloneFlags;
use oci_spec::runtime::LinuxSeccomp;
use tare::init::seccomp::load;
use tare::plan::seccomp::{Seccomp, lower};
use tare::sys::process::{self, Forked};

use bpf::{Call, run};
use libseccomp::Library;

/// The middle of `rounds` durations, in nanoseconds.
fn median(rounds: usize, mut what: impl FnMut()) -> u128 {
    let mut times: Vec<u128> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            what();
            start.elapsed().as_nanos()
        })
        .collect();
    times.sort_unstable();
    times[rounds / 2]
}

/// What one system call costs in a process under a filter, in tenths of a nanosecond: the middle of several runs.
fn cost(filter: Option<&Seccomp>, call: fn()) -> u64 {
    const CALLS: u128 = 20_000;
    let (mut ours, mut theirs) = UnixStream::pair().expect("a socket pair");
    match process::clone(0, None).expect("a process") {
        Forked::Child => {
            nix::sys::prctl::set_no_new_privs().expect("no_new_privs");
            if let Some(filter) = filter {
                load(filter).expect("a filter");
            }
            let time = median(41, || (0..CALLS).for_each(|_| call()));
            theirs.write_all(&((time * 10 / CALLS) as u64).to_le_bytes()).expect("a reader");
            process::exit_now(0);
        }
        Forked::Parent(child) => {
            drop(theirs);
            let mut result = [0; 8];
            ours.read_exact(&mut result).expect("a result");
            nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child.pid), None).expect("a child");
            u64::from_le_bytes(result)
        }
    }
}

fn main() {
    let text = match docker::profile() {
        Ok(profile) => {
            println!("Docker's default profile");
            profile
        }
        Err(why) => {
            println!("a profile of the shape of Docker's ({why})");
            include_str!("../tests/seccomp/default.json").to_owned()
        }
    };
    let text = text.as_str();
    let profile: LinuxSeccomp = serde_json::from_str(text).expect("a profile");
    let ours = lower(&profile).expect("a filter");
    let bytes = ours.to_bytes();
    println!("parse the profile     {:8} ns", median(501, || drop(serde_json::from_str::<LinuxSeccomp>(text))));
    println!("compile it            {:8} ns", median(501, || drop(lower(&profile))));
    println!("read it as compiled   {:8} ns", median(501, || drop(Seccomp::from_bytes(&bytes))));
    let theirs = Library::open("bench").and_then(|mut library| {
        let time = median(51, || drop(library.filter(&profile)));
        println!("libseccomp, by pipe   {time:8} ns");
        let program = library.filter(&profile).ok()?;
        Some(Seccomp { program, flags: ours.flags, notify: None })
    });

    let filters = [("none", None), ("ours", Some(&ours)), ("libseccomp's", theirs.as_ref())];
    println!("\n{:14} {:>8} {:>14} {:>14} {:>14} {:>14}", "filter", "length", "getpid", "denied", "getpid", "denied");
    for (name, filter) in filters {
        if name != "none" && filter.is_none() {
            continue;
        }
        // unshare(2) of nothing does nothing, and an unprivileged container may not do it.
        let unshare = || {
            let _ = nix::sched::unshare(CloneFlags::empty());
        };
        let getpid = || {
            let _ = nix::unistd::getpid();
        };
        let times = [cost(filter, getpid), cost(filter, unshare)];
        let steps = |number: libc::c_long| {
            let call = Call { number: number as u32, audit: 0xc000_003e, args: [0; 6] };
            filter.map_or(0, |filter| run(&filter.program, &call).1)
        };
        let length = filter.map_or(0, |filter| filter.program.len());
        let [getpid, denied] = times.map(|time| format!("{}.{} ns", time / 10, time % 10));
        let [first, second] = [libc::SYS_getpid, libc::SYS_unshare].map(|number| format!("{} steps", steps(number)));
        println!("{name:14} {length:>8} {getpid:>14} {denied:>14} {first:>14} {second:>14}");
    }
}

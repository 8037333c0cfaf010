//! Writing a new user namespace's id mappings and a time namespace's offsets, from outside.
//!
//! A privileged caller writes /proc/PID/{uid,gid}_map itself. Another one may map only its own id that way
//! (user_namespaces(7)); ranges from /etc/subuid and /etc/subgid are written by newuidmap(1) and newgidmap(1).

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use nix::errno::Errno;
use nix::unistd::{getegid, geteuid};

use crate::error::{Context, Error, Kind, Result};
use crate::plan::namespaces::{IdMap, Namespaces, TimeOffset};

/// Writes the mappings of `pid`, the first process of its user namespace.
pub fn write(pid: i32, plan: &Namespaces) -> Result<()> {
    if !write_direct(pid, "uid_map", &plan.uid_maps)? {
        if single(&plan.uid_maps, geteuid().as_raw()) {
            return Err(Error::new(Kind::System, "write the uid mapping of the user namespace: not permitted"));
        }
        helper("newuidmap", pid, &plan.uid_maps)?;
    }
    if !write_direct(pid, "gid_map", &plan.gid_maps)? {
        if single(&plan.gid_maps, getegid().as_raw()) {
            // Without privileges a group mapping is taken only once setgroups(2) is denied for good.
            fs::write(format!("/proc/{pid}/setgroups"), "deny").on("deny setgroups in", "the user namespace")?;
            if write_direct(pid, "gid_map", &plan.gid_maps)? {
                return Ok(());
            }
        }
        helper("newgidmap", pid, &plan.gid_maps)?;
    }
    Ok(())
}

/// Writes the offsets of the clocks in the time namespace of `pid`'s children.
pub fn write_time_offsets(pid: i32, offsets: &[TimeOffset]) -> Result<()> {
    let mut text = String::new();
    for offset in offsets {
        let _ = writeln!(text, "{} {} {}", offset.clock, offset.seconds, offset.nanoseconds);
    }
    fs::write(format!("/proc/{pid}/timens_offsets"), text).on("write linux.timeOffsets", text_of(offsets))
}

fn text_of(offsets: &[TimeOffset]) -> String {
    let each: Vec<_> = offsets.iter().map(|offset| format!("{} {}s", offset.clock, offset.seconds)).collect();
    format!("({})", each.join(", "))
}

fn single(maps: &[IdMap], own: u32) -> bool {
    matches!(maps, [IdMap { host, size: 1, .. }] if *host == own)
}

/// False: not permitted this way.
fn write_direct(pid: i32, file: &str, maps: &[IdMap]) -> Result<bool> {
    let mut text = String::new();
    for map in maps {
        let _ = writeln!(text, "{} {} {}", map.container, map.host, map.size);
    }
    match fs::write(format!("/proc/{pid}/{file}"), &text) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(Errno::EPERM as i32) => Ok(false),
        Err(error) => {
            Err(error).on("write the user namespace's", format!("{file} ({})", text.trim_end().replace('\n', ", ")))
        }
    }
}

fn helper(program: &str, pid: i32, maps: &[IdMap]) -> Result<()> {
    let mut command = Command::new(program);
    command.arg(pid.to_string());
    for map in maps {
        command.args([map.container.to_string(), map.host.to_string(), map.size.to_string()]);
    }
    crate::sys::signals::unblock_in(&mut command);
    let output = command.output().map_err(|error| {
        let remedy = format!("{error}; install {program} (package uidmap) to map more than your own id");
        Error::caused(Kind::Unsupported, format!("run {program}"), remedy)
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().lines().next_back().unwrap_or("it said nothing");
    Err(Error::caused(
        Kind::System,
        format!("{program} refused the mapping"),
        format!("{said}; see /etc/subuid and /etc/subgid"),
    ))
}

//! The AppArmor profile of a container that asks for none, on a host that has the module: `tare-default`, as `docker-default`
//! is docker's.
//!
//! It is a second line behind what the runtime masks and mounts read-only, and behind the capabilities it takes: nothing is
//! mounted, and the files by which a kernel is told what to do are not written, whoever the process is. It is given to the
//! kernel when a container first needs it, for a kernel that has been booted since has forgotten it.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::error::{Error, Result};
use crate::record::HostConfig;

/// The profile's name.
pub const DEFAULT: &str = "tare-default";
/// The name that asks for none.
pub const UNCONFINED: &str = "unconfined";

const LOADED: &str = "/sys/kernel/security/apparmor/profiles";

/// What the profile says. It names no file of the host, so that it can be compiled everywhere.
const TEXT: &str = "profile tare-default flags=(attach_disconnected,mediate_deleted) {
  capability,
  file,
  network,
  umount,

  # The runtime and whoever calls it may send signals in; the container's processes may among themselves.
  signal (receive) peer=unconfined,
  signal (send, receive) peer=tare-default,
  ptrace (trace, tracedby, read, readby) peer=tare-default,

  deny mount,

  # What of /proc is the host's.
  deny /proc/* w,
  deny /proc/{kcore,sysrq-trigger} rwlkx,
  deny /proc/{acpi,asound,bus,driver,fs,irq,scsi,tty}/** wlkx,
  deny /proc/sys/{abi,crypto,debug,dev,fs,sunrpc,user,vm}/** wlkx,
  deny /proc/sys/kernel/[^ms]** wlkx,
  deny /proc/sys/kernel/{max_,modprobe,modules_disabled,sched_,sec,soft,stack,sysctl,sysrq}* wlkx,

  # What of /sys is not a container's cgroup.
  deny /sys/kernel/security/** rwlkx,
  deny /sys/{block,bus,class,dev,devices,firmware,hypervisor,kernel,module,power}/** wlkx,
  deny /sys/fs/{bpf,btrfs,ext4,f2fs,fuse,nfs,pstore,resctrl,selinux,smackfs,xfs}/** wlkx,
}
";

/// Whether the host runs the module and can be given profiles.
fn is_usable() -> bool {
    let enabled = std::fs::read("/sys/module/apparmor/parameters/enabled");
    enabled.is_ok_and(|text| text.first() == Some(&b'Y')) && parser().is_some()
}

fn parser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    places.map(|place| place.join("apparmor_parser")).find(|program| program.is_file())
}

/// The profile a container has: the one it asks for, none if it may do everything, or [`DEFAULT`] where the host has AppArmor.
#[must_use]
pub fn of(host: &HostConfig) -> Option<String> {
    of_host_with(host, is_usable)
}

fn of_host_with(host: &HostConfig, is_usable: impl FnOnce() -> bool) -> Option<String> {
    let asked = host.security_opt.iter().rev().find_map(|option| {
        let (name, value) = option.split_once('=').or_else(|| option.split_once(':'))?;
        (name == "apparmor").then(|| value.to_owned())
    });
    // A privileged one is told so, for what starts it may be confined itself.
    let word = if host.privileged { UNCONFINED } else { DEFAULT };
    asked.or_else(|| is_usable().then(|| word.to_owned()))
}

/// Gives the kernel the profile if it is ours and not there yet.
///
/// # Errors
/// The kernel does not take it.
pub fn load(profile: &str) -> Result<()> {
    // Each line: a name, and in brackets whether it is enforced.
    let is_loaded = |text: String| text.lines().any(|line| line.rsplit_once(" (").is_some_and(|it| it.0 == profile));
    if profile != DEFAULT || std::fs::read_to_string(LOADED).is_ok_and(is_loaded) {
        return Ok(());
    }
    let Some(parser) = parser() else { return Ok(()) };
    let failed = |why: String| {
        Error::failed(format!(
            "load the AppArmor profile {profile}: {why}: run with --security-opt apparmor=unconfined to go without"
        ))
    };
    let mut child = Command::new(&parser)
        .args(["--replace", "--skip-cache"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(format!("start {}: {error}", parser.display())))?;
    let written = child.stdin.take().map_or(Ok(()), |mut input| input.write_all(TEXT.as_bytes()));
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    match written {
        _ if !output.status.success() => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(failed(format!("{} says: {}", parser.display(), said.trim())))
        }
        written => written.map_err(|error| failed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_has_the_profile_it_asks_for_or_the_hosts_default() {
        for (options, privileged, with, without) in [
            (&[][..], false, Some("tare-default"), None),
            (&["no-new-privileges"], false, Some("tare-default"), None),
            (&[], true, Some("unconfined"), None),
            (&["apparmor=unconfined"], false, Some("unconfined"), Some("unconfined")),
            (&["apparmor=mine"], true, Some("mine"), Some("mine")),
            (&["apparmor:old"], false, Some("old"), Some("old")),
            (&["apparmor=one", "apparmor=two"], false, Some("two"), Some("two")),
        ] {
            let security_opt = options.iter().map(|option| (*option).to_owned()).collect();
            let host = HostConfig { security_opt, privileged, ..HostConfig::default() };
            for (usable, expected) in [(true, with), (false, without)] {
                assert_eq!(of_host_with(&host, || usable).as_deref(), expected, "{options:?} {privileged} {usable}");
            }
        }
    }

    #[test]
    fn only_our_own_profile_is_given_to_the_kernel() {
        load("somebody-elses").unwrap();
    }
}

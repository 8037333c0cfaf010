//! What a [`World`](super::World) has besides on a host that systemd runs.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::unistd::{Uid, User as Account};

use super::{User, World};
use crate::wait;

/// Moves a process into the world's own scope, in every hierarchy that has it. `$CG` is the world's slice.
pub(super) const JOIN: &str = "for dir in /sys/fs/cgroup /sys/fs/cgroup/*; do
    procs=$dir/$CG/${CG%.slice}.scope/cgroup.procs
    [ ! -e $procs ] || echo $$ >$procs
done
";

/// A command for the processes in the world's cgroup and below it, of the host's systemd and of users' too.
pub const PROCESSES: &str = "find /sys/fs/cgroup -path \"*/${CG#/}/*\" -name cgroup.procs -exec cat {} + | sort -u";

/// Whether systemd runs this host.
pub fn runs_the_host() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// An ordinary user with a systemd of its own.
pub fn user() -> Option<Account> {
    fs::read_dir("/run/user").ok()?.flatten().find_map(|entry| {
        let uid: u32 = entry.file_name().to_str()?.parse().ok().filter(|&uid| uid != 0)?;
        let there = fs::symlink_metadata(entry.path().join("systemd/private")).is_ok();
        Account::from_uid(Uid::from_raw(uid)).ok()?.filter(|_| there)
    })
}

/// Skips the test where systemd does not run the host, or makes cgroups of version 1.
#[macro_export]
macro_rules! need_systemd {
    () => {
        if !$crate::world::systemd::runs_the_host() {
            $crate::skip!("this host is not run by systemd (integration/vm has one that is)");
        }
        if !std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
            $crate::skip!(
                "this host's systemd makes cgroups of version 1, whose callers are shown with the other driver"
            );
        }
    };
}

/// What scripts have besides.
pub const PROLOGUE: &str = r#"
# The values of these properties of a unit, one a line, in the order of their names here.
show() {
	unit=$1
	shift
	for name in "$@"; do
		systemctl $S show -p "$name" --value "$unit"
	done
}
# What a container sees of its limits.
limits='cd /sys/fs/cgroup && cat memory.max pids.max cpu.max'
# Says so when a unit is as if it had never been, which is some time after the end of its last process.
gone() {
	until [ "$(systemctl $S show -p LoadState --value "$1")" = not-found ]; do :; done
	echo gone
}
"#;

impl World {
    /// The units that callers left in the world's slice, here and with users: none ought to be there, and none to have failed.
    /// One whose last process has ended is there until systemd hears of that.
    pub(super) fn units_left(&self) -> Vec<String> {
        let until = Instant::now() + wait::limit() / 2;
        loop {
            let left = self.units();
            if left.is_empty() || Instant::now() >= until {
                return left;
            }
        }
    }

    fn units(&self) -> Vec<String> {
        let user = user().map(|account| User::Session(account.uid.as_raw()));
        let name = self.cgroup.trim_end_matches(".slice");
        let show = "systemctl $S show -p Id -p Slice -p ActiveState '*.scope' '*.slice' '*.service'";
        let of_host = self.sh(User::Root, &format!("S=; {show}")).stdout;
        let of_user = user.map(|user| self.sh(user, &format!("S=--user; {show}")).stdout).unwrap_or_default();
        let mut left = Vec::new();
        for unit in of_host.split("\n\n").chain(of_user.split("\n\n")) {
            let field = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
            let (id, slice) = (field("Id="), field("Slice="));
            let ours = slice == self.cgroup || slice.starts_with(&format!("{name}-"));
            // The scope that asks is a user's.
            if ours && id != format!("{name}.scope") && !id.starts_with("run-") {
                left.push(format!("--- a unit was left behind: {id} of {slice}, {}", field("ActiveState=")));
            }
        }
        left
    }
}

/// Ends what is left in a world's slice.
pub(super) fn stop(slice: &str) {
    let mut all = vec![Command::new("systemctl")];
    if let Some(account) = user() {
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={}", account.uid), format!("--regid={}", account.gid)]);
        command.args(["--clear-groups", "env", &format!("XDG_RUNTIME_DIR=/run/user/{}", account.uid)]);
        command.args(["systemctl", "--user"]);
        all.push(command);
    }
    for mut command in all {
        // One that is not there is as well.
        let _ = command.args(["stop", slice]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

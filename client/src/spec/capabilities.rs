//! Which capabilities a container gets (capabilities(7)).

use crate::error::{Error, Result};
use crate::record::HostConfig;

/// All that there are in Linux 6.x, by number.
const ALL: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What docker gives.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// What a container gets on this host.
///
/// # Errors
/// As [`resolve`].
pub fn of_host(host: &HostConfig) -> Result<Vec<String>> {
    // A kernel too old to say knows those of Linux 5.9 on.
    let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").ok().and_then(|it| it.trim().parse().ok());
    resolve(host.privileged, &host.cap_add, &host.cap_drop, last.unwrap_or(ALL.len() - 1))
}

/// The set for these additions and removals, with `CAP_` before each name. `last` is the highest number that the kernel knows
/// (/proc/sys/kernel/cap_last_cap).
///
/// # Errors
/// There is no capability of that name.
pub fn resolve(privileged: bool, add: &[String], drop: &[String], last: usize) -> Result<Vec<String>> {
    let (add, drop) = (names(add)?, names(drop)?);
    let all = || ALL.iter().take(last + 1).copied();
    let known = |name: &str| all().any(|it| it == name);
    let (adds_all, drops_all) = (add.contains(&"ALL"), drop.contains(&"ALL"));
    let chosen = |name: &str| {
        if privileged {
            return true;
        }
        if drop.contains(&name) {
            // Docker lets the removal win against ALL, and an addition by name against ALL removed.
            return false;
        }
        if adds_all || add.contains(&name) {
            return true;
        }
        !drops_all && DEFAULT.contains(&name)
    };
    Ok(all().filter(|it| known(it) && chosen(it)).map(|it| format!("CAP_{it}")).collect())
}

/// The names as the table has them.
fn names(given: &[String]) -> Result<Vec<&'static str>> {
    let name = |given: &String| {
        let upper = given.to_ascii_uppercase();
        let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if plain == "ALL" {
            return Ok("ALL");
        }
        ALL.iter().find(|it| **it == plain).copied().ok_or_else(|| {
            Error::usage(format!(
                "there is no capability {given:?}: capabilities(7) lists them, as in NET_ADMIN, and ALL"
            ))
        })
    };
    given.iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(privileged: bool, add: &[&str], drop: &[&str]) -> Vec<String> {
        let owned = |it: &[&str]| it.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        resolve(privileged, &owned(add), &owned(drop), 40).unwrap()
    }

    #[test]
    fn sets_are_as_dockers() {
        assert_eq!(set(false, &[], &[]).len(), 14);
        assert!(set(false, &["net_admin"], &[]).contains(&"CAP_NET_ADMIN".to_owned()));
        assert!(!set(false, &[], &["CAP_CHOWN"]).contains(&"CAP_CHOWN".to_owned()));
        assert_eq!(set(false, &["CHOWN"], &["ALL"]), ["CAP_CHOWN"]);
        assert_eq!(set(false, &["ALL"], &[]).len(), 41);
        assert_eq!(set(false, &["ALL"], &["SYS_ADMIN"]).len(), 40);
        assert_eq!(set(true, &[], &["ALL"]).len(), 41);
        assert_eq!(resolve(true, &[], &[], 37).unwrap().len(), 38, "an older kernel");
        assert!(resolve(false, &["NOPE".to_owned()], &[], 40).unwrap_err().message.contains("\"NOPE\""));
    }
}

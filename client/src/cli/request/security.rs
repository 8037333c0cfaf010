//! What the container may do, and which namespaces it shares.

use std::fs;
use std::io::Read;

use crate::cli::flags::Security;
use crate::error::{Context, Error, Result};
use crate::record::{HostConfig, Map};
use crate::spec::capabilities;

/// A profile is no larger.
const LARGEST_PROFILE: u64 = 4 << 20;

/// Puts them into the record.
pub(super) fn apply(flags: &Security, to: &mut HostConfig) -> Result<()> {
    capabilities::resolve(false, &flags.cap_add, &flags.cap_drop, usize::MAX - 1)?;
    to.cap_add.clone_from(&flags.cap_add);
    to.cap_drop.clone_from(&flags.cap_drop);
    to.privileged = flags.privileged;
    to.group_add.clone_from(&flags.group_add);
    for text in &flags.security_opt {
        to.security_opt.push(option(text)?);
    }
    to.sysctls = sysctls(&flags.sysctl)?;
    for text in &flags.device_cgroup_rule {
        super::mounts::device_rule(text)?;
    }
    to.device_cgroup_rules.clone_from(&flags.device_cgroup_rule);
    to.ulimits = super::resources::ulimits(&flags.ulimit)?;
    to.ipc_mode = mode("--ipc", flags.ipc.as_deref(), &["none", "private", "shareable", "host"], true)?;
    if to.ipc_mode.is_empty() {
        "private".clone_into(&mut to.ipc_mode);
    }
    to.pid_mode = mode("--pid", flags.pid.as_deref(), &["host"], true)?;
    to.uts_mode = mode("--uts", flags.uts.as_deref(), &["host"], false)?;
    to.userns_mode = mode("--userns", flags.userns.as_deref(), &["host"], false)?;
    to.cgroupns_mode = mode("--cgroupns", flags.cgroupns.as_deref(), &["private", "host"], false)?;
    to.cgroup_parent = flags.cgroup_parent.clone().unwrap_or_default();
    if let Some(score) = flags.oom_score_adj {
        if !(-1000..=1000).contains(&score) {
            return Err(Error::usage(format!("--oom-score-adj {score} is not from -1000 to 1000")));
        }
        to.oom_score_adj = score;
    }
    to.oom_kill_disable = flags.oom_kill_disable;
    if let Some(swappiness) = flags.memory_swappiness.filter(|it| *it != -1) {
        if !(0..=100).contains(&swappiness) {
            return Err(Error::usage(format!("--memory-swappiness {swappiness} is not from 0 to 100")));
        }
        to.memory_swappiness = Some(swappiness);
    }
    Ok(())
}

/// A mode of a namespace: one of these words, or `container:NAME` where that is possible.
fn mode(flag: &str, given: Option<&str>, words: &[&str], of_container: bool) -> Result<String> {
    let given = given.unwrap_or_default();
    let container = of_container && given.strip_prefix("container:").is_some_and(|name| !name.is_empty());
    if given.is_empty() || words.contains(&given) || container {
        return Ok(given.to_owned());
    }
    let more = if of_container { " or container:NAME" } else { "" };
    Err(Error::usage(format!("{flag} {given:?} is none: give {}{more}", words.join(", "))))
}

/// One `--security-opt`; a file of a seccomp profile becomes its content.
fn option(text: &str) -> Result<String> {
    let wrong = |why: &str| {
        Error::usage(format!(
            "--security-opt {text:?} {why}: there are seccomp=FILE|unconfined, apparmor=PROFILE, label=…, no-new-privileges and systempaths=unconfined"
        ))
    };
    // With : as docker took it long ago.
    let (name, value) = text.split_once('=').or_else(|| text.split_once(':')).unwrap_or((text, ""));
    match (name, value) {
        ("no-new-privileges", "" | "true" | "false") => Ok(text.to_owned()),
        ("seccomp", "unconfined" | "builtin") | ("systempaths", "unconfined") => Ok(format!("{name}={value}")),
        ("seccomp", "") | ("apparmor" | "label", "") => Err(wrong("has no value")),
        ("seccomp", file) => profile(file).map(|json| format!("seccomp={json}")),
        ("apparmor" | "label", value) => Ok(format!("{name}={value}")),
        _ => Err(wrong("is none")),
    }
}

fn profile(file: &str) -> Result<String> {
    let read = || format!("read the seccomp profile {file}");
    let mut text = String::new();
    fs::File::open(file).and_then(|it| it.take(LARGEST_PROFILE + 1).read_to_string(&mut text)).context(read)?;
    if text.len() as u64 > LARGEST_PROFILE {
        return Err(Error::usage(format!("the seccomp profile {file} has more than 4 MiB: that is none")));
    }
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|error| {
        Error::usage(format!("the seccomp profile {file} is no JSON ({error}): see seccomp(2) and docker's profiles"))
    })?;
    if !json.is_object() {
        return Err(Error::usage(format!("the seccomp profile {file} is no JSON object: see docker's profiles")));
    }
    Ok(json.to_string())
}

/// Those that belong to a namespace of the container; others are the host's.
fn sysctls(given: &[String]) -> Result<Map> {
    const OF_IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let mut all = Map::new();
    for text in given {
        let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(|| {
            Error::usage(format!("--sysctl {text:?} is none: give NAME=VALUE, as in net.ipv4.ip_forward=1"))
        })?;
        let name = name.trim();
        if !OF_IPC.contains(&name) && !name.starts_with("net.") && !name.starts_with("fs.mqueue.") {
            return Err(Error::usage(format!(
                "--sysctl {name} is of the whole host: a container has its own of net.*, fs.mqueue.* and kernel.msg*, sem and shm*"
            )));
        }
        all.insert(name.to_owned(), value.trim().to_owned());
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(change: impl FnOnce(&mut Security)) -> Result<HostConfig> {
        let mut flags = Security::default();
        change(&mut flags);
        let mut to = HostConfig::default();
        apply(&flags, &mut to).map(|()| to)
    }

    fn texts(all: &[&str]) -> Vec<String> {
        all.iter().map(|it| (*it).to_owned()).collect()
    }

    #[test]
    fn flags_become_the_record() {
        let profile = tempfile::NamedTempFile::new().unwrap();
        fs::write(profile.path(), "{ \"defaultAction\": \"SCMP_ACT_ALLOW\" }").unwrap();
        let seccomp = format!("seccomp={}", profile.path().display());
        let read = read(|it| {
            it.cap_add = texts(&["net_admin"]);
            it.security_opt = texts(&["no-new-privileges", "apparmor:x", "systempaths=unconfined", &seccomp]);
            it.sysctl = texts(&["net.ipv4.ip_forward = 1", "kernel.shmmax=5"]);
            it.pid = Some("container:web".to_owned());
            it.oom_score_adj = Some(-500);
            it.memory_swappiness = Some(-1);
        })
        .unwrap();
        assert_eq!(
            read.security_opt,
            [
                "no-new-privileges",
                "apparmor=x",
                "systempaths=unconfined",
                "seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\"}"
            ]
        );
        assert_eq!((read.sysctls["net.ipv4.ip_forward"].as_str(), read.ipc_mode.as_str()), ("1", "private"));
        assert_eq!((read.pid_mode.as_str(), read.oom_score_adj, read.memory_swappiness), ("container:web", -500, None));
    }

    #[test]
    fn flags_that_make_no_sense_are_refused() {
        type Change = fn(&mut Security);
        let all: [(Change, &str); 17] = [
            (|it| it.cap_add = texts(&["FLY"]), "no capability \"FLY\""),
            (|it| it.security_opt = texts(&["nope"]), "is none"),
            (|it| it.security_opt = texts(&["seccomp="]), "has no value"),
            (|it| it.security_opt = texts(&["seccomp=/no/such"]), "read the seccomp profile /no/such"),
            (|it| it.security_opt = texts(&["seccomp=/etc/passwd"]), "is no JSON"),
            (|it| it.security_opt = texts(&["systempaths=half"]), "is none"),
            (|it| it.sysctl = texts(&["kernel.panic=1"]), "of the whole host"),
            (|it| it.sysctl = texts(&["x"]), "give NAME=VALUE"),
            (|it| it.ipc = Some("mine".to_owned()), "--ipc \"mine\" is none"),
            (|it| it.pid = Some("container:".to_owned()), "host or container:NAME"),
            (|it| it.uts = Some("container:a".to_owned()), "--uts"),
            (|it| it.userns = Some("keep-id".to_owned()), "--userns"),
            (|it| it.cgroupns = Some("x".to_owned()), "private, host"),
            (|it| it.oom_score_adj = Some(1001), "-1000 to 1000"),
            (|it| it.memory_swappiness = Some(101), "0 to 100"),
            (|it| it.device_cgroup_rule = texts(&["x"]), "is no rule"),
            (|it| it.ulimit = texts(&["x"]), "--ulimit"),
        ];
        for (change, expected) in all {
            let error = read(change).expect_err(expected);
            assert!(error.message.contains(expected), "{error}");
        }
    }
}

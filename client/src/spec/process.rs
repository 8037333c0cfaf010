//! The process: what is run, as whom, with what around it.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::Inputs;
use super::security::Security;
use crate::error::{Error, Result};
use crate::record::{Config, Container, HostConfig};
use crate::users::User;

/// Where commands are looked for if the image does not say.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where the small init is bound in the container.
pub(super) const INIT: &str = "/sbin/docker-init";

/// What may be that init: small programs, linked statically, that reap and forward.
const INITS: [&str; 5] = [
    "/usr/bin/docker-init",
    "/usr/libexec/docker/docker-init",
    "/usr/bin/tini-static",
    "/usr/bin/catatonit",
    "/usr/libexec/podman/catatonit",
];

/// The object `process`.
pub(super) fn process(inputs: &Inputs<'_>, user: &User, capabilities: &[String], security: &Security) -> Value {
    let Container { config, host_config, .. } = inputs.record;
    let mut arguments = arguments(config);
    if host_config.init {
        arguments.splice(0..0, [INIT.to_owned(), "--".to_owned()]);
    }
    let mut process = json!({
        "user": { "uid": user.uid, "gid": user.gid, "additionalGids": user.groups },
        "args": arguments,
        "env": environment(config, inputs.links),
        "cwd": if config.working_dir.is_empty() { "/" } else { &config.working_dir },
        "capabilities": sets(user.uid, capabilities),
        "oomScoreAdj": host_config.oom_score_adj,
    });
    if config.tty {
        process["terminal"] = true.into();
        let [height, width] = host_config.console_size;
        if height > 0 && width > 0 {
            process["consoleSize"] = json!({ "height": height, "width": width });
        }
    }
    let limits = rlimits(host_config);
    if !limits.is_empty() {
        process["rlimits"] = limits.into();
    }
    if security.no_new_privileges {
        process["noNewPrivileges"] = true.into();
    }
    if let Some(profile) = inputs.apparmor {
        process["apparmorProfile"] = profile.into();
    }
    process
}

/// Who is not root has no capability but by a file that grants one. None is inheritable (CVE-2022-24769).
fn sets(uid: u32, capabilities: &[String]) -> Value {
    match (capabilities.is_empty(), uid) {
        (true, _) => json!({}),
        (false, 0) => json!({ "bounding": capabilities, "effective": capabilities, "permitted": capabilities }),
        (false, _) => json!({ "bounding": capabilities }),
    }
}

/// What is executed: the entry point and its arguments.
#[must_use]
pub fn arguments(config: &Config) -> Vec<String> {
    let entrypoint = config.entrypoint.iter().flatten().filter(|_| config.entrypoint != Some(vec![String::new()]));
    entrypoint.chain(config.cmd.iter().flatten()).cloned().collect()
}

/// Its environment: what goes without saying, what tells of linked containers, then its own. An entry without `=` stands for nothing: it never takes the host's value (CVE-2026-57231).
#[must_use]
pub fn environment(config: &Config, links: &[String]) -> Vec<String> {
    let mut all = vec![format!("PATH={DEFAULT_PATH}"), format!("HOSTNAME={}", config.hostname)];
    if config.tty {
        all.push("TERM=xterm".to_owned());
    }
    all.extend_from_slice(links);
    let key = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    for entry in &config.env {
        let name = key(entry);
        let before = all.iter().position(|it| key(it) == name);
        match (before, entry.contains('=')) {
            (Some(index), true) => all[index].clone_from(entry),
            (Some(index), false) => drop(all.remove(index)),
            (None, true) => all.push(entry.clone()),
            (None, false) => {}
        }
    }
    all
}

fn rlimits(host: &HostConfig) -> Vec<Value> {
    // -1 is no limit: all bits, as RLIM_INFINITY.
    let limit = |number: i64| u64::try_from(number).unwrap_or(u64::MAX);
    let one = |it: &crate::record::Ulimit| {
        json!({
            "type": format!("RLIMIT_{}", it.name.to_ascii_uppercase()), "hard": limit(it.hard), "soft": limit(it.soft)
        })
    };
    host.ulimits.iter().map(one).collect()
}

/// The host's small init.
pub(super) fn init_program() -> Result<PathBuf> {
    let there = |path: &PathBuf| path.metadata().is_ok_and(|it| it.is_file());
    INITS.iter().map(PathBuf::from).find(there).ok_or_else(|| {
        Error::failed("--init needs a small init program on this host: install the package tini (or catatonit)")
    })
}

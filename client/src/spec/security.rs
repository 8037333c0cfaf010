//! `--security-opt`.

use std::io::Read;

use serde_json::Value;

use crate::error::{Context, Error, Result};
use crate::record::HostConfig;

/// No profile is larger.
const LARGEST: u64 = 1 << 20;

/// The options, taken apart.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Security {
    pub(super) no_new_privileges: bool,
    pub(super) seccomp: Seccomp,
    pub(super) apparmor: Option<String>,
}

/// What `seccomp=` says.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) enum Seccomp {
    #[default]
    Builtin,
    Unconfined,
    /// A profile in docker's form.
    Profile(Value),
}

pub(super) fn parse(host: &HostConfig) -> Result<Security> {
    let mut security = Security::default();
    for option in &host.security_opt {
        let (name, value) = match option.split_once('=').or_else(|| option.split_once(':')) {
            Some((name, value)) => (name, Some(value)),
            None => (option.as_str(), None),
        };
        match (name, value) {
            ("no-new-privileges", None | Some("true")) => security.no_new_privileges = true,
            ("no-new-privileges", Some("false")) => security.no_new_privileges = false,
            ("seccomp", Some("unconfined")) => security.seccomp = Seccomp::Unconfined,
            ("seccomp", Some("builtin")) => security.seccomp = Seccomp::Builtin,
            ("seccomp", Some(profile)) => security.seccomp = Seccomp::Profile(json(profile)?),
            ("apparmor", Some(profile)) if !profile.is_empty() => security.apparmor = Some(profile.to_owned()),
            // Docker heeds labels only where SELinux is switched on for it.
            ("label", Some(_)) | ("systempaths", Some("unconfined")) => {}
            _ => {
                return Err(Error::usage(format!(
                    "invalid --security-opt: {option:?}: there are no-new-privileges, seccomp=FILE, seccomp=unconfined, apparmor=PROFILE, label=… and systempaths=unconfined"
                )));
            }
        }
    }
    Ok(security)
}

/// The same option with a file's profile in place of its name, as the record keeps it: the file may be gone at the next start.
pub(super) fn with_file(option: &str) -> Result<String> {
    let Some(path) = option.strip_prefix("seccomp=").or_else(|| option.strip_prefix("seccomp:")) else {
        return Ok(option.to_owned());
    };
    if matches!(path, "unconfined" | "builtin") || path.starts_with('{') {
        return Ok(option.to_owned());
    }
    let what = || format!("opening seccomp profile ({path}) failed");
    let file = std::fs::File::open(path).context(what)?;
    let mut text = String::new();
    file.take(LARGEST).read_to_string(&mut text).context(what)?;
    json(&text).map(|profile| format!("seccomp={profile}")).map_err(|error| error.within(what()))
}

fn json(text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|error| Error::usage(format!("the seccomp profile is not JSON: {error}")))
}

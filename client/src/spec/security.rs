//! `--security-opt`.

use serde_json::Value;

use crate::error::{Error, Result};
use crate::record::HostConfig;

/// The options, taken apart.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Security {
    pub(super) no_new_privileges: bool,
    pub(super) seccomp: Seccomp,
}

/// What `seccomp=` says.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) enum Seccomp {
    #[default]
    Builtin,
    Unconfined,
    /// A profile in docker's form; the command line has read its file.
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
            // What becomes of a profile, `apparmor::of` says.
            ("apparmor", Some(profile)) if !profile.is_empty() => {}
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

fn json(text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|error| Error::usage(format!("the seccomp profile is not JSON: {error}")))
}

//! A seccomp profile that the user gives, in docker's form, which has conditions that a runtime's has not: capabilities, architectures
//! and kernels for which a rule is meant.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// What of a profile is for us; everything else goes on to the runtime as it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    #[serde(default)]
    syscalls: Option<Vec<Rule>>,
    #[serde(default)]
    arch_map: Option<Vec<Machine>>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Machine {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Rule {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    names: Option<Vec<String>>,
    #[serde(default)]
    args: Option<Value>,
    #[serde(default)]
    includes: Option<Conditions>,
    #[serde(default)]
    excludes: Option<Conditions>,
    #[serde(default)]
    comment: Option<Value>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Conditions {
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
    #[serde(default)]
    min_kernel: Option<String>,
}

/// The runtime's form of `given`, for a container with these capabilities on a machine that runs `machines`, its own first.
pub(super) fn translate(given: &Value, machines: &[&str], capabilities: &[String]) -> Result<Value> {
    let profile: Profile = serde_json::from_value(given.clone())
        .map_err(|error| Error::usage(format!("the seccomp profile is not one in docker's form: {error}")))?;
    let mut all = profile.other;
    if !all.get("defaultAction").is_some_and(Value::is_string) {
        return Err(Error::usage("the seccomp profile has no defaultAction: give one, as SCMP_ACT_ERRNO"));
    }
    if all.contains_key("architectures") && profile.arch_map.is_some() {
        return Err(Error::usage("the seccomp profile has both architectures and archMap: one of them is enough"));
    }
    if let Some(map) = profile.arch_map
        && let Some(own) = map.into_iter().find(|it| machines.first() == Some(&it.architecture.as_str()))
    {
        let mut list = vec![own.architecture];
        list.extend(own.sub_architectures.unwrap_or_default());
        all.insert("architectures".to_owned(), list.into());
    }
    let mut calls = Vec::new();
    for rule in profile.syscalls.unwrap_or_default() {
        let wanted = rule.includes.as_ref().map_or(Ok(true), |it| it.hold(capabilities, true))?
            && !rule.excludes.as_ref().map_or(Ok(false), |it| it.hold(capabilities, false))?;
        if wanted {
            calls.push(one(rule)?);
        }
    }
    all.insert("syscalls".to_owned(), calls.into());
    Ok(all.into())
}

fn one(rule: Rule) -> Result<Value> {
    let _ = rule.comment;
    let names = match (rule.name, rule.names) {
        (Some(name), None) => vec![name],
        (None, Some(names)) => names,
        _ => return Err(Error::usage("each rule of a seccomp profile has either name or names")),
    };
    let mut out = rule.other;
    out.insert("names".to_owned(), json!(names));
    if let Some(arguments) = rule.args.filter(|it| it.as_array().is_some_and(|list| !list.is_empty())) {
        out.insert("args".to_owned(), arguments);
    }
    Ok(out.into())
}

impl Conditions {
    /// With `all`, whether every one holds (of a list of capabilities: all of them); otherwise, whether any does.
    fn hold(&self, capabilities: &[String], all: bool) -> Result<bool> {
        let mut results = Vec::new();
        if let Some(caps) = self.caps.as_ref().filter(|it| !it.is_empty()) {
            let has = |it: &String| capabilities.contains(it);
            results.push(if all { caps.iter().all(has) } else { caps.iter().any(has) });
        }
        if let Some(arches) = self.arches.as_ref().filter(|it| !it.is_empty()) {
            results.push(arches.iter().any(|it| it == MACHINE));
        }
        if let Some(kernel) = &self.min_kernel {
            results.push(kernel_at_least(kernel)?);
        }
        Ok(if all { results.iter().all(|it| *it) } else { results.iter().any(|it| *it) })
    }
}

#[cfg(target_arch = "x86_64")]
const MACHINE: &str = "amd64";
#[cfg(target_arch = "aarch64")]
const MACHINE: &str = "arm64";

fn kernel_at_least(wanted: &str) -> Result<bool> {
    let numbers = |text: &str| -> Option<(u32, u32)> {
        let mut parts = text.split(|it: char| !it.is_ascii_digit());
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    let wanted = numbers(wanted)
        .ok_or_else(|| Error::usage(format!("the seccomp profile's minKernel {wanted:?} is no version, as in 4.8")))?;
    let release = rustix::system::uname();
    Ok(numbers(&release.release().to_string_lossy()).is_none_or(|own| own >= wanted))
}

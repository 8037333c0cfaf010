//! The bundle: a directory with a `config.json`, read strictly and within limits.
//!
//! A configuration is what it says or an error: nothing falls back to a default of ours. The one leniency the spec
//! itself asks for is a capability this program does not know: it is left out with a warning. This module knows nothing
//! of what the configuration means; that is `plan`.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Capability, Process, Spec};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Context, Error, Kind, Result};
use crate::plan::cgroup::forget_unset_pids;
use crate::{json_path, log, strict_json};

/// The largest configuration that is read: a hundred times what the largest real ones need.
const LIMIT: u64 = 16 << 20;

/// A bundle whose configuration is read and well-formed; whether it makes sense is not yet known.
#[derive(Debug)]
pub struct Bundle {
    path: PathBuf,
    spec: Spec,
    config: Vec<u8>,
}

impl Bundle {
    /// Reads the bundle in `dir`, or in the current directory.
    pub fn load(dir: Option<&Path>) -> Result<Self> {
        let dir = dir.unwrap_or(Path::new("."));
        let path = match dir.as_os_str().as_encoded_bytes() {
            b"" | b"." => std::env::current_dir().on("find", "the current directory")?,
            _ => std::path::absolute(dir).on("make absolute:", dir.display())?,
        };
        let config = path.join("config.json");
        let bytes = read_limited(&config)?;
        let spec = parse_spec(&bytes).map_err(|error| error.within(config.display()))?;
        Ok(Self { path, spec, config: bytes })
    }

    /// The absolute path of the bundle's directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The configuration.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The configuration, to add what the runtime itself hands to the container.
    pub fn spec_mut(&mut self) -> &mut Spec {
        &mut self.spec
    }

    /// The bytes of `config.json`, as they were read.
    pub fn config(&self) -> &[u8] {
        &self.config
    }
}

/// Reads the `process` of an `exec` from a file of its own.
pub fn load_process(path: &Path) -> Result<Process> {
    let bytes = read_limited(path)?;
    parse_process(&bytes).map_err(|error| error.within(path.display()))
}

/// Reads a configuration, and checks the version it claims.
pub fn parse_spec(bytes: &[u8]) -> Result<Spec> {
    let mut spec: Spec = parse(bytes, "/process")?;
    if let Some(resources) = spec.linux_mut().as_mut().and_then(|linux| linux.resources_mut().as_mut()) {
        forget_unset_pids(resources, bytes, "/linux/resources/pids");
    }
    check_version(spec.version())?;
    Ok(spec)
}

/// Reads a `process` object alone.
pub fn parse_process(bytes: &[u8]) -> Result<Process> {
    parse(bytes, "")
}

/// Reads a whole regular file of limited size. Opening neither waits for a fifo's writer nor rewinds a tape.
pub fn read_limited(path: &Path) -> Result<Vec<u8>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .on("open", path.display())?;
    let metadata = file.metadata().on("stat", path.display())?;
    if !metadata.is_file() {
        return Err(Error::invalid(format!("{} is not a regular file", path.display())));
    }
    read_up_to(&file, metadata.len(), path.display())
}

/// Reads `file` to its end, whatever `expected` size it claimed, but never more than the limit.
fn read_up_to(file: &File, expected: u64, name: impl std::fmt::Display) -> Result<Vec<u8>> {
    let too_large = || Error::invalid(format!("{name} is larger than {} MiB", LIMIT >> 20));
    if expected > LIMIT {
        return Err(too_large());
    }
    // One byte more, so that the read that finds the end needs no larger buffer.
    let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or(0) + 1);
    file.take(LIMIT + 1).read_to_end(&mut bytes).on("read", &name)?;
    if bytes.len() as u64 > LIMIT { Err(too_large()) } else { Ok(bytes) }
}

/// Reads JSON into its type. If that fails only for what the specification allows in the `process` that `pointer` names,
/// and the type does not know, that is put right first.
fn parse<T: DeserializeOwned>(bytes: &[u8], pointer: &str) -> Result<T> {
    let error = match strict_json::from_slice(bytes) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    if !error.is_data() {
        return Err(Error::caused(Kind::Invalid, "the JSON is not valid", error));
    }
    // Only the general form can say what it was.
    let Ok(mut root) = serde_json::from_slice::<Value>(bytes) else { return Err(wrong(bytes, error)) };
    let Some(process) = root.pointer_mut(pointer) else { return Err(wrong(bytes, error)) };
    let unknown = process.get_mut("capabilities").map(take_unknown_capabilities).unwrap_or_default();
    let amended = amend_process(process);
    if unknown.is_empty() && !amended {
        return Err(wrong(bytes, error));
    }
    // As text again: reading the type from another form would compile it a second time.
    let text = root.to_string().into_bytes();
    let value = strict_json::from_slice(&text).map_err(|error| wrong(&text, error))?;
    if !unknown.is_empty() {
        // runc's words, which its callers know. The names are the configuration's: quoted, so that they stay on the line.
        let names = unknown.join(" ").escape_debug().to_string();
        log::warn(format_args!("ignoring unknown or unavailable capabilities: [{names}]"));
    }
    Ok(value)
}

/// The error for JSON that is well-formed but not what it should be.
pub fn wrong(bytes: &[u8], error: serde_json::Error) -> Error {
    let field = json_path::at(bytes, error.line(), error.column());
    let field = if field.is_empty() { "the JSON".to_owned() } else { field };
    Error::caused(Kind::Invalid, field, error)
}

/// Brings what oci-spec's type does not read into the form that it does; whether there was any:
/// - no `user`, which is root;
/// - empty lists of `execCPUAffinity`, which the specification gives the meaning of none;
/// - two scheduler flags, which the type knows under names that the specification does not have.
fn amend_process(process: &mut Value) -> bool {
    let Some(process) = process.as_object_mut() else { return false };
    let mut amended = false;
    if !process.contains_key("user") {
        process.insert("user".to_owned(), Value::Object(serde_json::Map::new()));
        amended = true;
    }
    if let Some(affinity) = process.get_mut("execCPUAffinity").and_then(Value::as_object_mut) {
        let before = affinity.len();
        affinity.retain(|_, list| list.as_str() != Some(""));
        amended |= affinity.len() != before;
    }
    let flags = process.get_mut("scheduler").and_then(|scheduler| scheduler.get_mut("flags"));
    for flag in flags.and_then(Value::as_array_mut).into_iter().flatten() {
        let known = match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => "SCHED_RESET_ON_FORK",
            Some("SCHED_FLAG_DL_OVERRUN") => "SCHED_FLAG_D_L_OVERRUN",
            _ => continue,
        };
        *flag = known.into();
        amended = true;
    }
    amended
}

/// Removes the names nobody knows from the capability sets and returns each once.
fn take_unknown_capabilities(sets: &mut Value) -> Vec<String> {
    let mut unknown: Vec<String> = Vec::new();
    for names in sets.as_object_mut().into_iter().flat_map(|sets| sets.values_mut()) {
        let Some(names) = names.as_array_mut() else { continue };
        names.retain(|name| {
            let Some(text) = name.as_str() else { return true };
            let known = Capability::deserialize(name).is_ok();
            if !known && !unknown.iter().any(|seen| seen == text) {
                unknown.push(text.to_owned());
            }
            known
        });
    }
    unknown
}

/// Checks that the configuration is for version 1 of the spec: what a later minor version adds is seen as unknown
/// properties, which the spec says to ignore.
fn check_version(version: &str) -> Result<()> {
    if version.is_empty() {
        return Err(Error::invalid("ociVersion is missing"));
    }
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Option<Vec<u32>> = core
        .split('.')
        .map(|part| part.parse().ok().filter(|_| part.bytes().all(|byte| byte.is_ascii_digit())))
        .collect();
    match numbers.as_deref() {
        Some([1, _, _]) => Ok(()),
        Some([_, _, _]) => {
            Err(Error::unsupported(format!("ociVersion {version:?} is not supported: only versions 1.x are")))
        }
        _ => Err(Error::invalid(format!("ociVersion {version:?} is not a version such as 1.3.0"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse_spec(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn versions_are_checked() {
        for version in ["1.0.0", "1.0.2-dev", "1.3.0", "1.9.9", "1.0.0-rc5", "1.2.0+dev"] {
            assert_eq!(check_version(version), Ok(()), "{version}");
        }
        for (version, kind) in [
            ("", Kind::Invalid),
            ("1", Kind::Invalid),
            ("1.0", Kind::Invalid),
            ("1.0.x", Kind::Invalid),
            ("1.0.+1", Kind::Invalid),
            ("one", Kind::Invalid),
            ("0.9.0", Kind::Unsupported),
            ("2.0.0", Kind::Unsupported),
        ] {
            assert_eq!(check_version(version).unwrap_err().kind(), kind, "{version}");
        }
    }

    #[test]
    fn a_configuration_is_read_strictly() {
        assert_eq!(error("{}"), "ociVersion is missing");
        for (text, expected) in [
            ("", "the JSON is not valid: EOF while parsing a value at line 1 column 0"),
            ("{\"ociVersion\": \"1.0.0\"", "the JSON is not valid: EOF while parsing an object at line 1 column 22"),
            ("{\"ociVersion\": 1}", "ociVersion: invalid type: integer `1`, expected a string at line 1 column 16"),
            (
                r#"{"ociVersion": "1.0.0", "process": {"cwd": "/", "user": {"uid": 4294967296, "gid": 0}}}"#,
                "process.user.uid: invalid value: integer `4294967296`, expected u32 at line 1 column 74",
            ),
            (
                r#"{"ociVersion": "1.0.0", "root": ["rootfs", true]}"#,
                "root: invalid type: sequence, expected struct Root at line 1 column 32",
            ),
            (
                r#"{"ociVersion": "1.0.0", "mounts": [["/", null, null, null, null, null]]}"#,
                "mounts[0]: invalid type: sequence, expected struct Mount at line 1 column 35",
            ),
            (r#"{"ociVersion": "1.0.0"} x"#, "the JSON is not valid: trailing characters at line 1 column 25"),
            (
                r#"{"ociVersion": "1.0.0", "ociVersion": "1.0.0"}"#,
                "ociVersion: duplicate field `ociVersion` at line 1 column 36",
            ),
        ] {
            assert_eq!(error(text), expected, "{text}");
        }
        // The place is that in the file, whatever was tried to put it right.
        for process in ["{\"user\": {},\n \"cwd\": 1}", "{\"user\": {}, \"capabilities\": {},\n \"cwd\": 1}"] {
            assert_eq!(
                error(&format!("{{\"ociVersion\": \"1.0.0\",\n\"process\": {process}}}")),
                "process.cwd: invalid type: integer `1`, expected path string at line 3 column 9"
            );
        }
        for start in ["{\"unknown\": ", "{\"process\": ", ""] {
            let deep = format!("{start}{}", "[".repeat(1_000_000));
            assert!(error(&deep).len() < 200, "{start}");
        }
    }

    #[test]
    fn only_unknown_capabilities_are_forgiven() {
        let config = |sets: &str| format!(r#"{{"cwd": "/", "user": {{"uid": 0, "gid": 0}}, "capabilities": {sets}}}"#);
        let process =
            parse_process(config(r#"{"bounding": ["CAP_CHOWN", "CAP_NEW"], "effective": ["CAP_NEW"]}"#).as_bytes());
        let sets = process.unwrap().capabilities().clone().unwrap();
        assert_eq!(sets.bounding(), &Some([Capability::Chown].into()));
        assert_eq!(sets.effective(), &Some([].into()));
        for wrong in [r#"{"bounding": [1]}"#, r#"{"bounding": "CAP_CHOWN"}"#, "1"] {
            assert!(parse_process(config(wrong).as_bytes()).is_err(), "{wrong}");
        }
        let two_wrongs = r#"{"cwd": 1, "user": {"uid": 0, "gid": 0}, "capabilities": {"bounding": ["CAP_NEW"]}}"#;
        assert!(parse_process(two_wrongs.as_bytes()).is_err());
    }

    #[test]
    fn an_unknown_capability_is_named_once() {
        let mut sets =
            serde_json::json!({"bounding": ["CAP_NEW", "CAP_KILL", 1], "effective": ["CAP_NEW", "CAP_OTHER"]});
        let mut unknown = take_unknown_capabilities(&mut sets);
        unknown.sort();
        assert_eq!(unknown, ["CAP_NEW", "CAP_OTHER"]);
        assert_eq!(sets, serde_json::json!({"bounding": ["CAP_KILL", 1], "effective": []}));
    }

    #[test]
    fn what_the_specification_allows_in_a_process_is_read() {
        let read = |text: &str| parse_process(text.as_bytes());
        assert_eq!(read(r#"{"cwd": "/"}"#).unwrap().user().uid(), 0);
        let affinity = read(r#"{"cwd": "/", "user": {}, "execCPUAffinity": {"initial": "", "final": "1"}}"#).unwrap();
        let affinity = affinity.exec_cpu_affinity().clone().unwrap();
        assert_eq!((affinity.initial(), affinity.cpu_affinity_final().as_deref()), (&None, Some("1")));
        let all = [
            "RESET_ON_FORK",
            "RECLAIM",
            "DL_OVERRUN",
            "KEEP_POLICY",
            "KEEP_PARAMS",
            "UTIL_CLAMP_MIN",
            "UTIL_CLAMP_MAX",
        ];
        let flags = all.map(|name| format!("\"SCHED_FLAG_{name}\"")).join(",");
        let scheduler =
            format!(r#"{{"cwd": "/", "user": {{}}, "scheduler": {{"policy": "SCHED_OTHER", "flags": [{flags}]}}}}"#);
        let process = read(&scheduler).unwrap();
        assert_eq!(
            process.scheduler().as_ref().and_then(|scheduler| scheduler.flags().as_ref()).map(Vec::len),
            Some(7)
        );
        for wrong in [
            r#"{"user": {}}"#,
            r#"{"cwd": "/", "user": null}"#,
            r#"{"cwd": "/", "execCPUAffinity": {"initial": "a"}}"#,
            r#"{"cwd": "/", "user": {}, "scheduler": {"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_X"]}}"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_regular_files_of_limited_size_are_read() {
        assert_eq!(read_limited(Path::new("/dev/null")).unwrap_err().to_string(), "/dev/null is not a regular file");
        assert_eq!(
            read_limited(Path::new("/nowhere/config.json")).unwrap_err().to_string(),
            "open /nowhere/config.json: no such file or directory"
        );
        // A size that is claimed is refused before there is memory for it.
        let null = File::open("/dev/null").unwrap();
        assert_eq!(read_up_to(&null, u64::MAX, "x").unwrap_err().to_string(), "x is larger than 16 MiB");
        let endless = File::open("/dev/zero").unwrap();
        assert_eq!(read_up_to(&endless, 0, "x").unwrap_err().to_string(), "x is larger than 16 MiB");
    }
}

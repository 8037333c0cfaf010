//! `-info`: what this shim and the runtime it would run can do. A daemon shows it, and picks by it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use protobuf::{Message, MessageField};
use serde::Deserialize;
use tare_proto::Any;
use tare_proto::any::{FEATURES, json};
use tare_proto::types::{RuntimeInfo, RuntimeVersion};

use crate::command;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::runtime::DEFAULT_BINARY;

/// How the daemon's configuration names this shim.
const NAME: &str = "io.containerd.tare.v2";
/// How long a runtime may take to say what it can.
const PATIENCE: Duration = Duration::from_secs(5);

/// The answer to `-info`, as a protobuf: `input` is an `Any` of the runtime's options, or nothing.
///
/// # Errors
/// The options are none, or there is no such runtime. One that knows no `features` is no failure.
pub fn info(input: &[u8]) -> Result<Vec<u8>> {
    let mut info = RuntimeInfo {
        name: NAME.to_owned(),
        version: MessageField::some(RuntimeVersion {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..RuntimeVersion::default()
        }),
        ..RuntimeInfo::default()
    };
    let mut binary = DEFAULT_BINARY.to_owned();
    if !input.is_empty() {
        let bad = |error| Error::invalid(format!("read the runtime's options from stdin: {error}"));
        let options = Any::parse_from_bytes(input).map_err(bad)?;
        let named = Options::from_any(Some(&options))?.binary_name;
        if !named.is_empty() {
            binary = named;
        }
        info.options = MessageField::some(options);
    }
    let binary = look_up(&binary, std::env::var_os("PATH").unwrap_or_default().as_os_str())?;
    match features(&binary) {
        Ok((annotations, features)) => {
            info.annotations = annotations;
            info.features = MessageField::some(json(FEATURES, features));
        }
        // Some runtimes do not have the command: then nothing is known, and that is the answer. stderr is not read with this one.
        Err(error) => tracing::warn!(%error, "the runtime's features are unknown"),
    }
    info.write_to_bytes().map_err(|error| Error::internal(format!("write the answer: {error}")))
}

type Annotations = std::collections::HashMap<String, String>;

/// The runtime's own answer, which is JSON, and the annotations in it.
fn features(binary: &Path) -> Result<(Annotations, Vec<u8>)> {
    #[derive(Deserialize)]
    struct Features {
        #[serde(default)]
        annotations: Option<Annotations>,
    }
    let output = command::run(Command::new(binary).arg("features"), PATIENCE)?;
    if !output.status.success() {
        return Err(Error::internal(format!(
            "run {} features: {}: {}",
            binary.display(),
            output.status,
            output.stderr.trim_end()
        )));
    }
    let parsed: Features = serde_json::from_slice(&output.stdout)
        .map_err(|error| Error::internal(format!("read what {} features says: {error}", binary.display())))?;
    Ok((parsed.annotations.unwrap_or_default(), output.stdout))
}

/// Finds a program as a shell does: a name in the directories of `path`, anything with a slash as it is.
fn look_up(name: &str, path: &std::ffi::OsStr) -> Result<PathBuf> {
    let runs = |candidate: &PathBuf| {
        use nix::unistd::{AccessFlags, access};
        candidate.is_file() && access(candidate, AccessFlags::X_OK).is_ok()
    };
    let found = if name.contains('/') {
        Some(PathBuf::from(name)).filter(runs)
    } else {
        std::env::split_paths(path).map(|directory| directory.join(name)).find(runs)
    };
    found.ok_or_else(|| {
        let place = if name.contains('/') { "there is no such program" } else { "it is in no directory of PATH" };
        Error::not_found(format!("find the runtime {name}: {place}"))
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use tare_proto::any::{pack, unpack};
    use tare_proto::runc;

    use super::*;

    fn runtime(script: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("runtime");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        (dir, path)
    }

    fn asked(binary: &Path) -> Result<RuntimeInfo> {
        let options = runc::Options { binary_name: binary.display().to_string(), ..Default::default() };
        let input = pack(&options).unwrap().write_to_bytes().unwrap();
        let info = RuntimeInfo::parse_from_bytes(&info(&input)?).unwrap();
        assert_eq!(unpack::<runc::Options>(&info.options).unwrap(), Some(options));
        Ok(info)
    }

    #[test]
    fn what_a_runtime_says_is_passed_on() {
        let (_dir, path) =
            runtime(r#"[ "$*" = features ] && echo '{"ociVersionMin":"1.0.0","annotations":{"a":"b"}}'"#);
        let info = asked(&path).unwrap();
        assert_eq!((info.name.as_str(), info.version.version.as_str()), (NAME, env!("CARGO_PKG_VERSION")));
        assert_eq!(info.annotations.get("a").map(String::as_str), Some("b"));
        assert_eq!(info.features.type_url, "types.containerd.io/opencontainers/runtime-spec/1/features/Features");
        assert!(info.features.value.starts_with(br#"{"ociVersionMin""#));
    }

    #[test]
    fn a_runtime_without_features_is_no_failure() {
        for script in ["echo unknown >&2; exit 1", "echo no json", "kill -9 $$"] {
            let (_dir, path) = runtime(script);
            let info = asked(&path).unwrap();
            assert!(info.features.is_none() && info.annotations.is_empty(), "{script}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let error = asked(Path::new("/no/such/runtime")).unwrap_err();
        assert_eq!(error.message, "find the runtime /no/such/runtime: there is no such program");
        let error = info(b"\xff\xff").unwrap_err();
        assert!(error.message.starts_with("read the runtime's options from stdin: "), "{error}");
    }

    #[test]
    fn look_ups() {
        let (dir, path) = runtime("");
        assert_eq!(look_up("runtime", dir.path().as_os_str()).unwrap(), path);
        assert_eq!(
            look_up("runtime", OsStr::new("/nowhere")).unwrap_err().message,
            "find the runtime runtime: it is in no directory of PATH"
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(look_up("runtime", dir.path().as_os_str()).is_err());
    }
}

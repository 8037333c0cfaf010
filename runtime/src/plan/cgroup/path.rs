//! Where a container's cgroup lies: `linux.cgroupsPath` by the rules that every caller of a runtime relies on.
//!
//! | cgroupsPath | directory |
//! |---|---|
//! | `/a/b` | `a/b` below the mount point of each hierarchy |
//! | `a/b` | `a/b` below the caller's own cgroup (unified: below the parent of it) |
//! | none | the container's id below the same |
//!
//! `.` and `..` are resolved as text first, so that no path leads above its base.

use crate::error::{Error, Result};

/// A cleaned path: parts joined by `/`, without `.`, `..` and empty parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// Below the mount point.
    Absolute(String),
    /// Below a cgroup told later.
    Relative(String),
}

/// Cleans `given`; without one, the container's id is the path.
pub(super) fn clean(given: Option<&std::path::Path>, id: &str) -> Result<Path> {
    let text = match given.map(|path| path.to_str()) {
        None | Some(Some("")) => return Ok(Path::Relative(id.to_owned())),
        Some(Some(text)) => text,
        Some(None) => return Err(Error::invalid("linux.cgroupsPath is not valid UTF-8")),
    };
    if text.contains(['\0', '\n']) {
        return Err(Error::invalid(format!("linux.cgroupsPath {text:?} contains a control character")));
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    let clean = parts.join("/");
    match text.starts_with('/') {
        // The processes of the host live there: what ends a container would end them.
        true if clean.is_empty() => Err(Error::invalid(format!(
            "linux.cgroupsPath {text:?} is the root of the cgroup hierarchies: name a cgroup below it"
        ))),
        true => Ok(Path::Absolute(clean)),
        false if clean.is_empty() => Ok(Path::Relative(id.to_owned())),
        false => Ok(Path::Relative(clean)),
    }
}

impl Path {
    /// The path below the mount point, when `base` is the caller's cgroup below that same mount point.
    pub(super) fn below(&self, base: &str) -> String {
        let base = base.trim_matches('/');
        match self {
            Self::Absolute(path) => path.clone(),
            Self::Relative(path) if base.is_empty() => path.clone(),
            Self::Relative(path) => format!("{base}/{path}"),
        }
    }
}

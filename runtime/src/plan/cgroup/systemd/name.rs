//! `linux.cgroupsPath` for systemd: `slice:prefix:name`, as every caller of a runtime composes it.
//!
//! | part | means | empty |
//! |---|---|---|
//! | slice | the slice that the scope lies in; `-` is the root | `system.slice`, with the user manager `user.slice` |
//! | prefix, name | the scope is `prefix-name.scope` | prefix: `-name.scope`; name: the container's id |
//!
//! Without a path at all it is `::` with the prefix `tare`. A slice's name is its path: `a-b.slice` is
//! `a.slice/a-b.slice` (systemd.slice(5)).

use super::Domain;
use crate::error::{Error, Result};

/// The prefix of scopes that nobody named.
const PREFIX: &str = "tare";
/// systemd's limit for the name of a unit.
const MAX_UNIT: usize = 255;

/// Where a container's scope lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// The slice, `-.slice` for the root.
    pub slice: String,
    /// The scope.
    pub unit: String,
}

/// Names the scope of container `id`.
pub(super) fn name(given: Option<&std::path::Path>, id: &str, domain: Domain) -> Result<Name> {
    let default = match domain {
        Domain::System => "system.slice",
        Domain::User => "user.slice",
    };
    let text = match given.map(|path| path.to_str()) {
        None | Some(Some("")) => {
            return Ok(Name { slice: default.to_owned(), unit: checked(format!("{PREFIX}-{}.scope", escape(id)))? });
        }
        Some(Some(text)) => text,
        Some(None) => return Err(Error::invalid("linux.cgroupsPath is not valid UTF-8")),
    };
    let parts: Vec<&str> = text.split(':').collect();
    let [slice, prefix, name] = parts[..] else {
        return Err(Error::invalid(format!(
            "linux.cgroupsPath {text:?} is not of the form slice:prefix:name, which the systemd cgroup manager needs: \
             give it so, or use --cgroup-manager cgroupfs"
        )));
    };
    if name.ends_with(".slice") {
        return Err(Error::invalid(format!(
            "linux.cgroupsPath {text:?} names a slice for the container itself, which holds no processes: give the slice \
             first, then a prefix and a name for the container's scope"
        )));
    }
    let slice = match slice {
        "" => default.to_owned(),
        "-" | "-.slice" => "-.slice".to_owned(),
        slice => slice.to_owned(),
    };
    expand(&slice)?;
    let name = if name.is_empty() { escape(id) } else { name.to_owned() };
    Ok(Name { slice, unit: checked(format!("{prefix}-{name}.scope"))? })
}

/// The path of a slice's cgroup below the manager's own; empty for the root slice.
pub(super) fn expand(slice: &str) -> Result<String> {
    if slice == "-.slice" {
        return Ok(String::new());
    }
    let wrong = |why: &str| Error::invalid(format!("linux.cgroupsPath names the slice {slice:?}, which {why}"));
    let stem = slice.strip_suffix(".slice").ok_or_else(|| wrong("does not end in .slice"))?;
    if stem.is_empty() || stem.split('-').any(str::is_empty) {
        return Err(wrong("has an empty part: separate the names of nested slices by one dash"));
    }
    if let Some(letter) = stem.chars().find(|&letter| !allowed(letter)) {
        return Err(wrong(&format!("has the character {letter:?}: systemd takes letters, digits and _.\\@-")));
    }
    if slice.len() > MAX_UNIT {
        return Err(wrong("is longer than 255 characters"));
    }
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    Ok(ends.map(|end| format!("{}.slice", &stem[..end])).collect::<Vec<_>>().join("/"))
}

fn checked(unit: String) -> Result<String> {
    let stem = unit.strip_suffix(".scope").unwrap_or(&unit);
    if let Some(letter) = stem.chars().find(|&letter| !allowed(letter)) {
        return Err(Error::invalid(format!(
            "the container's systemd unit would be {unit:?}, and {letter:?} may not be in a unit's name: choose another \
             linux.cgroupsPath"
        )));
    }
    match unit.len() > MAX_UNIT {
        true => Err(Error::invalid(format!(
            "the container's systemd unit would be {unit:?}, which is longer than 255 characters: choose a shorter \
             linux.cgroupsPath"
        ))),
        false => Ok(unit),
    }
}

fn allowed(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "_.\\@-".contains(letter)
}

/// An id as a part of a unit's name: what may not be there is escaped as systemd-escape(1) does.
fn escape(id: &str) -> String {
    id.bytes()
        .map(|byte| match char::from(byte) {
            letter if allowed(letter) && letter != '\\' => letter.to_string(),
            _ => format!("\\x{byte:02x}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_becomes_a_slice_and_a_scope() {
        let long = "n".repeat(250);
        let too_long = format!("::{long}");
        for (given, domain, expected) in [
            (None, Domain::System, Ok(("system.slice", "tare-c1+.scope"))),
            (Some(""), Domain::User, Ok(("user.slice", "tare-c1+.scope"))),
            (Some("machine.slice:libpod:12ab"), Domain::System, Ok(("machine.slice", "libpod-12ab.scope"))),
            (Some(":docker:12"), Domain::System, Ok(("system.slice", "docker-12.scope"))),
            (Some(":docker:12"), Domain::User, Ok(("user.slice", "docker-12.scope"))),
            (Some("-:p:n"), Domain::System, Ok(("-.slice", "p-n.scope"))),
            (Some("a-b.slice::n"), Domain::System, Ok(("a-b.slice", "-n.scope"))),
            (Some("::"), Domain::System, Ok(("system.slice", "-c1+.scope"))),
            (Some("/a/b"), Domain::System, Err("is not of the form slice:prefix:name")),
            (Some("a.slice:b"), Domain::System, Err("is not of the form slice:prefix:name")),
            (Some("a.slice:b:c:d"), Domain::System, Err("is not of the form slice:prefix:name")),
            (Some("a.slice:b:c.slice"), Domain::System, Err("names a slice for the container itself")),
            (Some("a:b:c"), Domain::System, Err("does not end in .slice")),
            (Some("a/b.slice:b:c"), Domain::System, Err("has the character '/'")),
            (Some("a.slice:b:c/d"), Domain::System, Err("'/' may not be in a unit's name")),
            (Some("a.slice:b+:c"), Domain::System, Err("'+' may not be in a unit's name")),
            (Some(&*too_long), Domain::System, Err("longer than 255 characters")),
        ] {
            let named = name(given.map(std::path::Path::new), "c1+", domain);
            match expected {
                Ok((slice, unit)) => {
                    let unit = unit.replace('+', "\\x2b");
                    assert_eq!(named.unwrap(), Name { slice: slice.into(), unit }, "{given:?}");
                }
                Err(part) => {
                    let error = named.unwrap_err().to_string();
                    assert!(error.contains(part), "{given:?}: {error}");
                }
            }
        }
    }

    #[test]
    fn a_slice_s_name_is_its_path() {
        for (slice, expected) in [
            ("-.slice", ""),
            ("a.slice", "a.slice"),
            ("a-b.slice", "a.slice/a-b.slice"),
            (
                "kubepods-burstable-pod1_2.slice",
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice",
            ),
        ] {
            assert_eq!(expand(slice).unwrap(), expected);
        }
        for slice in ["a", ".slice", "-a.slice", "a-.slice", "a--b.slice", "a/b.slice", "a b.slice", "--.slice"] {
            assert!(expand(slice).is_err(), "{slice}");
        }
    }
}

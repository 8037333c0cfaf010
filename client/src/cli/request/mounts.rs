//! `-v`, `--mount`, `--tmpfs`, `--device`: what of the host is in the container.

use std::path::{Component, Path};

use crate::error::{Error, Result};
use crate::names;
use crate::paths;
use crate::record::{Device, Map, MountSpec};
use crate::units;

/// What one `-v` is.
#[derive(Debug, PartialEq)]
pub(super) enum Volume {
    /// A directory alone: an unnamed volume there.
    Unnamed(String),
    /// `source:target[:options]`, the source absolute or a volume's name.
    Bind(String),
}

const OPTIONS: [&str; 16] = [
    "ro",
    "rw",
    "z",
    "Z",
    "nocopy",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "private",
    "rprivate",
    "consistent",
    "cached",
    "delegated",
    "volume-nocopy",
    "copy",
];

/// Reads one `-v`.
pub(super) fn volume(text: &str) -> Result<Volume> {
    let wrong = |why: &str| {
        Error::usage(format!(
            "-v {text:?} {why}: give [SOURCE:]DIRECTORY[:ro], as in /srv/www:/var/www:ro or data:/data"
        ))
    };
    let parts: Vec<&str> = text.split(':').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(wrong("has an empty part"));
    }
    let (source, target, options) = match parts[..] {
        [target] => (None, target, ""),
        [source, target] => (Some(source), target, ""),
        [source, target, options] => (Some(source), target, options),
        _ => return Err(wrong("has too many parts")),
    };
    let target = target_path(target).map_err(|why| wrong(&why))?;
    for option in options.split(',').filter(|it| !it.is_empty()) {
        if !OPTIONS.contains(&option) {
            return Err(wrong(&format!("has the option {option:?}, which is none")));
        }
    }
    let count = |of: &[&str]| options.split(',').filter(|it| of.contains(it)).count();
    if count(&["ro", "rw"]) > 1 || count(&OPTIONS[5..11]) > 1 {
        return Err(wrong("has options that exclude each other"));
    }
    let Some(source) = source else { return Ok(Volume::Unnamed(target)) };
    let named = !source.starts_with(['/', '.', '~']);
    let source = if named {
        names::check("volume", source)
            .map_err(|error| wrong(&format!("does not begin with a path or a volume ({error})")))?;
        source.to_owned()
    } else {
        absolute(source)?
    };
    if named && count(&OPTIONS[5..11]) > 0 {
        return Err(wrong("has an option of propagation, which a volume cannot have"));
    }
    if !named && count(&["nocopy", "volume-nocopy"]) > 0 {
        return Err(wrong("has nocopy, which only a volume can have"));
    }
    let options = if options.is_empty() { String::new() } else { format!(":{options}") };
    Ok(Volume::Bind(format!("{source}:{target}{options}")))
}

/// A path of the host as the caller sees it, made absolute without asking what is there.
fn absolute(source: &str) -> Result<String> {
    let path = std::path::absolute(source).map_err(|error| Error::usage(format!("{source:?} is no path: {error}")))?;
    // What `..` means, only the host's links tell; but docker's users mean the words.
    let mut plain = std::path::PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::Normal(name) => plain.push(name),
            _ => {}
        }
    }
    Ok(paths::text(&plain))
}

/// Absolute, cleaned, and not the root.
fn target_path(text: &str) -> std::result::Result<String, String> {
    if !text.starts_with('/') {
        return Err(format!("has the directory {text:?}, which does not begin with /"));
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in Path::new(text).components() {
        match part {
            Component::ParentDir => drop(parts.pop()),
            Component::Normal(name) => parts.extend(name.to_str()),
            _ => {}
        }
    }
    if parts.is_empty() {
        return Err("has / itself for its directory".to_owned());
    }
    Ok(format!("/{}", parts.join("/")))
}

/// Reads one `--mount`.
pub(super) fn mount(text: &str) -> Result<MountSpec> {
    let wrong = |why: String| {
        Error::usage(format!(
            "--mount {text:?} {why}: give type=bind|volume|tmpfs,source=SOURCE,target=DIRECTORY[,readonly]"
        ))
    };
    let mut spec = MountSpec { kind: "volume".to_owned(), ..MountSpec::default() };
    let mut keys: Vec<String> = Vec::new();
    for field in fields(text).map_err(|why| wrong(why.to_owned()))? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(value.to_owned())),
            None => (field.to_ascii_lowercase(), None),
        };
        let needed =
            || value.clone().filter(|it| !it.is_empty()).ok_or_else(|| wrong(format!("has {key} without a value")));
        match key.as_str() {
            "type" => spec.kind = needed()?.to_ascii_lowercase(),
            "source" | "src" => spec.source = needed()?,
            "target" | "dst" | "destination" => spec.target = target_path(&needed()?).map_err(wrong)?,
            "readonly" | "ro" => {
                spec.read_only = switch(value.as_deref()).ok_or_else(|| wrong(format!("has {field}")))?
            }
            "volume-nocopy" => spec.no_copy = switch(value.as_deref()).ok_or_else(|| wrong(format!("has {field}")))?,
            "volume-subpath" => spec.subpath = needed()?,
            "bind-nonrecursive" => {
                spec.non_recursive = switch(value.as_deref()).ok_or_else(|| wrong(format!("has {field}")))?;
            }
            "bind-propagation" => {
                spec.propagation = needed()?;
                if !OPTIONS[5..11].contains(&spec.propagation.as_str()) {
                    return Err(wrong(format!("has the propagation {:?}, which is none", spec.propagation)));
                }
            }
            "volume-label" => {
                let label = needed()?;
                let (name, value) = label.split_once('=').unwrap_or((&label, ""));
                spec.labels.insert(name.to_owned(), value.to_owned());
            }
            "tmpfs-size" => {
                spec.size_bytes = units::bytes(&needed()?).map_err(|error| wrong(format!("has {field} ({error})")))?
            }
            "tmpfs-mode" => {
                spec.mode = u32::from_str_radix(&needed()?, 8)
                    .ok()
                    .filter(|it| *it <= 0o7777)
                    .ok_or_else(|| wrong(format!("has {field}, which is no mode, as in 1777")))?;
            }
            // On Linux it means nothing, to docker neither.
            "consistency" => {}
            "volume-driver" if value.as_deref() == Some("local") => {}
            _ => return Err(wrong(format!("has the field {key:?}, which tarectl does not know"))),
        }
        keys.push(key);
    }
    checked(spec, &keys, wrong)
}

fn checked(mut spec: MountSpec, keys: &[String], wrong: impl Fn(String) -> Error) -> Result<MountSpec> {
    if !["bind", "volume", "tmpfs"].contains(&spec.kind.as_str()) {
        return Err(wrong(format!("has the type {:?}, which is none", spec.kind)));
    }
    if spec.target.is_empty() {
        return Err(wrong("has no target".to_owned()));
    }
    if let Some(key) = keys.iter().find(|key| {
        key.split_once('-').is_some_and(|(kind, _)| ["bind", "volume", "tmpfs"].contains(&kind) && kind != spec.kind)
    }) {
        return Err(wrong(format!("has {key}, which a {} cannot have", spec.kind)));
    }
    match spec.kind.as_str() {
        "bind" if spec.source.is_empty() => return Err(wrong("has no source".to_owned())),
        "bind" => {
            spec.source = absolute(&spec.source)?;
            // Unlike -v, --mount makes no directory on the host.
            if Path::new(&spec.source).symlink_metadata().is_err() {
                return Err(wrong(format!("has the source {}, which is not there", spec.source)));
            }
        }
        "volume" if !spec.source.is_empty() => {
            names::check("volume", &spec.source).map_err(|error| wrong(format!("names no volume ({error})")))?;
        }
        "tmpfs" if !spec.source.is_empty() => return Err(wrong("has a source, which a tmpfs cannot have".to_owned())),
        _ => {}
    }
    Ok(spec)
}

/// A switch alone is on.
fn switch(value: Option<&str>) -> Option<bool> {
    match value {
        None | Some("true" | "1") => Some(true),
        Some("false" | "0") => Some(false),
        Some(_) => None,
    }
}

/// The fields of a line of comma-separated values, quoted as in RFC 4180.
fn fields(line: &str) -> std::result::Result<Vec<String>, &'static str> {
    let (mut all, mut rest) = (Vec::new(), line);
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut field = String::new();
            let mut inner = quoted;
            loop {
                let (before, after) = inner.split_once('"').ok_or("has a quote without its end")?;
                field.push_str(before);
                match after.strip_prefix('"') {
                    Some(more) => {
                        field.push('"');
                        inner = more;
                    }
                    None => {
                        inner = after;
                        break;
                    }
                }
            }
            all.push(field);
            rest = inner;
            if !rest.is_empty() && !rest.starts_with(',') {
                return Err("has text behind a quote");
            }
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            if rest[..end].contains('"') {
                return Err("has a quote in the middle of a field");
            }
            all.push(rest[..end].to_owned());
            rest = &rest[end..];
        }
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return Ok(all),
        }
    }
}

/// Reads one `--tmpfs` into `target` → options.
pub(super) fn tmpfs(text: &str, to: &mut Map) -> Result<()> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let wrong = |why: &str| {
        Error::usage(format!("--tmpfs {text:?} {why}: give DIRECTORY[:OPTIONS], as in /tmp:size=64m,mode=1777"))
    };
    let target = target_path(target).map_err(|why| wrong(&why))?;
    const FLAGS: [&str; 22] = [
        "ro",
        "rw",
        "nosuid",
        "suid",
        "nodev",
        "dev",
        "noexec",
        "exec",
        "sync",
        "async",
        "dirsync",
        "remount",
        "mand",
        "nomand",
        "atime",
        "noatime",
        "diratime",
        "nodiratime",
        "relatime",
        "norelatime",
        "strictatime",
        "nostrictatime",
    ];
    for option in options.split(',').filter(|it| !it.is_empty()) {
        let (name, value) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
        let known = match (name, value) {
            ("size", Some(value)) => value.trim_end_matches('%').parse::<u64>().is_ok() || units::bytes(value).is_ok(),
            ("mode", Some(value)) => u32::from_str_radix(value, 8).is_ok(),
            ("uid" | "gid" | "nr_inodes" | "nr_blocks", Some(value)) => {
                value.trim_end_matches(['k', 'm', 'g']).parse::<u64>().is_ok()
            }
            ("mpol", Some(_)) => true,
            (_, None) => FLAGS.contains(&name) || OPTIONS[5..11].contains(&name),
            _ => false,
        };
        if !known {
            return Err(wrong(&format!("has the option {option:?}, which is none")));
        }
    }
    to.insert(target, options.to_owned());
    Ok(())
}

/// Reads one `--device`.
pub(super) fn device(text: &str) -> Result<Device> {
    let wrong =
        |why: &str| Error::usage(format!("--device {text:?} {why}: give DEVICE[:IN-CONTAINER[:rwm]], as in /dev/fuse"));
    let is_mode = |it: &str| !it.is_empty() && it.len() <= 3 && it.bytes().all(|byte| b"rwm".contains(&byte));
    let parts: Vec<&str> = text.split(':').collect();
    let (host, inside, mode) = match parts[..] {
        [host] => (host, host, "rwm"),
        [host, mode] if is_mode(mode) => (host, host, mode),
        [host, inside] => (host, inside, "rwm"),
        [host, inside, mode] => (host, inside, mode),
        _ => return Err(wrong("has too many parts")),
    };
    if !is_mode(mode) {
        return Err(wrong(&format!("has {mode:?}, which is not of r, w and m")));
    }
    if !host.starts_with('/') || !inside.starts_with('/') {
        return Err(wrong("has a path that does not begin with /"));
    }
    if Path::new(host).metadata().is_err() {
        return Err(wrong(&format!("names {host}, which is not there")));
    }
    Ok(Device {
        path_on_host: host.to_owned(),
        path_in_container: inside.to_owned(),
        cgroup_permissions: mode.to_owned(),
    })
}

/// Whether this is a rule of devices, as `c 42:* rmw`.
pub(super) fn device_rule(text: &str) -> Result<()> {
    let parts: Vec<&str> = text.split(' ').collect();
    let number = |it: &str| it == "*" || it.parse::<u32>().is_ok();
    let well = matches!(parts[..], [kind, numbers, mode]
        if ["a", "b", "c"].contains(&kind)
            && numbers.split_once(':').is_some_and(|(major, minor)| number(major) && number(minor))
            && !mode.is_empty() && mode.len() <= 3 && mode.bytes().all(|byte| b"rwm".contains(&byte)));
    if well {
        return Ok(());
    }
    Err(Error::usage(format!(
        "--device-cgroup-rule {text:?} is no rule: give TYPE MAJOR:MINOR MODE, as in 'c 42:* rmw'"
    )))
}

#[cfg(test)]
#[path = "mounts_tests.rs"]
mod tests;

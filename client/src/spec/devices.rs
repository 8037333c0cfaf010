//! Devices of the host in the container, and what its processes may do with devices.

use std::ffi::OsStr;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::{Context, Error, Kind, Result};
use crate::record::{Device, HostConfig};

/// Deep enough for /dev, and an end for a loop of directories.
const DEEPEST: usize = 16;

/// In /dev, what is a container's own matter.
const OWN: [&str; 7] = ["pts", "shm", "fd", "mqueue", "console", ".lxc", ".udev"];

/// What docker allows everybody: zero, null, urandom, random, tty, console.
const ALLOWED: [(u32, u32); 6] = [(1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1)];

/// The nodes to be made, and the rules.
#[derive(Debug, Clone, Default)]
pub(super) struct Devices {
    pub(super) nodes: Vec<Value>,
    pub(super) rules: Vec<Value>,
}

pub(super) fn collect(host: &HostConfig) -> Result<Devices> {
    let mut devices = Devices::default();
    if host.privileged {
        devices.rules.push(json!({ "allow": true, "access": "rwm" }));
        devices.walk(Path::new("/dev"), Path::new("/dev"), "rwm", 0)?;
        return Ok(devices);
    }
    devices.rules.push(json!({ "allow": false, "access": "rwm" }));
    for (major, minor) in ALLOWED {
        devices.rules.push(json!({ "allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm" }));
    }
    for device in &host.devices {
        devices.add(device)?;
    }
    for rule in &host.device_cgroup_rules {
        devices.rules.push(parse_rule(rule)?);
    }
    Ok(devices)
}

impl Devices {
    fn add(&mut self, device: &Device) -> Result<()> {
        let what = || format!("add the device {:?}", device.path_on_host);
        let access = match device.cgroup_permissions.as_str() {
            "" => "rwm",
            access if access.bytes().all(|byte| b"rwm".contains(&byte)) => access,
            access => return Err(Error::usage(format!("bad mode specified: {access}: give some of r, w and m"))),
        };
        // A link of the host's /dev, as /dev/cdrom, stands for what it leads to.
        let real = std::fs::canonicalize(&device.path_on_host).context(what)?;
        let inside = if device.path_in_container.is_empty() { &device.path_on_host } else { &device.path_in_container };
        let inside = Path::new(inside);
        let metadata = real.metadata().context(what)?;
        if metadata.is_dir() {
            let before = self.nodes.len();
            self.walk(&real, inside, access, 0)?;
            if self.nodes.len() == before {
                return Err(Error::usage(format!("{}: there is no device in it", what())));
            }
        } else if !self.node(&metadata, inside, Some(access)) {
            return Err(Error::usage(format!("{}: it is not a device node", what())));
        }
        Ok(())
    }

    /// All devices in and below a directory; links are passed over.
    fn walk(&mut self, dir: &Path, inside: &Path, access: &str, depth: usize) -> Result<()> {
        let what = || format!("list the devices in {}", dir.display());
        let mut names: Vec<PathBuf> =
            std::fs::read_dir(dir).context(what)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
        names.sort();
        for path in names {
            let Some(name) = path.file_name() else { continue };
            if depth == 0 && OWN.iter().any(|own| OsStr::new(own) == name) {
                continue;
            }
            let metadata = match path.symlink_metadata().context(what) {
                Ok(metadata) => metadata,
                // A device may go while others are looked at.
                Err(error) if error.kind == Kind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if metadata.is_dir() && depth < DEEPEST {
                self.walk(&path, &inside.join(name), access, depth + 1)?;
            } else {
                // Who may do all needs no rule for each.
                let rule = Some(access).filter(|_| self.rules.len() > 1);
                self.node(&metadata, &inside.join(name), rule);
            }
        }
        Ok(())
    }

    /// Adds one, if it is one.
    fn node(&mut self, metadata: &std::fs::Metadata, inside: &Path, access: Option<&str>) -> bool {
        let kind = match metadata.file_type() {
            it if it.is_char_device() => "c",
            it if it.is_block_device() => "b",
            _ => return false,
        };
        let (major, minor) = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
        self.nodes.push(json!({
            "path": inside, "type": kind, "major": major, "minor": minor,
            "fileMode": metadata.mode() & 0o7777, "uid": metadata.uid(), "gid": metadata.gid(),
        }));
        if let Some(access) = access {
            self.rules.push(json!({ "allow": true, "type": kind, "major": major, "minor": minor, "access": access }));
        }
        true
    }
}

/// As `c 42:* rmw`.
fn parse_rule(text: &str) -> Result<Value> {
    let wrong =
        || Error::usage(format!("invalid device cgroup rule: {text:?}: give one as in \"c 42:* rmw\", with c, b or a"));
    let parts: Vec<&str> = text.split(' ').collect();
    let [kind @ ("a" | "b" | "c"), numbers, access] = parts[..] else { return Err(wrong()) };
    if access.is_empty() || access.len() > 3 || !access.bytes().all(|byte| b"rwm".contains(&byte)) {
        return Err(wrong());
    }
    let mut rule = json!({ "allow": true, "type": kind, "access": access });
    let (major, minor) = numbers.split_once(':').ok_or_else(wrong)?;
    for (name, number) in [("major", major), ("minor", minor)] {
        if number != "*" {
            rule[name] = number.parse::<u32>().map_err(|_| wrong())?.into();
        }
    }
    Ok(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_docker_reads_them() {
        let rule = parse_rule("c 42:* rmw").unwrap();
        assert_eq!(rule, json!({ "allow": true, "type": "c", "major": 42, "access": "rmw" }));
        for wrong in ["", "c", "x 1:2 r", "c 1 r", "c 1:2 x", "c 1:2 rwmr", "c -1:2 r", "c  1:2 r", "c 1:2  "] {
            assert!(parse_rule(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn devices_are_found_and_others_refused() {
        let device = |on_host: &str, access: &str| HostConfig {
            devices: vec![Device {
                path_on_host: on_host.to_owned(),
                path_in_container: "/dev/x".to_owned(),
                cgroup_permissions: access.to_owned(),
            }],
            ..HostConfig::default()
        };
        let devices = collect(&device("/dev/null", "r")).unwrap();
        assert_eq!(devices.nodes[0]["path"], "/dev/x");
        assert_eq!((&devices.nodes[0]["major"], &devices.nodes[0]["minor"]), (&json!(1), &json!(3)));
        assert_eq!(devices.rules.last().unwrap()["access"], "r");
        for (path, access, why) in [
            ("/dev/no-such", "", "No such file"),
            ("/etc/passwd", "", "not a device node"),
            ("/proc/sys", "", "no device in it"),
            ("/dev/null", "rx", "bad mode"),
        ] {
            assert!(collect(&device(path, access)).unwrap_err().message.contains(why), "{path}");
        }
        let all = collect(&HostConfig { privileged: true, ..HostConfig::default() }).unwrap();
        assert_eq!(all.rules.len(), 1);
        let paths: Vec<&str> = all.nodes.iter().filter_map(|it| it["path"].as_str()).collect();
        assert!(paths.contains(&"/dev/null") && !paths.iter().any(|it| it.starts_with("/dev/pts/")), "{paths:?}");
    }
}

//! The resctrl file system: a directory a class of service, whose `schemata` says what share of each resource it has and
//! whose `tasks` takes the processes that belong to it.
//!
//! ```text
//! <resctrl>/schemata tasks                      the default class
//! <resctrl>/<group>/schemata tasks              a class
//! <resctrl>/<group>/mon_groups/<id>/tasks       one container of it, monitored
//! ```

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::bundle::read_limited;
use crate::error::{Context, Error, Kind, Result};
use crate::plan::rdt::{Group, Monitoring, RdtPlan, SavedRdt};

/// Finds out what [`apply`] has to make. What this says is saved first, so that a create that is cut short leaves nothing.
pub fn planned(plan: &RdtPlan) -> Result<SavedRdt> {
    planned_in(&root()?, plan)
}

fn planned_in(root: &Path, plan: &RdtPlan) -> Result<SavedRdt> {
    let group = match &plan.group {
        Group::Own => root.join(&plan.id),
        Group::Named(name) => root.join(name),
        Group::Default => root.to_owned(),
    };
    let made = !is_dir(&group)?;
    let has_schema = !plan.required.is_empty() || !plan.written.is_empty();
    if made && plan.group != Group::Own && !has_schema {
        // A class that only has a name was set up by somebody else, or the name is wrong.
        let what = format!("linux.intelRdt.closID {:?}: there is no such class of service", name(&group));
        return Err(Error::new(Kind::Invalid, format!("{what}, and no schema to make it with")));
    }
    let monitor = (plan.monitoring == Monitoring::Group).then(|| group.join("mon_groups").join(&plan.id));
    Ok(SavedRdt { group, made, own: made && plan.group == Group::Own, monitor })
}

/// Puts process `pid` where the plan says, and makes what is missing for it. What it made before it failed is there.
pub fn apply(saved: &SavedRdt, plan: &RdtPlan, pid: i32) -> Result<()> {
    if saved.made {
        make(&saved.group)?;
    } else if plan.group != Group::Own && !plan.required.is_empty() {
        let schemata = saved.group.join("schemata");
        let present = read_limited(&schemata)?;
        compare(&String::from_utf8_lossy(&present), &plan.required)
            .map_err(|error| error.within(schemata.display()))?;
    }
    let lines: Vec<_> = plan.required.iter().chain(&plan.written).map(String::as_str).collect();
    set(saved, &lines)?;
    if let Some(monitor) = &saved.monitor {
        make(monitor)?;
    }
    join(saved, pid)
}

/// Writes lines to the `schemata` of the class: for `create` and `update`.
pub fn set(saved: &SavedRdt, lines: &[&str]) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut text = lines.join("\n");
    text.push('\n');
    write(&saved.group.join("schemata"), &text).map_err(|error| explain(saved, error))
}

/// Puts a process of the container into the class: its init, and each one of `exec`.
pub fn join(saved: &SavedRdt, pid: i32) -> Result<()> {
    // In a monitoring group a process must be in the class first.
    for group in [Some(&saved.group), saved.monitor.as_ref()].into_iter().flatten() {
        write(&group.join("tasks"), &pid.to_string()).map_err(|error| explain(saved, error))?;
    }
    Ok(())
}

/// Removes what belongs to the container alone. What is gone already is no error.
pub fn remove(saved: &SavedRdt) -> Result<()> {
    if let Some(monitor) = &saved.monitor {
        remove_dir(monitor)?;
    }
    if saved.own { remove_dir(&saved.group) } else { Ok(()) }
}

/// Removes what a container that was not created completely has made: a class with a name too, unless others are in it.
pub fn take_back(saved: &SavedRdt) -> Result<()> {
    let tasks = saved.group.join("tasks");
    let in_use = || fs::read(&tasks).is_ok_and(|tasks| !tasks.is_empty());
    let made = saved.made && (saved.own || !in_use());
    remove(&SavedRdt { own: made, ..saved.clone() })
}

/// Adds what the kernel says about the last write: the error number alone is nearly always EINVAL.
fn explain(saved: &SavedRdt, error: Error) -> Error {
    let root = if saved.group.join("info").is_dir() { Some(saved.group.as_path()) } else { saved.group.parent() };
    let status = root.map(|root| root.join("info/last_cmd_status"));
    match status.and_then(|path| read_limited(&path).ok()) {
        Some(text) if !text.is_empty() && text != b"ok\n" => {
            Error::caused(error.kind(), error.to_string(), String::from_utf8_lossy(&text).trim())
        }
        _ => error,
    }
}

/// Where resctrl is mounted. The variable is for a tree that stands in for it.
fn root() -> Result<PathBuf> {
    if let Some(root) = std::env::var_os("TARE_RESCTRL") {
        return Ok(root.into());
    }
    let mounts = fs::read("/proc/self/mounts").on("read", "/proc/self/mounts")?;
    let mounts = String::from_utf8_lossy(&mounts);
    let point = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let point = fields.next()?;
        (fields.next()? == "resctrl").then_some(point)
    });
    match point {
        Some(point) => Ok(point.into()),
        None => Err(Error::unsupported("linux.intelRdt: the resctrl file system is not mounted on this host")),
    }
}

/// Whether a schema is in effect: each line must have its resource in `present`, and each of its domains the same value.
fn compare(present: &str, required: &[String]) -> Result<()> {
    for line in required {
        let (resource, domains) = parts(line);
        let found = present.lines().map(parts).find(|(name, _)| *name == resource);
        let there: Vec<_> = found.map(|(_, domains)| entries(resource, domains).collect()).unwrap_or_default();
        if !entries(resource, domains).all(|domain| there.contains(&domain)) {
            return Err(Error::invalid(format!("the class of service exists with another schema than {line:?}")));
        }
    }
    Ok(())
}

fn parts(line: &str) -> (&str, &str) {
    let (resource, domains) = line.split_once(':').unwrap_or((line, ""));
    (resource.trim(), domains.trim())
}

/// The domains of a line with their values; bit masks compare as numbers, whatever zeroes they are written with.
fn entries<'a>(resource: &str, domains: &'a str) -> impl Iterator<Item = (&'a str, Result<u64, &'a str>)> {
    let radix = if resource.starts_with("MB") { 10 } else { 16 };
    domains.split(';').filter(|entry| !entry.trim().is_empty()).map(move |entry| {
        let (domain, value) = entry.split_once('=').unwrap_or((entry, ""));
        let value = value.trim();
        (domain.trim(), u64::from_str_radix(value, radix).map_err(|_| value))
    })
}

/// Makes a directory, unless it is there.
fn make(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o755).create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && is_dir(path)? => Ok(()),
        Err(error) if error.raw_os_error() == Some(nix::libc::ENOSPC) => {
            Err(error).on("make the class of service", format_args!("{} (the hardware has no more)", path.display()))
        }
        Err(error) => Err(error).on("make the class of service", path.display()),
    }
}

fn is_dir(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(metadata.is_dir()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).on("look at", path.display()),
    }
}

fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.on("remove the class of service", path.display()),
    }
}

/// Writes a file of a class in one write(2): the kernel takes each as a command.
fn write(path: &Path, text: &str) -> Result<()> {
    OpenOptions::new()
        .write(true)
        // The kernel made the file with the directory; a tree that stands in for it has none.
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .on("write", format_args!("{:?} to {}", text.trim_end(), path.display()))
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that stands in for resctrl, removed at the end.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Self {
            let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .join(format!("../target/resctrl-{name}-{}", std::process::id()));
            fs::create_dir_all(path.join("info")).unwrap();
            Self(path)
        }

        fn group(&self, name: &str, schemata: &str) {
            fs::create_dir_all(self.0.join(name).join("mon_groups")).unwrap();
            fs::write(self.0.join(name).join("schemata"), schemata).unwrap();
        }

        fn read(&self, path: &str) -> String {
            fs::read_to_string(self.0.join(path)).unwrap()
        }

        /// What the kernel does with the files of a directory that rmdir(2) removes.
        fn empty(&self, name: &str) {
            for entry in fs::read_dir(self.0.join(name)).unwrap() {
                let entry = entry.unwrap().path();
                if entry.is_file() {
                    fs::remove_file(entry).unwrap();
                }
            }
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn plan(group: Group, required: &[&str], written: &[&str]) -> RdtPlan {
        let lines = |lines: &[&str]| lines.iter().map(ToString::to_string).collect();
        RdtPlan {
            id: "c1".to_owned(),
            group,
            required: lines(required),
            written: lines(written),
            monitoring: Monitoring::None,
        }
    }

    fn apply_in(root: &Path, plan: &RdtPlan, pid: i32) -> Result<SavedRdt> {
        let saved = planned_in(root, plan)?;
        apply(&saved, plan, pid).map(|()| saved)
    }

    fn named(name: &str) -> Group {
        Group::Named(name.to_owned())
    }

    #[test]
    fn a_class_of_its_own_is_made_and_removed() {
        let tree = Tree::new("own");
        let placed = apply_in(&tree.0, &plan(Group::Own, &["L3:0=f", "MB:0=20"], &["L2:0=1"]), 42).unwrap();
        assert_eq!(tree.read("c1/schemata"), "L3:0=f\nMB:0=20\nL2:0=1\n");
        assert_eq!(tree.read("c1/tasks"), "42");
        tree.empty("c1");
        remove(&placed).unwrap();
        assert!(!tree.0.join("c1").is_dir());
        // Twice is no error.
        remove(&placed).unwrap();
    }

    #[test]
    fn a_class_with_a_name_is_used_and_left() {
        let tree = Tree::new("named");
        tree.group("g", "    L3:0=00f;1=ff\n    MB:0= 20;1=100\n");
        // Only what is asked for is compared, as numbers.
        for lines in [&["L3:0=f"][..], &["L3:1=0ff;0=f", "MB:0=20"], &[]] {
            let placed = apply_in(&tree.0, &plan(named("g"), lines, &[]), 42).unwrap();
            assert!(!placed.own, "{lines:?}");
            assert_eq!(tree.read("g/tasks"), "42");
            tree.group("g", "    L3:0=00f;1=ff\n    MB:0= 20;1=100\n");
            remove(&placed).unwrap();
            assert!(tree.0.join("g").is_dir());
        }
        for line in ["L3:0=1", "MB:0=200", "L2:0=f", "L3:2=f"] {
            let error = apply_in(&tree.0, &plan(named("g"), &[line], &[]), 42).unwrap_err().to_string();
            assert!(
                error.ends_with(&format!("the class of service exists with another schema than {line:?}")),
                "{error}"
            );
        }
        let made = apply_in(&tree.0, &plan(named("new"), &["L3:0=1"], &[]), 42).unwrap();
        tree.empty("new");
        remove(&made).unwrap();
        assert!(tree.0.join("new").is_dir(), "a class with a name is not ours to remove");
    }

    #[test]
    fn a_class_that_is_not_there_is_an_error() {
        let tree = Tree::new("missing");
        let error = apply_in(&tree.0, &plan(named("g"), &[], &[]), 42).unwrap_err().to_string();
        assert_eq!(
            error,
            "linux.intelRdt.closID \"g\": there is no such class of service, and no schema to make it with"
        );
        let placed = apply_in(&tree.0, &plan(Group::Default, &[], &[]), 42).unwrap();
        assert_eq!((placed.own, tree.read("tasks").as_str()), (false, "42"));
    }

    #[test]
    fn a_monitoring_group_goes_with_its_container() {
        let tree = Tree::new("monitor");
        tree.group("g", "");
        let monitored = RdtPlan { monitoring: Monitoring::Group, ..plan(named("g"), &[], &[]) };
        let placed = apply_in(&tree.0, &monitored, 42).unwrap();
        assert_eq!((tree.read("g/tasks"), tree.read("g/mon_groups/c1/tasks")), ("42".into(), "42".into()));
        tree.empty("g/mon_groups/c1");
        remove(&placed).unwrap();
        assert!(tree.0.join("g/mon_groups").is_dir() && !tree.0.join("g/mon_groups/c1").is_dir());
    }

    #[test]
    fn a_failure_quotes_the_kernel() {
        let tree = Tree::new("failure");
        // A directory in the file's place makes the write fail, as a schema the hardware lacks would.
        fs::create_dir_all(tree.0.join("schemata")).unwrap();
        fs::write(tree.0.join("info/last_cmd_status"), "Unknown resource\n").unwrap();
        let error = apply_in(&tree.0, &plan(Group::Default, &[], &["X:0=1"]), 42).unwrap_err().to_string();
        assert!(error.ends_with("is a directory: Unknown resource"), "{error}");
    }

    #[test]
    fn what_was_made_for_a_container_that_did_not_come_about_is_taken_back() {
        let tree = Tree::new("taken-back");
        tree.group("g", "L3:0=1\n");
        // The monitoring group cannot be made: nothing makes mon_groups in a class of its own here.
        let monitored = RdtPlan { monitoring: Monitoring::Group, ..plan(Group::Own, &[], &[]) };
        let saved = planned_in(&tree.0, &monitored).unwrap();
        assert!(apply(&saved, &monitored, 42).is_err());
        take_back(&saved).unwrap();
        assert!(!tree.0.join("c1").is_dir());

        let fresh = apply_in(&tree.0, &plan(named("new"), &["L3:0=1"], &[]), 42).unwrap();
        // Another container has joined the class meanwhile.
        take_back(&fresh).unwrap();
        assert!(tree.0.join("new").is_dir());
        tree.empty("new");
        take_back(&fresh).unwrap();
        assert!(!tree.0.join("new").is_dir());
        // Before anything was made, and twice.
        take_back(&fresh).unwrap();

        let joined = apply_in(&tree.0, &plan(named("g"), &["L3:0=1"], &[]), 42).unwrap();
        tree.empty("g");
        take_back(&joined).unwrap();
        assert!(tree.0.join("g").is_dir());
    }
}

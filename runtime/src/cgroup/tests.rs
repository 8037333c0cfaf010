//! On this host's own hierarchies, in cgroups of this test alone: what the kernel takes, keeps and enforces.
//!
//! The version 1 tests need the version 1 hierarchies, the version 2 tests any unified mount (a hybrid host's too), and all
//! need the right to write there. What only a full version 2 host can show is tested as files in a directory that stands
//! for a cgroup.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use oci_spec::runtime::Spec;

use super::*;
use crate::plan::cgroup::{Manager, devices::Access, lower};
use crate::testing::skip;

mod fakes;
mod killed;
mod made;
mod told;
mod version2;

/// A name no other test uses.
fn unique() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("tare-unit-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn spec(linux: &str) -> Spec {
    serde_json::from_str(&format!(r#"{{"ociVersion": "1.3.0", "linux": {linux}}}"#)).unwrap()
}

/// The layout, if its version 1 hierarchies can be written.
fn v1_host() -> Option<Layout> {
    let layout = Layout::detect().unwrap();
    let writable = layout.version() == Version::V1 && nix::unistd::geteuid().is_root();
    if !writable {
        skip("needs root and version 1 hierarchies");
    }
    writable.then_some(layout)
}

/// The unified hierarchy, if it can be written; on a hybrid host as if it were alone.
fn v2_host() -> Option<Layout> {
    let layout = Layout::detect().unwrap();
    match layout.v2.filter(|_| nix::unistd::geteuid().is_root()) {
        Some(unified) => Some(Layout { v1: Vec::new(), v2: Some(unified) }),
        None => {
            skip("needs root and a unified hierarchy");
            None
        }
    }
}

fn is_there(path: &Path) -> bool {
    path.try_exists().unwrap()
}

/// A cgroup below the mount points that is removed at the end, whatever happens.
struct Area {
    name: String,
    layout: Layout,
    cgroup: Option<Cgroup>,
    children: Vec<Child>,
}

impl Area {
    fn new(layout: Layout) -> Self {
        Self { name: unique(), layout, cgroup: None, children: Vec::new() }
    }

    fn plan(&self, resources: &str) -> Result<CgroupPlan> {
        let linux = format!(r#"{{"cgroupsPath": "/{}", "resources": {resources}}}"#, self.name);
        lower(&spec(&linux), "c1", Manager::Cgroupfs, &self.layout, Privilege::Root)
    }

    fn create(&mut self, resources: &str) -> Result<&Cgroup> {
        let plan = self.plan(resources)?;
        Ok(self.cgroup.insert(Cgroup::create(&plan)?))
    }

    fn cgroup(&self) -> &Cgroup {
        self.cgroup.as_ref().unwrap()
    }

    /// The directory of a controller.
    fn at(&self, controller: &str) -> PathBuf {
        self.cgroup().directory(controller).unwrap().to_owned()
    }

    fn read(&self, controller: &str, file: &str) -> String {
        files::read(&self.at(controller), file).unwrap().trim().to_owned()
    }

    /// A process that joined the way init does, then runs `script`; it waits for its input to end before the script.
    fn spawn(&mut self, script: &str) -> u32 {
        let join = self.cgroup().join_fds().unwrap();
        let files: Vec<String> = join
            .iter()
            .map(|fd| format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(fd)))
            .collect();
        let joins: String = files.iter().map(|file| format!("echo 0 > {file}; ")).collect();
        let child = Command::new("/bin/sh")
            .args(["-c", &format!("{joins} echo joined; read go; {script}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = child.id();
        self.children.push(child);
        self.hear();
        pid
    }

    /// Waits for a line of seven bytes.
    fn hear(&mut self) {
        let mut told = [0_u8; 7];
        std::io::Read::read_exact(self.children.last_mut().unwrap().stdout.as_mut().unwrap(), &mut told).unwrap();
    }

    fn go(&mut self) {
        self.children.last_mut().unwrap().stdin.take().unwrap().write_all(b"go\n").unwrap();
    }

    fn wait(&mut self) -> std::process::ExitStatus {
        self.children.last_mut().unwrap().wait().unwrap()
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        if let Some(cgroup) = &self.cgroup {
            let _ = cgroup.kill_all();
            for child in &mut self.children {
                let _ = child.wait();
            }
            let destroyed = cgroup.destroy();
            if !std::thread::panicking() {
                destroyed.unwrap();
            }
        }
    }
}

#[test]
fn each_limit_arrives_on_version_1() {
    let Some(layout) = v1_host() else { return };
    let mut area = Area::new(layout);
    area.create(
        r#"{"pids": {"limit": 17}, "cpu": {"shares": 512, "quota": 20000, "period": 50000, "burst": 10000, "cpus": "0", "mems": "0"},
            "memory": {"limit": 33554432, "reservation": 16777216, "swappiness": 10}}"#,
    )
    .unwrap();
    for (controller, file, expected) in [
        ("pids", "pids.max", "17"),
        ("cpu", "cpu.shares", "512"),
        ("cpu", "cpu.cfs_quota_us", "20000"),
        ("cpu", "cpu.cfs_period_us", "50000"),
        ("cpu", "cpu.cfs_burst_us", "10000"),
        ("cpuset", "cpuset.cpus", "0"),
        ("cpuset", "cpuset.mems", "0"),
        ("memory", "memory.limit_in_bytes", "33554432"),
        ("memory", "memory.soft_limit_in_bytes", "16777216"),
        ("memory", "memory.swappiness", "10"),
    ] {
        assert_eq!(area.read(controller, file), expected, "{file}");
    }
    let list = area.read("devices", "devices.list");
    assert_eq!(
        Access::from_list(&list),
        Some(lower(&spec("{}"), "c", Manager::Cgroupfs, &area.layout, Privilege::Root).unwrap().devices),
        "{list}"
    );
}

#[test]
fn a_cpuset_below_new_parents_has_what_they_have() {
    let Some(layout) = v1_host() else { return };
    let base = unique();
    let mut area = Area::new(layout);
    area.name = format!("{base}/a/b");
    area.create("{}").unwrap();
    let mount = &area.layout.hierarchy("cpuset").unwrap().mount;
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let top = files::read(mount, file).unwrap();
        assert_eq!(area.read("cpuset", file), top.trim());
    }
    let mounts: Vec<PathBuf> = area.layout.v1.iter().map(|hierarchy| hierarchy.mount.clone()).collect();
    drop(area);
    for mount in mounts {
        std::fs::remove_dir(mount.join(&base).join("a")).unwrap();
        std::fs::remove_dir(mount.join(&base)).unwrap();
    }
}

#[test]
fn a_process_joins_every_hierarchy_by_writing_zero() {
    let Some(layout) = v1_host() else { return };
    let mut area = Area::new(layout);
    area.create("{}").unwrap();
    let pid = area.spawn(":");
    let membership = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    for hierarchy in &area.layout.v1 {
        let line = membership.lines().find(|line| line.contains(&format!(":{}:", hierarchy.controllers.join(","))));
        assert!(line.is_some_and(|line| line.ends_with(&format!(":/{}", area.name))), "{membership}");
    }
    // A hybrid host's unified hierarchy is left as it is.
    assert!(membership.lines().all(|line| !line.starts_with("0::") || !line.contains(&area.name)), "{membership}");
    assert_eq!(area.cgroup().pids().unwrap(), [i32::try_from(pid).unwrap()]);
}

#[test]
fn limits_bind_on_version_1() {
    let Some(layout) = v1_host() else { return };
    let mut area = Area::new(layout);
    area.create(r#"{"pids": {"limit": 1}, "memory": {"limit": 8388608}, "cpu": {"cpus": "0"}}"#).unwrap();
    let pid = area.spawn("/bin/true; exit 7");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
    area.go();
    // The shell cannot fork: pids.max counts it already.
    assert!(!area.wait().success());
    assert!(files::value(&area.read("pids", "pids.events"), "max").unwrap_or(0) > 0);

    area.cgroup().apply(&serde_json::from_str(r#"{"pids": {"limit": 100}}"#).unwrap()).unwrap();
    assert_eq!(area.read("pids", "pids.max"), "100");
    assert_eq!(area.cgroup().out_of_memory(), None);
    area.spawn("exec head -c 100m /dev/zero | tail");
    area.go();
    assert!(!area.wait().success() || area.cgroup().oom_kill_count() > 0);
    assert!(area.cgroup().oom_kill_count() > 0);
    assert_eq!(area.cgroup().out_of_memory().as_deref(), Some("8 MiB"));
}

#[test]
fn limits_are_said_as_people_read_them() {
    for (bytes, said) in [
        (0, "of less than a page"),
        (1000, "1000 bytes"),
        (4096, "4 KiB"),
        (5 << 20, "5 MiB"),
        ((5 << 20) + 1, "5242881 bytes"),
    ] {
        assert_eq!(size(bytes), said);
    }
}

#[test]
fn a_device_that_is_not_allowed_is_refused_on_version_1() {
    let Some(layout) = v1_host() else { return };
    let mut area = Area::new(layout);
    area.create(r#"{"devices": [{"allow": false, "access": "rwm"}]}"#).unwrap();
    area.spawn("head -c 1 /dev/zero && ! head -c 1 /dev/kmsg && ! (echo > /dev/kmsg)");
    area.go();
    assert!(area.wait().success());
}

#[test]
fn a_container_is_frozen_and_thawed_and_killed() {
    let v1 = v1_host();
    let v2 = v2_host();
    for layout in v1.into_iter().chain(v2) {
        let mut area = Area::new(layout);
        area.create("{}").unwrap();
        assert!(!area.cgroup().is_frozen().unwrap());
        area.spawn("while :; do /bin/true; done");
        area.go();
        area.cgroup().freeze().unwrap();
        assert!(area.cgroup().is_frozen().unwrap());
        // Found again from what is kept.
        let again = Cgroup::open(&area.cgroup().saved()).unwrap();
        assert!(again.is_frozen().unwrap());
        again.thaw().unwrap();
        assert!(!area.cgroup().is_frozen().unwrap());
        again.freeze().unwrap();
        again.kill_all().unwrap();
        assert!(!area.wait().success());
        assert!(!again.is_frozen().unwrap() || again.is_unified());
    }
}

#[test]
fn a_fork_bomb_is_killed() {
    let v1 = v1_host();
    let v2 = v2_host();
    for layout in v1.into_iter().chain(v2) {
        let mut area = Area::new(layout);
        let resources = if area.layout.v1.is_empty() { "{}" } else { r#"{"pids": {"limit": 64}}"# };
        area.create(resources).unwrap();
        // Each of a few shells leaves a successor and ends.
        area.spawn("f() { f & }; for i in 1 2 3 4; do f & done");
        area.go();
        area.wait();
        area.cgroup().kill_all().unwrap();
        area.cgroup().destroy().unwrap();
        assert!(area.cgroup().saved().directories().iter().all(|directory| !is_there(&directory.path)));
    }
}

#[test]
fn a_signal_reaches_every_process() {
    let Some(layout) = v1_host() else { return };
    let mut area = Area::new(layout);
    area.create("{}").unwrap();
    area.spawn("trap 'exit 42' USR1; echo ready.; while :; do sleep 1; done");
    area.go();
    area.hear();
    area.cgroup().signal_all(nix::libc::SIGUSR1).unwrap();
    assert_eq!(area.wait().code(), Some(42));
}

#[test]
fn device_rules_of_a_cgroup_with_children_change_without_a_reset() {
    let Some(layout) = v1_host() else { return };
    let mut area = Area::new(layout);
    area.create("{}").unwrap();
    std::fs::create_dir(area.at("devices").join("child")).unwrap();
    area.create(r#"{"devices": [{"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"}]}"#).unwrap();
    assert!(area.read("devices", "devices.list").lines().any(|line| line == "c 1:11 r"));
    let error = area.create(r#"{"devices": [{"allow": true, "access": "rwm"}]}"#).unwrap_err().to_string();
    assert!(error.contains("the cgroup has children"), "{error}");
}

#[test]
fn sub_cgroups_are_entered_by_path_or_by_controller() {
    let Some(layout) = v1_host() else { return };
    let mut area = Area::new(layout);
    let name = area.name.clone();
    area.create("{}").unwrap();
    for directory in area.cgroup().saved().directories() {
        std::fs::create_dir(directory.path.join("sub")).unwrap();
    }
    let links = |entry: Entry| -> Vec<String> {
        let link = |fd: &OwnedFd| {
            std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(fd))).unwrap()
        };
        entry.join.iter().map(|fd| link(fd).display().to_string()).collect()
    };
    let all = links(area.cgroup().for_exec(&["sub".to_owned()], 1).unwrap());
    assert!(all.iter().all(|link| link.ends_with(&format!("{name}/sub/tasks"))), "{all:?}");
    let some =
        links(area.cgroup().for_exec(&["memory,systemd:/sub".to_owned(), "pids:sub/../sub".to_owned()], 1).unwrap());
    assert_eq!(some.iter().filter(|link| link.ends_with("/sub/tasks")).count(), 3, "{some:?}");
    for (subs, part) in [
        (&["../x"][..], "leads out of"),
        (&["gone"], "no such sub-cgroup"),
        (&["nothing:sub"], "no cgroup of the controller \"nothing\""),
        (&["pids:sub", "pids:sub"], "named twice"),
        (&["sub", "pids:sub"], "cannot be given with others"),
    ] {
        let subs: Vec<String> = subs.iter().map(|&sub| sub.to_owned()).collect();
        let error = area.cgroup().for_exec(&subs, 1).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn an_update_is_done_whole_or_not_at_all() {
    let Some(layout) = v1_host() else { return };
    let mut area = Area::new(layout);
    area.create(r#"{"pids": {"limit": 17}, "memory": {"limit": 33554432}}"#).unwrap();
    let update = |area: &Area, text: &str| area.cgroup().apply(&serde_json::from_str(text).unwrap());
    let error = update(&area, r#"{"pids": {"limit": 5}, "cpu": {"cpus": "4000"}}"#).unwrap_err().to_string();
    assert!(error.contains("cpu.cpus to 4000"), "{error}");
    assert_eq!(area.read("pids", "pids.max"), "17");
    update(&area, r#"{"memory": {"limit": 67108864}, "cpu": {"quota": 5000, "period": 2000}}"#).unwrap();
    assert_eq!(area.read("memory", "memory.limit_in_bytes"), "67108864");
    // A lower quota for the same period is refused by no order of the two writes.
    update(&area, r#"{"cpu": {"quota": 1000, "period": 1000000}}"#).unwrap();
    update(&area, r#"{"cpu": {"quota": 1000000, "period": 1000}}"#).unwrap();
    assert_eq!(area.read("cpu", "cpu.cfs_period_us"), "1000");
}

/// What an ordinary user may do is tested in a process of its own, for rights are those of the whole process.
#[test]
fn an_ordinary_user_goes_without_a_cgroup_unless_limits_are_asked_for() {
    use std::os::unix::process::CommandExt;
    const INSIDE: &str = "TARE_UNIT_TEST_AS_USER";
    const NAME: &str = "cgroup::tests::an_ordinary_user_goes_without_a_cgroup_unless_limits_are_asked_for";
    if std::env::var_os(INSIDE).is_none() {
        if !nix::unistd::geteuid().is_root() {
            skip("needs root to become another user");
            return;
        }
        let itself = std::env::current_exe().unwrap();
        let run = Command::new(itself).args(["--exact", NAME]).env(INSIDE, "1").uid(65534).gid(65534).output();
        match run {
            Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
            Err(error) => skip(format_args!("another user cannot run this program: {error}")),
        }
        return;
    }
    let layout = Layout::detect().unwrap();
    let create = |linux: &str, privilege| {
        let plan = lower(&spec(linux), &unique(), Manager::Cgroupfs, &layout, privilege)?;
        Cgroup::create(&plan)
    };
    if layout.version() == Version::Missing {
        return;
    }
    for privilege in [Privilege::Auto, Privilege::Rootless] {
        let cgroup = create("{}", privilege).unwrap();
        assert_eq!(cgroup.saved().directories(), []);
        assert!(!cgroup.is_frozen().unwrap() && cgroup.join_fds().unwrap().is_empty());
        assert!(cgroup.freeze().unwrap_err().to_string().contains("create it with cgroups"));
        cgroup.kill_all().unwrap();
        cgroup.destroy().unwrap();
        let error = create(r#"{"resources": {"pids": {"limit": 5}}}"#, privilege).unwrap_err().to_string();
        assert!(
            error.contains("permission denied") && error.contains("limits need a cgroup this user may write"),
            "{error}"
        );
        let error = create(&format!(r#"{{"cgroupsPath": "/{}"}}"#, unique()), privilege).unwrap_err();
        assert_eq!(error.errno(), Some(Errno::EACCES), "{error}");
    }
    assert_eq!(create("{}", Privilege::Root).unwrap_err().errno(), Some(Errno::EACCES));
}

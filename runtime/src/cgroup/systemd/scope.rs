//! A container's cgroups as systemd makes them: the scope, and in it what systemd cannot say.

use super::Systemd;
use crate::cgroup::{Cgroup, Directory, SavedCgroup, fs, size, v1};
use crate::error::{Error, Kind, Result};
use crate::plan::cgroup::systemd::{Domain, device_rules};
use crate::plan::cgroup::{CgroupPlan, Target};

impl Cgroup {
    /// Lets systemd make the unit of a plan around process `pid`, and does what systemd cannot. `saved` says of the unit from
    /// when it is there, whatever else may fail.
    pub fn create_unit(plan: &CgroupPlan, mut systemd: Systemd, pid: i32, saved: &mut SavedCgroup) -> Result<Self> {
        let unit = plan.unit.as_ref().ok_or_else(|| Error::new(Kind::System, "no systemd unit was planned"))?;
        let version = saved.version();
        let devices = match unit.domain {
            Domain::System => {
                device_rules(&plan.devices, version, &std::fs::read_to_string("/proc/devices").unwrap_or_default())
            }
            // It has no power over devices, and says so in the journal.
            Domain::User => Vec::new(),
        };
        systemd.start(unit, &devices, pid)?;
        saved.made = true;
        drop(systemd);
        let completed = check_place(saved, pid).and_then(|()| match &plan.target {
            Target::None => Ok(()),
            Target::V1(places) => v1::complete(places, plan).map(|directories| saved.directories = directories),
            Target::V2(place) => fs::complete(place, plan).map(drop),
        });
        match completed {
            // With its last process the cgroup is gone.
            Err(_) if has_ended(pid) => Err(ended_early(plan)),
            completed => completed.map(|()| Self { saved: saved.clone(), unified: None }),
        }
    }
}

/// Whether systemd has put process `pid` where the plan says.
fn check_place(saved: &SavedCgroup, pid: i32) -> Result<()> {
    let known = |directory: &&Directory| {
        directory.controllers.is_empty() || directory.controllers.iter().any(|name| name == "name=systemd")
    };
    let Some(directory) = saved.directories.iter().find(known) else { return Ok(()) };
    if std::fs::symlink_metadata(&directory.path).is_ok() {
        return Ok(());
    }
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let lines: Vec<&str> =
        text.lines().filter(|line| line.contains(":name=systemd:") || line.starts_with("0::")).collect();
    Err(Error::new(
        Kind::System,
        format!(
            "systemd has not made the cgroup {}, but put the container's process into {}: the runtime may be in a container \
             that sees another part of the cgroups than systemd",
            directory.path.display(),
            lines.join(" and ")
        ),
    ))
}

/// Whether process `pid`, a child that has not been waited for, runs no more (proc_pid_stat(5)).
fn has_ended(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

/// The kernel ends a process that comes into a cgroup with less memory than it has. What it counted is gone with the cgroup.
fn ended_early(plan: &CgroupPlan) -> Error {
    let writes = match &plan.target {
        Target::None => &[],
        Target::V1(places) => {
            let memory = places.iter().find(|place| place.controllers.iter().any(|name| name == "memory"));
            memory.map_or(&[][..], |place| &place.writes)
        }
        Target::V2(place) => &place.writes[..],
    };
    let limit = writes.iter().rfind(|write| ["memory.max", "memory.limit_in_bytes"].contains(&&*write.file));
    let limit = limit.and_then(|write| write.value.parse().ok()).map(size);
    Error::new(
        Kind::System,
        match limit {
            Some(limit) => format!(
                "memory limit {limit} is too small to start: init was killed (out of memory) when systemd put it into its \
                 cgroup; raise the limit"
            ),
            None => "init ended when systemd put it into its cgroup: somebody has killed it".to_owned(),
        },
    )
}

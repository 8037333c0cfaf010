//! What a checkpoint and a restore ask of criu alike, and how its failures are told.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, canonicalize};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::libc;

use crate::cli::{CriuArgs, ManageCgroups};
use crate::criu::rpc::{CgroupMode, Features, Options, Response};
use crate::criu::{self, Conversation};
use crate::error::{Context, Error, Kind, Result};

/// criu's level of logging: all that is needed to find out why something failed.
const LOG_LEVEL: i32 = 4;

/// Settings for criu when it works for a runtime, which a host may have; what it says goes before what is asked for here.
const CONFIGURATION: &str = "/etc/criu/runc.conf";
/// The annotation that names another file, or none.
const CONFIGURATION_ANNOTATION: &str = "org.criu.config";

/// Where criu writes to and reads from.
#[derive(Debug)]
pub struct Directories {
    /// The images, absolute.
    pub images: PathBuf,
    /// Where the log and the sockets are, absolute.
    work: PathBuf,
    log: &'static str,
}

/// The same, open: criu opens them again by `/proc/<our pid>/fd`.
#[derive(Debug)]
pub struct Opened {
    images: OwnedFd,
    work: OwnedFd,
}

impl Directories {
    /// For a dump: both directories are made where they are missing. Memory will lie in them, so they are the caller's alone.
    pub fn make(args: &CriuArgs) -> Result<Self> {
        let directories = Self::of(args, "dump.log")?;
        make(&directories.images).on("make the image directory", directories.images.display())?;
        make(&directories.work).on("make the work directory", directories.work.display())?;
        Ok(directories)
    }

    /// For a restore: the images must be there.
    pub fn find(args: &CriuArgs) -> Result<Self> {
        let directories = Self::of(args, "restore.log")?;
        open(&directories.images).on("open the image directory", directories.images.display())?;
        make(&directories.work).on("make the work directory", directories.work.display())?;
        Ok(directories)
    }

    fn of(args: &CriuArgs, log: &'static str) -> Result<Self> {
        let images = absolute(args.image_path.as_deref().unwrap_or(Path::new("checkpoint")))?;
        let work = args.work_path.as_deref().map(absolute).transpose()?.unwrap_or_else(|| images.clone());
        Ok(Self { images, work, log })
    }

    /// Opens them below `root`. A directory belongs to the mount namespace of the path it was opened by, and criu, which
    /// makes mounts in them, can only do so if that is its own. An absolute link on the way (containerd's work directory is
    /// one) would lead back to ours, so links are resolved before.
    pub fn open(&self, root: &Path) -> Result<Opened> {
        let open =
            |path: &Path| canonicalize(path).and_then(|path| open(&seen_from(root, &path))).on("open", path.display());
        Ok(Opened { images: open(&self.images)?, work: open(&self.work)? })
    }

    /// criu's answer, if it is success; else the reason from its log, or the one it gave.
    pub fn outcome(&self, response: Response) -> Result<Response> {
        if response.success {
            return Ok(response);
        }
        let mut reasons = criu::errors(&self.log_path());
        if reasons.is_empty() {
            // It failed before it had a log.
            reasons.extend(response.cr_errmsg.map(|text| text.trim().to_owned()));
        }
        if reasons.is_empty() {
            reasons.push("it gives no reason".to_owned());
        }
        let what = format!("criu failed (its log is {})", self.log_path().display());
        Err(Error::caused(Kind::System, what, reasons.join("; ")))
    }

    fn log_path(&self) -> PathBuf {
        self.work.join(self.log)
    }
}

/// `path` as it is found from another root.
pub fn seen_from(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).on("find", path.display())
}

fn make(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().mode(0o700).recursive(true).create(path)
}

fn open(path: &Path) -> std::io::Result<OwnedFd> {
    // The slash makes the kernel refuse what is not a directory.
    File::open(path.join("")).map(OwnedFd::from)
}

/// The options that both have. `opened` must stay so until criu has answered.
pub fn common(
    args: &CriuArgs,
    directories: &Directories,
    opened: &Opened,
    annotations: &HashMap<String, String>,
) -> Options {
    Options {
        images_dir_fd: opened.images.as_raw_fd(),
        work_dir_fd: Some(opened.work.as_raw_fd()),
        log_file: Some(directories.log.to_owned()),
        log_level: Some(LOG_LEVEL),
        notify_scripts: Some(true),
        manage_cgroups: Some(true),
        manage_cgroups_mode: Some(cgroup_mode(args.manage_cgroups_mode) as i32),
        shell_job: Some(args.shell_job),
        ext_unix_sk: Some(args.ext_unix_sk),
        tcp_established: Some(args.tcp_established),
        tcp_close: Some(args.tcp_close),
        file_locks: Some(args.file_locks),
        auto_dedup: Some(args.auto_dedup),
        lazy_pages: Some(args.lazy_pages),
        // Always, asked for or not: the devices and addresses of a network namespace are not the runtime's to keep. Who
        // made them makes them again, as at creation (hooks, or a namespace given by path).
        empty_ns: Some(libc::CLONE_NEWNET as u32),
        orphan_pts_master: Some(true),
        config_file: configuration(annotations),
        ..Options::default()
    }
}

fn cgroup_mode(mode: Option<ManageCgroups>) -> CgroupMode {
    match mode {
        None => CgroupMode::Default,
        Some(ManageCgroups::Soft) => CgroupMode::Soft,
        Some(ManageCgroups::Full) => CgroupMode::Full,
        Some(ManageCgroups::Strict) => CgroupMode::Strict,
        Some(ManageCgroups::Ignore) => CgroupMode::Ignore,
    }
}

fn configuration(annotations: &HashMap<String, String>) -> Option<String> {
    match annotations.get(CONFIGURATION_ANNOTATION) {
        Some(none) if none.is_empty() => None,
        Some(path) => Some(path.clone()),
        None => Some(CONFIGURATION.to_owned()),
    }
}

/// Fails if this criu, on this kernel, lacks one of `features`.
pub fn require(criu: &mut Conversation, features: Features) -> Result<()> {
    if features.mem_track != Some(true) && features.lazy_pages != Some(true) {
        return Ok(());
    }
    let missing = criu.missing(features)?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::unsupported(format!("criu cannot do this on this kernel: it lacks {}", missing.join(" and "))))
}

/// A path as criu takes it: text.
pub fn text(path: &Path) -> Result<String> {
    let text =
        path.to_str().ok_or_else(|| Error::invalid(format!("{} is not UTF-8, as criu needs it", path.display())));
    text.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mode_of_cgroups_is_criu_s_of_the_same_name() {
        for (mode, criu) in [
            (None, CgroupMode::Default),
            (Some(ManageCgroups::Soft), CgroupMode::Soft),
            (Some(ManageCgroups::Full), CgroupMode::Full),
            (Some(ManageCgroups::Strict), CgroupMode::Strict),
            (Some(ManageCgroups::Ignore), CgroupMode::Ignore),
        ] {
            assert_eq!(cgroup_mode(mode) as i32, criu as i32);
        }
    }

    #[test]
    fn the_annotation_names_another_configuration_or_none() {
        let annotated = |value: &str| HashMap::from([(CONFIGURATION_ANNOTATION.to_owned(), value.to_owned())]);
        assert_eq!(configuration(&HashMap::new()).as_deref(), Some("/etc/criu/runc.conf"));
        assert_eq!(configuration(&annotated("")), None);
        assert_eq!(configuration(&annotated("/my.conf")).as_deref(), Some("/my.conf"));
    }
}

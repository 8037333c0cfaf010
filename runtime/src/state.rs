//! The state of one container on disk, and what its status is now.
//!
//! ```text
//!   <root>/<id>/               0700; flock(2) on the directory itself serialises create, start, update and delete
//!     state.json               this module's State, replaced atomically
//!     .state.json.new          one that is being written, or waits to be put in its place
//!     config.json              the bundle's config.json as create read it: exec and restore take their defaults from it
//!     seccomp                  the compiled seccomp program, for exec; only with linux.seccomp
//!     exec.fifo                init waits on it; gone once started
//! ```
//!
//! Nothing here is trusted to be current but what it says for ever (which process, which cgroups): whether that process
//! lives is asked of the kernel (pidfd and start time, so that a pid used again is never taken for it), and whether it was
//! started is asked of the fifo, which init holds open until it executes the program. So a runtime killed at any instant
//! leaves nothing that a later call reads wrongly; a directory without a state.json is a creation that was cut short.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::libc;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde::{Deserialize, Serialize};

use crate::cgroup::SavedCgroup;
use crate::error::{Context, Error, Kind, Result};
use crate::plan::hooks::Hooks;
use crate::plan::rdt::SavedRdt;

mod init;

pub use init::Init;

/// The version of the runtime-spec that state and hooks name.
pub const OCI_VERSION: &str = "1.3.0";
/// The version of state.json's own form.
const FORM: u32 = 1;
/// A state.json longer than this is not ours.
const MAX_STATE: u64 = 16 << 20;

/// What the runtime keeps of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The version of this form: [`FORM`].
    pub form: u32,
    /// The container's id.
    pub id: String,
    /// The bundle, absolute.
    pub bundle: PathBuf,
    /// The root file system, absolute.
    pub rootfs: PathBuf,
    /// When it was created: RFC 3339, UTC.
    pub created: String,
    /// The uid that created it.
    pub owner: u32,
    /// The container's annotations.
    pub annotations: HashMap<String, String>,
    /// Its first process, once there is one.
    pub init: Option<Init>,
    /// Whether create came to its end.
    pub complete: bool,
    /// Whether init has a pid namespace of its own, so that its end is the end of all.
    pub own_pid_namespace: bool,
    /// Whether its processes have a session keyring of their own.
    pub own_keyring: bool,
    /// Whether the mounts at its root are in the caller's mount namespace, and stay there until it is deleted.
    pub mounted_on_host: bool,
    /// Its cgroups.
    pub cgroup: SavedCgroup,
    /// Its RDT group, if one was made.
    pub rdt: Option<SavedRdt>,
    /// The hooks of its later moments.
    pub hooks: Hooks,
}

/// runtime-spec's status of a container, and `paused`, which every runtime adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// create has not come to its end.
    Creating,
    /// init waits for start.
    Created,
    /// The program runs.
    Running,
    /// All processes are frozen.
    Paused,
    /// init is gone.
    Stopped,
}

impl Status {
    /// The word for it in JSON and in tables.
    pub fn word(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// Checks an id: [a-zA-Z0-9_+.-], not starting with a dot, not longer than a file name.
pub fn check_id(id: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+.-".contains(&byte);
    if id.is_empty() {
        return Err(Error::invalid("the container id is empty"));
    }
    if id.len() > 255 || id.starts_with('.') || !id.bytes().all(allowed) {
        let shown: String = id.chars().take(64).collect();
        return Err(Error::invalid(format!(
            "invalid container id {shown:?}: use letters, digits and _ + . - (no dot first, 255 characters at most)"
        )));
    }
    Ok(())
}

/// The directory of one container, locked.
#[derive(Debug)]
pub struct ContainerDir {
    path: PathBuf,
    id: String,
    /// Locked until it is closed.
    _lock: File,
}

impl ContainerDir {
    /// Makes the directory of a new container. It is the lock on the name: of two that try at once, one fails.
    pub fn create(root: &Path, id: &str) -> Result<Self> {
        check_id(id)?;
        let path = root.join(id);
        let make = |path: &Path| DirBuilder::new().mode(0o700).create(path);
        let made = match make(&path) {
            // The first container under this root: only now is the root needed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                DirBuilder::new()
                    .mode(0o700)
                    .recursive(true)
                    .create(root)
                    .on("make the state directory", root.display())
                    .map_err(no_room)?;
                make(&path)
            }
            made => made,
        };
        match made {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(Error::new(
                    Kind::Exists,
                    format!("container with id {id:?} already exists; delete it first"),
                ));
            }
            Err(error) => return Err(error).on("make the state directory", path.display()).map_err(no_room),
        }
        let lock = lock(&path)?;
        Ok(Self { path, id: id.to_owned(), _lock: lock })
    }

    /// Opens and locks the directory of a container that is there.
    pub fn open(root: &Path, id: &str) -> Result<Self> {
        check_id(id)?;
        let path = root.join(id);
        let lock = lock(&path).map_err(|error| no_such(error, id))?;
        // Whoever held the lock before may have deleted it.
        if !matches!(nix::sys::stat::fstat(lock.as_fd()), Ok(status) if status.st_nlink > 0) {
            return Err(does_not_exist(id));
        }
        Ok(Self { path, id: id.to_owned(), _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces state.json.
    pub fn save(&self, state: &State) -> Result<()> {
        self.stage(state)?.publish().map(Replaced::remove)
    }

    /// Writes a new state.json beside the one that is there. Whoever does so holds the lock, so the name is free, or left by
    /// one that was killed. The directory lies on a tmpfs, which no power cut survives: nothing is synced.
    pub fn stage(&self, state: &State) -> Result<Staged> {
        let bytes = serde_json::to_vec(state)
            .map_err(|error| Error::caused(Kind::System, format!("encode the state of {}", self.id), error))?;
        let (place, new) = (self.path.join("state.json"), self.path.join(".state.json.new"));
        let write = || {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&bytes)
        };
        match write() {
            Ok(()) => Ok(Staged { new, place }),
            Err(error) => {
                let _ = fs::remove_file(&new);
                Err(error).on("write", place.display()).map_err(no_room)
            }
        }
    }

    /// Keeps a file of the container beside its state.
    pub fn keep(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path.join(name);
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).on("make", path.display());
        made.and_then(|mut file| file.write_all(bytes).on("write", path.display())).map_err(no_room)
    }

    /// The configuration that the container was created from.
    pub fn config(&self) -> Result<Vec<u8>> {
        let path = self.path.join("config.json");
        fs::read(&path).on("read", path.display())
    }

    /// Makes exec.fifo and opens it for init, for reading and writing, so that it neither waits for nor loses a peer.
    pub fn make_fifo(&self) -> Result<OwnedFd> {
        let path = self.path.join("exec.fifo");
        mkfifo(&path, Mode::from_bits_truncate(0o600)).on("make", path.display()).map_err(no_room)?;
        let file = OpenOptions::new().read(true).write(true).open(&path).on("open", path.display())?;
        Ok(file.into())
    }

    /// Loads the state; `None` where creation was cut short before there was one.
    pub fn load(&self) -> Result<Option<State>> {
        match read(&self.path, &self.id) {
            Ok(state) => Ok(Some(state)),
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes the directory and everything in it.
    pub fn remove(self) -> Result<()> {
        // Mostly nothing but these is there, and to look costs more than to try.
        for usual in ["config.json", "seccomp", "state.json"] {
            let _ = fs::remove_file(self.path.join(usual));
        }
        match fs::remove_dir(&self.path).or_else(|_| fs::remove_dir_all(&self.path)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).on("remove the state directory", self.path.display())
            }
            _ => Ok(()),
        }
    }
}

/// A state.json that is written but not yet in its place.
#[derive(Debug)]
pub struct Staged {
    new: PathBuf,
    place: PathBuf,
}

impl Staged {
    /// Puts it in its place, so that a reader sees the old one or the new one. Returns the old one.
    ///
    /// Where the directory does lie on a disk, a rename over a file makes some file systems (ext4) write the new one out at
    /// once, which takes longer than all else that create does; an exchange of the two does not.
    pub fn publish(self) -> Result<Replaced> {
        let Self { new, place } = self;
        if renameat2(AT_FDCWD, &new, AT_FDCWD, &place, RenameFlags::RENAME_EXCHANGE).is_ok() {
            return Ok(Replaced(Some(new)));
        }
        // There is none yet, or this file system cannot exchange.
        match fs::rename(&new, &place) {
            Ok(()) => Ok(Replaced(None)),
            Err(error) => {
                let _ = fs::remove_file(&new);
                Err(error).on("write", place.display())
            }
        }
    }
}

/// The state.json that another one took the place of. It is in nobody's way, so it can be removed when there is time.
#[derive(Debug)]
pub struct Replaced(Option<PathBuf>);

impl Replaced {
    /// Removes it.
    pub fn remove(self) {
        if let Some(path) = self.0 {
            // What stays is written over by the next one, and goes with the directory.
            let _ = fs::remove_file(path);
        }
    }
}

fn lock(path: &Path) -> Result<File> {
    let directory = open_directory(path)?;
    directory.lock().on("lock the state directory", path.display())?;
    Ok(directory)
}

fn open_directory(path: &Path) -> Result<File> {
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    OpenOptions::new().read(true).custom_flags(flags).open(path).on("open the state directory", path.display())
}

fn no_such(error: Error, id: &str) -> Error {
    if error.errno() == Some(Errno::ENOENT) { does_not_exist(id) } else { error }
}

/// The error for a container that is not there; callers match its words.
pub fn does_not_exist(id: &str) -> Error {
    Error::new(Kind::NotFound, format!("container {id:?} does not exist"))
}

/// Loads the state of a container for a command that only looks or signals: without the lock.
pub fn load(root: &Path, id: &str) -> Result<State> {
    check_id(id)?;
    let path = root.join(id);
    read(&path, id).map_err(|error| {
        if error.errno() != Some(Errno::ENOENT) {
            error
        } else if fs::symlink_metadata(&path).is_ok() {
            Error::new(
                Kind::State,
                format!("container {id:?} was not created completely; remove it with delete --force"),
            )
        } else {
            does_not_exist(id)
        }
    })
}

fn read(directory: &Path, id: &str) -> Result<State> {
    let path = directory.join("state.json");
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(&path).on("open", path.display())?;
    let length = file.metadata().on("stat", path.display())?.len();
    if length > MAX_STATE {
        return Err(Error::new(Kind::System, format!("{} has {length} bytes: not a state of ours", path.display())));
    }
    let mut bytes = Vec::with_capacity(length as usize);
    std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX_STATE), &mut bytes).on("read", path.display())?;
    let state = parse(&bytes).map_err(|error| error.within(path.display()))?;
    if state.id != id {
        return Err(Error::new(Kind::System, format!("{} is the state of another container", path.display())));
    }
    Ok(state)
}

/// Reads the bytes of a state.json: strict, this form only.
pub fn parse(bytes: &[u8]) -> Result<State> {
    let state: State = serde_json::from_slice(bytes)
        .map_err(|error| Error::caused(Kind::System, "not a state that this version reads", error))?;
    if state.form != FORM {
        return Err(Error::new(
            Kind::System,
            format!("written in form {}; this version reads form {FORM}", state.form),
        ));
    }
    Ok(state)
}

/// Adds what to do where the state directory's file system is what refuses.
fn no_room(error: Error) -> Error {
    match error.errno() {
        Some(Errno::ENOSPC | Errno::EDQUOT) => error.hint(
            "make room on that file system (also for new files: `df -i`), or choose another directory with --root",
        ),
        Some(Errno::EROFS) => error.hint("choose another directory with --root"),
        _ => error,
    }
}

/// Writes a file so that a reader sees the old content or the new, never a part: beside it first, then renamed over it.
pub fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        fs::rename(&temporary, path)
    };
    write().on("write", path.display()).inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

impl State {
    /// A new container's state, before it has a process.
    pub fn new(id: &str, bundle: &Path, rootfs: &Path, cgroup: SavedCgroup) -> Self {
        Self {
            form: FORM,
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            rootfs: rootfs.to_owned(),
            created: crate::log::now(),
            owner: nix::unistd::geteuid().as_raw(),
            annotations: HashMap::new(),
            init: None,
            complete: false,
            own_pid_namespace: false,
            own_keyring: false,
            mounted_on_host: false,
            cgroup,
            rdt: None,
            hooks: Hooks::default(),
        }
    }

    /// What the container is doing now, as far as its process and its fifo tell; whether it is paused is asked of its cgroup.
    pub fn status(&self, root: &Path) -> Result<Status> {
        self.look(root).map(|(status, _)| status)
    }

    /// The same, with a pidfd of its process unless that has ended.
    pub fn look(&self, root: &Path) -> Result<(Status, Option<OwnedFd>)> {
        let Some(init) = &self.init else { return Ok((self.stillborn(root), None)) };
        let Some(pidfd) = init.open()? else { return Ok((Status::Stopped, None)) };
        let status = if !self.complete {
            Status::Creating
        } else if crate::cgroup::Cgroup::open(&self.cgroup)?.is_frozen()? {
            Status::Paused
        } else if waits_for_start(&root.join(&self.id)) {
            Status::Created
        } else {
            Status::Running
        };
        Ok((status, Some(pidfd)))
    }

    /// Without a process: being created if somebody holds the lock, else cut short.
    fn stillborn(&self, root: &Path) -> Status {
        match open_directory(&root.join(&self.id)).map(|directory| directory.try_lock_shared()) {
            Ok(Err(TryLockError::WouldBlock)) => Status::Creating,
            _ => Status::Stopped,
        }
    }

    /// The JSON that runtime-spec defines for state and for the stdin of hooks.
    pub fn to_oci_json(&self, status: Status, pid: Option<i32>) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Oci<'a> {
            oci_version: &'a str,
            id: &'a str,
            status: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            pid: Option<i32>,
            bundle: &'a Path,
            #[serde(skip_serializing_if = "HashMap::is_empty")]
            annotations: &'a HashMap<String, String>,
        }
        let (id, bundle, annotations) = (&self.id, &self.bundle, &self.annotations);
        let oci = Oci { oci_version: OCI_VERSION, id, status: status.word(), pid, bundle, annotations };
        // Strings and numbers under string keys: there is nothing that could not be encoded, but for a path that is no UTF-8.
        serde_json::to_vec(&oci).unwrap_or_else(|_| b"{}".to_vec())
    }
}

/// Whether init still waits at its fifo: it is open at the other end until the program is executed.
fn waits_for_start(directory: &Path) -> bool {
    OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(directory.join("exec.fifo")).is_ok()
}

//! A machine of its own for a caller: new mount, network and pid namespaces whose writable places are tmpfs.
//!
//! The caller's bridges, packet filters, mounts, users and state are real, and go with the namespaces. The world lives as
//! long as the pipe to its first process: when the test ends, however it ends, the kernel kills everything inside.
//! Only cgroups are the machine's own; they all lie under one parent, which [`World::finish`] removes.
//! Beside a systemd that runs the host ([`World::beside_systemd`]) that parent is a slice of its own.
//!
//! A test goes through a table of [`Row`]s. A row is a shell script and what it must print; all rows are run, and what failed
//! is reported together, with the end of the [`Server`]'s log.

pub mod ctr;
pub mod docker;
mod rows;
mod server;
pub mod systemd;

pub use rows::{Row, assert_shown, row, run_rows};
pub use server::Server;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::wait;

/// A running world.
pub struct World {
    holder: Child,
    /// Process 1 of the world, as the host counts.
    pid: String,
    /// The one other process that belongs there, as the world counts.
    helper: String,
    /// Where programs are looked for.
    path: String,
    /// Name of the cgroup, below each hierarchy's root, that holds the callers' cgroups.
    cgroup: String,
    /// Whether that is a slice of the host's systemd.
    beside_systemd: bool,
}

/// Who runs a script.
#[derive(Clone, Copy)]
pub enum User {
    /// The world's administrator.
    Root,
    /// The user 2001, whom a test makes that needs one, with the home directory /run/world/home.
    Ordinary,
    /// The same, on a host with cgroup version 2 in `mine/session` below the world's cgroup, which the test delegates to
    /// him: nobody may move processes into what is his, himself included, from outside of it.
    Delegated,
    /// A user of the host who has a systemd, as in a session of his: in a scope of the world's slice there. His home directory
    /// is /run/world/home.
    Session(u32),
}

/// What a command did.
pub struct Outcome {
    /// `None` when a signal ended it.
    pub status: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// What a caller could have left behind.
pub struct Snapshot {
    mounts: Vec<String>,
}

impl World {
    /// Makes the world, with the runtime under test at `/run/world/bin/tare`.
    pub fn start() -> World {
        let cgroup = format!("tare-e2e-{}", unique('-'));
        let mut unshare = Command::new("unshare");
        unshare.args(["-m", "-n", "-p", "--fork"]);
        Self::begin(unshare, cgroup, false)
    }

    /// The same on a host that systemd runs, for callers that have their cgroups made by it: with the host's process numbers,
    /// which systemd is told, and its sockets. Everything lies in a slice of the world's own.
    pub fn beside_systemd() -> World {
        let name = format!("tare_e2e_{}", unique('_'));
        let mut run = Command::new("systemd-run");
        run.args(["--scope", "--quiet", "--collect", "--unit", &name, "--slice", &name]);
        run.args(["--", "unshare", "-m", "-n"]);
        Self::begin(run, format!("{name}.slice"), true)
    }

    fn begin(mut unshare: Command, cgroup: String, beside_systemd: bool) -> World {
        let criu = criu_prefix();
        let path = criu.as_ref().map_or_else(|| PATH.to_owned(), |prefix| format!("{}/bin:{PATH}", prefix.display()));
        let mut holder = unshare
            .args(["--propagation", "private", "--", "sh", "-c", include_str!("world/world.sh")])
            .env_clear()
            .env("PATH", PATH)
            .env("TARE", crate::under_test())
            .env("CRIU", criu.as_deref().unwrap_or(Path::new("")))
            .env("KEEP", if beside_systemd { "systemd dbus user" } else { "" })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("start {}: {e}", unshare.get_program().display()));
        let mut line = String::new();
        BufReader::new(holder.stdout.take().expect("a pipe was asked for"))
            .read_line(&mut line)
            .expect("read from the world's first process");
        let (pid, helper) = line.trim().split_once(' ').expect("the world's set-up failed, see its message above");
        World { pid: pid.to_owned(), helper: helper.to_owned(), path, holder, cgroup, beside_systemd }
    }

    /// Puts a program where the world looks first, under the name it has.
    pub fn add_program(&self, program: &Path) {
        let name = program.file_name().expect("a program has a name");
        let to = self.root().join("run/world/bin").join(name);
        fs::copy(program, &to).unwrap_or_else(|e| panic!("copy {} to {}: {e}", program.display(), to.display()));
    }

    /// The world's root directory, seen from here.
    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.pid))
    }

    /// Why checkpoints cannot be tested here, if they cannot.
    pub fn lacks_criu(&self) -> Option<String> {
        let outcome = self.sh(User::Root, "criu check");
        (outcome.status != Some(0)).then(|| format!("criu does not work on this kernel: {}", outcome.stderr.trim_end()))
    }

    /// The cgroup parent to hand to callers: absolute, or the name of a slice.
    pub fn cgroup_parent(&self) -> String {
        if self.beside_systemd { self.cgroup.clone() } else { format!("/{}", self.cgroup) }
    }

    /// Whether it was made by [`World::beside_systemd`].
    pub fn is_beside_systemd(&self) -> bool {
        self.beside_systemd
    }

    /// A program to be run inside, in `/run/world`, with a clean environment.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid, "-m", "-n"]);
        let mut enter = ENTER.to_owned();
        if self.beside_systemd {
            enter.insert_str(0, systemd::JOIN);
        } else {
            command.arg("-p");
        }
        command
            .args(["--", "sh", "-c", &enter, "sh", program])
            .env_clear()
            .env("PATH", &self.path)
            .env("HOME", "/tmp")
            .env("TERM", "xterm")
            .env("LANG", "C")
            .env("CG", self.cgroup_parent())
            .stdin(Stdio::null());
        command
    }

    /// A connection to a server inside, on its loopback.
    pub fn connect(&self, port: u16) -> io::Result<TcpStream> {
        let network = File::open(format!("/proc/{}/ns/net", self.pid))?;
        // A socket belongs to the network it was made in, and a thread of its own may go elsewhere without the others.
        let connect = move || {
            nix::sched::setns(network, nix::sched::CloneFlags::CLONE_NEWNET)?;
            TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        };
        std::thread::spawn(connect).join().expect("it does not panic")
    }

    /// Runs a shell script inside. One that hangs is killed, with all of its process group, after three times as long as anything
    /// may take: no row that works takes so long, however loaded the machine is.
    pub fn sh(&self, user: User, script: &str) -> Outcome {
        let mut command = self.command("timeout");
        command.args(["-s", "KILL", &(wait::limit() * 3).as_secs().to_string()]);
        if let User::Delegated = user {
            command.args(["sh", "-c", JOIN_DELEGATED, "sh"]);
        }
        let uid = match user {
            User::Root => None,
            User::Ordinary | User::Delegated => Some(2001),
            User::Session(uid) => Some(uid),
        };
        if let Some(uid) = uid {
            command.args(["setpriv", &format!("--reuid={uid}"), &format!("--regid={uid}"), "--init-groups", "env"]);
            command.args(["HOME=/run/world/home", &format!("XDG_RUNTIME_DIR=/run/user/{uid}")]);
        }
        if let User::Session(uid) = user {
            command.arg(format!("DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{uid}/bus"));
            command.args(["systemd-run", "--user", "--scope", "--quiet", "--collect", "--slice", &self.cgroup]);
        }
        // Files, since a pipe would be waited for as long as anything that the script left behind has it.
        let [stdout, stderr] =
            ["stdout", "stderr"].map(|name| PathBuf::from(format!("/proc/{}/root/run/{name}", self.pid)));
        let create = |path: &Path| File::create(path).expect("make a file in the world");
        let status = command
            .args(["sh", "-euc", script])
            .stdout(create(&stdout))
            .stderr(create(&stderr))
            .status()
            .expect("run nsenter");
        let text = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        Outcome { status: status.code(), stdout: text(&stdout), stderr: text(&stderr) }
    }

    /// Runs a script that prepares something.
    ///
    /// # Panics
    /// If it fails.
    pub fn prepare(&self, user: User, script: &str) {
        let outcome = self.sh(user, script);
        assert_eq!(outcome.status, Some(0), "{script}\n{}{}", outcome.stdout, outcome.stderr);
    }

    /// What is there now, to be compared by [`World::finish`].
    pub fn snapshot(&self) -> Snapshot {
        let table = fs::read_to_string(format!("/proc/{}/mountinfo", self.pid)).expect("read the world's mount table");
        // Ids are of no interest: the place, the root and the kind of each mount are.
        let mut mounts: Vec<String> = table
            .lines()
            // podman's own, which it takes away with its last container, or not.
            .filter(|line| !line.contains(" /run/world/storage/overlay "))
            .map(|line| line.split(' ').skip(2).collect::<Vec<_>>().join(" "))
            // The flags of cgroup2 are the whole machine's, and criu, maybe of another test, sets them as it likes.
            .map(|line| match line.split_once(" - cgroup2 ") {
                Some((mount, _)) => mount.to_owned(),
                None => line,
            })
            .collect();
        mounts.sort();
        Snapshot { mounts }
    }

    /// Ends the world and says what its callers left: processes, mounts, containers of the runtime, cgroups.
    ///
    /// Processes that are on their way out are waited for. `states` are where the runtime keeps its containers' state.
    /// `is_containers` knows the names of containers' cgroups; callers leave some that they make for themselves.
    pub fn finish(mut self, before: &Snapshot, states: &[&str], is_containers: fn(&str) -> bool) -> Vec<String> {
        let mut left = Vec::new();
        left.extend(self.processes_left());
        if self.beside_systemd {
            left.extend(self.units_left());
        }
        let after = self.snapshot();
        for mount in &after.mounts {
            if !before.mounts.contains(mount) {
                left.push(format!("--- a mount was left behind: {mount}"));
            }
        }
        let states =
            self.sh(User::Root, &format!("find {} -mindepth 1 -maxdepth 1 2>/dev/null || true", states.join(" ")));
        for state in states.stdout.lines() {
            left.push(format!("--- a container's state was left behind: {state}"));
        }
        self.end();
        left.extend(self.remove_cgroups(is_containers));
        left
    }

    /// Waits for the processes that are on their way out, and for those that they start to clean up after them (conmon does),
    /// until there is none; says which do not end.
    fn processes_left(&self) -> Vec<String> {
        let script = format!(
            "for pid in $({}); do
                dir=/proc/$pid
                case $pid in {}|{}|$$|$PPID) continue;; esac
                what=$(tr '\\0' ' ' <$dir/cmdline) 2>/dev/null || continue
                echo $pid >/run/leaving
                if timeout 30 pidwait -F /run/leaving || [ ! -e $dir ]; then echo gone; else echo $pid $what; fi
             done",
            if self.beside_systemd { systemd::PROCESSES } else { "cd /proc && echo [0-9]*" },
            if self.beside_systemd { &self.pid } else { "1" },
            self.helper
        );
        loop {
            let seen = self.sh(User::Root, &script).stdout;
            let stays: Vec<&str> = seen.lines().filter(|line| *line != "gone").collect();
            if !stays.is_empty() || seen.is_empty() {
                return stays.iter().map(|process| format!("--- a process was left behind: {process}")).collect();
            }
        }
    }

    fn end(&mut self) {
        // The end of its input is the sign for process 1 to exit, and its exit kills the rest.
        let first_time = self.holder.stdin.take().is_some();
        let _ = self.holder.wait();
        if first_time && self.beside_systemd {
            systemd::stop(&self.cgroup);
        }
    }

    /// Removes the world's cgroups; returns those that the runtime ought to have removed.
    fn remove_cgroups(&self, is_containers: fn(&str) -> bool) -> BTreeSet<String> {
        let mut left = BTreeSet::new();
        for hierarchy in hierarchies() {
            for dir in directories(&hierarchy.join(&self.cgroup)) {
                let name = dir.file_name().unwrap_or_default().to_string_lossy();
                if name != self.cgroup && is_containers(&name) {
                    left.insert(format!("--- a cgroup was left behind: {}", dir.display()));
                }
                let _ = fs::remove_dir(&dir);
            }
        }
        left
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.end();
        self.remove_cgroups(|_| false);
    }
}

const PATH: &str = "/run/world/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const ENTER: &str = "cd /run/world && exec \"$@\"";

const JOIN_DELEGATED: &str = "session=/sys/fs/cgroup$CG/mine/session
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then echo $$ >$session/cgroup.procs; fi
exec \"$@\"";

/// Distinguishes the worlds of all tests, of this process and of others.
fn unique(separator: char) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{}{separator}{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Whether a program is installed where the world looks for it.
pub fn has(program: &str) -> bool {
    std::env::split_paths(PATH).any(|dir| dir.join(program).is_file())
}

/// The directory whose bin/criu comes first in this process's PATH, if it is not the system's.
fn criu_prefix() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let bin = std::env::split_paths(&path).find(|dir| dir.join("criu").is_file())?;
    bin.parent()
        .filter(|prefix| bin.ends_with("bin") && *prefix != Path::new("/usr") && *prefix != Path::new("/"))
        .map(Path::to_owned)
}

/// Where the cgroup hierarchies are mounted.
fn hierarchies() -> Vec<PathBuf> {
    fs::read_to_string("/proc/self/mounts")
        .expect("read the mount table")
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (target, kind) = (fields.next()?, fields.next()?);
            kind.starts_with("cgroup").then(|| PathBuf::from(target))
        })
        .collect()
}

/// `dir` and all directories below it, the deepest first; none if it is not there.
fn directories(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .flat_map(|entry| directories(&entry.path()))
        .collect();
    found.push(dir.to_owned());
    found
}

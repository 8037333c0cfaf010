//! A container: its first process, its execs, its runtime.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tokio::sync::{Mutex, Notify, oneshot};

use crate::cgroup::Cgroup;
use crate::error::{Error, Kind, Result};
use crate::options::Options;
use crate::process::{Phase, Process};
use crate::runtime::Runtime;

/// Whether the processes are stopped where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frozen {
    /// They run.
    No,
    /// The runtime is about to stop them.
    Pausing,
    /// They stand.
    Yes,
}

/// A checkpoint that the container is to be made from, at its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The directory of its images.
    pub path: String,
    /// The earlier checkpoint that it builds upon, or nothing.
    pub parent: String,
}

/// A container, by the thread that owns the table.
#[derive(Debug)]
pub struct Container {
    /// The client's name for it, and the runtime's.
    pub id: String,
    /// Its bundle, absolute.
    pub bundle: PathBuf,
    /// What it was asked for.
    pub options: Options,
    /// What runs it.
    pub runtime: Runtime,
    /// Its first process.
    pub init: Rc<Process>,
    /// From which checkpoint it starts, if from one.
    pub checkpoint: Option<Checkpoint>,
    /// Where its root was mounted by the shim.
    pub rootfs: Option<PathBuf>,
    /// Whether all its processes end with the first.
    pub own_pid_namespace: bool,
    /// One change by the runtime at a time; `kill` and all that only looks does not wait.
    pub turn: Mutex<()>,
    /// Where its statistics are.
    pub cgroup: RefCell<Option<Rc<Cgroup>>>,
    /// Asks the watch for a last look, and is answered when it has looked.
    pub last_oom_look: RefCell<Option<oneshot::Sender<oneshot::Sender<()>>>>,
    execs: RefCell<HashMap<String, Rc<Process>>>,
    frozen: Cell<Frozen>,
    ended: Cell<bool>,
    end: Notify,
    exec_ended: Notify,
}

impl Container {
    /// A container that the runtime has made, or will make from a checkpoint.
    pub fn new(
        id: String,
        bundle: PathBuf,
        options: Options,
        runtime: Runtime,
        init: Process,
        checkpoint: Option<Checkpoint>,
        rootfs: Option<PathBuf>,
    ) -> Self {
        let own_pid_namespace = has_own_pid_namespace(&bundle);
        Self {
            id,
            bundle,
            options,
            runtime,
            init: Rc::new(init),
            checkpoint,
            rootfs,
            own_pid_namespace,
            turn: Mutex::new(()),
            cgroup: RefCell::new(None),
            last_oom_look: RefCell::new(None),
            execs: RefCell::default(),
            frozen: Cell::new(Frozen::No),
            ended: Cell::new(false),
            end: Notify::new(),
            exec_ended: Notify::new(),
        }
    }

    /// The process that a request means: an empty id is the first one.
    pub fn process(&self, exec_id: &str) -> Result<Rc<Process>> {
        if exec_id.is_empty() {
            return Ok(self.init.clone());
        }
        self.execs.borrow().get(exec_id).cloned().ok_or_else(|| {
            Error::new(Kind::NotFound, format!("process {exec_id} does not exist in container {}", self.id))
        })
    }

    /// All execs that were added and not deleted.
    pub fn execs(&self) -> Vec<Rc<Process>> {
        self.execs.borrow().values().cloned().collect()
    }

    /// Adds an exec; its name is taken until it is deleted.
    pub fn add_exec(&self, process: Process) -> Result<()> {
        let mut execs = self.execs.borrow_mut();
        if process.id == self.id || execs.contains_key(&process.id) {
            return Err(Error::new(
                Kind::AlreadyExists,
                format!("process {} already exists in container {}: take another id", process.id, self.id),
            ));
        }
        execs.insert(process.id.clone(), Rc::new(process));
        Ok(())
    }

    /// Forgets an exec.
    pub fn remove_exec(&self, exec_id: &str) {
        self.execs.borrow_mut().remove(exec_id);
    }

    /// Whether the processes stand.
    pub fn frozen(&self) -> Frozen {
        self.frozen.get()
    }

    /// They do, or they do not.
    pub fn set_frozen(&self, frozen: Frozen) {
        self.frozen.set(frozen);
    }

    /// The first process has ended, though clients may not know yet: nothing new can start.
    pub fn end(&self) {
        self.ended.set(true);
        self.frozen.set(Frozen::No);
        self.end.notify_waiters();
    }

    /// Whether the first process has ended.
    pub fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// Waits for the first process's end.
    pub async fn until_ended(&self) {
        let end = self.end.notified();
        if !self.ended.get() {
            end.await;
        }
    }

    /// An exec has ended, or will not start.
    pub fn exec_ended(&self) {
        self.exec_ended.notify_waiters();
    }

    /// Waits until no exec starts or runs.
    pub async fn until_execs_ended(&self) {
        loop {
            let ended = self.exec_ended.notified();
            let lives = |it: &Rc<Process>| matches!(it.phase(), Phase::Starting | Phase::Running);
            if !self.execs.borrow().values().any(lives) {
                return;
            }
            ended.await;
        }
    }
}

/// Whether `config.json` gives the container a pid namespace of its own. When it can't be told it may share one, and then
/// its processes have to be killed by number.
fn has_own_pid_namespace(bundle: &Path) -> bool {
    #[derive(serde::Deserialize)]
    struct Spec {
        linux: Option<Linux>,
    }
    #[derive(serde::Deserialize)]
    struct Linux {
        namespaces: Option<Vec<Namespace>>,
    }
    #[derive(serde::Deserialize)]
    struct Namespace {
        r#type: String,
        #[serde(default)]
        path: String,
    }
    let Ok(file) = std::fs::read(bundle.join("config.json")) else { return false };
    let Ok(spec) = serde_json::from_slice::<Spec>(&file) else { return false };
    let namespaces = spec.linux.and_then(|it| it.namespaces).unwrap_or_default();
    namespaces.iter().any(|it| it.r#type == "pid" && it.path.is_empty())
}

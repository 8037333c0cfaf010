//! A shim under test, with a container's bundle, in the place of a daemon.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};

use integration::shim_client::{EventSink, Launch, Shim, Started, Streams, wait_gone};
use integration::{Bundle, Runtime, built, under_test};
use nix::sys::stat::Mode;
use serde_json::{Value, json};
use tare_proto::any::pack;
use tare_proto::{Any, runc};

/// A shim that runs, and what a test needs around it.
pub(crate) struct Held {
    pub(crate) rt: Runtime,
    pub(crate) id: String,
    pub(crate) bundle: Bundle,
    pub(crate) launch: Launch,
    pub(crate) started: Started,
    pub(crate) shim: Shim,
    pub(crate) events: EventSink,
    pub(crate) pid: u32,
}

/// What is to be held.
pub(crate) struct Plan {
    pub(crate) rt: Runtime,
    pub(crate) bundle: Bundle,
    /// The plan of `faulty-runtime`; with an empty one the runtime itself is called.
    pub(crate) faults: &'static str,
    /// Further variables of the shim's environment.
    pub(crate) environment: Vec<(String, String)>,
}

impl Plan {
    /// A container of these words in the default bundle.
    pub(crate) fn of(args: &[&str]) -> Plan {
        let rt = Runtime::from_env();
        let bundle = rt.bundle(args);
        Plan { rt, bundle, faults: "", environment: Vec::new() }
    }

    /// One that only waits to be told to end.
    pub(crate) fn idle() -> Plan {
        Plan::of(&["/bin/sleep", "1000"])
    }

    pub(crate) fn edit(mut self, change: impl FnOnce(&mut Value)) -> Plan {
        self.bundle = self.bundle.edit(change);
        self
    }

    pub(crate) fn faults(mut self, faults: &'static str) -> Plan {
        self.faults = faults;
        self
    }

    /// Starts the shim.
    pub(crate) async fn hold(self) -> Held {
        let Plan { rt, bundle, faults, environment } = self;
        bundle.write();
        let id = rt.fresh_id();
        let events = EventSink::bind(&rt.fresh_path("events")).await;
        let mut launch = Launch::new(&shim_under_test(), &id, bundle.path());
        launch.socket_dir = Some(rt.work().to_owned());
        launch.events = Some(events.path().to_owned());
        launch.options = Some(options(&rt, faults));
        launch.environment.push(("TARE_TEST_TAG".into(), rt.tag().into()));
        launch.environment.push(("REAL".into(), under_test().to_str().unwrap().into()));
        launch.environment.extend(environment);
        let started = launch.start().unwrap();
        let shim = Shim::connect(&started).await.unwrap();
        let (pid, _) = shim.pids_of_shim_and_task(&id).await.unwrap();
        Held { rt, id, bundle, launch, started, shim, events, pid }
    }
}

impl Held {
    /// Creates the container.
    pub(crate) async fn create(&self, streams: &Streams) -> Result<u32, tare_proto::ttrpc::Error> {
        self.shim.create_with(&self.id, self.bundle.path(), streams, vec![], self.launch.options.clone()).await
    }

    /// Creates it without streams, and starts it.
    pub(crate) async fn run(&self) -> u32 {
        self.create(&Streams::default()).await.unwrap();
        self.shim.start(&self.id, "").await.unwrap()
    }

    /// Adds an exec and starts it.
    pub(crate) async fn exec(&self, exec_id: &str, args: &[&str], streams: &Streams) -> u32 {
        self.shim.exec(&self.id, exec_id, &process(args), streams).await.unwrap();
        self.shim.start(&self.id, exec_id).await.unwrap()
    }

    /// Ends the container, whatever it does, and deletes it.
    pub(crate) async fn kill_and_delete(&self) {
        let _ = self.shim.kill_all(&self.id, libc::SIGKILL).await;
        self.shim.wait(&self.id, "").await.unwrap();
        self.shim.delete(&self.id, "").await.unwrap();
    }

    /// Asks the shim to end, and sees that it leaves nothing.
    pub(crate) async fn end(self) {
        let _ = self.shim.shutdown(&self.id).await;
        wait_gone(self.pid);
        let socket = self.started.address.trim_start_matches("unix://");
        assert!(!Path::new(socket).try_exists().unwrap(), "the shim left its socket {socket}");
        let names: Vec<String> = fs::read_dir(self.bundle.path())
            .unwrap()
            .map(|it| it.unwrap().file_name().into_string().unwrap())
            .filter(|it| it.starts_with("exec-") || it.starts_with("log-") || it.starts_with("stream-"))
            .collect();
        assert!(names.is_empty(), "the shim left {names:?} in the bundle");
    }

    /// The container's events since the last look, up to the first that begins so, without its name.
    pub(crate) async fn told(&mut self, until: &str) -> Vec<String> {
        let lines = self.events.until(&until.replace("ID", &self.id)).await;
        lines.into_iter().map(|it| it.replace(&self.id, "ID")).collect()
    }
}

/// The options of every create: the runtime under test, or the one that fails as planned.
pub(crate) fn options(rt: &Runtime, faults: &str) -> Any {
    let binary = if faults.is_empty() {
        under_test()
    } else {
        fs::write(plan_of_faults(rt), faults).unwrap();
        built("faulty-runtime")
    };
    let options = runc::Options {
        binary_name: binary.to_str().unwrap().into(),
        root: rt.root().to_str().unwrap().into(),
        ..Default::default()
    };
    pack(&options).unwrap()
}

/// Where `faulty-runtime` looks for its plan.
pub(crate) fn plan_of_faults(rt: &Runtime) -> PathBuf {
    rt.root().parent().unwrap().join("faults")
}

/// `SHIM_BIN`, or the newest that was built.
pub(crate) fn shim_under_test() -> PathBuf {
    std::env::var_os("SHIM_BIN").map_or_else(|| built("containerd-shim-tare-v2"), PathBuf::from)
}

/// An OCI process of these words.
pub(crate) fn process(args: &[&str]) -> Value {
    json!({"args": args, "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"]})
}

/// A fifo, open at both ends so that no open waits for the other.
pub(crate) struct Fifo {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
}

impl Fifo {
    pub(crate) fn new(rt: &Runtime, name: &str) -> Fifo {
        let path = rt.fresh_path(name);
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        Fifo { path, file }
    }

    pub(crate) fn text(&self) -> String {
        self.path.to_str().unwrap().to_owned()
    }

    /// So much of what was written to it.
    pub(crate) fn read(&mut self, count: usize) -> String {
        let mut bytes = vec![0; count];
        self.file.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }
}

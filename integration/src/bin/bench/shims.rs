//! Shims side by side: ours with tare, and containerd's own with runc, both called as the daemon calls them.
//!
//! A row's figure for `tare` is `SHIM_BIN` with tare, that for `runc` is `containerd-shim-runc-v2` with runc; other
//! contenders have no shim of their own.

use std::cell::Cell;
use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use integration::shim_client::{Bootstrap, EventSink, Launch, Shim, Started, Streams, block_on, until_gone};
use integration::{default_config, in_path, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tare_proto::any::pack;
use tare_proto::{Any, runc};
use tokio::task::JoinSet;

use crate::contender::{Contender, reap};
use crate::measure::Samples;
use crate::table::Table;

/// Shims that run at the same time when their memory is looked at; what they share is shared by so many.
const SHIMS: usize = 50;
/// Containers in each of them when all are started at once.
const CONTAINERS_EACH: usize = 10;
/// Execs one after the other in one container.
const EXECS: usize = 1000;
/// How long a shim must have had nothing to do to be idle: ours closes its connection to the daemon after some seconds, Go's
/// collects its garbage.
const IDLE: Duration = Duration::from_secs(8);
/// What goes through a fifo.
const STREAM: u64 = 1 << 30;

const SLEEP: &[&str] = &["/bin/sleep", "100000"];

/// A shim's program with the runtime that it shall run.
struct Side<'a> {
    contender: &'a Contender,
    program: PathBuf,
    work: PathBuf,
    events: EventSink,
    next: Cell<usize>,
}

/// A shim that runs.
struct Running {
    launch: Launch,
    /// Holds the shim's log open.
    _started: Started,
    shim: Shim,
    pid: u32,
}

/// Memory of shims with one idle container each, and what a thousand execs add to one of them.
pub(crate) fn memory(contenders: &[Contender], _: usize, table: &mut Table) {
    with_sides(contenders, async |sides| measure_memory(&sides, table).await);
}

/// A container's and an exec's time in a shim that is there, and a shim's own with one container.
pub(crate) fn life(contenders: &[Contender], count: usize, table: &mut Table) {
    with_sides(contenders, async |sides| {
        lives(&sides, count, table).await;
        whole_lives(&sides, count, table).await;
    });
}

/// Much output.
pub(crate) fn stream(contenders: &[Contender], count: usize, table: &mut Table) {
    with_sides(contenders, async |sides| measure_stream(&sides, count, table).await);
}

/// Many containers.
pub(crate) fn many(contenders: &[Contender], count: usize, table: &mut Table) {
    with_sides(contenders, async |sides| at_once(&sides, count, table).await);
}

fn with_sides<'a>(contenders: &'a [Contender], measure: impl AsyncFnOnce(Vec<Option<Side<'a>>>)) {
    block_on(async {
        let mut sides = Vec::new();
        for contender in contenders {
            sides.push(Side::of(contender).await);
        }
        if sides.iter().all(Option::is_none) {
            eprintln!("SHIM_BIN names no shim, and containerd-shim-runc-v2 is not installed: no shim is measured");
        }
        measure(sides).await;
    });
}

fn empty(sides: &[Option<Side<'_>>]) -> Samples {
    sides.iter().map(|_| Vec::new()).collect()
}

/// The sides that there are, each with the place of its samples.
fn each<'s, 'c>(sides: &'s [Option<Side<'c>>]) -> impl Iterator<Item = (usize, &'s Side<'c>)> {
    sides.iter().enumerate().filter_map(|(index, side)| Some((index, side.as_ref()?)))
}

impl<'a> Side<'a> {
    async fn of(contender: &'a Contender) -> Option<Self> {
        let program = match contender.name.as_str() {
            "tare" => std::env::var_os("SHIM_BIN").map(PathBuf::from)?,
            "runc" => in_path("containerd-shim-runc-v2")?,
            _ => return None,
        };
        let work = contender.rootfs().parent().expect("a directory of its own").join("shims");
        let _ = fs::remove_dir_all(&work);
        fs::create_dir(&work).expect("make a work directory");
        let events = EventSink::bind(&work.join("events")).await;
        Some(Self { contender, program, work, events, next: Cell::new(0) })
    }

    /// A container's bundle with this configuration and the contender's root file system; its name is the container's id.
    fn bundle(&self, config: &Value) -> (String, PathBuf) {
        let number = self.next.get();
        self.next.set(number + 1);
        let id = format!("bench-{}-{}-{number}", std::process::id(), self.contender.name);
        let bundle = self.work.join(&id);
        fs::create_dir(&bundle).expect("make a bundle");
        let mut config = config.clone();
        config["root"]["path"] = json!(self.contender.rootfs());
        fs::write(bundle.join("config.json"), config.to_string()).expect("write config.json");
        (id, bundle)
    }

    fn options(&self) -> Any {
        let text = |path: &Path| path.to_str().expect("a plain path").to_owned();
        let options = runc::Options {
            binary_name: text(&self.contender.binary),
            root: text(&self.state()),
            ..Default::default()
        };
        pack(&options).expect("encode the options")
    }

    fn state(&self) -> PathBuf {
        self.work.join("state")
    }

    /// The `start` action for a new bundle.
    async fn start(&self, config: &Value) -> Running {
        let (id, bundle) = self.bundle(config);
        let mut launch = Launch::new(&self.program, &id, &bundle);
        launch.bootstrap = Bootstrap::Options;
        // In this form a shim cannot be told where its sockets shall be; another daemon address is another name for them.
        launch.address = self.work.join("daemon.sock");
        launch.events = Some(self.events.path().to_owned());
        launch.options = Some(self.options());
        // Go's says each time that the container is deleted already.
        launch.quiet = true;
        let started = self.must("start a shim", launch.start());
        let shim = self.must("connect to a shim", Shim::connect(&started).await);
        let (pid, _) = self.must("ask a shim for its pid", shim.pids_of_shim_and_task(&id).await);
        Running { launch, _started: started, shim, pid }
    }

    async fn create_and_start(&self, shim: &Shim, id: &str, bundle: &Path, streams: &Streams) {
        let created = shim.create_with(id, bundle, streams, vec![], Some(self.options())).await;
        self.must("create a container", created);
        self.must("start a container", shim.start(id, "").await);
    }

    /// A shim with a container that sleeps.
    async fn idle(&self) -> Running {
        let running = self.start(&default_config(SLEEP)).await;
        self.create_and_start(&running.shim, &running.launch.id, &running.launch.bundle, &Streams::default()).await;
        running
    }

    /// create, start, wait and delete of a container in this shim.
    async fn life(&self, shim: &Shim, id: &str, bundle: &Path) {
        self.create_and_start(shim, id, bundle, &Streams::default()).await;
        self.ended(shim, id, 0).await;
    }

    /// wait and delete.
    async fn ended(&self, shim: &Shim, id: &str, status: u32) {
        let exit = self.must("wait for a container", shim.wait(id, "").await);
        if exit.exit_status != status {
            self.contender
                .give_up(&format!("{id} ended with {} under the shim for {}", exit.exit_status, self.contender.name));
        }
        self.must("delete a container", shim.delete(id, "").await);
    }

    async fn exec(&self, running: &Running, exec_id: &str) {
        let (shim, id) = (&running.shim, &running.launch.id);
        let process = json!({"args": ["/bin/true"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"]});
        self.must("add an exec", shim.exec(id, exec_id, &process, &Streams::default()).await);
        self.must("start an exec", shim.start(id, exec_id).await);
        let exit = self.must("wait for an exec", shim.wait(id, exec_id).await);
        if exit.exit_status != 0 {
            self.contender.give_up(&format!("an exec ended with {} with {}", exit.exit_status, self.contender.name));
        }
        self.must("delete an exec", shim.delete(id, exec_id).await);
    }

    /// Ends the container that sleeps, and the shim.
    async fn end(&self, running: Running) {
        let id = running.launch.id.clone();
        self.must("kill a container", running.shim.kill(&id, "", libc::SIGKILL).await);
        self.ended(&running.shim, &id, 137).await;
        self.end_shim(running).await;
    }

    async fn end_shim(&self, running: Running) {
        // Its answer may be lost with it.
        let _ = running.shim.shutdown(&running.launch.id).await;
        until_gone(running.pid).await;
        let deleted = running.launch.delete();
        // Go's fails for a shim that had no container.
        if self.contender.name == "tare" {
            self.must("clean up after a shim", deleted);
        }
        reap();
    }

    fn must<T, E: std::fmt::Display>(&self, what: &str, result: Result<T, E>) -> T {
        result.unwrap_or_else(|error| self.give_up(&format!("{what} with {}: {error}", self.contender.name)))
    }

    /// Ends the benchmark; its shims and containers are children of ours, or theirs.
    fn give_up(&self, why: &str) -> ! {
        let ours = |pid: &i32| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&words).contains(&format!("bench-{}-", std::process::id()))
        };
        let pids = fs::read_dir("/proc").expect("read /proc").flatten();
        for pid in pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(ours) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        for entry in fs::read_dir(self.state().join("default")).into_iter().flatten().flatten() {
            let mut command = std::process::Command::new(&self.contender.binary);
            command.arg("--root").arg(self.state().join("default")).args(["delete", "--force"]).arg(entry.file_name());
            let _ = command.status();
        }
        self.contender.give_up(why)
    }
}

/// What /proc/PID/smaps_rollup says, in KiB.
#[derive(Clone, Copy)]
struct Memory {
    private: f64,
    resident: f64,
    proportional: f64,
}

impl Memory {
    fn of(pid: u32) -> Memory {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("read a shim's memory");
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a field of smaps_rollup");
            line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number")
        };
        Memory {
            private: field("Private_Clean:") + field("Private_Dirty:"),
            resident: field("Rss:"),
            proportional: field("Pss:"),
        }
    }
}

async fn measure_memory(sides: &[Option<Side<'_>>], table: &mut Table) {
    let mut rows = [empty(sides), empty(sides), empty(sides), empty(sides)];
    for (index, side) in each(sides) {
        let mut all = Vec::new();
        for _ in 0..SHIMS {
            all.push(side.idle().await);
        }
        // The idleness is what is measured. The daemon's side of the events runs on this thread, so it is the loop that waits.
        tokio::time::sleep(IDLE).await;
        let idle: Vec<Memory> = all.iter().map(|running| Memory::of(running.pid)).collect();
        rows[0][index].extend(idle.iter().map(|it| it.private));
        rows[1][index].extend(idle.iter().map(|it| it.resident));
        rows[2][index].extend(idle.iter().map(|it| it.proportional));
        // A page of the program that only one shim has used counts as its private memory: another one execs too, as others do.
        side.exec(&all[1], "once").await;
        for number in 0..EXECS {
            side.exec(&all[0], &format!("e{number}")).await;
        }
        // What the execs left is measured as the first time: idle, which no event tells of.
        tokio::time::sleep(IDLE).await;
        rows[3][index].push(Memory::of(all[0].pid).private - idle[0].private);
        for running in all {
            side.end(running).await;
        }
    }
    let names = ["private memory of a shim", "resident memory of a shim", "a shim's share of all memory (PSS)"];
    names.iter().zip(&rows).for_each(|(name, row)| table.add(name, "KiB", row));
    table.add(&format!("private memory after {EXECS} execs, more"), "KiB", &rows[3]);
}

/// A container in a shim that is there, and an exec in a container that is there.
async fn lives(sides: &[Option<Side<'_>>], count: usize, table: &mut Table) {
    let mut rows = [empty(sides), empty(sides), empty(sides)];
    let mut shims = Vec::new();
    for (index, side) in each(sides) {
        shims.push((index, side, side.idle().await));
    }
    let config = default_config(&["/bin/true"]);
    for round in 0..=count {
        for (index, side, running) in &shims {
            let (id, bundle) = side.bundle(&config);
            let begin = Instant::now();
            side.life(&running.shim, &id, &bundle).await;
            let life = begin.elapsed();
            side.exec(running, &format!("e{round}")).await;
            if round > 0 {
                rows[0][*index].push(life.as_secs_f64() * 1000.0);
                rows[1][*index].push((begin.elapsed() - life).as_secs_f64() * 1000.0);
            }
        }
    }
    for (index, side, running) in shims {
        rows[2][index].push(time_with_children(running.pid) / (count + 1) as f64);
        side.end(running).await;
    }
    table.add("shim: create, start, wait, delete", "ms", &rows[0]);
    table.add("shim: exec, start, wait, delete", "ms", &rows[1]);
    // Much less disturbed by what else the machine does.
    table.add("of both, processor time", "ms", &rows[2]);
}

/// From the `start` action to the `delete` action.
async fn whole_lives(sides: &[Option<Side<'_>>], count: usize, table: &mut Table) {
    let mut row = empty(sides);
    let config = default_config(&["/bin/true"]);
    for round in 0..=count {
        for (index, side) in each(sides) {
            let begin = Instant::now();
            let running = side.start(&config).await;
            side.life(&running.shim, &running.launch.id, &running.launch.bundle).await;
            side.end_shim(running).await;
            if round > 0 {
                row[index].push(begin.elapsed().as_secs_f64() * 1000.0);
            }
        }
    }
    table.add("shim: all from `start` to `delete`", "ms", &row);
}

/// How long a gibibyte of output takes, and the shim's share of the processors' time.
async fn measure_stream(sides: &[Option<Side<'_>>], count: usize, table: &mut Table) {
    let mut rows = [empty(sides), empty(sides)];
    let words = format!("exec dd if=/dev/zero bs=1M count={} 2>/dev/null", STREAM >> 20);
    let config = default_config(&["/bin/sh", "-c", &words]);
    for round in 0..=count {
        for (index, side) in each(sides) {
            let running = side.start(&config).await;
            // Go's shim does not copy one without the other.
            let [(stdout, file), (stderr, _errors)] =
                ["out", "err"].map(|name| fifo(&running.launch.bundle.join(name)));
            let streams = Streams { stdout, stderr, ..Streams::default() };
            let before = processor_time(running.pid);
            let begin = Instant::now();
            let reader = std::thread::spawn(move || read_all(file));
            side.create_and_start(&running.shim, &running.launch.id, &running.launch.bundle, &streams).await;
            let exit = running.shim.wait(&running.launch.id, "").await;
            side.must("wait for a container", exit);
            reader.join().expect("read all");
            let taken = begin.elapsed();
            let processor = processor_time(running.pid) - before;
            side.ended(&running.shim, &running.launch.id, 0).await;
            side.end_shim(running).await;
            if round > 0 {
                rows[0][index].push(taken.as_secs_f64() * 1000.0);
                rows[1][index].push(processor);
            }
        }
    }
    table.add("shim: 1 GiB through a fifo", "ms", &rows[0]);
    table.add("of that, the shim's processor time", "ms", &rows[1]);
}

fn fifo(path: &Path) -> (String, fs::File) {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).expect("make a fifo");
    // For writing too, or this would wait for the shim.
    let file = fs::File::options().read(true).write(true).open(path).expect("open a fifo");
    (path.to_str().expect("a plain path").to_owned(), file)
}

fn read_all(mut file: fs::File) {
    let mut buffer = vec![0; 64 << 10];
    let mut left = STREAM;
    while left > 0 {
        assert!(wait::readable(file.as_fd(), wait::deadline()), "the output stops with {left} bytes to come");
        left -= file.read(&mut buffer).expect("read a fifo") as u64;
    }
}

/// Of all threads, in milliseconds: schedstat's first number is nanoseconds on a processor.
fn processor_time(pid: u32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("list a shim's threads").flatten();
    let time = |thread: fs::DirEntry| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    };
    threads.filter_map(time).sum::<f64>() / 1e6
}

/// Of all threads and of all children that have ended (the runtime's calls, the containers), in milliseconds.
fn time_with_children(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("read a shim's times");
    // After the name, which may hold anything: fields 14 to 17 of all.
    let (_, fields) = text.rsplit_once(") ").expect("a name in parentheses");
    let ticks = fields.split(' ').skip(14 - 3).take(4).map(|field| field.parse::<f64>().expect("a number"));
    // Always a hundred a second, in what the kernel shows.
    ticks.sum::<f64>() * 10.0
}

/// Containers all at once, over several shims: created, started, killed, waited for, deleted. None may be lost.
async fn at_once(sides: &[Option<Side<'_>>], count: usize, table: &mut Table) {
    let mut row = empty(sides);
    for (index, side) in (0..count).flat_map(|_| each(sides)) {
        let mut shims = Vec::new();
        for _ in 0..SHIMS {
            shims.push(side.start(&default_config(SLEEP)).await);
        }
        let mut lives = JoinSet::new();
        let begin = Instant::now();
        for running in &shims {
            for _ in 0..CONTAINERS_EACH {
                let (id, bundle) = side.bundle(&default_config(SLEEP));
                lives.spawn(killed_life(running.shim.clone(), id, bundle, side.options()));
            }
        }
        while let Some(life) = lives.join_next().await {
            let status = side.must("one of many containers", life.expect("no panic"));
            if status != 137 {
                side.give_up(&format!("one of many containers ended with {status}"));
            }
        }
        row[index].push(begin.elapsed().as_secs_f64() * 1000.0);
        for running in shims {
            side.end_shim(running).await;
        }
        let left = fs::read_dir(side.state().join("default")).into_iter().flatten().count();
        if left > 0 {
            side.give_up(&format!("{} left {left} of many containers", side.contender.name));
        }
    }
    table.add(&format!("shim: {} containers at once", SHIMS * CONTAINERS_EACH), "ms", &row);
}

async fn killed_life(shim: Shim, id: String, bundle: PathBuf, options: Any) -> Result<u32, tare_proto::ttrpc::Error> {
    shim.create_with(&id, &bundle, &Streams::default(), vec![], Some(options)).await?;
    shim.start(&id, "").await?;
    shim.kill(&id, "", libc::SIGKILL).await?;
    shim.wait(&id, "").await?;
    shim.delete(&id, "").await.map(|deleted| deleted.exit_status)
}

//! Many containers, short lives: killed at random moments, their shims and the daemon too; and nothing may be lost or left.
//!
//! ```text
//! 50 at a time:  start a shim -> 1 to 3 containers in it -> execs -> an end of their own, or a kill at a random moment
//! now and then:  SIGKILL to the shim, then the `delete` action       the daemon goes away, and comes back
//! ```
//!
//! `TARE_CHURN` says how many containers (2,000 is the whole), `TARE_SEED` which run.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use integration::shim_client::{Answer, EventSink, Launch, Shim, Started, Streams, block_on, refusal, until_gone};
use integration::{Runtime, build_rootfs, default_config};
use serde_json::{Value, json};
use tare_proto::Any;
use tare_proto::ttrpc::Code;
use tokio::task::{JoinSet, LocalSet, spawn_local};

use super::held::{options, process, shim_under_test};

/// Containers unless `TARE_CHURN` says another number, and how many live at a time.
const CONTAINERS: u32 = 200;
const AT_A_TIME: usize = 50;

/// Numbers that look random and are the same for the same seed (splitmix64).
struct Random(Cell<u64>);

impl Random {
    /// Of the numbers below this one.
    fn below(&self, limit: u64) -> u64 {
        self.0.set(self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let mut mixed = self.0.get();
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn one_in(&self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// A random moment within so many milliseconds: this is no wait for anything.
    async fn moment(&self, milliseconds: u64) {
        tokio::time::sleep(Duration::from_millis(self.below(milliseconds))).await;
    }

    /// One that goes its own way from here.
    fn branch(&self) -> Random {
        Random(Cell::new(self.below(u64::MAX)))
    }
}

/// What the daemon was told, in the order in which it was, each line with the life of the daemon that was told.
#[derive(Default)]
struct Told {
    life: Cell<u32>,
    lines: RefCell<Vec<(u32, String)>>,
}

impl Told {
    fn by(&self, sink: EventSink) {
        self.lines.borrow_mut().extend(sink.kill().into_iter().map(|line| (self.life.get(), line)));
    }
}

/// What all share.
struct Churn {
    rt: Runtime,
    rootfs: PathBuf,
    sink: PathBuf,
    options: Any,
    /// What must have been told: by container, the exits of its processes as `wait` answered them.
    exits: RefCell<BTreeMap<String, Vec<String>>>,
    /// Containers of shims that were killed: of them less may have been told.
    killed: RefCell<Vec<String>>,
    execs: Cell<u32>,
}

/// A container to be.
struct Member {
    launch: Launch,
    id: String,
    /// The status with which it ends by itself; None if it has to be killed.
    status: Option<u32>,
}

impl Churn {
    fn member(&self, random: &Random) -> Member {
        let id = self.rt.fresh_id();
        let bundle = self.rt.fresh_path("bundle");
        fs::create_dir(&bundle).unwrap();
        let status = random.one_in(3).then(|| random.below(100) as u32);
        let words = match status {
            Some(status) => format!("sleep 0.{}; exit {status}", random.below(4)),
            None => "exec sleep 1000".to_owned(),
        };
        let mut config: Value = default_config(&["/bin/sh", "-c", &words]);
        config["root"]["path"] = json!(self.rootfs);
        fs::write(bundle.join("config.json"), config.to_string()).unwrap();
        let mut launch = Launch::new(&shim_under_test(), &id, &bundle);
        launch.socket_dir = Some(self.rt.work().to_owned());
        launch.events = Some(self.sink.clone());
        launch.options = Some(self.options.clone());
        launch.environment.push(("TARE_TEST_TAG".into(), self.rt.tag().into()));
        // Many start at once, and on a slow host more than the usual minute may pass before a shim's container comes.
        launch.environment.push(("TARE_SHIM_IDLE".into(), "3600".into()));
        Member { launch, id, status }
    }

    /// One shim's life.
    async fn pod(self: Rc<Self>, random: Random, count: u32) {
        let members: Vec<Rc<Member>> = (0..count).map(|_| Rc::new(self.member(&random))).collect();
        let started = members[0].launch.start().unwrap();
        let shim = Shim::connect(&started).await.unwrap();
        let (pid, _) = shim.pids_of_shim_and_task(&members[0].id).await.unwrap();
        let doomed = random.one_in(12);
        let mut lives = JoinSet::new();
        for member in &members {
            // A failed assertion in it must reach the test.
            let life = Life { churn: self.clone(), shim: shim.clone(), member: member.clone(), doomed };
            lives.spawn_local(life.live(random.branch()));
        }
        if doomed {
            self.killed.borrow_mut().extend(members.iter().map(|it| it.id.clone()));
            random.moment(400).await;
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::SIGKILL).unwrap();
            until_gone(pid).await;
        }
        while let Some(life) = lives.join_next().await {
            life.unwrap();
        }
        if !doomed {
            // Its answer may be lost with it.
            let _ = shim.shutdown(&members[0].id).await;
            until_gone(pid).await;
        }
        for member in &members {
            let deleted = member.launch.delete().unwrap();
            assert_eq!(deleted.exit_status, 137);
        }
        self.nothing_is_left(&started, &members);
    }

    fn nothing_is_left(&self, started: &Started, members: &[Rc<Member>]) {
        let socket = started.address.trim_start_matches("unix://");
        assert!(!Path::new(socket).try_exists().unwrap(), "the socket {socket} is left");
        for Member { id, launch, .. } in members.iter().map(Rc::as_ref) {
            let state = self.rt.root().join("default").join(id);
            assert!(!state.try_exists().unwrap(), "the runtime still has {id}");
            let names = fs::read_dir(&launch.bundle).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
            let mut made: Vec<String> = names.filter(|it| it.starts_with("exec-") || it.starts_with("log-")).collect();
            // What a killed shim was about to do, it leaves in the bundle, which is the daemon's to remove.
            made.retain(|_| !self.killed.borrow().contains(id));
            assert!(made.is_empty(), "{made:?} is left in the bundle of {id}");
            fs::remove_dir_all(&launch.bundle).unwrap();
        }
    }
}

/// A container's life in a shim that may be killed at any moment.
struct Life {
    churn: Rc<Churn>,
    shim: Shim,
    member: Rc<Member>,
    doomed: bool,
}

impl Life {
    async fn live(self, random: Random) {
        let lived = self.try_live(&random).await;
        match lived {
            Ok(exits) if !self.doomed => {
                self.churn.exits.borrow_mut().insert(self.member.id.clone(), exits);
            }
            Ok(_) => {}
            Err(error) => assert!(self.doomed, "{}: {error}", self.member.id),
        }
    }

    /// The exits that were told to those who waited.
    async fn try_live(&self, random: &Random) -> Answer<Vec<String>> {
        let (shim, Member { launch, id, status }) = (&self.shim, self.member.as_ref());
        let (streams, options) = (Streams::default(), launch.options.clone());
        shim.create_with(id, &launch.bundle, &streams, vec![], options).await?;
        let mut exits = Vec::new();
        if status.is_none() && random.one_in(10) {
            // Killed before its start.
            shim.kill(id, "", libc::SIGKILL).await?;
            exits.push(format!("exit {id} {}", shim.wait(id, "").await?.exit_status));
            assert_eq!(exits[0], format!("exit {id} 137"));
            shim.delete(id, "").await?;
            return Ok(exits);
        }
        shim.start(id, "").await?;
        let mut execs = JoinSet::new();
        let ends = Rc::new(Cell::new(status.is_some()));
        for number in 0..random.below(4) {
            let (shim, name, ends) = (shim.clone(), format!("e{number}"), ends.clone());
            let exec = Exec { shim, id: id.clone(), name, ends, doomed: self.doomed };
            execs.spawn_local(exec.live(random.branch()));
        }
        if status.is_none() {
            random.moment(400).await;
            ends.set(true);
            match shim.kill(id, "", libc::SIGKILL).await {
                Err(error) if refusal(&error) == Some(Code::NOT_FOUND) => panic!("{id} ended by itself: {error}"),
                killed => killed?,
            }
        }
        let exit = shim.wait(id, "").await?.exit_status;
        assert_eq!(exit, status.unwrap_or(137), "the status of {id}");
        while let Some(exec) = execs.join_next().await {
            let told = exec.unwrap()?;
            self.churn.execs.set(self.churn.execs.get() + u32::from(told.is_some()));
            exits.extend(told);
        }
        exits.push(format!("exit {id} {exit}"));
        let deleted = shim.delete(id, "").await?;
        assert_eq!(deleted.exit_status, exit);
        Ok(exits)
    }
}

/// An exec's life in a container that may end at any moment.
struct Exec {
    shim: Shim,
    id: String,
    name: String,
    /// Whether the container ends now, or may at any moment.
    ends: Rc<Cell<bool>>,
    doomed: bool,
}

impl Exec {
    /// Its exit as it was told; None if the container ended before it could start.
    async fn live(self, random: Random) -> Answer<Option<String>> {
        let Exec { shim, id, name, ends, doomed } = &self;
        let status = random.below(100) as u32;
        let sleeps = random.one_in(3);
        let words = if sleeps { "exec sleep 1000".to_owned() } else { format!("exit {status}") };
        random.moment(60).await;
        let process = process(&["/bin/sh", "-c", &words]);
        let started = match shim.exec(id, name, &process, &Streams::default()).await {
            Ok(()) => shim.start(id, name).await,
            Err(error) => Err(error),
        };
        if let Err(error) = started {
            assert!(ends.get() || *doomed, "{name} of {id}: {error}");
            return if *doomed { Err(error) } else { Ok(None) };
        }
        if sleeps {
            random.moment(60).await;
            match shim.kill(id, name, libc::SIGTERM).await {
                // The container was first.
                Err(error) if refusal(&error) == Some(Code::NOT_FOUND) => {}
                killed => killed?,
            }
        }
        let exit = match shim.wait(id, name).await {
            Ok(exit) => exit.exit_status,
            // Deleted with its container; what it ended with is in the event only.
            Err(error) if refusal(&error) == Some(Code::NOT_FOUND) => return Ok(Some(format!("exit {id} {name} "))),
            Err(error) => return Err(error),
        };
        let right = if sleeps { matches!(exit, 143 | 137) } else { exit == status || exit == 137 };
        assert!(right, "{name} of {id} ended with {exit}, it should with {status} (sleeps: {sleeps})");
        match shim.delete(id, name).await {
            Err(error) if refusal(&error) == Some(Code::NOT_FOUND) => {}
            deleted => assert_eq!(deleted?.exit_status, exit),
        }
        Ok(Some(format!("exit {id} {name} {exit}")))
    }
}

/// The daemon is killed and comes back, until it is told to stay.
async fn daemon(path: PathBuf, told: Rc<Told>, random: Random, over: Rc<Cell<bool>>) -> EventSink {
    let mut sink = EventSink::bind(&path).await;
    while !over.get() {
        // How long it lives, and how long it stays away, is by chance: no wait for anything.
        tokio::time::sleep(Duration::from_millis(300 + random.below(1200))).await;
        told.by(sink);
        random.moment(400).await;
        told.life.set(told.life.get() + 1);
        sink = EventSink::bind(&path).await;
    }
    sink
}

/// The lines of one container, in order. What a daemon was told and had no time to confirm, its successor is told again; the
/// same daemon never is.
fn lines_of(told: &[(u32, String)], id: &str) -> Vec<String> {
    let mut lines: Vec<&(u32, String)> = Vec::new();
    for line in told.iter().filter(|(_, line)| line.split(' ').nth(1) == Some(id)) {
        match lines.last() {
            Some(last) if last.1 == line.1 && last.0 < line.0 => {}
            _ => lines.push(line),
        }
    }
    lines.into_iter().map(|(_, line)| line.clone()).collect()
}

/// That a container was told of as it was, in order.
fn check(lines: &[String], id: &str, exits: &[String]) {
    let place = |line: &str| lines.iter().position(|it| it == line);
    for exit in exits {
        let count = lines.iter().filter(|it| it.starts_with(exit.as_str())).count();
        assert_eq!(count, 1, "{exit:?} of {lines:?}");
    }
    let told = lines.iter().filter(|it| it.starts_with("exit ")).count();
    assert_eq!(told, exits.len(), "exits that nobody waited for: {lines:?}, {exits:?}");
    assert_eq!(place(&format!("create {id}")), Some(0), "{lines:?}");
    let start = place(&format!("start {id}"));
    let last_exit = exits.last().expect("one of the container itself");
    assert_eq!(place(last_exit), Some(lines.len() - 2), "the last but one is {last_exit}: {lines:?}");
    assert!(lines[lines.len() - 1].starts_with(&format!("delete {id} ")), "{lines:?}");
    for exit in &exits[..exits.len() - 1] {
        let name = exit.split(' ').nth(2).expect("an exec");
        let added = place(&format!("exec-added {id} {name}"));
        let began = place(&format!("exec-started {id} {name}"));
        let ended = lines.iter().position(|it| it.starts_with(exit.as_str()));
        assert!(start < added && added < began && began < ended, "{exit}: {lines:?}");
    }
}

fn from_environment<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn nothing_is_lost_and_nothing_left() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed = from_environment("TARE_SEED").unwrap_or(now.as_nanos() as u64);
    let count = from_environment("TARE_CHURN").unwrap_or(CONTAINERS);
    eprintln!("{count} containers, TARE_SEED={seed}");
    let random = Random(Cell::new(seed));
    let rt = Runtime::from_env();
    let rootfs = rt.fresh_path("rootfs");
    build_rootfs(&rootfs);
    let churn = Rc::new(Churn {
        sink: rt.fresh_path("events"),
        options: options(&rt, ""),
        rootfs,
        rt,
        exits: RefCell::default(),
        killed: RefCell::default(),
        execs: Cell::new(0),
    });
    let told = Rc::new(Told::default());
    block_on(LocalSet::new().run_until(async {
        let over = Rc::new(Cell::new(false));
        let daemon = spawn_local(daemon(churn.sink.clone(), told.clone(), random.branch(), over.clone()));
        let mut left = count;
        let mut pods = JoinSet::new();
        while left > 0 || !pods.is_empty() {
            while left > 0 && pods.len() < AT_A_TIME / 2 {
                let size = left.min(1 + random.below(3) as u32);
                left -= size;
                pods.spawn_local(churn.clone().pod(random.branch(), size));
            }
            pods.join_next().await.expect("one at least").unwrap();
        }
        over.set(true);
        told.by(daemon.await.unwrap());
    }));
    let lines = told.lines.borrow();
    for (id, exits) in churn.exits.borrow().iter() {
        check(&lines_of(&lines, id), id, exits);
    }
    for id in churn.killed.borrow().iter() {
        // Less may have been told, nothing twice.
        let mut exits: Vec<String> = lines_of(&lines, id).into_iter().filter(|it| it.starts_with("exit ")).collect();
        exits.sort();
        let told = exits.len();
        exits.dedup_by_key(|line| line.rsplit_once(' ').map(|(process, _)| process.to_owned()));
        assert_eq!(exits.len(), told, "{id} was told of twice");
    }
    let (whole, killed, execs, lives) =
        (churn.exits.borrow().len(), churn.killed.borrow().len(), churn.execs.get(), told.life.get() + 1);
    eprintln!("{whole} containers with {execs} execs, {killed} more in shims that were killed, {lives} daemons");
    assert_eq!(whole + killed, count as usize);
}

/// Containers at once unless `TARE_AT_ONCE` says another number (500 is the whole), and how many shims hold them.
const AT_ONCE: usize = 60;
const SHIMS: usize = 6;

#[test]
fn containers_at_once_all_come_and_go() {
    let count = from_environment("TARE_AT_ONCE").unwrap_or(AT_ONCE);
    let rt = Runtime::from_env();
    let rootfs = rt.fresh_path("rootfs");
    build_rootfs(&rootfs);
    let churn = Churn {
        sink: rt.fresh_path("events"),
        options: options(&rt, ""),
        rootfs,
        rt,
        exits: RefCell::default(),
        killed: RefCell::default(),
        execs: Cell::new(0),
    };
    block_on(async {
        let mut sink = EventSink::bind(&churn.sink).await;
        // The same lives at every run: what is random here is what the kernel does first.
        let random = Random(Cell::new(1));
        let mut shims = Vec::new();
        for _ in 0..SHIMS {
            let holder = churn.member(&random);
            let started = holder.launch.start().unwrap();
            let shim = Shim::connect(&started).await.unwrap();
            let (pid, _) = shim.pids_of_shim_and_task(&holder.id).await.unwrap();
            shims.push((Rc::new(holder), started, shim, pid));
        }
        let mut lives = JoinSet::new();
        let mut members = Vec::new();
        for number in 0..count {
            let member = Rc::new(churn.member(&random));
            let (shim, id) = (shims[number % SHIMS].2.clone(), member.id.clone());
            let (launch, status) = (member.launch.clone(), member.status);
            members.push(member);
            lives.spawn(async move {
                shim.create_with(&id, &launch.bundle, &Streams::default(), vec![], launch.options).await.unwrap();
                shim.start(&id, "").await.unwrap();
                if status.is_none() {
                    shim.kill(&id, "", libc::SIGKILL).await.unwrap();
                }
                let exit = shim.wait(&id, "").await.unwrap().exit_status;
                assert_eq!(exit, status.unwrap_or(137));
                assert_eq!(shim.delete(&id, "").await.unwrap().exit_status, exit);
                (id.clone(), vec![format!("exit {id} {exit}")])
            });
        }
        let mut exits = BTreeMap::new();
        while let Some(life) = lives.join_next().await {
            exits.extend([life.unwrap()]);
        }
        for (holder, started, shim, pid) in shims {
            let _ = shim.shutdown(&holder.id).await;
            until_gone(pid).await;
            churn.nothing_is_left(&started, &[holder]);
        }
        let lines: Vec<(u32, String)> = sink.so_far().into_iter().map(|line| (0, line)).collect();
        assert_eq!(exits.len(), count);
        for (id, exits) in exits {
            check(&lines_of(&lines, &id), &id, &exits);
        }
        for member in members {
            let state = churn.rt.root().join("default").join(&member.id);
            assert!(!state.try_exists().unwrap(), "the runtime still has {}", member.id);
        }
    });
}

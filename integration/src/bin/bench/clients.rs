//! Clients side by side: `tarectl`, docker with its daemons, and podman, each with its own runtime and the same image, in one
//! machine of their own.
//!
//! `CLIENT_BIN` names tarectl; beside it, as its shim, store and runtime, stand `SHIM_BIN`, `STORE_BIN` and the runtime under test.
//! A round runs each of them in turn and takes the time by the shell's clock, which costs all of them the same millisecond.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use integration::world::{Server, User, World, docker, has};

use crate::measure::Samples;
use crate::table::Table;

/// The columns of these figures.
pub(crate) const CONTENDERS: [&str; 3] = ["tare", "docker", "podman"];
/// Containers that run while they are listed.
const RUNNING: usize = 200;
/// How long everything is left alone before its memory is looked at: daemons collect their garbage.
const IDLE: Duration = Duration::from_secs(40);

/// The commands; what a container needs to be told apart from this machine's own.
const PROLOGUE: &str = r#"
tare() { tarectl "$@"; }
docker() { command docker -H unix:///run/world/docker.sock "$@"; }
podman() {
	command podman --root /run/world/storage --runroot /run/world/run --tmpdir /run/world/tmp --storage-driver overlay \
		--cgroup-manager cgroupfs --events-backend file --runtime "$(command -v runc)" "$@"
}
# Limits that a host may forbid to raise.
flags_of() {
	case $1 in
		podman) echo "--cgroup-parent $CG --log-driver k8s-file --ulimit nofile=1024:1024 --ulimit nproc=4096:4096" ;;
		*) echo "--cgroup-parent $CG" ;;
	esac
}
"#;

/// What there is of each, and whose memory is which.
struct Side {
    name: &'static str,
    column: usize,
    programs: &'static [&'static str],
}

const SIDES: [Side; 3] = [
    Side { name: "tare", column: 0, programs: &["tarectl", "tare", "tare-store", "containerd-shim-tare-v2"] },
    Side {
        name: "docker",
        column: 1,
        programs: &["dockerd", "containerd", "containerd-shim-runc-v2", "docker-proxy", "docker"],
    },
    Side { name: "podman", column: 2, programs: &["podman", "conmon"] },
];

/// `run --rm true`, with a network and without.
pub(crate) fn run(rounds: usize, table: &mut Table) {
    let Some(machine) = Machine::start() else { return };
    for (flags, name) in [("", "run --rm true"), ("--network none", "run --rm --network none true")] {
        let mut samples: Samples = CONTENDERS.map(|_| Vec::new()).to_vec();
        for round in 0..=rounds {
            for side in machine.sides() {
                let timed = machine.timed(&format!(
                    "{0} run --rm {flags} $(flags_of {0}) box true >/dev/null 2>err || {{ cat err >&2; exit 1; }}",
                    side.name
                ));
                if round > 0 {
                    samples[side.column].extend(timed);
                }
            }
        }
        table.add(name, "ms", &samples);
    }
}

/// `ps` while many run, and what one idle container costs in memory.
pub(crate) fn idle(rounds: usize, table: &mut Table) {
    let Some(machine) = Machine::start() else { return };
    let mut memory: Samples = CONTENDERS.map(|_| Vec::new()).to_vec();
    for side in machine.sides() {
        let made = machine.timed(&format!("{0} run -d $(flags_of {0}) box sleep 100000 >/dev/null", side.name));
        assert!(made.is_some(), "{} cannot run a container", side.name);
    }
    // The idleness is what is measured: nothing tells of its end, but the time.
    std::thread::sleep(IDLE);
    let all = machine.memory();
    for side in machine.sides() {
        memory[side.column].push(side.programs.iter().filter_map(|it| all.get(*it)).sum());
    }
    table.add("all processes for one idle container", "KiB", &memory);
    let many = format!(
        "for n in $(seq {RUNNING}); do tare run -d --network none $(flags_of tare) box sleep 100000 >/dev/null; done"
    );
    assert!(machine.timed(&many).is_some(), "tarectl cannot run {RUNNING} containers");
    let ours = (0..rounds).filter_map(|_| machine.timed("tare ps >/dev/null")).collect();
    table.add(&format!("ps with {} running", RUNNING + 1), "ms", &[ours]);
}

/// A world with all of them.
struct Machine {
    world: World,
    docker: Option<Server>,
}

impl Machine {
    fn start() -> Option<Self> {
        let Some(client) = std::env::var_os("CLIENT_BIN").map(PathBuf::from) else {
            eprintln!("CLIENT_BIN names no tarectl: no client is measured");
            return None;
        };
        let world = World::start();
        world.add_program(&client);
        for variable in ["SHIM_BIN", "STORE_BIN"] {
            world.add_program(&PathBuf::from(std::env::var_os(variable)?));
        }
        // Who looks for "runc" is to find the real one.
        world.prepare(User::Root, "rm bin/runc");
        let docker = (has("dockerd") && has("docker")).then(|| docker::start(&world, &[]));
        let machine = Self { world, docker };
        let images = machine.sides().map(|side| match side.name {
            // The store takes what docker and podman take.
            "tare" => "tare import rootfs.tar box >/dev/null\n".to_owned(),
            name => format!("{name} import rootfs.tar box >/dev/null\n"),
        });
        let images: String = images.collect();
        machine.world.prepare(User::Root, &format!("{PROLOGUE}{images}"));
        Some(machine)
    }

    fn sides(&self) -> impl Iterator<Item = &'static Side> {
        let docker = self.docker.is_some();
        SIDES.iter().filter(move |side| match side.name {
            "docker" => docker,
            "podman" => has("podman") && has("conmon"),
            _ => true,
        })
    }

    /// What a command takes, in milliseconds; nothing if it fails, and its words.
    fn timed(&self, command: &str) -> Option<f64> {
        let script = format!("{PROLOGUE}begin=$(date +%s%N)\n{command}\nend=$(date +%s%N)\necho $((end - begin))");
        let outcome = self.world.sh(User::Root, &script);
        let nanoseconds = outcome.stdout.trim().parse::<f64>().ok().filter(|_| outcome.status == Some(0));
        if nanoseconds.is_none() {
            eprintln!("{command}: {}{}", outcome.stdout, outcome.stderr);
        }
        nanoseconds.map(|it| it / 1e6)
    }

    /// The proportional set size of everything that runs in the world itself, and not in a container, by program; in KiB.
    fn memory(&self) -> BTreeMap<String, f64> {
        let root = self.world.root();
        let namespace = fs::read_link(root.with_file_name("ns").join("pid")).expect("find the world's namespace");
        let mut all = BTreeMap::new();
        for entry in fs::read_dir("/proc").expect("list processes").flatten() {
            let dir = entry.path();
            // One that has ended meanwhile has nothing.
            let Ok(its) = fs::read_link(dir.join("ns/pid")) else { continue };
            let (Ok(program), Ok(text)) =
                (fs::read_link(dir.join("exe")), fs::read_to_string(dir.join("smaps_rollup")))
            else {
                continue;
            };
            if its != namespace {
                continue;
            }
            let size = text
                .lines()
                .find_map(|line| line.strip_prefix("Pss:"))
                .and_then(|it| it.trim().trim_end_matches(" kB").parse::<f64>().ok());
            let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
            *all.entry(name).or_insert(0.0) += size.unwrap_or(0.0);
        }
        all
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for side in self.sides() {
            self.world.sh(
                User::Root,
                &format!("{PROLOGUE}ids=$({0} ps -aq); [ -z \"$ids\" ] || {0} rm -f $ids >/dev/null", side.name),
            );
        }
        if let Some(docker) = self.docker.take() {
            docker.stop(&self.world);
        }
    }
}

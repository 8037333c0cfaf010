//! The same callers with systemd as their cgroup manager, on a host that it runs: what they and the runtime tell it, what the
//! container sees, and that no unit is left.

use integration::world::systemd::{self, PROLOGUE};
use integration::world::{Row, User, World, assert_shown, docker, row, run_rows};
use integration::{need, need_systemd, skip};

/// For every table. `$S` is `--user` where an ordinary user has the containers.
fn prologue(choice: &str, callers: &str) -> String {
    format!("{choice}\n{callers}{PROLOGUE}")
}

#[test]
fn podman() {
    need_systemd!();
    need!("podman", "conmon");
    assert_shown("podman with systemd", all_of_podman(User::Root, "root"));
}

#[test]
fn podman_of_a_user() {
    need_systemd!();
    need!("podman", "conmon", "newuidmap");
    let Some(user) = systemd::user() else { skip!("no ordinary user here has a systemd") };
    assert_shown("rootless podman with systemd", all_of_podman(User::Session(user.uid.as_raw()), &user.name));
}

fn all_of_podman(user: User, name: &str) -> (Vec<String>, String) {
    let world = World::beside_systemd();
    let prologue = prologue(if name == "root" { "S= driver=overlay" } else { "S=--user driver=vfs" }, PODMAN_PROLOGUE);
    world.prepare(User::Root, &format!("mkdir home; chown {name}: home"));
    world.prepare(user, &format!("{prologue}{PODMAN_SETUP}"));
    let before = world.snapshot();
    let mut failures = run_rows(&world, user, &prologue, PODMAN_ROWS);
    world.prepare(user, &format!("{prologue}{PODMAN_TEARDOWN}"));
    failures.extend(world.finish(&before, &["/run/tare", "/run/runc"], |name| name.starts_with("libpod-")));
    (failures, String::new())
}

const PODMAN_PROLOGUE: &str = r#"
cd /run/world/home
P="podman --root $PWD/storage --runroot $PWD/run --tmpdir $PWD/tmp --storage-driver $driver --cgroup-manager systemd
	--events-backend file --runtime /run/world/bin/tare"
p() {
	$P "$@"
}
new="--cgroup-parent $CG --log-driver k8s-file --network none"
up="-v $PWD/up:/up"
is_up() {
	until read -r nothing <up; do :; done
}
scope() {
	echo "libpod-$(p inspect "$1" --format '{{.Id}}').scope"
}
"#;

/// One container first, so that what podman keeps for itself is not taken for something that was left.
const PODMAN_SETUP: &str = r#"
mkfifo up
p import -q /run/world/rootfs.tar box
p run --rm $new box true
"#;

/// The last is the process that keeps a user's namespace for the next podman.
const PODMAN_TEARDOWN: &str = r#"
p pod rm -af -t 0
p rm -af -t 0
[ -z "$S" ] || kill $(cat tmp/pause.pid $XDG_RUNTIME_DIR/libpod/tmp/pause.pid 2>/dev/null)
"#;

const PODMAN_ROWS: &[Row] = &[
    row(
        "run -d: a scope in the slice, with limits that it and the container know",
        "p run -d --name one $new $up --memory 64m --pids-limit 50 --cpus 0.5 box sh -c 'echo mine >/tmp/mark; echo >/up; exec sleep 1000' >/dev/null
         is_up
         show $(scope one) Slice ActiveState MemoryMax TasksMax CPUQuotaPerSecUSec | sed s/$CG/slice/
         p exec one sh -c \"$limits\"",
        "slice\nactive\n67108864\n50\n500ms\n67108864\n50\n50000 100000",
    ),
    row(
        "exec: beside the container, and with its status",
        "p exec one sh -c 'cat /tmp/mark; cat /proc/self/cgroup'
         p exec -d one sleep 2000 >/dev/null
         for pid in $(p top one hpid | tail -n +2); do grep -c \"/$(scope one)$\" /proc/$pid/cgroup; done | uniq -c | tr -s ' '
         p exec one sh -c 'exit 9' || echo status $?",
        "mine\n0::/\n 2 1\nstatus 9",
    ),
    row(
        "update: the unit, the container and what is so after a reload",
        "p update --memory 80m --cpus 0.25 one >/dev/null
         show $(scope one) MemoryMax CPUQuotaPerSecUSec
         systemctl $S daemon-reload
         p exec one sh -c \"$limits\"",
        "83886080\n250ms\n83886080\n50\n25000 100000",
    ),
    row(
        "stats, pause and unpause",
        "p stats --no-stream --format '{{.PIDs}}' one
         p pause one >/dev/null; p inspect one --format '{{.State.Status}}'
         p unpause one >/dev/null; p inspect one --format '{{.State.Status}}'; show $(scope one) ActiveState",
        "2\npaused\nrunning\nactive",
    ),
    row(
        "stop, start again, rm: no unit is left",
        "unit=$(scope one)
         p stop -t 0 one >/dev/null; p inspect one --format '{{.State.ExitCode}}'; gone $unit
         p start one >/dev/null; is_up; show $unit ActiveState MemoryMax
         p rm -f -t 0 one >/dev/null; gone $unit",
        "137\ngone\nactive\n67108864\ngone",
    ),
    row(
        // That it was for memory conmon hears from the cgroup only, which systemd removes with its last process: with runc it
        // is no different.
        "a container that wants more memory is killed, and no unit is left",
        "p run --name oom $new --memory 16m --memory-swap 16m box tail /dev/zero || echo status $?
         gone $(scope oom); p rm oom >/dev/null",
        "status 137\ngone",
    ),
    row(
        "a pod: a slice of its own in the slice",
        "p pod create --name pod --hostname podded --share net,ipc,uts,pid --infra-image box --infra-command 'sleep 1000' \
            --network none --cgroup-parent $CG >/dev/null
         p run -d --name in --pod pod --log-driver k8s-file $up --memory 32m box sh -c 'echo >/up; exec sleep 1000' >/dev/null
         is_up
         id=$(p pod inspect pod --format '{{.ID}}')
         [ $(show $(scope in) Slice) = ${CG%.slice}-libpod_pod_$id.slice ] && echo nested
         show $(scope in) MemoryMax; p exec in sh -c 'hostname; cat /sys/fs/cgroup/memory.max'
         unit=$(scope in)
         p pod stop -t 0 pod >/dev/null; p pod rm -f pod >/dev/null; gone $unit
         find /sys/fs/cgroup -name \"*libpod_pod_$id*\"",
        "nested\n33554432\npodded\n33554432\ngone",
    ),
    row(
        "a cgroup of its own to divide",
        "p run --rm $new --systemd always --entrypoint '[]' box sh -c 'cd /sys/fs/cgroup; mkdir sub && echo $$ >sub/cgroup.procs && cat /proc/self/cgroup'",
        "0::/sub",
    ),
    row(
        "build",
        "mkdir -p context
         printf '%s\\n' 'FROM box' 'RUN id -u >/ran' 'CMD [\"cat\", \"/ran\"]' >context/Dockerfile
         p build -q --isolation oci --network none -t built context >/dev/null; p run --rm $new built",
        "0",
    ),
    row(
        "three at once",
        "for i in $(seq 3); do p run --rm $new box echo $i & done | sort -n | tr '\\n' ' '",
        "1 2 3",
    ),
];

#[test]
fn dockerd() {
    need_systemd!();
    need!("dockerd", "docker", "containerd", "iptables");
    assert_shown("dockerd with systemd", all_of_dockerd());
}

fn all_of_dockerd() -> (Vec<String>, String) {
    let world = World::beside_systemd();
    let flags =
        ["--exec-opt=native.cgroupdriver=systemd", "--add-runtime=tare=/run/world/bin/tare", "--default-runtime=tare"];
    let server = docker::start(&world, &flags);
    let prologue = prologue("R= S=", docker::PROLOGUE);
    world.prepare(User::Root, &format!("{prologue}{}", docker::SETUP));
    let before = world.snapshot();
    let mut failures = run_rows(&world, User::Root, &prologue, DOCKER_ROWS);
    world.prepare(User::Root, &format!("{prologue}for id in $(d ps -aq); do d rm -f $id >/dev/null; done"));
    let log = server.stop(&world);
    failures
        .extend(world.finish(&before, &["/run/world/docker.exec/runtime-*/moby"], |name| name.starts_with("docker-")));
    (failures, log)
}

const DOCKER_ROWS: &[Row] = &[
    row("its driver", "d info --format '{{.CgroupDriver}} {{.CgroupVersion}} {{.DefaultRuntime}}'", "systemd 2 tare"),
    row(
        "run -d: a scope in the slice, with limits that it and the container know",
        "d run -d --name one $offline $up --memory 64m --pids-limit 50 --cpus 0.5 box sh -c 'echo mine >/tmp/mark; echo >/up; exec sleep 1000' >one
         is_up
         show docker-$(cat one).scope Slice ActiveState MemoryMax TasksMax CPUQuotaPerSecUSec | sed s/$CG/slice/
         d exec one sh -c \"$limits\"",
        "slice\nactive\n67108864\n50\n500ms\n67108864\n50\n50000 100000",
    ),
    row(
        "exec: beside the container, and with its status",
        "d exec one sh -c 'cat /tmp/mark; cat /proc/self/cgroup'
         d exec -d one sleep 2000
         for pid in $(d top one -o pid | tail -n +2); do grep -c \"/docker-$(cat one).scope$\" /proc/$pid/cgroup; done | uniq -c | tr -s ' '
         d exec one sh -c 'exit 9' || echo status $?",
        "mine\n0::/\n 2 1\nstatus 9",
    ),
    row(
        "stats",
        "d stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' one | cut -d/ -f2",
        " 64MiB 2",
    ),
    row(
        "update: the unit, the container and what is so after a reload",
        "d update --memory 80m --memory-swap 80m --cpus 0.25 --pids-limit 60 one >/dev/null
         show docker-$(cat one).scope MemoryMax CPUQuotaPerSecUSec TasksMax
         systemctl daemon-reload
         d exec one sh -c \"$limits\"",
        "83886080\n250ms\n60\n83886080\n60\n25000 100000",
    ),
    row(
        "pause and unpause",
        "d pause one >/dev/null; d inspect one --format '{{.State.Status}}'
         d unpause one >/dev/null; d inspect one --format '{{.State.Status}}'; show docker-$(cat one).scope ActiveState",
        "paused\nrunning\nactive",
    ),
    row(
        "stop, start again, rm: no unit is left",
        "unit=docker-$(cat one).scope
         d stop -t 0 one >/dev/null; d inspect one --format '{{.State.ExitCode}}'; gone $unit
         d start one >/dev/null; is_up; show $unit ActiveState MemoryMax
         d rm -f one >/dev/null; gone $unit",
        "137\ngone\nactive\n83886080\ngone",
    ),
    row(
        "a container that wants more memory is killed, it is seen, and no unit is left",
        "d run --name oom $offline --memory 16m --memory-swap 16m box tail /dev/zero || echo status $?
         d inspect oom --format '{{.State.OOMKilled}}'; gone docker-$(d inspect oom --format '{{.Id}}').scope",
        "status 137\ntrue\ngone",
    ),
    row(
        "--cgroup-parent: another slice, below",
        "d run -d --name other $offline --cgroup-parent ${CG%.slice}-other.slice $up box sh -c 'echo >/up; exec sleep 1000' >other
         is_up; show docker-$(cat other).scope Slice | sed s/${CG%.slice}/slice/
         d rm -f other >/dev/null; systemctl stop ${CG%.slice}-other.slice",
        "slice-other.slice",
    ),
    row(
        "--cgroup-parent: what is no slice is refused with the daemon's words",
        "d run --rm $offline --cgroup-parent /x box true 2>&1 | grep -c 'slice'",
        "1",
    ),
    row(
        "three at once",
        "for i in $(seq 3); do d run --rm $offline box echo $i & done | sort -n | tr '\\n' ' '",
        "1 2 3",
    ),
];

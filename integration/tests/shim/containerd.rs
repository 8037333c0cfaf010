//! containerd over the shim, driven by ctr: Debian's own, and another where `TARE_CONTAINERD` names its directory.

use std::path::PathBuf;

use integration::world::ctr::{CHECKPOINT_ROWS, PROLOGUE, ROWS, SETUP, SYSTEMD_ROWS};
use integration::world::{Row, Server, User, World, assert_shown, row, run_rows, systemd};
use integration::{need, need_systemd, report_skip, skip};

use super::held::shim_under_test;

/// The shim is chosen by its name alone: it lies beside `tare` in the daemon's PATH.
const CHOICE: &str = "R='--runtime io.containerd.tare.v2'";

/// Where the daemon keeps bundles, and `tare` its containers' state.
const STATES: &[&str] = &[
    "/run/world/containerd.state/io.containerd.runtime.v2.task/default",
    "/run/containerd/tare/default",
    "/run/containerd/s",
    "/run/containerd/fifo",
];

#[test]
fn containerd_of_this_machine() {
    need!("containerd", "ctr", "umoci");
    containerd(&[]);
}

/// ctr of containerd 1.x takes no flag of runc's for a shim of another name, but a file of settings.
#[test]
fn containerd_with_systemd() {
    need_systemd!();
    need!("containerd", "ctr", "umoci");
    assert_shown("the shim under containerd with systemd", all_with_systemd());
}

fn all_with_systemd() -> (Vec<String>, String) {
    let world = World::beside_systemd();
    world.add_program(&shim_under_test());
    let prologue = format!(
        "R='--runtime io.containerd.tare.v2 --runtime-config-path /run/world/shim.toml'\nS=\n{}{PROLOGUE}{MORE}",
        systemd::PROLOGUE
    );
    let before = world.snapshot();
    let server = start(&world);
    world.prepare(User::Root, &format!("{prologue}{SETUP}mkfifo go\necho 'SystemdCgroup = true' >shim.toml\n"));
    let mut failures: Vec<String> = [SYSTEMD_ROWS, OOM_ROWS, BEFORE_ROWS]
        .iter()
        .flat_map(|rows| run_rows(&world, User::Root, &prologue, rows))
        .collect();
    let mut log = server.kill(&world);
    failures.extend(run_rows(&world, User::Root, &prologue, WHILE_AWAY_ROWS));
    let server = start(&world);
    failures.extend(run_rows(&world, User::Root, &prologue, AFTER_ROWS));
    log.push_str(&server.stop(&world));
    failures.extend(world.finish(&before, STATES, |_| true));
    (failures, log)
}

#[test]
fn another_containerd() {
    need!("umoci");
    let Some(dir) = std::env::var_os("TARE_CONTAINERD").map(PathBuf::from) else {
        skip!(
            "TARE_CONTAINERD does not name the directory of another containerd (integration/engines-setup fetches one)"
        );
    };
    containerd(&["containerd", "ctr"].map(|name| dir.join(name)));
}

fn containerd(programs: &[PathBuf]) {
    assert_shown("the shim under containerd", all(programs));
}

fn all(programs: &[PathBuf]) -> (Vec<String>, String) {
    let world = World::start();
    world.add_program(&shim_under_test());
    programs.iter().for_each(|program| world.add_program(program));
    let prologue = format!("{CHOICE}\n{PROLOGUE}{MORE}");
    let check = |rows: &[Row]| run_rows(&world, User::Root, &prologue, rows);
    let before = world.snapshot();
    let server = start(&world);
    world.prepare(User::Root, &format!("{prologue}{SETUP}mkfifo go\n"));
    let mut failures = check(ROWS);
    failures.extend(check(SHIM_ROWS));
    match world.lacks_criu() {
        None => {
            failures.extend(check(SHIM_CHECKPOINT_ROWS));
            failures.extend(check(CHECKPOINT_ROWS));
        }
        Some(reason) => report_skip(&format!("checkpoint through the shim: {reason}")),
    }
    failures.extend(check(BEFORE_ROWS));
    let mut log = server.kill(&world);
    failures.extend(check(WHILE_AWAY_ROWS));
    let server = start(&world);
    failures.extend(check(AFTER_ROWS));
    log.push_str(&server.stop(&world));
    failures.extend(world.finish(&before, STATES, |_| true));
    (failures, log)
}

fn start(world: &World) -> Server {
    Server::start(
        world,
        &[
            "containerd",
            "--root=/run/world/containerd",
            "--state=/run/world/containerd.state",
            "--address=/run/world/containerd.sock",
        ],
        "containerd successfully booted",
    )
}

/// What the scripts of this module have besides.
const MORE: &str = r#"
# The process of a container.
pid_of() {
	c tasks ls | awk -v id=$1 '$1 == id {print $2}'
}
status_of() {
	c tasks ls | awk -v id=$1 '$1 == id {print $3}'
}
until_gone() {
	# One that nobody has waited for has no program any more.
	while [ -e /proc/$1/exe ]; do :; done
}
# Deletes a task and its container, and says the task's exit status.
delete() {
	c tasks delete $1 2>&1 | sed -n 's/.*exit code \([0-9]*\).*/status \1/p'
	c containers delete $1
}
"#;

const SHIM_ROWS: &[Row] = &[
    row(
        "the events of a life, in their order",
        // Only an event shows that ctr listens.
        "$C events >events & listener=$!
         i=0; until [ -s events ]; do i=$((i+1)); c namespaces create n$i; done
         run told -d --memory-limit 67108864 $up box sh -c 'echo >/up; exec sleep 1000'
         is_up
         c tasks exec --exec-id a told sh -c 'exit 9' || true
         c tasks exec -d --exec-id b --fifo-dir /run/world/fifos told sleep 1000
         c tasks pause told; c tasks resume told
         c tasks kill -s KILL told
         until [ $(status_of told) = STOPPED ]; do :; done
         delete told
         until grep -aq '/containers/delete.*told' events && grep -aq '/tasks/delete' events; do :; done
         kill $listener
         sed -n 's/.* \\/tasks\\/\\([^ ]*\\) \\(.*\\)/\\1 \\2/p' events | while read -r topic event; do
            echo $topic $(echo $event | jq -r '[.exec_id // .id // empty, .exit_status // empty] | join(\" \")')
         done",
        "status 137\ncreate\nstart\nexec-added a\nexec-started a\nexit a 9\nexec-added b\nexec-started b\npaused\nresumed\n\
         exit b 137\nexit told 137\ndelete 137",
    ),
    row(
        "a container that wants more memory than it may have: the event, and the status",
        "$C events >events & listener=$!
         i=0; until [ -s events ]; do i=$((i+1)); c namespaces create o$i; done
         run oom --rm --memory-limit 16777216 box tail /dev/zero || echo status $?
         until grep -aq '/containers/delete.*oom' events && grep -aq '/tasks/delete' events; do :; done
         kill $listener
         grep -ao '/tasks/[^ ]*' events",
        "status 137\n/tasks/create\n/tasks/start\n/tasks/oom\n/tasks/exit\n/tasks/delete",
    ),
    row(
        "run -d --fifo-dir, and attach",
        "mkdir -p fifos
         run far -d --fifo-dir /run/world/fifos $up box sh -c 'echo >/up; read -r line; echo got $line; exit 4'
         is_up
         echo in | c tasks attach far || echo status $?
         c containers delete far",
        "got in\nstatus 4",
    ),
    row(
        "run --log-uri: a file",
        "run filed -d --log-uri file:///run/world/filed.log box sh -c 'echo out; echo err >&2'
         until [ $(status_of filed) = STOPPED ]; do :; done
         delete filed; sort filed.log",
        "err\nout",
    ),
    row(
        "run --log-uri: a program",
        // It says that it is ready by closing its fifth descriptor.
        "printf '%s\\n' '#!/bin/sh' 'echo $CONTAINER_NAMESPACE $CONTAINER_ID $* >/run/world/logged' 'exec 5>&-' \
            'cat <&3 >>/run/world/logged; cat <&4 >>/run/world/logged; echo done >>/run/world/logged' >logger
         chmod +x logger
         run logged -d --log-uri 'binary:///run/world/logger?some=thing' box sh -c 'echo out; echo err >&2'
         until grep -q done logged; do :; done
         until [ $(status_of logged) = STOPPED ]; do :; done
         delete logged; cat logged",
        "default logged some thing\nout\nerr\ndone",
    ),
    row(
        "a program that is not there is said, and nothing remains",
        "run - --rm box no-such-command 2>&1 | grep -c 'executable file not found in'
         c tasks ls -q | wc -l",
        "1\n0",
    ),
    row(
        "an exec is told apart from the first process, and killed alone",
        "run two -d $up box sh -c 'echo >/up; exec sleep 1000'
         is_up
         c tasks exec -d --exec-id mine --fifo-dir /run/world/fifos two sleep 1000
         c tasks ps two | grep -c mine
         c tasks kill -s KILL --exec-id mine two
         until ! c tasks ps two | grep -q mine; do :; done
         status_of two
         c tasks kill -s KILL two
         until [ $(status_of two) = STOPPED ]; do :; done
         delete two",
        "1\nRUNNING\nstatus 137",
    ),
];

const SHIM_CHECKPOINT_ROWS: &[Row] = &[row(
    "checkpoint: a running container goes on",
    "run going -d --null-io $up box sh -c 'echo >/up; exec sleep 1000'
     is_up
     c tasks checkpoint going >/dev/null; status_of going
     c tasks kill -s KILL going; until [ $(status_of going) = STOPPED ]; do :; done
     delete going",
    "RUNNING\nstatus 137",
)];

/// systemd removes the cgroup with its last process, and what counts the kills with it: containerd's own shim hears of them
/// later than that at times, ours before.
const OOM_ROWS: &[Row] = &[row(
    "the event of a container that wants more memory, and no unit is left",
    "$C events >events & listener=$!
         i=0; until [ -s events ]; do i=$((i+1)); c namespaces create m$i; done
         run more --rm --memory-limit 16777216 box tail /dev/zero || echo status $?
         until grep -aq '/containers/delete.*more' events && grep -aq '/tasks/delete' events; do :; done
         kill $listener
         grep -ao '/tasks/[^ ]*' events; gone ctr-more.scope",
    "status 137\n/tasks/create\n/tasks/start\n/tasks/oom\n/tasks/exit\n/tasks/delete\ngone",
)];

/// What the daemon leaves running when it is killed.
const BEFORE_ROWS: &[Row] = &[row(
    "containers run",
    "for id in stays ends; do
        run $id -d --null-io $up --mount type=bind,src=/run/world/go,dst=/go,options=rbind:rw box \
            sh -c 'echo >/up; read -r nothing </go; exit 5'
        is_up
     done
     run lost -d --null-io $up box sh -c 'echo >/up; exec sleep 1000'
     is_up
     pid_of stays >stays; pid_of ends >ends; pid_of lost >lost
     ps -o ppid= -p $(cat lost) >lost.shim",
    "",
)];

/// One container ends, and of one the shim is killed.
const WHILE_AWAY_ROWS: &[Row] = &[row(
    "containers end while the daemon is away",
    "kill -s KILL $(cat lost.shim); until_gone $(cat lost.shim)
     kill -s KILL $(cat ends); until [ ! -e /proc/$(cat ends)/exe ]; do :; done",
    "",
)];

const AFTER_ROWS: &[Row] = &[
    row(
        "what happened meanwhile is known",
        "status_of stays; status_of ends; status_of lost
         delete ends
         until_gone $(cat lost)
         c containers delete lost",
        "RUNNING\nSTOPPED\nstatus 137",
    ),
    row(
        "what goes on can be used",
        "[ $(pid_of stays) = $(cat stays) ] && echo same
         c tasks exec --exec-id again stays echo again
         c tasks kill -s KILL stays
         until [ $(status_of stays) = STOPPED ]; do :; done
         delete stays",
        "same\nagain\nstatus 137",
    ),
];

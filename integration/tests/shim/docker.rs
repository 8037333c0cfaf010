//! dockerd over the shim, which it takes by name since 23.0: `TARE_DOCKER` names the directory of such a one, where the
//! machine's own is older.

use std::path::PathBuf;

use integration::world::docker::{self, PROLOGUE, ROWS, SETUP};
use integration::world::{Row, User, World, assert_shown, row, run_rows};
use integration::{need, skip};

use super::held::shim_under_test;

const CHOICE: &str = "R='--runtime io.containerd.tare.v2'";

#[test]
fn docker() {
    need!("containerd", "iptables");
    let world = prepared();
    let version = world.sh(User::Root, "dockerd --version | sed 's/[^0-9]*\\([0-9]*\\).*/\\1/'").stdout;
    match version.trim().parse::<u32>() {
        Ok(major) if major >= 23 => {}
        Ok(major) => skip!(
            "dockerd {major} takes no shim by its name (23 does; TARE_DOCKER may name its directory, and integration/engines-setup fetches one)"
        ),
        Err(_) => skip!("dockerd is not installed"),
    }
    drop(world);
    assert_shown("the shim under dockerd", all());
}

/// A world with the shim and, where there is one, the other dockerd.
fn prepared() -> World {
    let world = World::start();
    world.add_program(&shim_under_test());
    if let Some(dir) = std::env::var_os("TARE_DOCKER").map(PathBuf::from) {
        let programs = ["dockerd", "docker", "docker-proxy", "containerd"].map(|name| dir.join(name));
        programs.iter().filter(|program| program.is_file()).for_each(|program| world.add_program(program));
    }
    world
}

fn all() -> (Vec<String>, String) {
    let world = prepared();
    let server = docker::start(&world, &["--live-restore"]);
    let prologue = format!("{CHOICE}\n{PROLOGUE}");
    world.prepare(User::Root, &format!("{prologue}{SETUP}"));
    let before = world.snapshot();
    let mut failures = run_rows(&world, User::Root, &prologue, ROWS);
    failures.extend(run_rows(&world, User::Root, &prologue, BEFORE_ROWS));
    let mut log = server.kill(&world);
    let server = docker::start(&world, &["--live-restore"]);
    failures.extend(run_rows(&world, User::Root, &prologue, AFTER_ROWS));
    world.prepare(User::Root, &format!("{prologue}for id in $(d ps -aq); do d rm -f $id >/dev/null; done"));
    log.push_str(&server.stop(&world));
    failures.extend(world.finish(&before, &["/run/containerd/tare/moby"], |name| name.len() == 64));
    (failures, log)
}

/// What the daemon leaves running when it is killed.
const BEFORE_ROWS: &[Row] = &[row(
    "containers run",
    "for id in stays ends; do
        d run -d --name $id $offline $up box sh -c 'echo before; echo >/up; while :; do sleep 1000 & wait; done' >/dev/null
        is_up
     done
     d inspect ends --format '{{.State.Pid}}' >ends",
    "",
)];

/// With --live-restore containers outlive the daemon.
const AFTER_ROWS: &[Row] = &[row(
    "the daemon starts again",
    "d inspect stays ends --format '{{.State.Status}}'
     d exec stays echo again
     d logs stays
     d stop -t 0 stays ends >/dev/null; d inspect stays --format '{{.State.ExitCode}}'",
    "running\nrunning\nagain\nbefore\n137",
)];

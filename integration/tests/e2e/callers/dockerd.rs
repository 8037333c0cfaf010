//! dockerd, with a containerd of its own and the shim that starts, driven by docker's command line.

use integration::need;
use integration::world::docker::{self, BUILDKIT_ROWS, PROLOGUE, REMAPPED_ROWS, ROWS, SETUP};
use integration::world::{Row, User, World, assert_shown, row, run_rows};

#[test]
fn dockerd_with_an_added_runtime() {
    dockerd(&["--add-runtime=tare=/run/world/bin/tare"], "R='--runtime tare'", &[ROWS, BUILDKIT_ROWS]);
}

#[test]
fn dockerd_with_a_default_runtime() {
    dockerd(&["--add-runtime=tare=/run/world/bin/tare", "--default-runtime=tare"], "R=", &[ROWS, BUILDKIT_ROWS]);
}

#[test]
fn dockerd_with_user_namespaces() {
    dockerd(
        &["--add-runtime=tare=/run/world/bin/tare", "--default-runtime=tare", "--userns-remap=default"],
        "R=",
        &[REMAPPED_ROWS],
    );
}

fn dockerd(flags: &[&str], choice: &str, tables: &[&[Row]]) {
    need!("dockerd", "docker", "containerd", "iptables");
    assert_shown("dockerd", all(flags, choice, tables));
}

fn all(flags: &[&str], choice: &str, tables: &[&[Row]]) -> (Vec<String>, String) {
    let world = World::start();
    let server = docker::start(&world, flags);
    let prologue = format!("{choice}\n{PROLOGUE}");
    world.prepare(User::Root, &format!("{prologue}{SETUP}"));
    let before = world.snapshot();
    let mut failures = run_rows(&world, User::Root, &prologue, RUNTIME_ROWS);
    for rows in tables {
        failures.extend(run_rows(&world, User::Root, &prologue, rows));
    }
    world.prepare(User::Root, &format!("{prologue}for id in $(d ps -aq); do d rm -f $id >/dev/null; done"));
    let log = server.stop(&world);
    failures.extend(world.finish(&before, &["/run/world/docker.exec/runtime-*/moby"], |name| name.len() == 64));
    (failures, log)
}

const RUNTIME_ROWS: &[Row] =
    &[row("the runtime it runs", "d info --format '{{(index .Runtimes \"tare\").Path}}' | grep -c bin/tare", "1")];

//! containerd, with its own shim between it and the runtime, driven by ctr.

use integration::world::ctr::{CHECKPOINT_PATH_ROWS, CHECKPOINT_ROWS, PROLOGUE, ROWS, SETUP, SYSTEMD_ROWS};
use integration::world::{Row, Server, User, World, assert_shown, run_rows, systemd};
use integration::{need, need_systemd, report_skip};

#[test]
fn ctr() {
    need!("containerd", "ctr", "umoci");
    assert_shown("ctr", all(World::start(), "R='--runc-binary /run/world/bin/tare'\n", &[ROWS]));
}

#[test]
fn ctr_with_systemd() {
    need_systemd!();
    need!("containerd", "ctr", "umoci");
    let choice = format!("R='--runc-binary /run/world/bin/tare --runc-systemd-cgroup'\nS=\n{}", systemd::PROLOGUE);
    assert_shown("ctr with systemd", all(World::beside_systemd(), &choice, &[SYSTEMD_ROWS]));
}

fn all(world: World, choice: &str, tables: &[&[Row]]) -> (Vec<String>, String) {
    let before = world.snapshot();
    let server = Server::start(
        &world,
        &[
            "containerd",
            "--root=/run/world/containerd",
            "--state=/run/world/containerd.state",
            "--address=/run/world/containerd.sock",
        ],
        "containerd successfully booted",
    );
    let prologue = format!("{choice}{PROLOGUE}");
    world.prepare(User::Root, &format!("{prologue}{SETUP}"));
    let mut failures: Vec<String> =
        tables.iter().flat_map(|rows| run_rows(&world, User::Root, &prologue, rows)).collect();
    match world.lacks_criu() {
        // criu is the runtime's affair, however a cgroup was made.
        _ if world.is_beside_systemd() => {}
        None => {
            failures.extend(run_rows(&world, User::Root, &prologue, CHECKPOINT_PATH_ROWS));
            failures.extend(run_rows(&world, User::Root, &prologue, CHECKPOINT_ROWS));
        }
        Some(reason) => report_skip(&format!("checkpoint by ctr: {reason}")),
    }
    let log = server.stop(&world);
    failures.extend(world.finish(&before, &["/run/containerd/runc/default"], |_| true));
    (failures, log)
}

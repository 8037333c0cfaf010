//! containerd, with its own shim between it and the runtime, driven by ctr.

use integration::world::ctr::{CHECKPOINT_PATH_ROWS, CHECKPOINT_ROWS, PROLOGUE, ROWS, SETUP};
use integration::world::{Server, User, World, assert_shown, run_rows};
use integration::{need, report_skip};

#[test]
fn ctr() {
    need!("containerd", "ctr", "umoci");
    assert_shown("ctr", all());
}

fn all() -> (Vec<String>, String) {
    let world = World::start();
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
    let prologue = format!("R='--runc-binary /run/world/bin/tare'\n{PROLOGUE}");
    world.prepare(User::Root, &format!("{prologue}{SETUP}"));
    let mut failures = run_rows(&world, User::Root, &prologue, ROWS);
    match world.lacks_criu() {
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

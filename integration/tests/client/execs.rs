//! What a shim keeps of execs: no more than of those that run.

use std::fs;
use std::io::Read;

use integration::wait;
use nix::sys::signal::{Signal, kill};

use crate::harness::{BUSYBOX, World, finish};

/// How many execs the shim knows of. It logs what it holds when it is told to.
fn held(world: &World, id: &str) -> usize {
    let log = world.run.join("containers").join(id).join("bundle/log");
    let dumps = |text: &str| text.matches("events queued").count();
    let before = dumps(&fs::read_to_string(&log).unwrap());
    // The first is whole when the second one is begun.
    for more in 1..=2 {
        kill(world.shim(id), Signal::SIGUSR1).unwrap();
        wait::file(&log, |text| dumps(text) == before + more);
    }
    let text = fs::read_to_string(&log).unwrap();
    text.split("events queued").nth(before + 1).unwrap().matches("process x").count()
}

/// How many execs have ended, as the events tell.
fn ended(world: &World) -> usize {
    fs::read_to_string(world.dir.join("root/events.log")).unwrap().matches("\"Action\":\"exec_die\"").count()
}

#[test]
fn a_detached_exec_that_has_ended_is_forgotten_with_the_next_one() {
    let world = World::new();
    let id = world.ok(&["run", "-d", "--name", "web", BUSYBOX, "sleep", "1000"]);
    let notes = || {
        let files = fs::read_dir(world.run.join("containers").join(&id)).unwrap().flatten();
        files.filter(|it| it.path().extension().is_some_and(|it| it == "exec")).count()
    };
    assert_eq!((held(&world, &id), notes()), (0, 0));
    // One that runs stays, and is no business of the others.
    world.ok(&["exec", "-d", "web", "sh", "-c", "echo up >/up; exec sleep 1000"]);
    for count in 1..=4 {
        world.ok(&["exec", "-d", "web", "true"]);
        wait::until("it has ended", || ended(&world) == count);
    }
    assert_eq!((held(&world, &id), notes()), (2, 2));
    assert_eq!(world.ok(&["exec", "web", "cat", "/up"]), "up");
    assert_eq!((held(&world, &id), notes()), (1, 1));
    // Many at once.
    let all: Vec<_> = (0..8).map(|_| world.spawn(&["exec", "-d", "web", "true"])).collect();
    for exec in all {
        let (code, _, errors) = finish(exec);
        assert_eq!(code, 0, "{errors}");
    }
    // With the one before.
    wait::until("they have ended", || ended(&world) == 13);
    // Whoever looked on at one was killed.
    let mut looks = world.spawn(&["exec", "-i", "web", "sh", "-c", "echo ready; exec cat"]);
    let mut line = [0; 6];
    looks.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    assert_eq!(&line, b"ready\n");
    looks.kill().unwrap();
    looks.wait().unwrap();
    wait::until("it has ended", || ended(&world) == 14);
    assert_eq!(world.code(&["exec", "web", "sh", "-c", "exit 3"], 3).stdout, "");
    assert_eq!((held(&world, &id), notes()), (1, 1));
    // One that cannot be run leaves nothing.
    world.code(&["exec", "-d", "web", "no-such-command"], 127);
    assert_eq!((held(&world, &id), notes()), (1, 1));
    world.ok(&["rm", "-f", "web"]);
    world.assert_empty();
}

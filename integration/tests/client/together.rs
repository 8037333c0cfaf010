//! Commands that meet at one container, and many containers.

use std::time::Instant;

use integration::wait;

use crate::harness::{BUSYBOX, World, finish};

#[test]
fn commands_that_meet_at_one_container_take_turns() {
    let world = World::new();
    for _ in 0..3 {
        world.ok(&["create", "--name", "meet", BUSYBOX, "sleep", "1000"]);
        // All may start it, one does; all end well.
        let starts: Vec<_> = (0..4).map(|_| world.spawn(&["start", "meet"])).collect();
        for start in starts {
            let (code, _, errors) = finish(start);
            assert_eq!(code, 0, "{errors}");
        }
        assert_eq!(world.processes_with(&["containerd-shim-tare-v2", world.run.to_str().unwrap()]).len(), 1);
        let stops: Vec<_> = (0..3).map(|_| world.spawn(&["stop", "-t", "0", "meet"])).collect();
        for stop in stops {
            let (code, _, errors) = finish(stop);
            assert_eq!(code, 0, "{errors}");
        }
        world.assert_idle();
        // One removes it, the others find none.
        let removals: Vec<_> = (0..3).map(|_| world.spawn(&["rm", "-f", "meet"])).collect();
        let codes: Vec<i32> = removals.into_iter().map(|it| finish(it).0).collect();
        assert!(codes.contains(&0), "{codes:?}");
        world.assert_empty();
    }
}

/// Whoever cleans up after it may be faster than the client that asks how it ended.
#[test]
fn what_ends_at_once_and_is_removed_tells_its_exit_code() {
    let world = World::new();
    for _ in 0..8 {
        let words = ["run", "--rm", "--network", "none", BUSYBOX, "sh", "-c", "echo out; exit 7"];
        let runs: Vec<_> = (0..8).map(|_| world.spawn(&words)).collect();
        for run in runs {
            assert_eq!(finish(run), (7, "out\n".to_owned(), String::new()));
        }
    }
    world.assert_empty();
}

#[test]
fn an_end_races_with_every_command() {
    let world = World::new();
    // The process ends by itself at about the time the command comes.
    for (number, command) in
        [&["stop", "-t", "1"][..], &["kill"], &["rm", "-f"], &["restart", "-t", "0"], &["start"], &["pause"], &["wait"]]
            .iter()
            .cycle()
            .take(21)
            .enumerate()
    {
        let name = format!("race{number}");
        let ends = format!("sleep 0.0{number}; exit 2");
        world.ok(&["run", "-d", "--name", &name, BUSYBOX, "sh", "-c", &ends]);
        let words: Vec<&str> = command.iter().copied().chain([name.as_str()]).collect();
        let ran = world.run(&words);
        assert!(matches!(ran.code, Some(0 | 125)), "{words:?}: {}", ran.stderr);
        if command[0] == "pause" {
            world.run(&["unpause", &name]);
        }
        if command[0] != "rm" {
            assert!(["0", "2"].contains(&world.ok(&["wait", &name]).as_str()) || command[0] != "wait");
            let status = world.field(&name, ".State.Status");
            assert_eq!(status, "exited", "{words:?}");
        }
    }
    world.assert_idle();
}

#[test]
fn names_are_taken_once() {
    let world = World::new();
    let creates: Vec<_> = (0..6).map(|_| world.spawn(&["create", "--name", "one", BUSYBOX, "true"])).collect();
    let ends: Vec<_> = creates.into_iter().map(finish).collect();
    assert_eq!(ends.iter().filter(|it| it.0 == 0).count(), 1, "{ends:?}");
    assert!(ends.iter().filter(|it| it.0 != 0).all(|it| it.0 == 125 && it.2.contains("the name \"one\"")), "{ends:?}");
    assert_eq!(world.ok(&["ps", "-aq"]).lines().count(), 1);
}

#[test]
fn two_hundred_containers_are_listed_at_once() {
    let world = World::new();
    let count = if std::env::var_os("TARE_MANY").is_some() { 200 } else { 40 };
    for batch in 0..count / 10 {
        let runs: Vec<_> = (0..10)
            .map(|number| {
                let name = format!("many{batch}-{number}");
                world.spawn(&["run", "-d", "--network", "none", "--name", &name, BUSYBOX, "sleep", "1000"])
            })
            .collect();
        for run in runs {
            let (code, _, errors) = finish(run);
            assert_eq!(code, 0, "{errors}");
        }
    }
    let began = Instant::now();
    assert_eq!(world.ok(&["ps", "-q"]).lines().count(), count);
    eprintln!("ps with {count} running containers: {:?}", began.elapsed());
    // All at once, as a host's end would have it.
    let ids = world.ok(&["ps", "-q"]);
    let words: Vec<&str> = ["rm", "-f"].into_iter().chain(ids.lines()).collect();
    world.ok(&words);
    world.assert_empty();
    wait::until("no shim is left", || {
        world.processes_with(&["containerd-shim", world.run.to_str().unwrap()]).is_empty()
    });
}

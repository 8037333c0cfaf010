//! A container whose record cannot be read: the others are not held up by it, and nothing that it may need is removed. And one
//! whose bundle is gone.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{BUSYBOX, World, until_gone};

/// Where the record of a container is.
fn record(world: &World, id: &str) -> PathBuf {
    world.dir.join("root/containers").join(id).join("container.json")
}

#[test]
fn one_that_is_damaged_keeps_no_command_from_the_others() {
    let world = World::new();
    let id = world.ok(&["run", "-d", "--name", "broken", "-v", "data:/data", BUSYBOX, "sleep", "1000"]);
    world.ok(&["run", "-d", "--name", "web", BUSYBOX, "sleep", "1000"]);
    world.ok(&["create", "--name", "ended", "-v", "/unnamed", BUSYBOX, "true"]);
    world.ok(&["network", "create", "net"]);
    let (place, short) = (record(&world, &id), &id[..12]);
    let text = fs::read(&place).unwrap();

    // Cut off, empty, and not there at all.
    for damage in [Some(&text[..text.len() / 2]), Some(b""), None] {
        match damage {
            Some(part) => fs::write(&place, part).unwrap(),
            None => fs::remove_file(&place).unwrap(),
        }
        for (words, shown) in [
            (&["ps", "-a", "--format", "{{.Names}}"][..], "ended\nweb\n"),
            (&["ps", "-q", "--no-trunc"], &format!("{}\n", world.inspect("web")["Id"].as_str().unwrap())),
            (&["info", "--format", "{{.Containers}}"], "2\n"),
            (&["stats", "--no-stream", "--format", "{{.Name}}"], "web\n"),
            (&["system", "df", "--format", "{{if eq .Type \"Containers\"}}{{.TotalCount}}{{end}}"], "\n2\n\n"),
        ] {
            let ran = world.code(words, 125);
            assert_eq!(ran.stdout, shown, "{words:?}");
            let (start, remedy) = (format!("tarectl: the record of container {short} is damaged: "), "tarectl rm -f");
            assert_eq!(ran.stderr.lines().count(), 1, "{words:?}: {}", ran.stderr);
            assert!(ran.stderr.starts_with(&start) && ran.stderr.contains(remedy), "{words:?}: {}", ran.stderr);
        }
        // The others are as ever.
        assert_eq!(world.ok(&["exec", "web", "echo", "up"]), "up");
        world.ok(&["run", "--rm", "-v", "/unnamed", BUSYBOX, "true"]);
        // What it may have stays.
        for words in [
            &["volume", "rm", "data"][..],
            &["volume", "prune", "-af"],
            &["volume", "ls", "-q", "--filter", "dangling=true"],
            &["rmi", BUSYBOX],
            &["rmi", "-f", BUSYBOX],
            &["image", "prune", "-af"],
            &["network", "ls", "-q", "--filter", "dangling=true"],
        ] {
            let said = world.refused(words);
            assert!(said.contains("in use: ") && said.contains(short), "{words:?}: {said}");
        }
        for words in [&["stop", short][..], &["rm", "broken"], &["inspect", &id], &["run", "--name", "broken", BUSYBOX]]
        {
            let said = world.refused(words);
            assert!(said.contains(short), "{words:?}: {said}");
        }
    }
    let volumes = || world.ok(&["volume", "ls", "-q"]).lines().count();
    assert_eq!(volumes(), 5, "the named one, and an unnamed one of each container");

    // Those that do not run are pruned, and nothing else.
    let pruned = world.code(&["system", "prune", "-af", "--volumes"], 125);
    assert!(pruned.stdout.starts_with("Deleted Containers:\n"), "{}", pruned.stdout);
    assert!(pruned.stdout.contains("\nnet\n") && pruned.stderr.contains(short), "{}{}", pruned.stdout, pruned.stderr);
    let pruned = world.code(&["container", "prune", "-f"], 125);
    assert!(pruned.stderr.contains(short) && pruned.stdout.starts_with("Total"), "{}{}", pruned.stdout, pruned.stderr);
    assert_eq!(world.run(&["ps", "-a", "--format", "{{.Names}}"]).stdout, "web\n");
    assert_eq!(volumes(), 5);

    // Mended, it is one as the others.
    fs::write(&place, &text).unwrap();
    assert_eq!(world.ok(&["exec", "broken", "echo", "up"]), "up");
    assert_eq!(world.ok(&["ps", "-a", "--format", "{{.Names}}"]), "web\nbroken");
    world.ok(&["rm", "-f", "broken", "web"]);
    world.ok(&["volume", "prune", "-af"]);
    world.assert_empty();
}

#[test]
fn one_that_is_damaged_can_be_removed() {
    let world = World::new();
    let refused_by = |words: &[&str]| world.refused(words).contains("is damaged");
    for (start, name) in [("run", true), ("run", false), ("create", true)] {
        let words: &[&str] = if start == "run" { &["run", "-d"] } else { &["create"] };
        let id = world.ok(&[words, &["--name", "broken", BUSYBOX, "sleep", "1000"]].concat());
        fs::write(record(&world, &id), "{").unwrap();
        assert!(refused_by(&["rm", "broken"]) && refused_by(&["start", "broken"]));
        world.ok(&["rm", "-f", if name { "broken" } else { &id[..12] }]);
        world.assert_empty();
    }
    // Its shim was killed, too.
    let id = world.ok(&["run", "-d", "--name", "broken", BUSYBOX, "sleep", "1000"]);
    fs::write(record(&world, &id), "{").unwrap();
    let shim = world.shim(&id);
    kill(shim, Signal::SIGKILL).unwrap();
    until_gone(shim);
    world.ok(&["rm", "-f", "broken"]);
    world.assert_empty();
}

#[test]
fn a_boot_brings_back_the_others_and_tells_of_the_damaged() {
    let world = World::new();
    let id = world.ok(&["create", "--name", "broken", BUSYBOX, "true"]);
    world.ok(&["run", "-d", "--name", "always", "--restart", "always", BUSYBOX, "sleep", "1000"]);
    world.ok(&["stop", "-t", "0", "always"]);
    fs::write(record(&world, &id), "").unwrap();
    let ran = world.code(&["boot"], 125);
    assert!(ran.stderr.contains("is damaged") && ran.stderr.contains(&id[..12]), "{}", ran.stderr);
    assert_eq!(ran.stdout, "always\n");
    world.ok(&["rm", "-f", &id, "always"]);
    world.assert_empty();
}

/// Takes the directory that a container's shim works in, as somebody may who tidies up.
fn remove_bundle(world: &World, id: &str) {
    let bundle = world.run.join("containers").join(id).join("bundle");
    nix::mount::umount2(&bundle.join("rootfs"), nix::mount::MntFlags::MNT_DETACH).unwrap();
    fs::remove_dir_all(bundle).unwrap();
}

#[test]
fn a_container_without_its_bundle_is_ended_all_the_same() {
    let world = World::new();
    for (shim_lives, words) in [
        (false, &["ps"][..]),
        (false, &["rm", "-f", "victim"]),
        (false, &["start", "victim"]),
        (true, &["stop", "-t", "0", "victim"]),
        (true, &["kill", "victim"]),
        (true, &["rm", "-f", "victim"]),
    ] {
        let id = world.ok(&["run", "-d", "--name", "victim", BUSYBOX, "sleep", "1000"]);
        let init = Pid::from_raw(world.field("victim", ".State.Pid").parse().unwrap());
        let shim = world.shim(&id);
        remove_bundle(&world, &id);
        if !shim_lives {
            kill(shim, Signal::SIGKILL).unwrap();
            until_gone(shim);
        }
        world.ok(words);
        until_gone(init);
        if words[0] == "start" {
            assert_eq!(world.ok(&["exec", "victim", "echo", "up"]), "up");
        }
        if words[0] != "rm" {
            if words[0] == "ps" {
                assert_eq!(world.field("victim", ".State.ExitCode"), "137");
            }
            world.ok(&["rm", "-f", "victim"]);
        }
        world.assert_empty();
    }
}

//! Files: volumes, cp, diff.

use std::fs;

use crate::harness::{BUSYBOX, World};

#[test]
fn volumes_are_filled_once_and_parts_of_them_mounted() {
    let world = World::new();
    // What the image has in the place of a new volume is in it.
    let seen = world.ok(&["run", "--rm", "--network", "none", "-v", "vol:/bin", BUSYBOX, "/bin/ls", "/bin"]);
    assert!(seen.lines().any(|it| it == "ls"), "{seen}");
    world.ok(&["run", "--rm", "--network", "none", "-v", "vol:/v", BUSYBOX, "mkdir", "/v/part"]);
    world.ok(&["run", "--rm", "--network", "none", "-v", "vol:/v", BUSYBOX, "touch", "/v/part/inside"]);
    let part = "type=volume,src=vol,dst=/p,volume-subpath=part";
    assert_eq!(world.ok(&["run", "--rm", "--network", "none", "--mount", part, BUSYBOX, "ls", "/p"]), "inside");
    let refused =
        world.refused(&["run", "--rm", "--network", "none", "--mount", &part.replace("=part", "=../x"), BUSYBOX]);
    assert!(refused.contains("without .."), "{refused}");
    // Unnamed ones go with their container, named ones stay.
    world.ok(&["run", "--rm", "--network", "none", "-v", "/anonymous", BUSYBOX, "true"]);
    assert_eq!(world.ok(&["volume", "ls", "-q"]), "vol");
    world.ok(&["volume", "rm", "vol"]);
    assert_eq!(world.ok(&["volume", "ls", "-q"]), "");
    world.assert_empty();
}

#[test]
fn files_go_into_containers_and_out_whether_they_run_or_not() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let here = |name: &str| dir.path().join(name).display().to_string();
    fs::create_dir(here("dir")).unwrap();
    fs::write(here("dir/file"), "content").unwrap();
    world.ok(&["run", "-d", "--name", "files", "--network", "none", "-v", "vol:/data", BUSYBOX, "sleep", "1000"]);
    for state in ["running", "paused", "exited"] {
        match state {
            "paused" => drop(world.ok(&["pause", "files"])),
            "exited" => {
                world.ok(&["unpause", "files"]);
                world.ok(&["kill", "files"]);
                world.until("files", ".State.Status", "exited");
            }
            _ => {}
        }
        for place in ["/new", "/data/new"] {
            world.ok(&["cp", &here("dir"), &format!("files:{place}-{state}")]);
            let out = here(&format!("out-{state}{}", place.len()));
            world.ok(&["cp", &format!("files:{place}-{state}/file"), &out]);
            assert_eq!(fs::read_to_string(&out).unwrap(), "content", "{place} {state}");
        }
        let refused = world.refused(&["cp", &here("dir"), "files:/no/such"]);
        assert!(refused.contains("could not find the file /no in container files"), "{refused}");
    }
    // The volume's files are in the volume, the others in the container, and both are there when it runs again.
    let told = world.ok(&["diff", "files"]);
    assert!(told.lines().any(|it| it == "A /new-paused/file") && !told.contains("/data/new"), "{told}");
    world.ok(&["start", "files"]);
    world.ok(&["exec", "files", "cat", "/new-exited/file", "/data/new-exited/file"]);
    world.ok(&["rm", "-f", "files"]);
    world.ok(&["volume", "rm", "vol"]);
    world.assert_empty();
}

/// What was committed is what the container was, and it goes on.
#[test]
fn a_running_container_is_committed_exported_and_imported() {
    let world = World::new();
    world.ok(&[
        "run",
        "-d",
        "--name",
        "made",
        "--network",
        "none",
        BUSYBOX,
        "sh",
        "-c",
        "echo content >/file; sleep 1000",
    ]);
    while !world.ok(&["diff", "made"]).lines().any(|it| it == "A /file") {}
    for pause in ["--pause=true", "--pause=false"] {
        let change = "ENV COMMITTED=yes";
        world.ok(&["commit", pause, "-m", "words", "-a", "somebody", "-c", change, "made", "team/made:1"]);
        assert_eq!(world.field("made", ".State.Status"), "running", "{pause}");
        let told =
            world.ok(&["run", "--rm", "--network", "none", "team/made:1", "sh", "-c", "cat /file; echo $COMMITTED"]);
        assert_eq!(told, "content\nyes", "{pause}");
    }
    let dir = tempfile::tempdir().unwrap();
    let tar = dir.path().join("root.tar").display().to_string();
    world.ok(&["export", "-o", &tar, "made"]);
    world.ok(&["import", "-c", "ENTRYPOINT [\"cat\"]", &tar, "team/imported:1"]);
    assert_eq!(world.ok(&["run", "--rm", "--network", "none", "team/imported:1", "/file"]), "content");
    world.ok(&["rm", "-f", "made"]);
    world.ok(&["rmi", "team/made:1", "team/imported:1"]);
    world.assert_empty();
}

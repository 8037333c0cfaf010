//! Files: volumes, cp, diff, commit, export, import.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;

use integration::{store, wait};

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

#[test]
fn archives_go_into_containers_and_out_through_pipes_with_their_owners() {
    let world = World::new();
    let tree = world.dir.join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), "content").unwrap();
    chown(tree.join("file"), Some(1234), Some(5678)).unwrap();
    world.ok(&["run", "-d", "--name", "files", "--network", "none", BUSYBOX, "sleep", "1000"]);
    world.ok(&["cp", "-a", tree.to_str().unwrap(), "files:/kept"]);
    for state in ["running", "exited"] {
        if state == "exited" {
            world.ok(&["kill", "files"]);
            world.until("files", ".State.Status", state);
        }
        let archive = world.code(&["cp", "files:/kept", "-"], 0).bytes;
        let into = world.dir.join(format!("into-{state}"));
        fs::create_dir(&into).unwrap();
        world.ok(&["cp", into.to_str().unwrap(), "files:/"]);
        let target = format!("files:/into-{state}");
        let ran = store::run(world.command(&["cp", "-", &target]), Some(&archive)).ok();
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""), "{state}");
        for (input, to, said) in [
            (&archive[..], "files:/kept/file", "must be a directory"),
            (b"no archive", target.as_str(), "read the archive"),
        ] {
            let ran = store::run(world.command(&["cp", "-", to]), Some(input));
            assert_eq!((ran.code, ran.stderr.lines().count()), (Some(125), 1), "{state}: {}", ran.stderr);
            assert!(ran.stderr.contains(said), "{state}: {}", ran.stderr);
        }
    }
    world.ok(&["start", "files"]);
    for file in ["/kept/file", "/into-running/kept/file", "/into-exited/kept/file"] {
        assert_eq!(world.ok(&["exec", "files", "cat", file]), "content", "{file}");
        assert_eq!(world.ok(&["exec", "files", "stat", "-c", "%u:%g", file]), "1234:5678", "{file}");
    }
    world.ok(&["rm", "-f", "files"]);
    world.assert_empty();
}

/// What is gone is told of, and is gone in what is committed.
#[test]
fn what_a_container_deleted_changed_and_added_is_told_and_committed() {
    let world = World::new();
    world.ok(&["run", "--rm", "--network", "none", "-v", "vol:/v", BUSYBOX, "true"]);
    let script = "mkdir /dir /dir/gone && echo x >/dir/file && rm /bin/ls && chmod 711 /etc && echo y >/v/file";
    world.ok(&["run", "--name", "first", "--network", "none", "-v", "vol:/v", BUSYBOX, "sh", "-c", script]);
    let mut told: Vec<String> = world.ok(&["diff", "first"]).lines().map(str::to_owned).collect();
    // Made to mount the volume upon.
    told.retain(|it| it != "A /v");
    assert_eq!(told, ["C /bin", "D /bin/ls", "A /dir", "A /dir/file", "A /dir/gone", "C /etc"]);
    world.ok(&["commit", "first", "made"]);
    let script = "rm -r /dir/gone && mv /dir/file /dir/other && test ! -e /bin/ls && stat -c %a /etc";
    assert_eq!(world.ok(&["run", "--name", "second", "--network", "none", "made", "sh", "-c", script]), "711");
    assert_eq!(world.ok(&["diff", "second"]), "C /dir\nD /dir/file\nD /dir/gone\nA /dir/other");
    world.ok(&["rm", "first", "second"]);
    world.ok(&["rmi", "made"]);
    world.ok(&["volume", "rm", "vol"]);
    world.assert_empty();
}

/// What was committed is what the container was, and it goes on.
#[test]
fn a_running_container_that_writes_is_committed_exported_and_imported() {
    let world = World::new();
    // One file is always as far as the other, or one step further.
    let script = "echo content >/file; n=0; while :; do n=$((n+1)); \
                  echo $n >/next; mv /next /one; echo $n >/next; mv /next /two; done";
    world.ok(&["run", "-d", "--name", "made", "--network", "none", BUSYBOX, "sh", "-c", script]);
    while !world.ok(&["diff", "made"]).lines().any(|it| it == "A /two") {}
    let steps = |words: &[&str]| -> (u64, u64) {
        let text = world.ok(&[words, &["cat", "/one", "/two"]].concat());
        let numbers: Vec<u64> = text.lines().map(|it| it.parse().unwrap()).collect();
        (numbers[0], numbers[1])
    };
    let run = ["run", "--rm", "--network", "none"];
    let mut before = 0;
    for pause in ["--pause=true", "--pause=false"] {
        let change = "ENV COMMITTED=yes";
        world.ok(&["commit", pause, "-m", "words", "-a", "somebody", "-c", change, "made", "team/made:1"]);
        assert_eq!(world.field("made", ".State.Status"), "running", "{pause}");
        let told = world.ok(&[&run[..], &["team/made:1", "sh", "-c", "cat /file; echo $COMMITTED"]].concat());
        assert_eq!(told, "content\nyes", "{pause}");
        if pause == "--pause=true" {
            let (one, two) = steps(&[&run[..], &["team/made:1"]].concat());
            assert!(one == two || one == two + 1, "{one} {two}: it was read while it went on");
        }
        let now = steps(&["exec", "made"]).0;
        assert!(now > before, "it goes on: {now} after {before}");
        before = now;
    }
    let tar = world.dir.join("root.tar").display().to_string();
    world.ok(&["export", "-o", &tar, "made"]);
    world.ok(&["import", "-c", "ENTRYPOINT [\"cat\"]", &tar, "team/imported:1"]);
    assert_eq!(world.ok(&[&run[..], &["team/imported:1", "/file"]].concat()), "content");
    let piped = world.code(&["export", "made"], 0).bytes;
    let ran = store::run(world.command(&["import", "-m", "by pipe", "-", "team/piped:1"]), Some(&piped)).ok();
    assert_eq!(ran.stdout.trim(), world.ok(&["images", "-q", "--no-trunc", "team/piped:1"]));
    assert_eq!(world.ok(&[&run[..], &["team/piped:1", "cat", "/file"]].concat()), "content");
    let ran = store::run(world.command(&["import", "-", "team/broken:1"]), Some(&piped[..piped.len() / 2]));
    assert_eq!((ran.code, ran.stderr.lines().count()), (Some(125), 1), "{}", ran.stderr);
    world.ok(&["rm", "-f", "made"]);
    world.ok(&["rmi", "team/made:1", "team/imported:1", "team/piped:1"]);
    // The first of the two that were committed by one name has none since.
    assert!(world.ok(&["image", "prune", "-f"]).contains("deleted: sha256:"));
    assert_eq!(world.ok(&["images", "-q"]).lines().count(), 1);
    world.assert_empty();
}

/// CVE-2018-15664: whatever a container puts in place of a directory meanwhile, nothing of the host is read or written.
#[test]
fn a_container_that_swaps_a_directory_and_a_link_gets_nothing_of_the_host() {
    let world = World::new();
    let outside = world.dir.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "host").unwrap();
    fs::write(world.dir.join("new"), "new").unwrap();
    // Inside, the link leads to a directory of the same name, which is the container's.
    let script =
        "mkdir -p /w/path $0 && echo inside >/w/path/file && echo inside >$0/file && ln -s $0 /w/link && echo swapping
        while :; do mv /w/path /w/dir && mv /w/link /w/path && mv /w/path /w/link && mv /w/dir /w/path; done";
    let words = ["run", "-d", "--name", "swaps", "--network", "none", BUSYBOX, "sh", "-c", script];
    world.ok(&[&words[..], &[outside.to_str().unwrap()]].concat());
    wait::until("it swaps", || world.ok(&["logs", "swaps"]) == "swapping");
    let here = |name: String| world.dir.join(name).display().to_string();
    let (mut taken, mut given) = (0, 0);
    for step in 0..40 {
        let out = here(format!("out-{step}"));
        let ran = world.run(&["cp", "-L", "swaps:/w/path/file", &out]);
        assert!(ran.code == Some(0) || ran.code == Some(125) && ran.stderr.lines().count() == 1, "{}", ran.stderr);
        if ran.code == Some(0) {
            taken += 1;
            assert_eq!(fs::read_to_string(&out).unwrap(), "inside\n");
        }
        let whole = here(format!("whole-{step}"));
        if world.run(&["cp", "-L", "swaps:/w/path", &whole]).code == Some(0) {
            assert_eq!(fs::read_to_string(Path::new(&whole).join("file")).unwrap(), "inside\n");
        }
        let to = format!("swaps:/w/path/new-{step}");
        let ran = world.run(&["cp", &here("new".to_owned()), &to]);
        assert!(ran.code == Some(0) || ran.code == Some(125) && ran.stderr.lines().count() == 1, "{}", ran.stderr);
        given += i32::from(ran.code == Some(0));
        let names: Vec<_> = fs::read_dir(&outside).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(names, ["file"], "it was written to the host");
    }
    assert!(taken > 0 && given > 0, "{taken} {given}");
    assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "host");
    world.ok(&["rm", "-f", "swaps"]);
    world.assert_empty();
}

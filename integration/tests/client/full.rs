//! A disk that is full: what has ended is told and removed all the same.

use std::fs::{self, File};
use std::io::Write;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::harness::{BUSYBOX, World};
use crate::killed::Holding;

#[test]
fn output_that_cannot_be_written_is_told() {
    let world = World::new();
    world.ok(&["run", "-d", "--name", "web", BUSYBOX, "sleep", "1000"]);
    for words in [&["run", "--rm", BUSYBOX, "echo", "lost"][..], &["exec", "web", "echo", "lost"]] {
        let mut command = world.command(words);
        command.stdout(File::options().write(true).open("/dev/full").unwrap());
        let output = command.stderr(std::process::Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{words:?}: {said}");
        assert!(said.contains("show what the process writes: No space left on device"), "{words:?}: {said}");
    }
    // By whoever comes first: the shim's word of its end, or a command.
    integration::wait::until("what is to be removed is", || world.ok(&["ps", "-aq"]).lines().count() == 1);
}

#[test]
fn on_a_full_disk_an_end_is_told_and_what_ended_is_removed() {
    let world = World::empty();
    let root = world.dir.join("root");
    fs::create_dir(&root).unwrap();
    mount(Some("small"), &root, Some("tmpfs"), MsFlags::empty(), Some("size=4m")).unwrap();
    let world = world.with_image();
    let run = |name: &str, flags: &[&str], script: &str| {
        let mut words = vec!["run", "-d", "--network", "none", "--name", name];
        words.extend_from_slice(flags);
        world.ok(&[&words[..], &[BUSYBOX, "sh", "-c", script]].concat());
    };
    let until_asked = "trap 'exit 3' TERM; echo ready; while :; do sleep 1000 & wait; done";
    run("stopped", &[], until_asked);
    let mut runtime = Holding::new(&world, "runtime");
    run("goes", &["--rm", "--runtime", &runtime.program], until_asked);
    let goes = root.join("containers").join(world.field("goes", ".Id"));
    for name in ["stopped", "goes"] {
        integration::wait::until("it hears", || world.ok(&["logs", name]) == "ready");
    }
    let mut filler = File::create(root.join("filler")).unwrap();
    let mut fill = || while filler.write(&[b'x'; 1000]).is_ok() {};
    fill();

    world.ok(&["kill", "-s", "TERM", "stopped"]);
    assert_eq!(world.ok(&["wait", "stopped"]), "3");
    assert_eq!(world.field("stopped", ".State.Status"), "exited");
    fill();
    runtime.hold("delete");
    world.ok(&["kill", "-s", "TERM", "goes"]);
    // That it is to be removed is written by now. As if its reserve were used up, and somebody else had taken what was left of that.
    runtime.reached();
    let _ = fs::remove_file(goes.join("reserve"));
    fill();
    runtime.go();
    integration::wait::until("it is removed", || !goes.exists());
    // What went has left a little room.
    fill();
    let refused = world.refused(&["run", "--network", "none", BUSYBOX, "true"]);
    assert!(
        refused.contains("No space left on device (os error 28); make room on that disk and try again"),
        "{refused}"
    );
    assert_eq!(world.ok(&["ps", "-a", "--format", "{{.Names}}"]), "stopped");

    drop(filler);
    fs::remove_file(root.join("filler")).unwrap();
    world.ok(&["start", "stopped"]);
    world.ok(&["rm", "-f", "stopped"]);
    for left in ["containers", "names"] {
        assert_eq!(fs::read_dir(root.join(left)).unwrap().count(), 0, "{left}");
    }
    umount2(&root, MntFlags::MNT_DETACH).unwrap();
}

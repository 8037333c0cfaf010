//! Flags of the other commands: what each changes in what is told, taken or left.

use std::fs;
use std::io::{BufRead, BufReader};

use integration::registry::{Instead, Registry};
use integration::{store, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{BUSYBOX, World, finish};

/// A process that tells of SIGTERM, and goes on.
const TELLS: &str = "trap 'echo heard' TERM; echo ready; while :; do sleep 0.05; done";

#[test]
fn signals_stay_with_the_client_if_they_are_not_to_be_passed_on() {
    let world = World::new();
    let ended = |child: std::process::Child| {
        wait::until("it listens", || world.run(&["logs", "stays"]).stdout.starts_with("ready"));
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
        // By the signal, or with what a shell makes of it.
        let code = finish(child).0;
        assert!([-1, 143].contains(&code), "{code}");
        assert_eq!(world.field("stays", ".State.Status"), "running");
        assert_eq!(world.ok(&["logs", "stays"]), "ready");
    };
    let words = ["run", "--sig-proxy=false", "--name", "stays", "--network", "none", BUSYBOX, "sh", "-c", TELLS];
    ended(world.spawn(&words));
    let mut attached = world.spawn(&["attach", "--sig-proxy=false", "stays"]);
    attached_is_there(&world, &mut attached);
    ended(attached);
    // As a matter of course they are.
    let mut attached = world.spawn(&["attach", "--no-stdin", "stays"]);
    attached_is_there(&world, &mut attached);
    kill(Pid::from_raw(attached.id().cast_signed()), Signal::SIGTERM).unwrap();
    let mut lines = BufReader::new(attached.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "heard");
    world.ok(&["rm", "-f", "stays"]);
    wait::child(&mut attached);
    world.assert_empty();
}

/// Waits until the shim has it as one of those who look on.
fn attached_is_there(world: &World, attached: &mut std::process::Child) {
    let told = || world.ok(&["events", "--since", "1h", "--until", "0s", "--filter", "event=attach"]).lines().count();
    let pid = attached.id();
    wait::until("it is attached", || {
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let signals = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let handles = signals.lines().any(|it| it.starts_with("SigCgt:") && !it.ends_with("0000000000000000"));
        fds.count() > 3 && handles && told() > 0
    });
}

#[test]
fn input_stays_here_with_no_stdin() {
    let world = World::new();
    world.ok(&[
        "run",
        "-d",
        "-i",
        "--name",
        "reads",
        "--network",
        "none",
        BUSYBOX,
        "sh",
        "-c",
        "read x; echo $x; exit 4",
    ]);
    let looks = world.spawn(&["attach", "--no-stdin", "reads"]);
    assert_eq!(world.fed(&["attach", "reads"], "typed\n").code, Some(4));
    let (code, out, _) = finish(looks);
    assert!(code == 4 && ["typed\n", ""].contains(&out.as_str()) || code == 125, "{code} {out}");
}

#[test]
fn pulls_are_quiet_if_they_shall_be() {
    let world = World::new();
    let registry: Registry = world.inside(Registry::start);
    let name = format!("{}/team/box", registry.host());
    world.ok(&["tag", BUSYBOX, &name]);
    world.ok(&["push", "-q", &name]);
    world.ok(&["rmi", &name, BUSYBOX]);
    for (pull, loud) in [(&["--pull", "always"][..], true), (&["-q", "--pull", "always"], false), (&["-q"], false)] {
        if pull.len() == 1 {
            world.ok(&["rmi", "-f", &name]);
        }
        let words = [&["run", "--rm", "--network", "none"], pull, &[&name, "echo", "out"]].concat();
        let ran = world.code(&words, 0);
        assert_eq!(ran.stdout, "out\n", "{pull:?}");
        assert_eq!(!ran.stderr.is_empty(), loud, "{pull:?}: {}", ran.stderr);
    }
    world.ok(&["rmi", &name]);
    let pulled = world.code(&["pull", "--quiet", &name], 0);
    assert_eq!((pulled.stdout, pulled.stderr), (format!("{name}:latest\n"), String::new()));
    world.ok(&["rmi", &name]);
    let made = world.code(&["create", "-q", "--name", "made", &name, "true"], 0);
    assert_eq!((made.stdout.trim().len(), made.stderr.as_str()), (64, ""));
    // What fails is told of all the same.
    let none = format!("{name}:none");
    assert!(world.refused(&["pull", "-q", &none]).contains("MANIFEST_UNKNOWN"));
    assert!(world.refused(&["run", "-q", &none]).contains("MANIFEST_UNKNOWN"));
}

#[test]
fn images_are_told_whole_or_short_and_of_one_platform_alone() {
    let world = World::new();
    let id = world.ok(&["images", "-q", "--no-trunc", BUSYBOX]);
    assert_eq!(world.ok(&["images", "-a", "-q", "--no-trunc"]), id);
    let history = world.ok(&["history", "-q", "--no-trunc", BUSYBOX]);
    assert_eq!(history.lines().next(), Some(id.as_str()), "{history}");
    assert_eq!(world.ok(&["history", "-q", BUSYBOX]).lines().next(), Some(&id["sha256:".len()..][..12]));
    let (short, whole) = (world.ok(&["history", BUSYBOX]), world.ok(&["history", "--no-trunc", BUSYBOX]));
    assert!(whole.contains(&id) && !short.contains(&id), "{whole}");
    let human = |flag: &str| world.ok(&["history", flag, "--format", "{{.Size}}", BUSYBOX]);
    assert!(human("-H").contains('B') && !human("--human=false").contains('B'));
    let file = world.dir.join("box.tar").display().to_string();
    assert!(world.refused(&["save", "--platform", "linux/amd64", "-o", &file, BUSYBOX]).contains("--platform"));
    world.ok(&["save", "-o", &file, BUSYBOX]);
    assert!(world.refused(&["load", "--platform", "linux/amd64", "-i", &file]).contains("--platform"));
    let loaded = world.code(&["load", "-q", "-i", &file], 0);
    assert_eq!((loaded.stdout.as_str(), loaded.stderr.as_str()), ("Loaded image: busybox:latest\n", ""));
    world.ok(&["create", "--name", "made", "--network", "none", BUSYBOX]);
    let root = world.dir.join("root.tar").display().to_string();
    world.ok(&["export", "-o", &root, "made"]);
    world.ok(&["import", "--platform", "linux/arm64", &root, "other:arm"]);
    assert_eq!(world.ok(&["image", "inspect", "-f", "{{.Os}}/{{.Architecture}}", "other:arm"]), "linux/arm64");
    assert_eq!(world.ok(&["rmi", "--no-prune", "other:arm"]).lines().next(), Some("Untagged: other:arm"));
}

#[test]
fn searches_have_limits_and_passwords_may_be_words() {
    let world = World::empty();
    let registry: Registry = world.inside(Registry::start);
    let long = "many words ".repeat(20);
    let body = format!(
        r#"{{"results": [{{"name": "app", "description": "{long}", "star_count": 7}}, {{"name": "b/app", "star_count": 1}}]}}"#
    );
    let answer = || Instead { body: body.clone(), ..Instead::new("GET /v1/search", 200) };
    registry.faults(|it| it.instead = [answer(), answer(), answer()].into());
    let host = registry.host();
    let term = format!("{host}/app");
    let one = world.ok(&["search", "--limit", "1", "--format", "{{.Name}}", &term]);
    assert_eq!(one, format!("{host}/app"));
    assert!(registry.seen("/v1/search").iter().any(|it| it.path.contains("n=1")), "the registry was not told");
    assert!(world.ok(&["search", "--no-trunc", &term]).contains(long.trim()));
    assert!(!world.ok(&["search", &term]).contains(long.trim()));
    assert!(world.refused(&["search", "--limit", "101", &term]).contains("100"));
    let logged = world.code(&["login", "-u", "me", "-p", "secret", host.as_str()], 0);
    assert_eq!(logged.stdout, "Login Succeeded\n");
    assert!(logged.stderr.contains("--password-stdin"), "{}", logged.stderr);
}

#[test]
fn volumes_have_labels_and_one_driver() {
    let world = World::new();
    assert_eq!(world.ok(&["volume", "create", "-d", "local", "--label", "a=b", "--label", "c=d", "data"]), "data");
    assert_eq!(world.ok(&["volume", "ls", "--format", "{{.Name}} {{.Driver}} {{.Labels}}"]), "data local a=b,c=d");
    assert_eq!(world.ok(&["volume", "ls", "-q", "--filter", "label=a=b"]), "data");
    assert_eq!(world.ok(&["volume", "ls", "-q", "--filter", "label!=a"]), "");
    assert_eq!(world.ok(&["volume", "inspect", "-f", "{{.Labels.c}}", "data"]), "d");
    assert!(world.refused(&["volume", "create", "-d", "nfs", "x"]).contains("is local"));
    assert!(world.refused(&["volume", "create", "-o", "type=tmpfs", "x"]).contains("\"type\""));
    world.ok(&["volume", "rm", "data"]);
}

#[test]
fn a_volume_by_its_long_flag_outlives_its_container() {
    let world = World::new();
    let run = |script: &str| {
        world.ok(&["run", "--rm", "--network", "none", "--volume", "kept:/data", BUSYBOX, "sh", "-c", script])
    };
    run("echo text >/data/file");
    assert_eq!(run("cat /data/file"), "text");
    assert!(world.refused(&["run", "--rm", "--volume", "kept:data", BUSYBOX]).contains("data"));
    world.ok(&["volume", "rm", "kept"]);
}

#[test]
fn all_that_nobody_uses_goes_if_asked_for() {
    let world = World::new();
    world.ok(&["create", "--name", "old", "--label", "keep=no", BUSYBOX, "true"]);
    world.ok(&["create", "--name", "kept", "--label", "keep=yes", "-v", "/unnamed", BUSYBOX, "true"]);
    world.ok(&["create", "--name", "third", "--label", "keep=perhaps", BUSYBOX, "true"]);
    world.ok(&["container", "prune", "-f", "--filter", "label!=keep=yes", "--filter", "label!=keep=no"]);
    assert_eq!(world.ok(&["ps", "-a", "--format", "{{.Names}}"]), "kept\nold");
    world.ok(&["system", "prune", "-f", "--filter", "label=keep=no"]);
    assert_eq!(world.ok(&["ps", "-a", "--format", "{{.Names}}"]), "kept");
    world.ok(&["rm", "kept"]);
    assert_eq!(world.ok(&["volume", "ls", "-q"]).lines().count(), 1);
    world.ok(&["system", "prune", "-f"]);
    assert_eq!(world.ok(&["volume", "ls", "-q"]).lines().count(), 1, "volumes go only if they are named");
    assert_eq!(
        world.ok(&["system", "df", "--format", "{{.Type}} {{.TotalCount}}"]),
        "Images 1\nContainers 0\nLocal Volumes 1"
    );
    let pruned = world.ok(&["system", "prune", "-f", "-a", "--volumes"]);
    assert!(pruned.contains("Deleted Volumes:") && pruned.contains("deleted: sha256:"), "{pruned}");
    assert_eq!(world.ok(&["volume", "ls", "-q"]) + &world.ok(&["images", "-q"]), "");
}

#[test]
fn commands_beside_a_container_have_their_flags() {
    let world = World::new();
    let env = world.dir.join("env");
    fs::write(&env, "A=file\n# remark\nB=two words\n").unwrap();
    let script = "trap 'exit 5' USR1; echo ready; while :; do sleep 0.05; done";
    world.ok(&["run", "-d", "--name", "web", "--network", "none", BUSYBOX, "sh", "-c", script]);
    wait::until("it listens", || world.ok(&["logs", "web"]) == "ready");
    let seen = world.ok(&["exec", "--env-file", env.to_str().unwrap(), "web", "sh", "-c", "echo $A $B"]);
    assert_eq!(seen, "file two words");
    assert_eq!(world.ok(&["logs", "--details", "web"]), " ready");
    let id = world.field("web", ".Id");
    assert_eq!(world.ok(&["stats", "--no-stream", "--no-trunc", "--format", "{{.ID}}", "web"]), id);
    world.ok(&["restart", "-s", "USR1", "-t", "30", "web"]);
    let ends = world.ok(&[
        "events",
        "--since",
        "1h",
        "--until",
        "0s",
        "--filter",
        "event=die",
        "--format",
        "{{.Actor.Attributes.exitCode}}",
    ]);
    assert_eq!(ends, "5");
    assert_eq!(world.ok(&["version", "-f", "{{.Client.Os}}"]), "linux");
    // A link is what it stands for, if asked for.
    let (file, link) = (world.dir.join("file"), world.dir.join("link"));
    fs::write(&file, "content").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let link = link.to_str().unwrap();
    world.ok(&["cp", "-q", link, "web:/as-it-is"]);
    world.ok(&["cp", "-L", link, "web:/followed"]);
    assert_eq!(
        world.ok(&["exec", "web", "sh", "-c", "readlink /as-it-is; cat /followed"]),
        format!("{}\ncontent", file.display())
    );
    let ran = store::run(world.command(&["commit", "-p", "web", "held"]), None).ok();
    assert!(ran.stdout.starts_with("sha256:"));
    world.ok(&["rm", "-f", "web"]);
}

//! Wrong uses: one sentence with the remedy, exit code 125, and nothing left behind.

use std::fs;

use crate::harness::{BUSYBOX, World};

/// What is called, and what the sentence says. `web` runs, `ended` does not.
const WRONG: &[(&[&str], &str)] = &[
    // Words.
    (&["pss"], "but \"ps\""),
    (&["xyzzy"], "tarectl --help lists them"),
    (&["container", "lss"], "but \"container ls\""),
    (&["network", "made"], "tarectl --help lists them"),
    (&["help", "xyzzy"], "there is no command"),
    (&["ps", "extra"], "call it as tarectl ps"),
    (&["rename", "web"], "needs a new name"),
    (&["--host", "tcp://x", "ps"], "leave --host and --context out"),
    // Flags.
    (&["run", "--nope", BUSYBOX], "tarectl run --help lists the flags"),
    (&["run", "--memroy", "1g", BUSYBOX], "but --memory"),
    (&["ps", "-z"], "has no flag -z"),
    (&["run"], "needs an image"),
    (&["stop"], "needs a container"),
    (&["exec", "web"], "needs a command"),
    (&["run", "--name"], "--name needs a value"),
    (&["run", "-t=perhaps", BUSYBOX], "give true or false"),
    (&["run", "-it", BUSYBOX], "leave -t out"),
    (&["exec", "-it", "web", "true"], "leave -t out"),
    (
        &["run", "--stop-timeout", "soon", BUSYBOX],
        "--stop-timeout cannot be \"soon\", which is no whole number: give one",
    ),
    (&["stop", "-t", "x", "web"], "tarectl stop: --time cannot be \"x\", which is no whole number: give one, as in 10"),
    (&["restart", "-t", "1.5", "web"], "tarectl restart: --time cannot be \"1.5\", which is no whole number"),
    (&["stop", "-t", "99999999999999999999", "web"], "out of all bounds: give a smaller number"),
    (
        &["run", "--runtime", "nosuch", BUSYBOX],
        "--runtime nosuch: there is no such runtime: nosuch is in no directory of PATH",
    ),
    (&["run", "-d", "--runtime", "/none/x", BUSYBOX], "/none/x: No such file or directory (os error 2): install it"),
    (&["create", "--runtime", "./tare", BUSYBOX], "./tare is no absolute path, and no name"),
    (&["run", "--rm", "--runtime", "/etc/passwd", BUSYBOX], "no file that can be executed"),
    (&["run", "-d", "-a", "stdout", BUSYBOX], "leave one out"),
    (&["run", "--rm", "--restart", "always", BUSYBOX], "leave one out"),
    (&["run", "--restart", "often", BUSYBOX], "unless-stopped"),
    (&["run", "--pull", "often", BUSYBOX], "always, missing or never"),
    (&["run", "--gpus", "all", BUSYBOX], "by --device"),
    (&["run", "--storage-opt", "size=1g", BUSYBOX], "leave it out"),
    (&["run", "--log-driver", "syslog", BUSYBOX], "json-file and none"),
    (&["run", "--log-opt", "max-files=3", BUSYBOX], "max-file=3"),
    (&["run", "--detach-keys", "ctrl-", BUSYBOX], "ctrl-"),
    (&["ps", "--filter", "name"], "give NAME=VALUE"),
    (&["ps", "--filter", "colour=red"], "there are only"),
    (&["ps", "--filter", "status=well"], "exited"),
    (&["ps", "--format", "{{.Nmae"], "a {{ has no }}"),
    (&["ps", "-a", "--format", "{{.Nmae}}"], "there are"),
    (&["inspect", "--type", "pod", "web"], "container, image, network and volume"),
    (&["inspect", "-f", "{{.State.Nope}}", "web"], "there is no field"),
    (&["logs", "--tail", "many", "web"], "nor all"),
    (&["logs", "--since", "yesterday", "web"], "is not a time"),
    (&["events", "--since", "yesterday"], "is not a time"),
    (&["stats", "--format", "{{", "--no-stream"], "is not one"),
    (&["top", "web", "-o", "cmd"], "-o pid,cmd"),
    (&["kill", "-s", "NOPE", "web"], "is no signal"),
    (&["stop", "-s", "99", "web"], "is no signal"),
    // Names.
    (&["run", "--name", "web", BUSYBOX], "web"),
    (&["run", "--name", "a/b", BUSYBOX], "cannot name a container"),
    (&["rename", "ended", "web"], "web"),
    (&["rename", "ended", "-x"], "-x"),
    (&["volume", "create", "../x"], "cannot name a volume"),
    (&["network", "create", "bridge"], "bridge"),
    (&["network", "rm", "bridge"], "predefined"),
    (&["network", "create", "--subnet", "nope", "net1"], "nope"),
    // What is not there.
    (&["run", "--pull", "never", "none/such"], "none/such"),
    (&["run", "127.0.0.1:1/none"], "127.0.0.1:1"),
    (&["create", "127.0.0.1:1/none"], "127.0.0.1:1"),
    (&["inspect", "nobody"], "nobody"),
    (&["image", "inspect", "nobody"], "nobody"),
    (&["network", "inspect", "nobody"], "nobody"),
    (&["volume", "inspect", "nobody"], "nobody"),
    (&["rmi", "nobody"], "nobody"),
    (&["tag", "nobody", "somebody"], "nobody"),
    (&["history", "nobody"], "nobody"),
    (&["run", "--network", "nowhere", BUSYBOX], "nowhere"),
    (&["run", "--network", "container:nobody", BUSYBOX], "nobody"),
    (&["run", "--link", "nobody:x", BUSYBOX], "nobody"),
    (&["run", "--volumes-from", "nobody", BUSYBOX], "nobody"),
    (&["run", "--env-file", "/no/such", BUSYBOX], "/no/such"),
    (&["run", "--mount", "type=bind,source=/no/such,target=/x", BUSYBOX], "is not there"),
    (&["run", "--device", "/dev/no-such", BUSYBOX], "is not there"),
    (&["run", "-u", "nobody-here", BUSYBOX, "true"], "nobody-here"),
    // Values.
    (&["run", "-m", "1m", BUSYBOX], "less than 6m"),
    (&["run", "--memory-swap", "1g", BUSYBOX], "needs --memory"),
    (&["run", "--cpus", "4000", BUSYBOX], "this host has"),
    (&["run", "--cpuset-cpus", "3-1", BUSYBOX], "no list of numbers"),
    (&["run", "--ulimit", "files=1", BUSYBOX], "nofile"),
    (&["run", "--cap-add", "FLY", BUSYBOX], "capabilities(7)"),
    (&["run", "--sysctl", "kernel.panic=1", BUSYBOX], "of the whole host"),
    (&["run", "--security-opt", "nope", BUSYBOX], "no-new-privileges"),
    (&["run", "-p", "99999:80", BUSYBOX], "no port"),
    (&["run", "-p", "80:80/icmp", BUSYBOX], "tcp, udp and sctp"),
    (&["run", "--ip", "1.2.3", BUSYBOX], "no IPv4 address"),
    (&["run", "--dns", "example.com", BUSYBOX], "is no address"),
    (&["run", "--add-host", "a", BUSYBOX], "has no address"),
    (&["run", "-w", "here", BUSYBOX], "does not begin with /"),
    (&["run", "-v", "a:b", BUSYBOX], "does not begin with /"),
    (&["run", "-v", "/a:/b:rx", BUSYBOX], "which is none"),
    (&["run", "-v", "/a:/b", "-v", "/c:/b", BUSYBOX], "two mounts"),
    (&["run", "--tmpfs", "tmp", BUSYBOX], "does not begin with /"),
    (&["run", "--cidfile", "/etc/passwd", BUSYBOX], "is there already"),
    (&["run", "--pull", "never", "--platform", "mars/arm", BUSYBOX], "mars"),
    (&["load", "-i", "/none/x.tar"], "load \"/none/x.tar\": No such file or directory (os error 2): give -i a file"),
    (
        &["load", "-i", "/proc/fs"],
        "load \"/proc/fs\": this directory is no OCI layout, it has no file oci-layout: give -i",
    ),
    (&["load", "-i", "/etc/passwd"], "load /etc/passwd: "),
    (&["update", "web"], "something to change"),
    (&["update", "-m", "1m", "web"], "less than 6m"),
    // States.
    (&["rm", "web"], "web"),
    (&["attach", "ended"], "start it first"),
    (&["exec", "ended", "true"], "ended"),
    (&["pause", "ended"], "ended"),
    (&["unpause", "web"], "not paused"),
    (&["top", "ended"], "tarectl start ended"),
    (&["kill", "ended"], "not running"),
    (&["port", "web", "81"], "81"),
    (&["volume", "rm", "held"], "held"),
    (&["rmi", BUSYBOX], "is used by container"),
];

/// Each of these wants a container, and there is none of that name.
const OF_A_CONTAINER: &[&[&str]] = &[
    &["attach"],
    &["commit"],
    &["diff"],
    &["exec", "nobody", "true"],
    &["export"],
    &["kill"],
    &["logs"],
    &["pause"],
    &["port"],
    &["restart"],
    &["rm"],
    &["start"],
    &["stats", "--no-stream"],
    &["stop"],
    &["top"],
    &["unpause"],
    &["update", "-m", "64m"],
    &["wait"],
    &["rename", "nobody", "somebody"],
    &["cp", "nobody:/x", "."],
    &["network", "connect", "bridge"],
];

#[test]
fn wrong_uses_are_said_in_one_sentence_and_leave_nothing() {
    let world = World::new();
    world.ok(&["run", "-d", "--name", "web", "--network", "none", "-v", "held:/data", BUSYBOX, "sleep", "1000"]);
    world.ok(&["create", "--name", "ended", BUSYBOX, "true"]);
    let there = || {
        let lists: [&[&str]; 4] = [
            &["ps", "-a", "--format", "{{.ID}} {{.State}}"],
            &["volume", "ls", "-q"],
            &["network", "ls", "-q"],
            &["images", "-q", "--no-trunc"],
        ];
        lists.map(|words| world.ok(words))
    };
    let before = there();
    let mut failures = Vec::new();
    let mut check = |words: &[&str], expected: &str| {
        let ran = world.run(words);
        // A pull tells what it tries before that.
        let pulls = words.contains(&"127.0.0.1:1/none");
        let sentence = if pulls { ran.stderr.lines().last().unwrap_or_default() } else { ran.stderr.trim_end() };
        let one = sentence.lines().count() == 1 && sentence.starts_with("tarectl: ");
        if ran.code != Some(125) || !one || !sentence.contains(expected) {
            failures.push(format!("{words:?} wants {expected:?}, and has {:?}: {sentence}", ran.code));
        }
    };
    for (words, expected) in WRONG {
        check(words, expected);
    }
    for words in OF_A_CONTAINER {
        let named = words.iter().any(|it| it.contains("nobody"));
        let whole: Vec<&str> = words.iter().copied().chain((!named).then_some("nobody")).collect();
        check(&whole, "nobody");
    }
    assert!(failures.is_empty(), "{} are wrong:\n{}", failures.len(), failures.join("\n"));
    assert_eq!(there(), before);
    world.ok(&["rm", "-f", "web", "ended"]);
    world.assert_empty();
}

#[test]
fn a_port_that_is_taken_is_named_and_nothing_stays_of_who_wanted_it() {
    let world = World::new();
    world.ok(&["run", "-d", "--name", "first", "-p", "8080:80", BUSYBOX, "sleep", "1000"]);
    let sentence = world.refused(&["run", "--rm", "--name", "second", "-p", "8080:80", BUSYBOX, "true"]);
    assert!(sentence.contains("8080"), "{sentence}");
    assert_eq!(world.ok(&["ps", "-a", "--format", "{{.Names}}"]), "first");
    world.ok(&["rm", "-f", "first"]);
    world.assert_empty();
}

#[test]
fn without_the_plugins_their_package_is_named_and_host_and_none_work() {
    let world = World::new();
    let without = |words: &[&str]| {
        let mut command = world.command(words);
        command.env("CNI_PATH", "/none");
        integration::store::run(command, None)
    };
    let ran = without(&["run", "--rm", BUSYBOX, "true"]);
    assert_eq!((ran.code, ran.stderr.trim_end().lines().count()), (Some(125), 1), "{}", ran.stderr);
    assert!(ran.stderr.contains("containernetworking-plugins"), "{}", ran.stderr);
    for mode in ["none", "host"] {
        let ran = without(&["run", "--rm", "--network", mode, BUSYBOX, "true"]);
        assert_eq!(ran.code, Some(0), "{mode}: {}", ran.stderr);
    }
    world.assert_empty();
}

#[test]
fn without_the_shims_program_it_is_named_and_nothing_is_left() {
    let world = World::new();
    for words in [&["run", "--rm"][..], &["run"], &["run", "-d"]] {
        let mut command = world.command(&[words, &[BUSYBOX, "true"]].concat());
        command.env("TARECTL_SHIM_PROGRAM", "/none");
        let ran = integration::store::run(command, None);
        let said = "tarectl: start the shim /none: there is no such program: install it, or name it with TARECTL_SHIM_PROGRAM\n";
        assert_eq!((ran.code, &*ran.stderr), (Some(125), said), "{words:?}");
        world.assert_empty();
    }
}

/// One that was there when the container was made.
#[test]
fn without_the_runtimes_program_it_is_named_and_nothing_is_left() {
    let world = World::new();
    let runtime = world.dir.join("runtime");
    std::os::unix::fs::symlink(integration::under_test(), &runtime).unwrap();
    let place = runtime.to_str().unwrap();
    world.ok(&["create", "--name", "made", "--runtime", place, BUSYBOX, "true"]);
    fs::remove_file(&runtime).unwrap();
    let said = world.refused(&["start", "made"]);
    let sentence = format!("--runtime {place}: there is no such runtime: {place}: No such file or directory");
    assert!(said.contains(&sentence), "{said}");
    assert_eq!(world.field("made", ".State.Status"), "created");
    world.assert_idle();
    world.ok(&["rm", "made"]);
    let mut command = world.command(&["run", BUSYBOX, "true"]);
    command.env("TARECTL_RUNTIME_PROGRAM", "/none");
    let ran = integration::store::run(command, None);
    let said = "tarectl: there is no such runtime: /none: No such file or directory (os error 2): install tare, or give its path \
                in TARECTL_RUNTIME_PROGRAM\n";
    assert_eq!((ran.code, &*ran.stderr), (Some(125), said));
    world.assert_empty();
}

#[test]
fn who_is_not_root_is_told_so() {
    let world = World::new();
    let mut command = world.program("setpriv".as_ref());
    let copy = world.dir.join("tarectl");
    fs::copy(world.command(&[]).get_args().nth(2).expect("the program"), &copy).expect("copy the program");
    command.args(["--reuid=65534", "--clear-groups"]).arg(&copy).arg("ps");
    let ran = integration::store::run(command, None);
    assert_eq!(ran.code, Some(125), "{}", ran.stderr);
    assert!(ran.stderr.contains("run it with sudo"), "{}", ran.stderr);
    // Help and versions are for everybody.
    let mut command = world.program("setpriv".as_ref());
    command.args(["--reuid=65534", "--clear-groups"]).arg(&copy).args(["run", "--help"]);
    assert_eq!(integration::store::run(command, None).code, Some(0));
}

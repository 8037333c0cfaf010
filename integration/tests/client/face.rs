//! What a person sees: lists, inspect, statistics, events, help; and the flags of run as they are in the container.

use std::fs;
use std::io::{BufRead, BufReader};

use integration::wait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::{BUSYBOX, World};

fn sleeping(world: &World, name: &str, flags: &[&str]) -> String {
    let words: Vec<&str> = ["run", "-d", "--name", name, "--network", "none"]
        .into_iter()
        .chain(flags.iter().copied())
        .chain([BUSYBOX, "sleep", "1000"])
        .collect();
    world.ok(&words)
}

#[test]
fn ps_lists_filters_and_formats() {
    let world = World::new();
    let id = sleeping(&world, "web", &["--label", "tier=front"]);
    world.code(&["run", "--name", "ended", "--network", "none", BUSYBOX, "sh", "-c", "exit 3"], 3);
    let table = world.ok(&["ps"]);
    let mut lines = table.lines();
    let heading: Vec<&str> = lines.next().unwrap().split("  ").map(str::trim).filter(|it| !it.is_empty()).collect();
    assert_eq!(heading, ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]);
    let row = lines.next().unwrap();
    assert!(row.starts_with(&id[..12]) && row.contains("\"sleep 1000\"") && row.ends_with("web"), "{row}");
    assert_eq!(lines.next(), None);
    for (words, expected) in [
        (&["ps", "-aq"][..], 2),
        (&["ps", "-l", "-q"], 1),
        (&["ps", "-n", "2", "-q"], 2),
        (&["ps", "-q", "-f", "status=exited"], 1),
        (&["ps", "-aq", "-f", "exited=3"], 1),
        (&["ps", "-aq", "-f", "label=tier=front"], 1),
        (&["ps", "-aq", "-f", "name=web", "-f", "status=exited"], 0),
        (&["container", "ls", "-aq"], 2),
    ] {
        assert_eq!(world.ok(words).lines().count(), expected, "{words:?}");
    }
    assert_eq!(world.ok(&["ps", "-q", "--no-trunc"]), id);
    assert_eq!(world.ok(&["ps", "-a", "-f", "name=ended", "--format", "{{.Names}} {{.State}}"]), "ended exited");
    assert_eq!(world.ok(&["ps", "--format", "table {{.Names}}\\t{{.Image}}"]), "NAMES     IMAGE\nweb       busybox");
    let json: Value = serde_json::from_str(&world.ok(&["ps", "--format", "json"])).unwrap();
    assert_eq!((json["Names"].as_str(), json["Labels"].as_str()), (Some("web"), Some("tier=front")));
    assert!(world.ok(&["ps", "-s"]).contains("(virtual "));
}

#[test]
fn inspect_shows_all_kinds_with_dockers_names() {
    let world = World::new();
    let id = sleeping(&world, "web", &["-v", "data:/data", "-m", "64m", "--ulimit", "nofile=10:20"]);
    let value = world.inspect(&id[..12]);
    for (pointer, expected) in [
        ("/Name", Value::from("/web")),
        ("/State/Status", "running".into()),
        ("/State/Running", true.into()),
        ("/HostConfig/Memory", (64 << 20).into()),
        ("/HostConfig/MemorySwap", (128 << 20).into()),
        ("/HostConfig/NetworkMode", "none".into()),
        ("/HostConfig/Ulimits/0/Hard", 20.into()),
        ("/Mounts/0/Name", "data".into()),
        ("/Mounts/0/Destination", "/data".into()),
        ("/Config/Cmd/0", "sleep".into()),
        ("/Config/Image", BUSYBOX.into()),
        ("/HostConfig/RestartPolicy/Name", "no".into()),
    ] {
        assert_eq!(value.pointer(pointer), Some(&expected), "{pointer}");
    }
    assert!(value["HostConfig"]["MaskedPaths"].as_array().is_some_and(|it| !it.is_empty()));
    let started = world.ok(&["inspect", "-f", "{{ .State.StartedAt }}", "web"]);
    assert!(started.ends_with('Z') && started.starts_with("20"), "{started}");
    assert_eq!(world.ok(&["inspect", "-f", "{{range .Mounts}}{{.Name}}:{{.Destination}}{{end}}", "web"]), "data:/data");
    assert_eq!(world.ok(&["inspect", "--type", "volume", "-f", "{{.Name}}", "data"]), "data");
    assert_eq!(world.ok(&["inspect", "-f", "{{.Name}}", "bridge"]), "bridge");
    assert!(world.ok(&["inspect", "-f", "{{.Id}}", BUSYBOX]).starts_with("sha256:"));
    assert_eq!(world.ok(&["inspect", "-f", "{{.Name}}", "web", "data"]), "/web\ndata");
    assert!(world.inspect("web").get("SizeRw").is_none());
    let sized: Value = serde_json::from_str(&world.ok(&["inspect", "-s", "web"])).unwrap();
    assert!(sized[0]["SizeRootFs"].as_u64() > sized[0]["SizeRw"].as_u64());
    // What is there is shown, also beside what is not.
    let ran = world.code(&["inspect", "nobody", "web"], 125);
    assert!(ran.stdout.contains("\"/web\"") && ran.stderr.contains("nobody"), "{}", ran.stderr);
}

#[test]
fn stats_and_top_count_and_show() {
    let world = World::new();
    let id = sleeping(&world, "web", &["-m", "64m"]);
    world.ok(&["create", "--name", "idle", BUSYBOX, "true"]);
    let table = world.ok(&["stats", "--no-stream"]);
    assert!(table.starts_with("CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT"), "{table}");
    assert!(table.lines().count() == 2 && table.contains(&id[..12]) && table.contains("/ 64MiB"), "{table}");
    assert_eq!(world.ok(&["stats", "--no-stream", "-a"]).lines().count(), 3);
    assert_eq!(world.ok(&["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "web"]), "web 1");
    assert!(world.ok(&["stats", "--no-stream", "idle"]).contains("--"));
    // Live: it goes on, and ends with its reader.
    let mut live = world.spawn(&["stats", "web"]);
    let mut lines = BufReader::new(live.stdout.take().unwrap()).lines();
    let seen = (0..4).filter_map(|_| lines.next()?.ok()).filter(|it| it.contains("CONTAINER ID")).count();
    assert_eq!(seen, 2);
    kill(Pid::from_raw(live.id().cast_signed()), Signal::SIGINT).unwrap();
    wait::child(&mut live);

    let top = world.ok(&["top", "web"]);
    assert!(top.starts_with("UID") && top.lines().count() == 2 && top.contains("sleep 1000"), "{top}");
    assert_eq!(world.ok(&["top", "web", "-o", "pid,comm"]).lines().count(), 2);
}

#[test]
fn events_are_told_as_they_happen_and_afterwards() {
    let world = World::new();
    let mut live = world.spawn(&["events", "--filter", "type=container", "--format", "{{.Action}}"]);
    let mut lines = BufReader::new(live.stdout.take().unwrap()).lines();
    wait::until("it watches", || {
        let fds = fs::read_dir(format!("/proc/{}/fd", live.id())).into_iter().flatten().flatten();
        fds.filter_map(|it| fs::read_link(it.path()).ok()).any(|it| it.to_string_lossy().contains("inotify"))
    });
    world.code(&["run", "--rm", "--network", "none", "--name", "short", BUSYBOX, "sh", "-c", "exit 4"], 4);
    let mut actions = Vec::new();
    while actions.last().is_none_or(|it| it != "destroy") {
        actions.push(lines.next().expect("more").expect("text"));
    }
    for action in ["create", "start", "die", "destroy"] {
        assert!(actions.iter().any(|it| it == action), "{action} in {actions:?}");
    }
    kill(Pid::from_raw(live.id().cast_signed()), Signal::SIGKILL).unwrap();
    wait::child(&mut live);
    let died = world.ok(&[
        "events",
        "--since",
        "10m",
        "--until",
        "0s",
        "--filter",
        "event=die",
        "--filter",
        "container=short",
    ]);
    assert!(died.contains(" container die ") && died.contains("exitCode=4") && died.lines().count() == 1, "{died}");
    let json =
        world.ok(&["events", "--since", "10m", "--until", "0s", "--filter", "event=die", "--format", "{{json .}}"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((json["Type"].as_str(), json["status"].as_str()), (Some("container"), Some("die")));
}

#[test]
fn update_changes_limits_of_what_runs_and_what_is_known() {
    let world = World::new();
    sleeping(&world, "web", &["-m", "64m"]);
    world.ok(&[
        "update",
        "-m",
        "100m",
        "--memory-swap",
        "200m",
        "--cpu-shares",
        "512",
        "--restart",
        "on-failure:2",
        "web",
    ]);
    let read = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max";
    assert_eq!(world.ok(&["exec", "web", "sh", "-c", read]), (100 << 20).to_string());
    assert_eq!(world.field("web", ".HostConfig.Memory"), (100 << 20).to_string());
    assert_eq!(world.field("web", ".HostConfig.RestartPolicy"), "map[MaximumRetryCount:2 Name:on-failure]");
    // Alone it would be above what memory and swap have together.
    assert!(world.refused(&["update", "-m", "300m", "web"]).contains("--memory-swap"));
}

#[test]
fn what_there_is_is_shown_and_what_nobody_uses_is_removed() {
    let world = World::new();
    sleeping(&world, "web", &["-v", "data:/data"]);
    world.ok(&["create", "--name", "idle", BUSYBOX, "true"]);
    world.ok(&["network", "create", "unused"]);
    let df = world.ok(&["system", "df"]);
    let words: Vec<Vec<&str>> = df.lines().map(|it| it.split_whitespace().collect()).collect();
    assert_eq!(words[0], ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]);
    assert_eq!((words[1][0], words[1][1], words[2][0], words[2][1]), ("Images", "1", "Containers", "2"));
    assert!(world.ok(&["system", "df", "-v"]).contains("Local Volumes space usage:"));
    let info = world.ok(&["info"]);
    assert!(info.contains("Containers: 2\n Running: 1\n") && info.contains("Images: 1\n"), "{info}");
    assert_eq!(world.ok(&["info", "-f", "{{.ContainersRunning}}"]), "1");
    assert!(world.ok(&["version"]).contains("tare-store"));
    // Without an answer nothing goes.
    assert!(world.fed(&["system", "prune"], "n\n").stdout.contains("[y/N]"));
    assert_eq!(world.ok(&["ps", "-aq"]).lines().count(), 2);
    let pruned = world.ok(&["system", "prune", "-f"]);
    assert!(pruned.contains("Deleted Containers:") && pruned.contains("Deleted Networks:\nunused"), "{pruned}");
    assert!(pruned.lines().last().unwrap().starts_with("Total reclaimed space: "), "{pruned}");
    assert_eq!(world.ok(&["ps", "-a", "--format", "{{.Names}}"]), "web");
    assert_eq!(world.ok(&["volume", "ls", "-q"]), "data");
    assert_eq!(world.ok(&["images", "-q"]).lines().count(), 1);
}

#[test]
fn flags_of_run_are_seen_in_the_container() {
    let world = World::new();
    let file = |name: &str, text: &str| {
        let path = world.dir.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (env, labels) = (file("env", "# remark\nA=1\nB=two words\n"), file("labels", "a=1\n"));
    let cid = world.dir.join("cid").to_str().unwrap().to_owned();
    let script = "echo $A/$B/$C; pwd; hostname; id -u; ulimit -n; cat /proc/sys/net/ipv4/ip_forward; touch /x 2>/dev/null || echo ro; \
                  touch /t/x && echo rw";
    let seen = world.ok(&[
        "run",
        "--network",
        "none",
        "--name",
        "flags",
        "--env-file",
        &env,
        "-e",
        "C=3",
        "-w",
        "/made/here",
        "-h",
        "box.example",
        "-u",
        "1000",
        "--ulimit",
        "nofile=512:512",
        "--sysctl",
        "net.ipv4.ip_forward=1",
        "--read-only",
        "--tmpfs",
        "/t:mode=1777",
        "--label-file",
        &labels,
        "--label",
        "b=2",
        "--cidfile",
        &cid,
        "--entrypoint",
        "sh",
        BUSYBOX,
        "-c",
        script,
    ]);
    assert_eq!(seen, "1/two words/3\n/made/here\nbox.example\n1000\n512\n1\nro\nrw");
    assert_eq!(fs::read_to_string(&cid).unwrap().trim(), world.field("flags", ".Id"));
    assert_eq!(world.field("flags", ".Config.Labels"), "map[a:1 b:2]");
    assert_eq!(world.field("flags", ".Path"), "sh");
    let caps = |flags: &[&str]| {
        let words: Vec<&str> = ["run", "--rm", "--network", "none"]
            .into_iter()
            .chain(flags.iter().copied())
            .chain([BUSYBOX, "grep", "CapEff", "/proc/self/status"])
            .collect();
        world.ok(&words).split_whitespace().last().unwrap().to_owned()
    };
    assert_eq!(caps(&[]), "00000000a80425fb");
    assert_eq!(caps(&["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"]), "0000000000001000");
}

#[test]
fn help_is_dockers_in_form() {
    let world = World::new();
    let all = world.ok(&["--help"]);
    assert_eq!(all, world.ok(&[]));
    for name in ["run", "ps", "network", "volume", "system"] {
        assert!(all.lines().any(|it| it.split_whitespace().next() == Some(name)), "{name}");
    }
    for name in ["compose", "build", "publish"] {
        assert!(!all.lines().any(|it| it.split_whitespace().next() == Some(name)), "{name}");
    }
    let run = world.ok(&["run", "--help"]);
    assert!(run.starts_with("Usage:  tarectl run [OPTIONS] IMAGE [COMMAND] [ARG...]\n"), "{run}");
    assert!(
        run.contains("  -e, --env list ") && run.contains("Aliases:\n  tarectl run, tarectl container run"),
        "{run}"
    );
    assert_eq!(run, world.ok(&["help", "run"]));
    assert!(world.ok(&["container"]).starts_with("Usage:  tarectl container COMMAND\n"));
    assert!(world.ok(&["network", "create", "--help"]).contains("--subnet"));
    assert!(world.ok(&["--version"]).starts_with("tarectl version "));
}

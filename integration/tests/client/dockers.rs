//! The same calls to `tarectl` and to Debian's docker: the same output, exit codes, and fields of `inspect`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use integration::world::{User, World as Machine, docker};
use integration::{need, store};
use serde_json::Value;

use crate::harness::{BUSYBOX, World};

/// Containers, and how they come to be.
const INSPECTED: &[(&str, &str)] = &[
    ("running", "$D run -d --name it $IMAGE sleep 1000"),
    ("exited", "$D run --name it $IMAGE sh -c 'exit 3'"),
    ("killed", "$D run -d --name it $IMAGE sleep 1000; $D kill it; $D wait it"),
    ("paused", "$D run -d --name it $IMAGE sleep 1000; $D pause it"),
    ("not found", "$D run --name it $IMAGE no-such-command"),
    ("created", "$D create -it --name it --rm --entrypoint /bin/cat $IMAGE -"),
    (
        "words",
        "$D create --name it -h box --domainname example.org -e K=V -l a=b -w /w -u 1000 --expose 81 --stop-signal QUIT \
         --stop-timeout 3 --health-cmd true --health-interval 1h --log-opt max-size=1m $IMAGE sleep 1000",
    ),
    (
        "limits",
        "$D create --name it -m 64m --memory-reservation 32m --cpus 1.5 --cpu-shares 512 --cpuset-cpus 0 --pids-limit 99 \
         --shm-size 1m --ulimit nofile=10:20 --oom-score-adj 7 --restart on-failure:3 $IMAGE true",
    ),
    (
        "rights",
        "$D create --name it --cap-add NET_ADMIN --cap-drop CHOWN --security-opt no-new-privileges --device /dev/null:/dev/mine:r \
         --device-cgroup-rule 'c 1:3 r' --sysctl net.ipv4.ip_forward=1 --group-add 5 --read-only --init --pid host --uts host $IMAGE true",
    ),
    ("privileged", "$D create --name it --privileged --ipc shareable $IMAGE true"),
    // One each: docker's command line mixes several.
    ("a volume", "$D run -d --name it -v v1:/data --tmpfs /t:size=1m -v /unnamed $IMAGE sleep 1000"),
    ("a directory", "$D run -d --name it -v $SHARED:/bind:ro $IMAGE sleep 1000"),
    (
        "mounts",
        "$D run -d --name it --mount type=volume,source=v1,target=/data,readonly --mount type=bind,source=$SHARED,target=/bind \
         --mount type=tmpfs,target=/t,tmpfs-size=1m $IMAGE sleep 1000",
    ),
    (
        "ports",
        "$D run -d --name it -p 8080:80 -p 127.0.0.1:8081:80 -p 5353:53/udp --expose 443 --add-host x:1.2.3.4 --dns 9.9.9.9 \
         --dns-search a.b --dns-option ndots:2 $IMAGE sleep 1000",
    ),
    ("host's network", "$D run -d --name it --network host $IMAGE sleep 1000"),
    ("no network", "$D run -d --name it --network none $IMAGE sleep 1000"),
    (
        "named network",
        "$D network create --subnet 10.77.0.0/24 n1 >/dev/null; \
         $D run -d --name it --network n1 --ip 10.77.0.9 --network-alias www $IMAGE sleep 1000",
    ),
    (
        "another's network",
        "$D run -d --name other $IMAGE sleep 1000; $D run -d --name it --network container:other $IMAGE sleep 1000",
    ),
];

/// What is seen in a container, or told of a call.
const SEEN: &[(&str, &str)] = &[
    ("hosts", "$D run --rm -h box --add-host x:1.2.3.4 --network none $IMAGE cat /etc/hosts /etc/hostname"),
    ("servers", "$D run --rm --dns 9.9.9.9 --dns-search a.b --dns-option ndots:2 $IMAGE cat /etc/resolv.conf"),
    // What dockerd makes in each root, and nobody here: a sign that it did, and a link.
    ("files inside", "$D run --rm $IMAGE sh -c 'find / -xdev ! -path /.dockerenv ! -path /etc/mtab | sort'"),
    ("devices", "$D run --rm $IMAGE sh -c 'cd /dev; ls -l | sed \"s/ [A-Z][a-z][a-z] .*:.. / /\"'"),
    // Newer versions of docker hide one more.
    (
        "mounts inside",
        "$D run --rm --read-only $IMAGE sh -c 'cut -d\" \" -f2 /proc/mounts | grep -v interrupts | sort'",
    ),
    ("rights inside", "$D run --rm $IMAGE grep -E '^(Cap|Seccomp:|NoNew|Groups)' /proc/self/status"),
    ("environment", "$D run --rm -h box -e A=1 -t $IMAGE env | tr -d '\\r' | sort"),
    (
        "limits inside",
        "$D run --rm --ulimit core=5:7 $IMAGE sh -c 'ulimit -c; ulimit -Hc; cat /proc/self/oom_score_adj'",
    ),
    ("user", "$D run --rm -u 1000:1001 --group-add 5 $IMAGE id"),
    ("not found inside", "$D run --rm $IMAGE no-such-command"),
    ("no program", "$D run --rm $IMAGE /etc"),
    ("no image", "$D run --rm --pull never no/such:image"),
    ("wrong flag", "$D run --no-such-flag"),
    ("exec", "$D run -d --name it $IMAGE sleep 1000 >/dev/null; $D exec it sh -c 'exit 9'"),
    // One each again: 20.10 lists several in any order.
    ("port", "$D run -d --name it -p 8080:80 $IMAGE sleep 1000 >/dev/null; $D port it; $D port it 80"),
    ("port of udp", "$D run -d --name it -p 5353:53/udp $IMAGE sleep 1000 >/dev/null; $D port it; $D port it 53/udp"),
    ("wait", "$D run -d --name it $IMAGE sh -c 'exit 4' >/dev/null; $D wait it"),
    ("logs", "$D run --name it $IMAGE sh -c 'echo a; echo b' >/dev/null; $D logs --tail 1 it"),
    ("top", "$D run -d --name it $IMAGE sleep 1000 >/dev/null; $D top it -o pid,args | sed 's/^[0-9]* *//'"),
    (
        "ps",
        "$D create --name it -p 80 $IMAGE sleep 1000 >/dev/null; $D ps -a | sed 1q | tr -s ' '; \
         $D ps -a --format '{{.Image}} {{.Command}} {{.Status}} {{.Ports}} {{.Names}} {{.State}} {{.Mounts}} {{.Networks}} {{.LocalVolumes}}'",
    ),
    ("diff", "$D run --name it $IMAGE sh -c 'touch /new; rm /bin/sed; mkdir /etc/d'; $D diff it | sort"),
    (
        "template",
        "$D create --name it -v v1:/data $IMAGE x >/dev/null; $D inspect -f '{{json .Mounts}} {{.Args}} {{len .Mounts}}' it | wc -w",
    ),
];

/// Fields that differ: what ours is and what theirs is, and why. `*` is anything, `-` nothing.
const DIFFERENT: &[(&str, &str, &str, &str)] = &[
    ("/Driver", "overlayfs", "*", "our snapshotter, docker's storage driver"),
    ("/GraphDriver/*", "*", "*", "as above"),
    ("/HostConfig/Runtime", "tare", "runc", ""),
    ("/HostConfig/NetworkMode", "bridge", "default", "docker says bridge as well since 26"),
    ("/State/Error", "run program *", "failed to create shim task: *", "two runtimes' words"),
    ("/NetworkSettings/Networks/bridge/NetworkID", "ID", "", "docker says it from the first start on"),
    ("/NetworkSettings/SandboxID", "", "ID", "without a network of its own, or after its end, it has no sandbox here"),
    ("/NetworkSettings/SandboxKey", "", "KEY", "as above"),
    ("/NetworkSettings/Networks/n1/Aliases/1", "-", "SHORT", "docker shows it elsewhere since 25"),
];

#[test]
fn what_is_seen_and_inspected_is_as_dockers() {
    need!("dockerd", "docker", "containerd", "iptables", "runc", "jq");
    let world = World::new();
    let archive = world.dir.join("image.tar");
    world.ok(&["save", "-o", archive.to_str().unwrap(), BUSYBOX]);
    let tarectl = world.command(&[]).get_args().last().unwrap().to_str().unwrap().to_owned();
    let shared = world.dir.join("shared");
    fs::create_dir(&shared).unwrap();
    let ours = rows(world.program(Path::new("sh")), &tarectl, shared.to_str().unwrap());

    let machine = Machine::start();
    // With Debian's own runtime.
    machine.prepare(User::Root, "rm bin/runc; mkdir shared");
    let server = docker::start(&machine, &[]);
    fs::copy(&archive, machine.root().join("run/world/image.tar")).unwrap();
    let docker = "docker -H unix:///run/world/docker.sock";
    // What a first container on the host's network leaves stays with dockerd.
    machine
        .prepare(User::Root, &format!("{docker} load -i image.tar; {docker} run --rm --network host {BUSYBOX} true"));
    let before = machine.snapshot();
    let theirs = rows(machine.command("sh"), docker, "/run/world/shared");
    server.stop(&machine);
    let left = machine.finish(&before, &["/run/world/docker.exec/runtime-*/moby"], |name| name.len() == 64);
    assert_eq!(left, [""; 0]);

    let mut failures = Vec::new();
    for (name, script) in SEEN {
        let end = |rows: &BTreeMap<String, Value>| {
            let text = rows[*name]["out"].as_str().unwrap();
            // Ports of IPv6 are docker's alone.
            let lines = text.lines().filter(|it| !it.contains(":::")).map(|it| format!("\n    {}", alike("", it)));
            format!("{}{}", rows[*name]["code"], lines.collect::<String>())
        };
        if end(&ours) != end(&theirs) {
            failures.push(format!("{name}: {script}\n  ours {}\n  theirs {}", end(&ours), end(&theirs)));
        }
    }
    let mut differed = BTreeSet::new();
    for (name, _) in INSPECTED {
        let (ours, theirs) = (fields(&ours[*name]["it"]), fields(&theirs[*name]["it"]));
        for path in ours.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
            let [one, other] = [&ours, &theirs].map(|it| it.get(path).map_or("-", String::as_str));
            let is = |known: &str, value: &str| {
                known == value || known.strip_suffix('*').is_some_and(|it| value.starts_with(it))
            };
            let known = DIFFERENT.iter().find(|it| is(it.0, path) && is(it.1, one) && is(it.2, other));
            match known {
                _ if one == other => {}
                Some(known) => drop(differed.insert(known.0)),
                None => failures.push(format!("{name}: {path}: ours {one}, theirs {other}")),
            }
        }
    }
    assert!(failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n"));
    assert_eq!(differed.len(), DIFFERENT.len(), "what is said to differ does not: {differed:?}");
    // Its store has ended by then, if docker took its time.
    world.ok(&["images"]);
    world.assert_empty();
}

/// What each row gave, by its name.
fn rows(mut program: Command, docker: &str, shared: &str) -> BTreeMap<String, Value> {
    program.args(["-c", include_str!("dockers.sh")]).env("D", docker).env("IMAGE", BUSYBOX).env("SHARED", shared);
    let lines: String = SEEN.iter().chain(INSPECTED).map(|(name, script)| format!("{name}\t{script}\n")).collect();
    let ran = store::run(program, Some(lines.as_bytes()));
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let rows = ran.stdout.replace(shared, "SHARED");
    let rows = rows.lines().map(|line| serde_json::from_str(line).unwrap());
    let rows: BTreeMap<String, Value> = rows.map(|it: Value| (it["name"].as_str().unwrap().to_owned(), it)).collect();
    assert_eq!(rows.len(), SEEN.len() + INSPECTED.len(), "{}", ran.stderr);
    rows
}

/// Every value by its path; ids, times, addresses and places on the host are what they are of.
fn fields(shown: &Value) -> BTreeMap<String, String> {
    let mut shown = shown.clone();
    // What newer versions of docker hide as well.
    if let Some(paths) = shown["HostConfig"]["MaskedPaths"].as_array_mut() {
        paths.retain(|it| it != "/proc/interrupts" && it != "/sys/devices/virtual/powercap");
    }
    // Ports of IPv6 are docker's alone; their order means nothing.
    for ports in shown["NetworkSettings"]["Ports"].as_object_mut().into_iter().flatten() {
        if let Some(ports) = ports.1.as_array_mut() {
            ports.retain(|it| it["HostIp"] != "::");
            ports.sort_by_key(|it| it["HostPort"].to_string());
        }
    }
    if let Some(mounts) = shown["Mounts"].as_array_mut() {
        mounts.sort_by_key(|it| it["Destination"].to_string());
    }
    if shown["State"]["Pid"] != 0 {
        shown["State"]["Pid"] = "a process".into();
    }
    let mut found = BTreeMap::new();
    flatten("", &shown, &mut found);
    found
}

fn flatten(path: &str, value: &Value, found: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            fields.iter().for_each(|(name, value)| flatten(&format!("{path}/{name}"), value, found));
        }
        Value::Array(list) if !list.is_empty() => {
            list.iter().enumerate().for_each(|(index, value)| flatten(&format!("{path}/{index}"), value, found));
        }
        Value::String(text) => drop(found.insert(path.to_owned(), alike(path, text))),
        _ => drop(found.insert(path.to_owned(), value.to_string())),
    }
}

/// A text without what differs from run to run.
fn alike(path: &str, text: &str) -> String {
    let mut text = text.to_owned();
    let is_id = |word: &str, length: usize| word.len() == length && word.bytes().all(|it| it.is_ascii_hexdigit());
    let words: BTreeSet<String> = text
        .split(|it: char| !it.is_ascii_alphanumeric())
        .filter(|it| is_id(it, 64) || is_id(it, 12))
        .map(str::to_owned)
        .collect();
    for word in words {
        text = text.replace(&word, if word.len() == 64 { "ID" } else { "SHORT" });
    }
    match path.rsplit('/').next().unwrap_or_default() {
        _ if text.is_empty() => text,
        "Created" | "StartedAt" | "FinishedAt" if !text.starts_with("0001") => "TIME".to_owned(),
        "ResolvConfPath" | "HostnamePath" | "HostsPath" | "LogPath" => {
            text.rsplit('/').next().unwrap_or_default().to_owned()
        }
        "SandboxKey" => "KEY".to_owned(),
        // Each has its own by default.
        "AppArmorProfile" if text == "tare-default" || text == "docker-default" => "DEFAULT".to_owned(),
        "MacAddress" => "MAC".to_owned(),
        "IPAddress" => text.rsplit_once('.').unwrap_or_default().0.to_owned(),
        "Source" if path.starts_with("/Mounts") && text.contains("/volumes/") => "VOLUME".to_owned(),
        _ => text,
    }
}

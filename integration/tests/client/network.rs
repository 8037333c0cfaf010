//! Networks: ports that are reached, names that are found, addresses that are given back.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::time::Duration;

use integration::wait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{BUSYBOX, World, until_gone};

/// Serves its host name and where it is, to whoever asks for `/`.
const SERVER: &str = "mkdir -p /www && hostname >/www/index.html && exec httpd -f -p 80 -h /www";

/// A web server of its own; the id.
fn serve(world: &World, flags: &[&str]) -> String {
    let words: Vec<&str> = ["run", "-d"].iter().chain(flags).chain(&[BUSYBOX, "sh", "-c", SERVER]).copied().collect();
    world.ok(&words)
}

/// What the host gets there, once it is served.
fn get(world: &World, at: &str) -> String {
    let url = format!("http://{at}/");
    let mut page = None;
    wait::until(&format!("{url} is served"), || {
        let mut command = world.program("timeout".as_ref());
        command.args(["5", "busybox", "wget", "-q", "-O", "-", &url]);
        let ran = integration::store::run(command, None);
        page = (ran.code == Some(0)).then_some(ran.stdout);
        page.is_some()
    });
    page.unwrap_or_default().trim_end().to_owned()
}

/// What a container gets there.
fn get_from(world: &World, container: &str, at: &str) -> String {
    let url = format!("http://{at}/");
    let mut page = None;
    wait::until(&format!("{container} gets {url}"), || {
        let ran = world.run(&["exec", container, "timeout", "5", "wget", "-q", "-O", "-", &url]);
        page = (ran.code == Some(0)).then_some(ran.stdout);
        page.is_some()
    });
    page.unwrap_or_default().trim_end().to_owned()
}

#[test]
fn a_web_server_is_reached_at_its_published_port() {
    let world = World::new();
    world.in_network(&["ip", "address", "add", "10.99.0.1/24", "dev", "lo"]);
    let id = serve(
        &world,
        &["--name", "web", "-h", "web", "-p", "8080:80", "-p", "127.0.0.1:8081:80", "-P", "--expose", "443"],
    );
    assert_eq!(get(&world, "127.0.0.1:8080"), "web");
    assert_eq!(get(&world, "10.99.0.1:8080"), "web");
    assert_eq!(get(&world, "127.0.0.1:8081"), "web");
    let ports = world.ok(&["port", "web"]);
    assert!(ports.contains("80/tcp -> 0.0.0.0:8080") && ports.contains("80/tcp -> 127.0.0.1:8081"), "{ports}");
    assert!(ports.contains("443/tcp -> 0.0.0.0:"), "{ports}");
    assert!(world.ok(&["ps"]).contains("0.0.0.0:8080->80/tcp"));
    assert_eq!(world.ok(&["port", "web", "443"]).split(':').count(), 2);
    // A port that another has is refused before anything is made, and with whose it is.
    let sentence = world.refused(&["run", "--name", "second", "-d", "-p", "8080:80", BUSYBOX, "sleep", "1000"]);
    assert!(sentence.contains("8080/tcp") && sentence.contains("web"), "{sentence}");
    assert_eq!(world.field("web", ".State.Status"), "running");
    world.run(&["rm", "-f", "second"]);
    assert_eq!(get(&world, "127.0.0.1:8080"), "web");
    // Nobody was left to say that it has ended: whoever wants the port next finds out.
    let init = Pid::from_raw(world.field("web", ".State.Pid").parse().unwrap());
    let shim = world.shim(&id);
    kill(shim, Signal::SIGKILL).unwrap();
    kill(init, Signal::SIGKILL).unwrap();
    until_gone(shim);
    until_gone(init);
    serve(&world, &["--rm", "--name", "next", "-h", "next", "-p", "8080:80"]);
    assert_eq!(get(&world, "127.0.0.1:8080"), "next");
    assert_eq!(world.field("web", ".State.Status"), "exited");
    world.ok(&["rm", "-f", "web", "next"]);
    world.assert_empty();
}

#[test]
fn a_port_that_a_program_of_the_host_has_is_refused() {
    let world = World::new();
    let mut program = world.program("busybox".as_ref());
    let mut program = program.args(["nc", "-l", "-p", "7070"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    wait::until("it listens", || world.in_network(&["ss", "-ltn"]).contains(":7070"));
    let sentence = world.refused(&["run", "--rm", "-p", "7070:80", BUSYBOX, "true"]);
    assert!(sentence.contains("7070/tcp") && sentence.contains("another program"), "{sentence}");
    program.kill().unwrap();
    program.wait().unwrap();
    world.assert_empty();
}

/// A socket of the network that this process or file is of.
fn udp(network: &Path, at: &str) -> UdpSocket {
    let make = || {
        nix::sched::setns(fs::File::open(network)?, nix::sched::CloneFlags::CLONE_NEWNET)?;
        let socket = UdpSocket::bind(at)?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok::<_, std::io::Error>(socket)
    };
    // A thread of its own may go elsewhere without the others.
    std::thread::scope(|scope| scope.spawn(make).join()).unwrap().unwrap()
}

#[test]
fn a_port_of_udp_is_reached_and_answers() {
    let world = World::new();
    world.in_network(&["ip", "address", "add", "10.99.0.1/24", "dev", "lo"]);
    let id = world.ok(&["run", "-d", "--name", "dns", "-p", "5353:53/udp", BUSYBOX, "sleep", "1000"]);
    assert_eq!(world.ok(&["port", "dns"]), "53/udp -> 0.0.0.0:5353");
    let server = udp(&world.run.join("netns").join(&id), "0.0.0.0:53");
    let asker = udp(&world.network(), "0.0.0.0:0");
    asker.connect("10.99.0.1:5353").unwrap();
    asker.send(b"who").unwrap();
    let mut packet = [0; 16];
    let (length, from) = server.recv_from(&mut packet).unwrap();
    assert_eq!(&packet[..length], b"who");
    server.send_to(b"me", from).unwrap();
    let length = asker.recv(&mut packet).unwrap();
    assert_eq!(&packet[..length], b"me");
    // A socket keeps its network.
    drop(server);
    world.ok(&["rm", "-f", "dns"]);
    world.assert_empty();
}

#[test]
fn containers_of_a_named_network_find_each_other() {
    let world = World::new();
    let id = world.ok(&["network", "create", "--subnet", "10.50.0.0/24", "--label", "a=b", "inner"]);
    assert_eq!(id.len(), 64);
    let listed = world.ok(&["network", "ls"]);
    let columns: Vec<&str> =
        listed.lines().next().unwrap_or_default().split("   ").map(str::trim).filter(|it| !it.is_empty()).collect();
    assert_eq!(columns, ["NETWORK ID", "NAME", "DRIVER", "SCOPE"], "{listed}");
    serve(&world, &["--name", "web", "--network", "inner", "--network-alias", "www", "--ip", "10.50.0.9", "-h", "web"]);
    world.ok(&["run", "-d", "--name", "asker", "--network", "inner", BUSYBOX, "sleep", "1000"]);
    for name in ["web", "www", "10.50.0.9"] {
        assert_eq!(get_from(&world, "asker", name), "web");
    }
    // Whoever comes later is found by those that were there before, and goes.
    serve(&world, &["--name", "late", "--network", "inner", "-h", "late"]);
    assert_eq!(get_from(&world, "asker", "late"), "late");
    world.ok(&["rename", "late", "later"]);
    assert_eq!(get_from(&world, "asker", "later"), "late");
    world.ok(&["rm", "-f", "later"]);
    assert!(!world.ok(&["exec", "asker", "cat", "/etc/hosts"]).contains("late"));
    let inspected = world.ok(&["network", "inspect", "inner"]);
    assert!(
        inspected.contains("\"IPv4Address\": \"10.50.0.9/24\"") && inspected.contains("\"Subnet\": \"10.50.0.0/24\""),
        "{inspected}"
    );
    // The default network is another one.
    world.ok(&["run", "-d", "--name", "apart", BUSYBOX, "sleep", "1000"]);
    let ran = world.run(&["exec", "apart", "timeout", "1", "wget", "-q", "-O", "-", "http://10.50.0.9/"]);
    assert_ne!(ran.code, Some(0), "{}", ran.stdout);
    let sentence = world.refused(&["network", "rm", "inner"]);
    assert!(sentence.contains("asker"), "{sentence}");
    world.ok(&["rm", "-f", "web", "asker", "apart"]);
    assert_eq!(world.ok(&["network", "rm", "inner"]), "inner");
    assert!(!world.in_network(&["ip", "-o", "link"]).contains(&id[..12]));
    world.assert_empty();
}

#[test]
fn a_running_container_is_connected_and_disconnected() {
    let world = World::new();
    world.ok(&["network", "create", "side"]);
    serve(&world, &["--name", "web", "-h", "web", "-p", "8080:80"]);
    world.ok(&["run", "-d", "--name", "asker", "--network", "side", BUSYBOX, "sleep", "1000"]);
    world.ok(&["network", "connect", "--alias", "www", "side", "web"]);
    assert_eq!(get_from(&world, "asker", "www"), "web");
    assert!(world.ok(&["exec", "web", "ip", "-o", "link"]).contains("eth1"));
    // The port goes over the network that stays.
    world.ok(&["network", "disconnect", "bridge", "web"]);
    assert_eq!(get(&world, "127.0.0.1:8080"), "web");
    assert_eq!(world.ok(&["exec", "web", "ip", "route"]).matches("default").count(), 1);
    world.ok(&["network", "disconnect", "side", "web"]);
    assert!(!world.ok(&["exec", "asker", "cat", "/etc/hosts"]).contains("www"));
    let sentence = world.refused(&["network", "disconnect", "side", "web"]);
    assert!(sentence.contains("is not in the network side"), "{sentence}");
    world.ok(&["rm", "-f", "web", "asker"]);
    assert_eq!(world.ok(&["network", "prune", "-f"]), "Deleted Networks:\nside");
    world.assert_empty();
}

#[test]
fn links_are_in_hosts_and_environment() {
    let world = World::new();
    serve(&world, &["--name", "db", "-h", "dbhost", "--expose", "80", "-e", "MODE=x"]);
    world.ok(&["run", "-d", "--name", "web", "--link", "db:mydb", BUSYBOX, "sleep", "1000"]);
    assert_eq!(get_from(&world, "web", "mydb"), "dbhost");
    assert_eq!(get_from(&world, "web", "dbhost"), "dbhost");
    let environment = world.ok(&["exec", "web", "env"]);
    let address = world.field("db", ".NetworkSettings.IPAddress");
    assert!(environment.contains(&format!("MYDB_PORT_80_TCP=tcp://{address}:80")), "{environment}");
    assert!(environment.contains("MYDB_ENV_MODE=x") && environment.contains("MYDB_NAME=/web/mydb"), "{environment}");
    // It comes again with another address.
    world.ok(&["restart", "-t", "0", "db"]);
    assert_eq!(get_from(&world, "web", "mydb"), "dbhost");
    world.ok(&["rm", "-f", "web", "db"]);
    world.assert_empty();
}

#[test]
fn the_hosts_network_none_and_anothers() {
    let world = World::new();
    // No plugin is needed for these.
    let without = |words: &[&str]| {
        let mut command = world.command(words);
        command.env("CNI_PATH", "/nowhere");
        integration::store::run(command, None)
    };
    let ran = without(&["run", "--rm", "--network", "host", BUSYBOX, "cat", "/etc/hosts"]);
    assert_eq!(ran.stdout, fs::read_to_string("/etc/hosts").unwrap(), "{}", ran.stderr);
    let ran = without(&["run", "--rm", "--network", "none", BUSYBOX, "ip", "-o", "link"]);
    assert!(ran.stdout.lines().count() == 1 && ran.stdout.contains("LOOPBACK,UP"), "{}{}", ran.stdout, ran.stderr);
    let ran = without(&["run", "--rm", BUSYBOX, "true"]);
    assert_eq!((ran.code, ran.stderr.lines().count()), (Some(125), 1), "{}", ran.stderr);
    assert!(ran.stderr.contains("containernetworking-plugins"), "{}", ran.stderr);
    world.assert_empty();
    serve(&world, &["--name", "web", "-h", "web"]);
    let page =
        world.ok(&["run", "--rm", "--network", "container:web", BUSYBOX, "wget", "-q", "-O", "-", "http://127.0.0.1/"]);
    assert_eq!(page, "web");
    assert_eq!(
        world.ok(&["run", "--rm", "--network", "container:web", BUSYBOX, "cat", "/etc/hosts"]),
        world.ok(&["exec", "web", "cat", "/etc/hosts"])
    );
    world.ok(&["rm", "-f", "web"]);
    world.assert_empty();
}

#[test]
fn processes_and_shared_memory_are_anothers_if_asked_for() {
    let world = World::new();
    let none = ["run", "--rm", "--network", "none"];
    let run = |flags: &[&str], words: &[&str]| world.ok(&[&none[..], flags, &[BUSYBOX], words].concat());
    world.ok(&["run", "-d", "--name", "owner", "--network", "none", "--ipc", "shareable", BUSYBOX, "sleep", "1000"]);
    let of_owner = |kind: &str| world.ok(&["exec", "owner", "readlink", &format!("/proc/self/ns/{kind}")]);
    for (flag, kind, other) in [("--pid", "pid", "ipc"), ("--ipc", "ipc", "pid")] {
        let seen = |kind: &str| run(&[flag, "container:owner"], &["readlink", &format!("/proc/self/ns/{kind}")]);
        assert_eq!(seen(kind), of_owner(kind), "{flag}");
        assert_ne!(seen(other), of_owner(other), "{flag} gives no more than it says");
    }
    assert_eq!(run(&["--pid", "container:owner"], &["cat", "/proc/1/cmdline"]), "sleep\u{0}1000\u{0}");
    run(&["--ipc", "container:owner"], &["touch", "/dev/shm/from-guest"]);
    assert_eq!(world.ok(&["exec", "owner", "ls", "/dev/shm"]), "from-guest");
    // Who does not want to share does not.
    world.ok(&["run", "-d", "--name", "private", "--network", "none", BUSYBOX, "sleep", "1000"]);
    let refused = world.refused(&[&none[..], &["--ipc", "container:private", BUSYBOX, "true"]].concat());
    assert!(refused.contains("make it with --ipc shareable"), "{refused}");
    world.ok(&["rm", "-f", "private"]);
    world.ok(&["kill", "owner"]);
    world.until("owner", ".State.Status", "exited");
    for flag in ["--pid", "--ipc"] {
        let refused = world.refused(&[&none[..], &[flag, "container:owner", BUSYBOX, "true"]].concat());
        assert!(
            refused.contains("container:owner: that container is exited, not running: start it first"),
            "{refused}"
        );
    }
    world.ok(&["rm", "owner"]);
    world.assert_empty();
}

#[test]
fn what_is_said_of_names_and_servers_is_in_the_containers_files() {
    let world = World::new();
    let script = "cat /etc/hosts /etc/hostname /etc/resolv.conf";
    let flags = ["--add-host", "foo:1.2.3.4", "--dns", "9.9.9.9", "--dns-search", "a.b", "--dns-option", "ndots:2"];
    let words = [&["run", "--rm", "-h", "web"], &flags[..], &[BUSYBOX, "sh", "-c", script]].concat();
    let shown = world.ok(&words);
    assert!(
        shown.contains("\n1.2.3.4\tfoo\n172.17.0.2\tweb\nweb\nsearch a.b\nnameserver 9.9.9.9\noptions ndots:2"),
        "{shown}"
    );
    for (flags, said) in [
        (["--add-host", "a\nb:1.2.3.4"], "a\\nb"),
        (["--dns-search", "a\nnameserver 6.6.6.6"], "nameserver"),
        (["--hostname", "a\nb"], "a\\nb"),
        (["--link", "nobody:x"], "nobody"),
        (["--network", "nonet"], "nonet"),
        (["--ip", "1.2.3.4"], "network create"),
    ] {
        let sentence = world.refused(&[&["run", "--rm"], &flags[..], &[BUSYBOX, "true"]].concat());
        assert!(sentence.contains(said), "{sentence}");
    }
    world.assert_empty();
}

#[test]
fn whatever_is_killed_no_address_port_or_namespace_stays() {
    let world = World::new();
    world.ok(&["network", "create", "--subnet", "10.60.0.0/29", "tiny"]);
    let flags = ["--network", "tiny", "-p", "8080:80"];
    // Killed again and again at other moments; five addresses and one port are enough only if all are given back.
    for step in 1..=16 {
        let mut command = world.program("timeout".as_ref());
        let after = format!("0.{:03}", step * 20);
        let tarectl = world.command(&[]).get_args().nth(2).unwrap().to_owned();
        command.args(["-s", "KILL", &after]).arg(tarectl).args(["run", "-d", "--name", "victim"]).args(flags);
        command.args([BUSYBOX, "sleep", "1000"]);
        integration::store::run(command, None);
        world.run(&["rm", "-f", "victim"]);
    }
    serve(&world, &[&["--name", "web", "-h", "web"], &flags[..]].concat());
    assert_eq!(get(&world, "127.0.0.1:8080"), "web");
    // Everything at once.
    let id = world.field("web", ".Id");
    let (init, shim) = (Pid::from_raw(world.field("web", ".State.Pid").parse().unwrap()), world.shim(&id));
    world.kill_store();
    for pid in [shim, init] {
        kill(pid, Signal::SIGKILL).unwrap();
        until_gone(pid);
    }
    assert!(world.ok(&["ps", "-a"]).contains("Exited (137)"));
    world.assert_idle();
    world.ok(&["rm", "web"]);
    world.ok(&["network", "rm", "tiny"]);
    world.assert_empty();
}

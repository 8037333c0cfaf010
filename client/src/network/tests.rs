//! Networks with the real plugins, each test in network and mount namespaces of its own.

use std::future::Future;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::client::Programs;
use crate::error::{Error, Kind};
use crate::record::Endpoint;
use crate::testing::skip;

/// Runs a test in a world of its own.
fn in_world<F: Future<Output = ()>>(test: impl FnOnce(Client) -> F + Send) {
    if cni::Plugins::idle().need(&["bridge", "host-local", "portmap"]).is_err() {
        return skip("containernetworking-plugins is not installed");
    }
    bare_world(test);
}

/// The same, without plugins.
fn bare_world<F: Future<Output = ()>>(test: impl FnOnce(Client) -> F + Send) {
    if !nix::unistd::geteuid().is_root() {
        return skip("network namespaces need root");
    }
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    std::thread::scope(|scope| {
        let in_thread = || {
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).unwrap();
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
            mount(Some("test"), directory.path(), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
            netlink::loopback_up().unwrap();
            let at = |name: &str| directory.path().join(name);
            let paths = Paths { root: at("root"), run: at("run"), store: at("store.sock") };
            let program = || PathBuf::from("false");
            let programs = Programs { store: program(), shim: program(), runtime: program(), tarectl: program() };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(test(Client::new(paths, programs)));
        };
        let name = std::thread::current().name().unwrap_or("a test").to_owned();
        let thread = std::thread::Builder::new().name(name).spawn_scoped(scope, in_thread).unwrap();
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// A container that is made, with these wishes.
async fn made(client: &Client, name: &str, wish: impl FnOnce(&mut Container)) -> Result<Container> {
    let id = records::new_id().unwrap();
    let mut record = Container { id: id.clone(), name: name.to_owned(), ..Container::default() };
    wish(&mut record);
    resolve(client, &mut record).await?;
    let mut lock = records::make(client, &id)?;
    lock.save(&record)?;
    lock.show(client)?;
    records::take_name(client, name, &id)?;
    Ok(record)
}

/// A container that "runs": all but the process.
async fn started(client: &Client, name: &str, wish: impl FnOnce(&mut Container)) -> Container {
    let mut record = made(client, name, wish).await.unwrap();
    attach(client, &mut record).await.unwrap();
    records::lock(client, &record.id).unwrap().save(&record).unwrap();
    record
}

fn in_network(name: &str) -> impl FnOnce(&mut Container) {
    move |record| name.clone_into(&mut record.host_config.network_mode)
}

fn publish_at(record: &mut Container, key: &str, ip: &str, port: &str) {
    let binding = PortBinding { host_ip: ip.to_owned(), host_port: port.to_owned() };
    record.host_config.port_bindings.entry(key.to_owned()).or_default().push(binding);
}

fn net(name: &str, subnet: &str) -> Create {
    Create { name: name.to_owned(), subnets: vec![subnet.to_owned()], ..Create::default() }
}

fn inside<T: Send>(client: &Client, record: &Container, act: impl FnOnce() -> std::io::Result<T> + Send) -> T {
    namespace::inside(&namespace(client, record).unwrap().unwrap(), act).unwrap()
}

fn hosts(client: &Client, record: &Container) -> String {
    std::fs::read_to_string(files(client, record).hosts).unwrap()
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What a server in the container is sent by somebody who connects to `at` from here.
fn talk(server: &TcpListener, at: (&str, u16)) -> String {
    let mut here = TcpStream::connect_timeout(&format!("{}:{}", at.0, at.1).parse().unwrap(), PATIENCE).unwrap();
    here.write_all(b"hello").unwrap();
    drop(here);
    let mut text = String::new();
    server.accept().unwrap().0.read_to_string(&mut text).unwrap();
    text
}

const PATIENCE: Duration = Duration::from_secs(10);

/// All that may be left over: namespaces, journals, addresses, devices, rules for ports.
fn left(client: &Client) -> Vec<String> {
    let mut left = Vec::new();
    let files = |directory: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(directory).ok().into_iter().flatten();
        entries.map(|it| it.unwrap().path().display().to_string()).collect()
    };
    left.extend(files(&client.paths.run.join("netns")));
    left.extend(
        files(&directory(&client.paths)).into_iter().filter(|it| it.ends_with(".json") || it.ends_with(".busy")),
    );
    for network in files(&directory(&client.paths).join("addresses")) {
        left.extend(files(Path::new(&network)).into_iter().filter(|it| !it.ends_with("lock") && !it.contains("last_")));
    }
    left.extend(
        output("iptables-save", &["-t", "nat"]).lines().filter(|it| it.contains("-j DNAT ")).map(str::to_owned),
    );
    // The kernel removes devices some time after their namespace: by an event, that nobody but a monitor sees.
    let until = Instant::now() + PATIENCE;
    let mut devices;
    loop {
        devices = output("ip", &["-o", "link", "show", "type", "veth"]);
        if devices.is_empty() || Instant::now() > until {
            break;
        }
    }
    left.extend(devices.lines().map(str::to_owned));
    left.extend(
        std::fs::read_to_string("/proc/thread-self/mountinfo")
            .unwrap()
            .lines()
            .filter(|it| it.contains("netns"))
            .map(str::to_owned),
    );
    left
}

#[test]
fn the_default_network_connects_containers_with_each_other_and_the_world() {
    in_world(async |client| {
        let mut one = started(&client, "one", |record| record.config.hostname = "web.example.com".to_owned()).await;
        let mut two = started(&client, "two", |_| {}).await;
        let (first, second) = (one.networks["bridge"].clone(), two.networks["bridge"].clone());
        assert_eq!((first.ip_address.as_str(), second.ip_address.as_str()), ("172.17.0.2", "172.17.0.3"));
        assert_eq!((first.gateway.as_str(), first.ip_prefix_len, first.interface.as_str()), ("172.17.0.1", 16, "eth0"));
        assert_eq!(first.network_id, list(&client).unwrap()[0].id);
        let route = inside(&client, &one, || Ok(output("ip", &["route", "show", "default"])));
        assert!(route.contains("via 172.17.0.1 dev eth0"), "{route}");
        let mac = inside(&client, &one, || Ok(output("ip", &["-o", "link", "show", "eth0"])));
        assert!(mac.contains(&first.mac_address), "{mac}");
        // From one to the other, and from the host.
        let server = inside(&client, &two, || TcpListener::bind("0.0.0.0:80"));
        inside(&client, &one, || TcpStream::connect("172.17.0.3:80"));
        server.accept().unwrap();
        assert_eq!(talk(&server, ("172.17.0.3", 80)), "hello");
        // docker's files, to the letter.
        assert_eq!(
            hosts(&client, &one),
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
             ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n172.17.0.2\tweb.example.com web\n"
        );
        assert!(hosts(&client, &two).ends_with(&format!("\n172.17.0.3\t{}\n", &two.id[..12])));
        assert_eq!(std::fs::read_to_string(files(&client, &one).hostname).unwrap(), "web.example.com\n");
        // What docker sets.
        let read = |file: &'static str| inside(&client, &one, move || std::fs::read_to_string(file));
        assert_eq!(read("/proc/sys/net/ipv4/ip_unprivileged_port_start"), "0\n");
        assert_eq!(read("/proc/sys/net/ipv4/ping_group_range"), "0\t2147483647\n");
        assert_eq!(std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(), "1\n");
        assert_eq!(problems(&client, "bridge").await.unwrap(), []);
        // What somebody took away is missed, and the rest given back all the same.
        inside(&client, &two, || Ok(output("ip", &["address", "flush", "dev", "eth0"])));
        let missed = problems(&client, "bridge").await.unwrap();
        assert!(missed.len() == 1 && missed[0].message.contains("the container two: "), "{missed:?}");
        drop(server);
        detach(&client, &mut one).await.unwrap();
        detach(&client, &mut one).await.unwrap();
        assert_eq!(one.networks["bridge"].ip_address, "");
        detach(&client, &mut two).await.unwrap();
        assert_eq!(left(&client), Vec::<String>::new());
    });
}

#[test]
fn published_ports_are_reached_from_the_host_and_from_outside_and_go_with_the_container() {
    in_world(async |client| {
        // Somebody outside, behind a router that is this host.
        output(
            "sh",
            &[
                "-c",
                "ip link add out0 type veth peer name out1 && ip address add 10.99.0.1/24 dev out0 && ip link set out0 up",
            ],
        );
        let far = client.paths.run.join("far");
        namespace::make(&far).unwrap();
        output("ip", &["link", "set", "out1", "netns", far.to_str().unwrap()]);
        let up = || {
            Ok(output(
                "sh",
                &[
                    "-c",
                    "ip address add 10.99.0.2/24 dev out1 && ip link set out1 up && ip route add default via 10.99.0.1",
                ],
            ))
        };
        namespace::inside(&far, up).unwrap();
        let mut web = started(&client, "web", |record| {
            publish_at(record, "80/tcp", "", "8080");
            publish_at(record, "53/udp", "", "5353");
            publish_at(record, "81/tcp", "127.0.0.1", "");
            record.host_config.publish_all_ports = true;
            record.config.exposed_ports.insert("443/tcp".to_owned(), serde_json::json!({}));
        })
        .await;
        let shown: Vec<String> =
            web.ports.iter().map(|(key, it)| format!("{key}={}:{}", it[0].host_ip, it[0].host_port)).collect();
        assert!(
            shown.contains(&"80/tcp=0.0.0.0:8080".to_owned()) && shown.contains(&"53/udp=0.0.0.0:5353".to_owned()),
            "{shown:?}"
        );
        assert_eq!(shown.len(), 4);
        let server = inside(&client, &web, || TcpListener::bind("0.0.0.0:80"));
        assert_eq!(talk(&server, ("127.0.0.1", 8080)), "hello");
        assert_eq!(talk(&server, ("10.99.0.1", 8080)), "hello");
        namespace::inside(&far, || TcpStream::connect_timeout(&"10.99.0.1:8080".parse().unwrap(), PATIENCE)).unwrap();
        assert_eq!(server.accept().unwrap().1.ip().to_string(), "10.99.0.2", "the server sees who asks");
        // The container itself, by the host's address.
        inside(&client, &web, || TcpStream::connect_timeout(&"10.99.0.1:8080".parse().unwrap(), PATIENCE));
        server.accept().unwrap();
        let local: u16 = web.ports["81/tcp"][0].host_port.parse().unwrap();
        let second = inside(&client, &web, || TcpListener::bind("0.0.0.0:81"));
        assert_eq!(talk(&second, ("127.0.0.1", local)), "hello");
        // What is not published is not reached from outside, though this host routes.
        let direct = format!("{}:81", web.networks["bridge"].ip_address).parse().unwrap();
        let refused =
            namespace::inside(&far, || Ok(TcpStream::connect_timeout(&direct, Duration::from_millis(300)).is_err()));
        assert!(refused.unwrap(), "a port that is not published is open to the world");
        let udp = inside(&client, &web, || UdpSocket::bind("0.0.0.0:53"));
        udp.set_read_timeout(Some(PATIENCE)).unwrap();
        let asker = namespace::inside(&far, || UdpSocket::bind("0.0.0.0:0")).unwrap();
        asker.set_read_timeout(Some(PATIENCE)).unwrap();
        asker.connect("10.99.0.1:5353").unwrap();
        asker.send(b"who").unwrap();
        let mut packet = [0; 16];
        let (length, from) = udp.recv_from(&mut packet).unwrap();
        assert_eq!(&packet[..length], b"who");
        udp.send_to(b"me", from).unwrap();
        let length = asker.recv(&mut packet).unwrap();
        assert_eq!(&packet[..length], b"me");
        // The container gets out, with the host's address.
        let outside = namespace::inside(&far, || TcpListener::bind("0.0.0.0:7")).unwrap();
        inside(&client, &web, || TcpStream::connect_timeout(&"10.99.0.2:7".parse().unwrap(), PATIENCE));
        assert_eq!(outside.accept().unwrap().1.ip().to_string(), "10.99.0.1");
        // Another cannot have the port.
        let mut other =
            made(&client, "other", |record| publish_at(record, "80/tcp", "127.0.0.1", "8080")).await.unwrap();
        let error = attach(&client, &mut other).await.unwrap_err();
        assert!(error.message.contains("already published by the container web"), "{error}");
        assert_eq!(port(&client, "web", Some("80")).await.unwrap()[0].1.host_port, "8080");
        assert!(port(&client, "web", Some("82")).await.unwrap_err().message.contains("not published"));
        // A socket keeps its namespace.
        drop((server, second, udp, asker, outside));
        detach(&client, &mut web).await.unwrap();
        attach(&client, &mut other).await.unwrap();
        detach(&client, &mut other).await.unwrap();
        namespace::remove(&far).unwrap();
        assert_eq!(left(&client), Vec::<String>::new());
    });
}

#[test]
fn in_a_named_network_everybody_finds_everybody_by_name() {
    in_world(async |client| {
        let made_network = create(&client, &net("inner", "10.5.0.0/24")).await.unwrap();
        let one = started(&client, "one", in_network("inner")).await;
        let wish = |record: &mut Container| {
            in_network("inner")(record);
            let endpoint = Endpoint {
                requested_ip: "10.5.0.77".to_owned(),
                requested_mac: "02:42:0a:05:00:4d".to_owned(),
                aliases: vec!["db".to_owned()],
                ..Endpoint::default()
            };
            record.networks.insert("inner".to_owned(), endpoint);
        };
        let mut two = started(&client, "two", wish).await;
        assert_eq!(two.networks["inner"].ip_address, "10.5.0.77");
        assert_eq!(two.networks["inner"].mac_address, "02:42:0a:05:00:4d");
        let line = format!("10.5.0.77\ttwo db {}\n", &two.id[..12]);
        assert!(hosts(&client, &one).ends_with(&line), "{}", hosts(&client, &one));
        assert!(hosts(&client, &two).contains("10.5.0.2\tone "), "{}", hosts(&client, &two));
        // A line that the container wrote itself stays.
        let file = files(&client, &one).hosts;
        std::fs::write(&file, format!("{}9.9.9.9\tmine\n", hosts(&client, &one))).unwrap();
        two.name = "three".to_owned();
        renamed(&client, &two).unwrap();
        let now = hosts(&client, &one);
        assert!(
            now.contains("9.9.9.9\tmine\n") && now.contains("10.5.0.77\tthree db ") && !now.contains("two"),
            "{now}"
        );
        let shown = super::inspect(&client, &made_network.id[..8]).unwrap();
        assert_eq!(shown["Containers"][&two.id]["IPv4Address"], "10.5.0.77/24");
        assert_eq!(shown["IPAM"]["Config"][0]["Gateway"], "10.5.0.1");
        let mut third = made(&client, "third", wish).await.unwrap();
        let error = attach(&client, &mut third).await.unwrap_err();
        assert!(error.message.contains("10.5.0.77") && error.message.contains("three"), "{error}");
        let error = remove(&client, "inner").await.unwrap_err();
        assert!(error.kind == Kind::Conflict && error.message.contains("in use by"), "{error}");
        detach(&client, &mut two).await.unwrap();
        assert!(!hosts(&client, &one).contains("10.5.0.77"), "{}", hosts(&client, &one));
        let mut one = one;
        detach(&client, &mut one).await.unwrap();
        remove(&client, "inner").await.unwrap();
        assert!(nix::net::if_::if_nametoindex(made_network.device().as_str()).is_err());
        assert_eq!(left(&client), Vec::<String>::new());
    });
}

#[test]
fn networks_are_apart_and_an_internal_one_has_no_way_out() {
    in_world(async |client| {
        create(&client, &net("left", "10.6.0.0/24")).await.unwrap();
        create(&client, &Create { internal: true, ..net("inner", "10.7.0.0/24") }).await.unwrap();
        let (mut one, mut two) =
            (started(&client, "one", |_| {}).await, started(&client, "two", in_network("left")).await);
        let mut three = started(&client, "three", in_network("inner")).await;
        let server = inside(&client, &two, || TcpListener::bind("0.0.0.0:80"));
        let reaches = |from: &Container, at: &str| {
            let at = at.parse().unwrap();
            inside(&client, from, move || Ok(TcpStream::connect_timeout(&at, Duration::from_millis(300)).is_ok()))
        };
        assert!(!reaches(&one, "10.6.0.2:80"), "another network's container is reached");
        assert_eq!(inside(&client, &three, || Ok(output("ip", &["route", "show", "default"]))), "");
        assert_eq!(three.networks["inner"].gateway, "");
        assert!(!reaches(&three, "10.6.0.2:80"));
        // A socket keeps its namespace.
        drop(server);
        for record in [&mut one, &mut two, &mut three] {
            detach(&client, record).await.unwrap();
        }
        assert_eq!(left(&client), Vec::<String>::new());
    });
}

#[test]
fn a_running_container_is_connected_and_disconnected() {
    in_world(async |client| {
        create(&client, &net("side", "10.8.0.0/24")).await.unwrap();
        let web = started(&client, "web", |record| publish_at(record, "80/tcp", "", "8080")).await;
        let peer = started(&client, "peer", in_network("side")).await;
        let wishes = Connect { ip: "10.8.0.9".to_owned(), aliases: vec!["www".to_owned()] };
        connect(&client, "side", "web", &wishes).await.unwrap();
        let saved = records::load(&client, &web.id).unwrap();
        assert_eq!(
            (saved.networks["side"].ip_address.as_str(), saved.networks["side"].interface.as_str()),
            ("10.8.0.9", "eth1")
        );
        assert!(hosts(&client, &peer).contains("10.8.0.9\tweb www "), "{}", hosts(&client, &peer));
        assert!(hosts(&client, &web).contains("10.8.0.2\tpeer "), "{}", hosts(&client, &web));
        let route = || inside(&client, &web, || Ok(output("ip", &["route", "show", "default"])));
        assert!(route().contains("172.17.0.1"), "{}", route());
        let error = connect(&client, "side", "web", &Connect::default()).await.unwrap_err();
        assert_eq!(error.kind, Kind::Conflict);
        // The way out and the port go over the network that stays.
        disconnect(&client, "bridge", "web", false).await.unwrap();
        assert!(route().contains("10.8.0.1 dev eth1"), "{}", route());
        let server = inside(&client, &web, || TcpListener::bind("0.0.0.0:80"));
        assert_eq!(talk(&server, ("127.0.0.1", 8080)), "hello");
        disconnect(&client, "side", "web", false).await.unwrap();
        assert!(!hosts(&client, &peer).contains("www"), "{}", hosts(&client, &peer));
        let mut saved = records::load(&client, &web.id).unwrap();
        assert!(saved.networks.is_empty() && saved.ports.is_empty());
        assert_eq!(disconnect(&client, "side", "web", false).await.unwrap_err().kind, Kind::NotFound);
        drop(server);
        detach(&client, &mut saved).await.unwrap();
        // One that does not run is only written down.
        connect(&client, "side", "web", &wishes).await.unwrap();
        let mut saved = records::load(&client, &web.id).unwrap();
        attach(&client, &mut saved).await.unwrap();
        assert_eq!(saved.networks["side"].ip_address, "10.8.0.9");
        let mut peer = peer;
        detach(&client, &mut peer).await.unwrap();
        detach(&client, &mut saved).await.unwrap();
        assert_eq!(left(&client), Vec::<String>::new());
    });
}

#[test]
fn links_names_and_environment() {
    in_world(async |client| {
        let mut db = started(&client, "db", |record| {
            record.config.env = vec!["MODE=x".to_owned()];
            record.config.exposed_ports.insert("5432/tcp".to_owned(), serde_json::json!({}));
        })
        .await;
        let mut web = started(&client, "web", |record| record.host_config.links = vec!["db:my-db".to_owned()]).await;
        let line = format!("172.17.0.2\tmy-db {} db\n172.17.0.3\t{}\n", &db.id[..12], &web.id[..12]);
        assert!(hosts(&client, &web).ends_with(&line), "{}", hosts(&client, &web));
        let environment = link_environment(&client, &web).unwrap();
        assert!(environment.contains(&"MY_DB_PORT_5432_TCP=tcp://172.17.0.2:5432".to_owned()), "{environment:?}");
        assert!(environment.contains(&"MY_DB_ENV_MODE=x".to_owned()), "{environment:?}");
        // It comes again with another address.
        detach(&client, &mut db).await.unwrap();
        assert!(!hosts(&client, &web).contains("my-db"), "{}", hosts(&client, &web));
        attach(&client, &mut db).await.unwrap();
        let again = format!("{}\tmy-db ", db.networks["bridge"].ip_address);
        assert!(hosts(&client, &web).contains(&again), "{}", hosts(&client, &web));
        detach(&client, &mut db).await.unwrap();
        detach(&client, &mut web).await.unwrap();
        let error = attach(&client, &mut web).await.unwrap_err();
        assert!(error.message.contains("linked to db (as my-db), which does not run"), "{error}");
        assert_eq!(left(&client), Vec::<String>::new());
    });
}

#[test]
fn host_none_and_anothers_network_need_no_plugin() {
    bare_world(async |client| {
        let mut host = made(&client, "host", in_network("host")).await.unwrap();
        attach(&client, &mut host).await.unwrap();
        assert_eq!((namespace(&client, &host).unwrap(), attached(&client, &host.id)), (None, false));
        assert_eq!(hosts(&client, &host), std::fs::read_to_string("/etc/hosts").unwrap());
        assert_eq!(host.config.hostname, std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim());
        let mut alone = started(&client, "alone", in_network("none")).await;
        let links = inside(&client, &alone, || Ok(output("ip", &["-o", "link"])));
        assert!(links.lines().count() == 1 && links.contains("LOOPBACK,UP"), "{links}");
        let mut guest = started(&client, "guest", in_network("container:alone")).await;
        assert_eq!(guest.host_config.network_mode, format!("container:{}", alone.id));
        assert_eq!(namespace(&client, &guest).unwrap(), namespace(&client, &alone).unwrap());
        assert_eq!((files(&client, &guest), &guest.config.hostname), (files(&client, &alone), &alone.config.hostname));
        detach(&client, &mut guest).await.unwrap();
        detach(&client, &mut alone).await.unwrap();
        let error = attach(&client, &mut guest).await.unwrap_err();
        assert!(error.message.contains("alone does not run"), "{error}");
        assert_eq!(left(&client), Vec::<String>::new());
    });
}

#[test]
fn an_address_is_free_again_though_somebody_stays_in_the_namespace() {
    in_world(async |client| {
        let mut owner = started(&client, "owner", |_| {}).await;
        let mut guest = started(&client, "guest", in_network("container:owner")).await;
        let stays = inside(&client, &guest, || std::fs::File::open("/proc/thread-self/ns/net"));
        detach(&client, &mut owner).await.unwrap();
        // The namespace is held here, as by a process; its device is gone at once.
        let look = std::thread::scope(|scope| {
            let thread = || {
                nix::sched::setns(&stays, CloneFlags::CLONE_NEWNET).unwrap();
                output("ip", &["-o", "link"])
            };
            std::thread::Builder::new().spawn_scoped(scope, thread).unwrap().join().unwrap()
        });
        assert!(!look.contains("eth0"), "{look}");
        detach(&client, &mut guest).await.unwrap();
        drop(stays);
        assert_eq!(left(&client), Vec::<String>::new());
    });
}

#[test]
fn what_a_killed_command_left_is_found_by_the_next() {
    in_world(async |client| {
        // Killed after everything was made, and its record removed.
        let gone = started(&client, "gone", |record| publish_at(record, "80/tcp", "", "8080")).await;
        records::free_name(&client, "gone", &gone.id).unwrap();
        records::lock(&client, &gone.id).unwrap().remove().unwrap();
        // Killed when the namespace was just made.
        namespace::make(&client.paths.netns(&"e".repeat(64))).unwrap();
        // Killed between its journal and the plugins: the record is there, and says that it does not run.
        let mut half = made(&client, "half", |_| {}).await.unwrap();
        attach(&client, &mut half).await.unwrap();
        std::fs::remove_file(
            directory(&client.paths).join("addresses/bridge").join(&half.networks["bridge"].ip_address),
        )
        .unwrap();
        assert!(attached(&client, &half.id));
        let mut next = started(&client, "next", |record| publish_at(record, "80/tcp", "", "8080")).await;
        attach(&client, &mut half).await.unwrap();
        detach(&client, &mut half).await.unwrap();
        detach(&client, &mut next).await.unwrap();
        assert_eq!(left(&client), Vec::<String>::new());
    });
}

#[test]
fn nobody_starts_a_plugin_while_one_of_a_killed_caller_runs() {
    bare_world(async |client| {
        let id = "a".repeat(64);
        let busy = journal::Busy::take(&client.paths, &id).unwrap();
        // A plugin that leaves a process behind, which goes on until the fifo has had a writer.
        let script = client.paths.run.join("bridge");
        let fifo = client.paths.run.join("fifo");
        std::fs::write(&script, format!("#!/bin/sh\ncat {} >/dev/null &\n", fifo.display())).unwrap();
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
        crate::testing::fifo(&fifo);
        let plugins = cni::Plugins::at(client.paths.run.to_str().unwrap()).holding(busy);
        let target = cni::Target { container: &id, namespace: None, interface: "eth0" };
        plugins.del(&serde_json::json!({"type": "bridge"}), target).await.unwrap();
        // Its caller is killed: nothing is dropped, and its descriptors are closed.
        let file = directory(&client.paths).join(format!("{id}.busy"));
        let descriptors = std::fs::read_dir("/proc/thread-self/fd").unwrap().filter_map(|it| {
            let it = it.unwrap();
            (std::fs::read_link(it.path()).ok()? == file)
                .then(|| it.file_name().to_str()?.parse::<i32>().ok())
                .flatten()
        });
        let descriptors: Vec<i32> = descriptors.collect();
        std::mem::forget(plugins);
        descriptors.into_iter().for_each(|it| nix::unistd::close(it).unwrap());
        let again = || {
            let file = std::fs::File::open(&file).unwrap();
            nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).map(drop).map_err(|it| it.1)
        };
        assert_eq!(again(), Err(nix::errno::Errno::EWOULDBLOCK));
        drop(std::fs::OpenOptions::new().write(true).open(&fifo).unwrap());
        drop(journal::Busy::take(&client.paths, &id).unwrap());
        assert!(!file.try_exists().unwrap());
    });
}

#[test]
fn a_start_that_fails_leaves_nothing() {
    in_world(async |client| {
        let program = TcpListener::bind("0.0.0.0:8080").unwrap();
        let mut web = made(&client, "web", |record| publish_at(record, "80/tcp", "", "8080")).await.unwrap();
        let error = attach(&client, &mut web).await.unwrap_err();
        assert!(error.message.contains("in use by another program"), "{error}");
        assert_eq!(left(&client), Vec::<String>::new());
        drop(program);
        // A network without room: 10.9.0.0/29 has five addresses beside the gateway's.
        create(&client, &net("tiny", "10.9.0.0/29")).await.unwrap();
        let mut all = Vec::new();
        for number in 0..5 {
            all.push(started(&client, &format!("c{number}"), in_network("tiny")).await);
        }
        let mut more = made(&client, "more", in_network("tiny")).await.unwrap();
        let error = attach(&client, &mut more).await.unwrap_err();
        assert!(error.message.contains("all 5 addresses of the network tiny are taken"), "{error}");
        assert!(!attached(&client, &more.id) && more.networks["tiny"].ip_address.is_empty());
        detach(&client, &mut all[0]).await.unwrap();
        attach(&client, &mut more).await.unwrap();
        for record in all.iter_mut().chain([&mut more]) {
            detach(&client, record).await.unwrap();
        }
        assert_eq!(prune(&client, &|_| true).await.unwrap(), ["tiny"]);
        assert_eq!(left(&client), Vec::<String>::new());
    });
}

#[test]
fn wrong_wishes_end_in_one_sentence_before_anything_is_made() {
    bare_world(async |client| {
        made(&client, "there", |_| {}).await.unwrap();
        create(&client, &net("mine", "10.4.0.0/24")).await.unwrap();
        type Wish = fn(&mut Container);
        fn endpoint(record: &mut Container, network: &str, wish: fn(&mut Endpoint)) {
            network.clone_into(&mut record.host_config.network_mode);
            wish(record.networks.entry(network.to_owned()).or_default());
        }
        let wishes: [(Wish, &str); 29] = [
            (|it| it.host_config.network_mode = "nonet".to_owned(), "there is no network \"nonet\""),
            (|it| it.host_config.network_mode = "../../etc/x".to_owned(), "there is no network"),
            (|it| it.host_config.network_mode = "container:zz".to_owned(), "there is no container \"zz\""),
            (|it| endpoint(it, "bridge", |it| it.requested_ip = "172.17.0.9".to_owned()), "network create only"),
            (|it| endpoint(it, "bridge", |it| it.aliases = vec!["a".to_owned()]), "network create only"),
            (|it| endpoint(it, "host", |it| it.requested_ip = "1.2.3.4".to_owned()), "this one is host"),
            (|it| endpoint(it, "none", |it| it.requested_mac = "02:42:ac:11:00:02".to_owned()), "this one is none"),
            (
                |it| endpoint(it, "mine", |it| it.requested_ip = "9.9.9.9".to_owned()),
                "no host's address in the subnet 10.4.0.0/24",
            ),
            (|it| endpoint(it, "mine", |it| it.requested_ip = "10.4.0.1".to_owned()), "the gateway's"),
            (|it| endpoint(it, "mine", |it| it.requested_ip = "x".to_owned()), "is not an address"),
            (|it| endpoint(it, "mine", |it| it.requested_mac = "zz".to_owned()), "no MAC address"),
            (
                |it| endpoint(it, "mine", |it| it.aliases = vec!["a\n6.6.6.6 bank.example".to_owned()]),
                "cannot be an alias",
            ),
            (|it| it.host_config.extra_hosts = vec!["foo".to_owned()], "give name:address"),
            (|it| it.host_config.extra_hosts = vec!["foo:bar".to_owned()], "is no address"),
            (|it| it.host_config.extra_hosts = vec!["a\nb:1.2.3.4".to_owned()], "cannot be a host's name"),
            (|it| it.host_config.dns = vec!["x".to_owned()], "no address of a name server"),
            (|it| it.host_config.dns_search = vec!["a\nnameserver 6.6.6.6".to_owned()], "cannot be a search domain"),
            (|it| it.host_config.dns_options = vec!["a b".to_owned()], "no option of resolv.conf"),
            (|it| it.config.hostname = "a b".to_owned(), "cannot be the container's host name"),
            (|it| it.config.hostname = "x".repeat(65), "the kernel takes 64"),
            (|it| it.config.domainname = "a\nb".to_owned(), "cannot be the container's domain name"),
            (|it| it.host_config.links = vec!["zz:x".to_owned()], "there is no container \"zz\""),
            (|it| it.host_config.links = vec!["there:a\nb".to_owned()], "cannot be a link's alias"),
            (|it| publish_at(it, "80/tcp", "", "99999"), "1 to 65535"),
            (
                |it| {
                    it.host_config.network_mode = "host".to_owned();
                    it.host_config.links = vec!["there:x".to_owned()];
                },
                "--link and --network host exclude each other",
            ),
            (
                |it| {
                    it.host_config.network_mode = "container:there".to_owned();
                    publish_at(it, "80/tcp", "", "80");
                },
                "publishing ports and --network container:there exclude each other",
            ),
            (
                |it| {
                    it.host_config.network_mode = "container:there".to_owned();
                    it.config.hostname = "x".to_owned();
                },
                "--hostname and --network container:there",
            ),
            (
                |it| {
                    it.host_config.network_mode = "mine".to_owned();
                    it.host_config.links = vec!["there:x".to_owned()];
                },
                "there is in none of the container's networks",
            ),
            (
                |it| {
                    it.host_config.network_mode = "bridge".to_owned();
                    it.networks.insert("host".to_owned(), Endpoint::default());
                },
                "can only be had alone",
            ),
        ];
        for (wish, said) in wishes {
            let error = made(&client, "wrong", wish).await.expect_err(said);
            assert!(error.message.contains(said) && !error.message.contains('\n'), "{said}: {error}");
            assert_eq!(error.exit_code(), 125);
        }
        let bad = |wish: fn(&mut Create)| {
            let mut wishes = Create { name: "fine".to_owned(), ..Create::default() };
            wish(&mut wishes);
            wishes
        };
        for (wishes, said) in [
            (bad(|it| it.name = "a/b".to_owned()), "cannot name a network"),
            (bad(|it| it.name = "host".to_owned()), "predefined"),
            (bad(|it| it.name = "mine".to_owned()), "already a network mine"),
            (bad(|it| it.driver = "zz".to_owned()), "no network driver \"zz\""),
            (bad(|it| it.ipv6 = true), "IPv4 only"),
            (bad(|it| it.subnets = vec!["10.4.0.0/16".to_owned()]), "overlaps with that of the network mine"),
            (bad(|it| it.subnets = vec!["10.0.0.1".to_owned()]), "is not a subnet"),
            (bad(|it| it.subnets = vec!["10.1.0.0/24".to_owned(), "10.2.0.0/24".to_owned()]), "give --subnet once"),
            (bad(|it| it.gateways = vec!["10.0.0.1".to_owned()]), "give it with --subnet"),
            (
                bad(|it| {
                    it.subnets = vec!["10.1.0.0/24".to_owned()];
                    it.gateways = vec!["10.2.0.1".to_owned()];
                }),
                "the gateway 10.2.0.1 is no host's address",
            ),
            (
                bad(|it| {
                    it.subnets = vec!["10.1.0.0/24".to_owned()];
                    it.ip_ranges = vec!["10.2.0.0/24".to_owned()];
                }),
                "no part of the subnet",
            ),
            (bad(|it| drop(it.options.insert(record::BRIDGE_NAME.to_owned(), "x; reboot".to_owned()))), "cannot name"),
            (bad(|it| drop(it.options.insert(record::BRIDGE_NAME.to_owned(), "sixteen-letters-".to_owned()))), "15"),
            (bad(|it| drop(it.options.insert(record::MTU.to_owned(), "big".to_owned()))), "number of bytes"),
        ] {
            let error = create(&client, &wishes).await.expect_err(said);
            assert!(error.message.contains(said), "{said}: {error}");
        }
        for (name, said) in [("bridge", "predefined"), ("zz", "there is no network")] {
            assert!(remove(&client, name).await.unwrap_err().message.contains(said));
        }
        assert_eq!(list(&client).unwrap().len(), 4);
        assert!(!client.paths.run.join("netns").try_exists().unwrap() && ids_are_none(&client));
    });
}

fn ids_are_none(client: &Client) -> bool {
    journal::ids(&client.paths).unwrap().is_empty()
}

#[test]
fn without_plugins_a_sentence_names_the_package() {
    let error: Error = cni::Plugins::at("/nowhere:/nor-here").need(&["bridge"]).unwrap_err();
    assert!(
        error.message.contains("containernetworking-plugins") && error.message.contains("--network host"),
        "{error}"
    );
}

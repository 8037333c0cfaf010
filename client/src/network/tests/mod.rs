//! Networks with the real plugins, each test in network and mount namespaces of its own.

mod killed;
mod naming;
mod published;
mod reach;
mod wrong;

use std::future::Future;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::client::Programs;
use crate::error::Kind;
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

//! Pods without a pause container, and standard streams over ttrpc.

use std::fs;
use std::path::Path;

use integration::shim_client::{Shim, Streams, block_on, refusal, soon, wait_gone};
use serde_json::json;
use tare_proto::any::{Packed, pack, unpack};
use tare_proto::cri::{
    IDMapping, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption, PodSandboxConfig,
    UserNamespace,
};
use tare_proto::sandbox::*;
use tare_proto::sandbox_ttrpc::SandboxClient;
use tare_proto::streaming::StreamInit;
use tare_proto::streaming_ttrpc::StreamingClient;
use tare_proto::transfer::{Data, WindowUpdate};
use tare_proto::ttrpc::Code;
use tare_proto::ttrpc::asynchronous::ClientStream;
use tare_proto::{Any, Empty, Message};

use super::held::{Held, Plan};

struct Pod {
    held: Held,
    client: SandboxClient,
}

impl Pod {
    async fn new(plan: Plan) -> Pod {
        let held = plan.hold().await;
        let client = SandboxClient::new(held.shim.client.clone());
        Pod { held, client }
    }

    async fn create(&self, config: PodSandboxConfig) -> tare_proto::ttrpc::Result<()> {
        self.create_in(config, "").await
    }

    /// In this network namespace, if it is one.
    async fn create_in(&self, config: PodSandboxConfig, network: &str) -> tare_proto::ttrpc::Result<()> {
        let request = CreateSandboxRequest {
            sandbox_id: self.held.id.clone(),
            bundle_path: self.held.bundle.path().to_str().unwrap().into(),
            options: Some(pack(&config).unwrap()).into(),
            netns_path: network.into(),
            ..Default::default()
        };
        self.client.create_sandbox(soon(), &request).await.map(drop)
    }

    async fn start(&self) -> u32 {
        let request = StartSandboxRequest { sandbox_id: self.held.id.clone(), ..Default::default() };
        let answer = self.client.start_sandbox(soon(), &request).await.unwrap();
        assert_eq!(answer.spec.type_url, tare_proto::any::SPEC);
        answer.pid
    }

    async fn status(&self) -> SandboxStatusResponse {
        let request = SandboxStatusRequest { sandbox_id: self.held.id.clone(), verbose: true, ..Default::default() };
        self.client.sandbox_status(soon(), &request).await.unwrap()
    }

    async fn stop(&self) {
        let request = StopSandboxRequest { sandbox_id: self.held.id.clone(), timeout_secs: 1, ..Default::default() };
        self.client.stop_sandbox(soon(), &request).await.unwrap();
    }

    async fn shut_down(self) {
        let request = ShutdownSandboxRequest { sandbox_id: self.held.id.clone(), ..Default::default() };
        // A daemon takes a lost answer for a pod that could not be removed.
        self.client.shutdown_sandbox(soon(), &request).await.unwrap();
        self.held.end().await;
    }
}

fn config(pid: NamespaceMode, hostname: &str, sysctls: &[(&str, &str)]) -> PodSandboxConfig {
    let options = NamespaceOption { pid: pid.into(), ..Default::default() };
    let context = LinuxSandboxSecurityContext { namespace_options: Some(options).into(), ..Default::default() };
    let linux = LinuxPodSandboxConfig {
        security_context: Some(context).into(),
        sysctls: sysctls.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
        ..Default::default()
    };
    PodSandboxConfig { hostname: hostname.into(), linux: Some(linux).into(), ..Default::default() }
}

/// With a user namespace whose root is this user of the host, and its group.
fn with_root(mut config: PodSandboxConfig, root: u32) -> PodSandboxConfig {
    let map = IDMapping { host_id: root, container_id: 0, length: 65536, ..Default::default() };
    let user = UserNamespace { uids: vec![map.clone()], gids: vec![map], ..Default::default() };
    let context = config.linux.mut_or_insert_default().security_context.mut_or_insert_default();
    context.namespace_options.mut_or_insert_default().userns_options = Some(user).into();
    config
}

fn namespace(pid: u32, kind: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().to_string_lossy().into_owned()
}

#[test]
fn a_pod_s_containers_share_what_its_holder_holds() {
    block_on(async {
        let args = ["/bin/sh", "-c", "hostname; cat /proc/sys/kernel/shmmni /proc/sys/net/ipv4/ip_forward"];
        let mut pod = Pod::new(Plan::of(&args)).await;
        let id = pod.held.id.clone();
        pod.create(config(
            NamespaceMode::CONTAINER,
            "pod.example",
            &[("kernel.shmmni", "77"), ("net.ipv4.ip_forward", "1")],
        ))
        .await
        .unwrap();
        assert_eq!(pod.status().await.state, "SANDBOX_NOTREADY");
        let holder = pod.start().await;
        let status = pod.status().await;
        assert_eq!((status.state.as_str(), status.pid), ("SANDBOX_READY", holder));
        assert!(status.created_at.is_some() && status.info.contains_key("bundle"));
        let own = std::process::id();
        for kind in ["uts", "ipc", "net"] {
            assert_ne!(namespace(holder, kind), namespace(own, kind), "{kind}");
        }
        assert_eq!(namespace(holder, "pid"), namespace(own, "pid"));
        // It holds nothing of the shim's open: a pipe or socket would never end.
        assert_eq!(fs::read_dir(format!("/proc/{holder}/fd")).unwrap().count(), 0);

        let bundle = pod.held.bundle;
        pod.held.bundle = bundle.edit(|config| {
            for it in config["linux"]["namespaces"].as_array_mut().unwrap() {
                if let kind @ ("uts" | "ipc" | "network") = it["type"].clone().as_str().unwrap() {
                    let name = if kind == "network" { "net" } else { kind };
                    it["path"] = json!(format!("/proc/{holder}/ns/{name}"));
                }
            }
            config.as_object_mut().unwrap().remove("hostname");
        });
        pod.held.bundle.write();
        let out = super::held::Fifo::new(&pod.held.rt, "out");
        let mut out = out;
        let streams = Streams { stdout: out.text(), ..Streams::default() };
        let container = format!("{id}-c");
        let options = pod.held.launch.options.clone();
        pod.held.shim.create_with(&container, pod.held.bundle.path(), &streams, vec![], options).await.unwrap();
        pod.held.shim.start(&container, "").await.unwrap();
        assert_eq!(pod.held.shim.wait(&container, "").await.unwrap().exit_status, 0);
        assert_eq!(out.read(17), "pod.example\n77\n1\n");
        pod.held.shim.delete(&container, "").await.unwrap();

        let waiting = {
            let (client, sandbox_id) = (pod.client.clone(), id.clone());
            tokio::spawn(async move {
                let request = WaitSandboxRequest { sandbox_id, ..Default::default() };
                client.wait_sandbox(soon(), &request).await
            })
        };
        pod.stop().await;
        assert_eq!(waiting.await.unwrap().unwrap().exit_status, 137);
        let status = pod.status().await;
        assert_eq!(status.state, "SANDBOX_NOTREADY");
        assert!(status.exited_at.is_some());
        assert!(!Path::new(&format!("/proc/{holder}")).try_exists().unwrap());
        pod.shut_down().await;
    });
}

#[test]
fn a_pod_s_holder_dies_with_its_shim() {
    block_on(async {
        let pod = Pod::new(Plan::idle()).await;
        pod.create(with_root(config(NamespaceMode::CONTAINER, "", &[]), 100_000)).await.unwrap();
        let holder = pod.start().await;
        // Who may look into a process owns its files: of this one only the host does, since its root is the host's.
        let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(format!("/proc/{holder}/fd")).unwrap());
        assert_eq!(owner, 0);
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pod.held.pid as i32), nix::sys::signal::SIGKILL).unwrap();
        wait_gone(pod.held.pid);
        wait_gone(holder);
    });
}

#[test]
fn a_pod_may_have_one_pid_namespace() {
    block_on(async {
        let pod = Pod::new(Plan::idle()).await;
        pod.create(config(NamespaceMode::POD, "", &[])).await.unwrap();
        let holder = pod.start().await;
        assert_ne!(namespace(holder, "pid"), namespace(std::process::id(), "pid"));
        let status = fs::read_to_string(format!("/proc/{holder}/status")).unwrap();
        assert!(status.lines().any(|it| it.starts_with("NSpid:") && it.ends_with("\t1")), "{status}");
        pod.shut_down().await;
    });
}

#[test]
fn a_pod_may_have_a_user_namespace() {
    block_on(async {
        let script =
            "cat /proc/self/uid_map | tr -s ' '; hostname; cat /proc/sys/kernel/shmmni /proc/sys/net/ipv4/ip_forward";
        let mut pod = Pod::new(Plan::of(&["/bin/sh", "-c", script])).await;
        let sysctls = [("kernel.shmmni", "77"), ("net.ipv4.ip_forward", "1")];
        pod.create(with_root(config(NamespaceMode::POD, "pod.example", &sysctls), 100_000)).await.unwrap();
        let holder = pod.start().await;
        let own = std::process::id();
        for kind in ["user", "uts", "ipc", "net", "pid"] {
            assert_ne!(namespace(holder, kind), namespace(own, kind), "{kind}");
        }
        let status = fs::read_to_string(format!("/proc/{holder}/status")).unwrap();
        for line in ["Uid:\t100000\t100000\t100000\t100000", "Gid:\t100000\t100000\t100000\t100000"] {
            assert!(status.contains(line), "{line} is not in {status}");
        }
        assert_eq!(fs::read_dir(format!("/proc/{holder}/fd")).unwrap().count(), 0);

        let bundle = pod.held.bundle;
        pod.held.bundle = bundle.edit(|config| {
            let kinds = [("user", "user"), ("uts", "uts"), ("ipc", "ipc"), ("network", "net"), ("pid", "pid")];
            let mut namespaces: Vec<_> = kinds
                .iter()
                .map(|(kind, file)| json!({"type": kind, "path": format!("/proc/{holder}/ns/{file}")}))
                .collect();
            namespaces.push(json!({"type": "mount"}));
            config["linux"]["namespaces"] = json!(namespaces);
            let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
            config["linux"]["uidMappings"] = map.clone();
            config["linux"]["gidMappings"] = map;
            config.as_object_mut().unwrap().remove("hostname");
        });
        pod.held.bundle.write();
        let mut out = super::held::Fifo::new(&pod.held.rt, "out");
        let streams = Streams { stdout: out.text(), ..Streams::default() };
        let container = format!("{}-c", pod.held.id);
        let options = pod.held.launch.options.clone();
        pod.held.shim.create_with(&container, pod.held.bundle.path(), &streams, vec![], options).await.unwrap();
        pod.held.shim.start(&container, "").await.unwrap();
        assert_eq!(pod.held.shim.wait(&container, "").await.unwrap().exit_status, 0);
        let said = " 0 100000 65536\npod.example\n77\n1\n";
        assert_eq!(out.read(said.len()), said);
        pod.held.shim.delete(&container, "").await.unwrap();

        // As a daemon does that makes the network first: the pod is in the user namespace that owns it.
        let other = Pod::new(Plan::idle()).await;
        let network = format!("/proc/{holder}/ns/net");
        other.create_in(with_root(config(NamespaceMode::CONTAINER, "", &[]), 100_000), &network).await.unwrap();
        let second = other.start().await;
        for kind in ["user", "net"] {
            assert_eq!(namespace(second, kind), namespace(holder, kind), "{kind}");
        }
        for kind in ["uts", "ipc"] {
            assert_ne!(namespace(second, kind), namespace(holder, kind), "{kind}");
        }
        other.shut_down().await;
        pod.shut_down().await;
        assert!(!Path::new(&format!("/proc/{holder}")).try_exists().unwrap());
    });
}

#[test]
fn what_is_wrong_with_a_pod_is_said() {
    block_on(async {
        let pod = Pod::new(Plan::idle()).await;
        let id = pod.held.id.clone();
        for name in ["vm.swappiness", "kernel.hostname", "net.../../kernel.x", "net/../vm/swappiness"] {
            let error = pod.create(config(NamespaceMode::CONTAINER, "", &[(name, "1")])).await.unwrap_err();
            assert_eq!(refusal(&error), Some(Code::INVALID_ARGUMENT), "{name}: {error}");
        }
        let mut shared = with_root(config(NamespaceMode::CONTAINER, "", &[]), 100_000);
        let options = |config: &mut PodSandboxConfig, change: fn(&mut UserNamespace)| {
            let context = config.linux.as_mut().unwrap().security_context.as_mut().unwrap();
            change(context.namespace_options.as_mut().unwrap().userns_options.as_mut().unwrap());
        };
        options(&mut shared, |it| it.mode = NamespaceMode::CONTAINER.into());
        let error = pod.create(shared).await.unwrap_err();
        assert_eq!(refusal(&error), Some(Code::INVALID_ARGUMENT), "{error}");
        let mut empty = with_root(config(NamespaceMode::CONTAINER, "", &[]), 100_000);
        options(&mut empty, |it| it.gids.clear());
        let error = pod.create(empty).await.unwrap_err();
        assert_eq!(refusal(&error), Some(Code::INVALID_ARGUMENT), "{error}");
        assert!(error.to_string().contains("maps no group"), "{error}");
        let ping = PingRequest { sandbox_id: id.clone(), ..Default::default() };
        assert_eq!(refusal(&pod.client.ping_sandbox(soon(), &ping).await.unwrap_err()), Some(Code::NOT_FOUND));
        let request = CreateSandboxRequest {
            sandbox_id: id.clone(),
            netns_path: "/no/such/namespace".into(),
            ..Default::default()
        };
        pod.client.create_sandbox(soon(), &request).await.unwrap();
        pod.client.ping_sandbox(soon(), &ping).await.unwrap();
        let again = pod.create(config(NamespaceMode::CONTAINER, "", &[])).await.unwrap_err();
        assert_eq!(refusal(&again), Some(Code::ALREADY_EXISTS));
        let start = StartSandboxRequest { sandbox_id: id.clone(), ..Default::default() };
        let error = pod.client.start_sandbox(soon(), &start).await.unwrap_err();
        assert!(error.to_string().contains("/no/such/namespace"), "{error}");
        let platform = PlatformRequest { sandbox_id: id.clone(), ..Default::default() };
        let platform = pod.client.platform(soon(), &platform).await.unwrap().platform.unwrap();
        assert_eq!(platform.os, "linux");
        let metrics = SandboxMetricsRequest { sandbox_id: id, ..Default::default() };
        let error = pod.client.sandbox_metrics(soon(), &metrics).await.unwrap_err();
        assert_eq!(refusal(&error), Some(Code::NOT_FOUND), "no cgroup was named: {error}");
        pod.shut_down().await;
    });
}

/// A stream of a process, opened.
struct Open(ClientStream<Any, Any>);

impl Open {
    async fn new(shim: &Shim, id: &str) -> Open {
        let mut stream = StreamingClient::new(shim.client.clone()).stream(Default::default()).await.unwrap();
        stream.send(&pack(&StreamInit { id: id.into(), ..Default::default() }).unwrap()).await.unwrap();
        let answer = stream.recv().await.unwrap();
        Empty::parse_from_bytes(&answer.value).unwrap();
        Open(stream)
    }

    async fn send<M: Packed>(&self, message: &M) {
        self.0.send(&pack(message).unwrap()).await.unwrap();
    }

    async fn next<M: Packed>(&mut self) -> M {
        unpack(&self.0.recv().await.unwrap()).unwrap().expect("another message")
    }

    /// Takes at most so much at a time, until it has all of it.
    async fn read(&mut self, count: usize, window: i32) -> String {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            let update = window.min((count - bytes.len()) as i32);
            self.send(&WindowUpdate { update, ..Default::default() }).await;
            let until = bytes.len() + update as usize;
            while bytes.len() < until {
                bytes.extend(self.next::<Data>().await.data);
            }
            assert!(bytes.len() <= until, "more came than was asked for");
        }
        String::from_utf8(bytes).unwrap()
    }
}

#[test]
fn streams_go_over_ttrpc() {
    block_on(async {
        let script =
            "read line; echo got $line; echo bad >&2; i=0; while [ $i -lt 5000 ]; do echo $i; i=$((i+1)); done";
        let held = Plan::of(&["/bin/sh", "-c", script]).hold().await;
        let name = |stream: &str| format!("{}-{stream}", held.id);
        let uri = |stream: &str| format!("ttrpc+{}?streaming_id={}", held.started.address, name(stream));
        let streams = Streams { stdin: uri("stdin"), stdout: uri("stdout"), stderr: uri("stderr"), terminal: false };
        // One is opened before it is named, the others after.
        let mut stdout = Open::new(&held.shim, &name("stdout")).await;
        held.create(&streams).await.unwrap();
        let mut stderr = Open::new(&held.shim, &name("stderr")).await;
        let mut stdin = Open::new(&held.shim, &name("stdin")).await;
        held.shim.start(&held.id, "").await.unwrap();
        assert!(stdin.next::<WindowUpdate>().await.update > 0);
        stdin.send(&Data { data: b"it\n".to_vec(), ..Default::default() }).await;
        assert_eq!(stdout.read(7, 3).await, "got it\n");
        assert_eq!(stderr.read(4, 100).await, "bad\n");
        // The client goes away and another comes: nothing is lost that was not taken.
        drop(stdout);
        let mut stdout = Open::new(&held.shim, &name("stdout")).await;
        let numbers: String = (0..5000).map(|it| format!("{it}\n")).collect();
        assert_eq!(stdout.read(numbers.len(), 1000).await, numbers);
        assert_eq!(held.shim.wait(&held.id, "").await.unwrap().exit_status, 0);
        held.shim.delete(&held.id, "").await.unwrap();
        held.end().await;
    });
}

/// As containerd 2.x does for its ExecSync: each stream is opened by an empty message first, and asked for all before there
/// is a process.
#[test]
fn a_stream_may_be_asked_for_before_it_is_named() {
    block_on(async {
        let held = Plan::idle().hold().await;
        held.run().await;
        let stream = StreamingClient::new(held.shim.client.clone()).stream(Default::default()).await.unwrap();
        let mut stdout = Open(stream);
        stdout.0.send(&Any::default()).await.unwrap();
        stdout.send(&StreamInit { id: "early".into(), ..Default::default() }).await;
        stdout.0.recv().await.unwrap();
        stdout.send(&WindowUpdate { update: 65536, ..Default::default() }).await;
        let uri = format!("ttrpc+{}?streaming_id=early", held.started.address);
        let streams = Streams { stdout: uri, ..Streams::default() };
        held.exec("e", &["/bin/echo", "said"], &streams).await;
        assert_eq!(held.shim.wait(&held.id, "e").await.unwrap().exit_status, 0);
        held.shim.delete(&held.id, "e").await.unwrap();
        assert_eq!(stdout.next::<Data>().await.data, b"said\n");
        // And its end comes.
        assert!(stdout.0.recv().await.is_err());
        held.kill_and_delete().await;
        held.end().await;
    });
}

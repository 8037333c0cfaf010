//! A container's statistics, field by field beside what containerd's own shim says of the same cgroup at the same time.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Instant;

use integration::shim_client::{Bootstrap, Launch, Shim, Streams, block_on, soon, wait_gone};
use integration::{in_path, skip, wait};
use serde_json::json;
use tare_proto::any::{Packed, unpack};
use tare_proto::cri::{LinuxPodSandboxConfig, PodSandboxConfig};
use tare_proto::sandbox::{CreateSandboxRequest, SandboxMetricsRequest, ShutdownSandboxRequest};
use tare_proto::sandbox_ttrpc::SandboxClient;
use tare_proto::types::Metric;
use tare_proto::{any::pack, cgroups_v1, cgroups_v2};

use super::client::bootstrap;
use super::held::{Fifo, Held, Plan, options};

/// Uses some of everything that is counted: processor, memory of several kinds, the disk.
const WORKS: &str = "dd if=/dev/zero of=/dev/shm/x bs=1M count=4; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; \
    sleep 1000 & echo done; exec sleep 1000";

/// Statistics, of the one version or the other.
#[derive(Debug, PartialEq)]
enum Said {
    V1(Box<cgroups_v1::Metrics>),
    V2(Box<cgroups_v2::Metrics>),
}

impl Said {
    async fn of(shim: &Shim, id: &str) -> Said {
        if let Some(v1) = shim.stats(id).await.unwrap() {
            return Said::V1(Box::new(v1));
        }
        Said::V2(Box::new(shim.stats(id).await.unwrap().expect("one of the two")))
    }
}

/// What our shim says of its pod, which is in the cgroup of the other's container.
async fn ask_ours(held: &Held) -> Metric {
    let client = SandboxClient::new(held.shim.client.clone());
    let sandbox_id = held.id.clone();
    let request = SandboxMetricsRequest { sandbox_id, ..Default::default() };
    client.sandbox_metrics(soon(), &request).await.unwrap().metrics.unwrap()
}

/// Gives our shim a pod there.
async fn make_pod(held: &Held, cgroup: &str) {
    let client = SandboxClient::new(held.shim.client.clone());
    let linux = LinuxPodSandboxConfig { cgroup_parent: cgroup.into(), ..Default::default() };
    let config = PodSandboxConfig { linux: Some(linux).into(), ..Default::default() };
    let request = CreateSandboxRequest {
        sandbox_id: held.id.clone(),
        options: Some(pack(&config).unwrap()).into(),
        ..Default::default()
    };
    client.create_sandbox(soon(), &request).await.unwrap();
}

#[test]
fn they_are_what_containerds_own_shim_says() {
    let Some(program) = in_path("containerd-shim-runc-v2") else { skip!("containerd-shim-runc-v2 is not installed") };
    block_on(async {
        let plan = Plan::of(&["/bin/sh", "-c", WORKS]);
        let cgroup = format!("/{}-statistics", plan.rt.tag());
        let held = plan
            .edit(|config| {
                config["linux"]["cgroupsPath"] = json!(cgroup);
                config["linux"]["resources"]["memory"] = json!({"limit": 64 << 20, "swap": 64 << 20});
                config["linux"]["resources"]["pids"] = json!({"limit": 77});
                config["linux"]["resources"]["cpu"] = json!({"quota": 50_000, "period": 100_000});
            })
            .hold()
            .await;
        let id = held.rt.fresh_id();
        let mut launch = Launch::new(&program, &id, held.bundle.path());
        launch.bootstrap = bootstrap(&program);
        if launch.bootstrap == Bootstrap::Params {
            launch.socket_dir = Some(held.rt.work().to_owned());
        }
        launch.events = Some(held.events.path().to_owned());
        launch.options = Some(options(&held.rt, ""));
        launch.environment.push(("TARE_TEST_TAG".into(), held.rt.tag().into()));
        let started = launch.start().unwrap();
        let theirs = Shim::connect(&started).await.unwrap();
        let (pid, _) = theirs.pids_of_shim_and_task(&id).await.unwrap();
        let [mut out, err] = ["out", "err"].map(|name| Fifo::new(&held.rt, name));
        let streams = Streams { stdout: out.text(), stderr: err.text(), ..Streams::default() };
        let options = launch.options.clone();
        theirs.create_with(&id, held.bundle.path(), &streams, vec![], options).await.unwrap();
        theirs.start(&id, "").await.unwrap();
        assert_eq!(out.read(5), "done\n");
        // What is frozen uses nothing more, but the kernel may still be counting what was used: until they say the same before
        // and after us.
        make_pod(&held, &cgroup).await;
        theirs.pause(&id).await.unwrap();
        let until = wait::deadline();
        let (said, ours) = loop {
            let before = Said::of(&theirs, &id).await;
            let ours = ask_ours(&held).await;
            if before == Said::of(&theirs, &id).await {
                break (before, ours);
            }
            assert!(Instant::now() < until, "a frozen cgroup goes on: {before:?}");
        };
        theirs.resume(&id).await.unwrap();
        theirs.kill_all(&id, libc::SIGKILL).await.unwrap();
        theirs.wait(&id, "").await.unwrap();
        theirs.delete(&id, "").await.unwrap();
        let _ = theirs.shutdown(&id).await;
        wait_gone(pid);

        match said {
            Said::V1(theirs) => compare(&*theirs, &ours),
            Said::V2(theirs) => compare(&*theirs, &ours),
        }
        let request = ShutdownSandboxRequest { sandbox_id: held.id.clone(), ..Default::default() };
        SandboxClient::new(held.shim.client.clone()).shutdown_sandbox(soon(), &request).await.unwrap();
        held.end().await;
    });
}

fn compare<M: Packed + Debug>(theirs: &M, ours: &Metric) {
    let ours: M = unpack(&ours.data).unwrap().expect("the message of the same version");
    let (theirs, ours) = (fields(theirs), fields(&ours));
    assert!(theirs.len() > 20, "they say little: {theirs:?}");
    println!("{} fields", theirs.len());
    let differ: Vec<String> = theirs
        .keys()
        .chain(ours.keys().filter(|name| !theirs.contains_key(*name) && !is_newer(name)))
        .filter(|name| theirs.get(*name) != ours.get(*name))
        .map(|name| format!("{name}: theirs {:?}, ours {:?}", theirs.get(name), ours.get(name)))
        .collect();
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

/// What is counted since version 2 of cgroups was new, and said only by later libraries than Debian 12's.
fn is_newer(name: &str) -> bool {
    let later = ["MemoryStat.max_usage", "MemoryStat.swap_max_usage", "CPUStat.nr_bursts", "CPUStat.burst_usec"];
    name.contains(".psi.") || later.iter().any(|field| name.ends_with(field))
}

/// The fields of a message that are not empty, by their path, out of what it looks like for people.
fn fields(message: &impl Debug) -> BTreeMap<String, String> {
    let mut path: Vec<String> = Vec::new();
    let mut fields = BTreeMap::new();
    for line in format!("{message:#?}").lines().map(str::trim) {
        if let Some(begun) = line.strip_suffix(['{', '(', '[']) {
            // `name: Type {`, `Some(`, or an element of a list, whose place is its number.
            path.push(begun.split(':').next().unwrap_or_default().trim().to_owned());
        } else if line.starts_with(['}', ')', ']']) {
            path.pop();
        } else if let Some((name, value)) = line.trim_end_matches(',').split_once(": ")
            && !matches!(value, "0" | "\"\"" | "[]" | "false" | "None" | "MessageField(None)")
        {
            let mut place = format!("{}.{name}", path.join("."));
            while fields.contains_key(&place) {
                place.push('\'');
            }
            fields.insert(place, value.to_owned());
        }
    }
    fields
}

//! Pods over the shim, as the kubelet runs them: containerd's CRI plugin, with a pause container and without network plugins.

mod streams;

use std::collections::BTreeSet;
use std::path::PathBuf;

use integration::cri_client::Cri;
use integration::shim_client::block_on;
use integration::world::{Server, User, World, assert_shown, systemd};
use integration::{need, need_systemd, skip, wait};
use tare_proto::cri::*;

use super::held::shim_under_test;

/// The one image is also that of the pause container.
const CONFIG: &str = r#"
version = 2
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "docker.io/library/box:latest"
# What a container may ask for is no more than the test itself may.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "tare"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.tare]
runtime_type = "io.containerd.tare.v2"
"#;

/// Besides, where systemd makes the cgroups: the shim's settings in a file, as all of containerd's versions can tell it, and the
/// runtime under containerd's own shim.
const SYSTEMD_CONFIG: &str = r#"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.tare.options]
TypeUrl = "runtimeoptions.v1.Options"
ConfigPath = "/run/world/shim.toml"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
BinaryName = "/run/world/bin/tare"
SystemdCgroup = true
"#;

const IMAGE: &str = "docker.io/library/box:latest";

const IMPORT: &str = "
umoci init --layout image
umoci new --image image:latest
umoci insert --image image:latest rootfs /
umoci config --image image:latest --config.env PATH=/bin --config.cmd /bin/sleep --config.cmd 1000
tar -C image -cf image.tar .
ctr --address /run/world/containerd.sock -n k8s.io images import --base-name docker.io/library/box image.tar
";

/// Where the daemon keeps bundles and what belongs to pods, and `tare` its containers' state.
const STATES: &[&str] = &[
    "/run/world/containerd.state/io.containerd.runtime.v2.task/k8s.io",
    "/run/world/containerd.state/io.containerd.grpc.v1.cri/sandboxes",
    "/run/world/containerd.state/io.containerd.grpc.v1.cri/containers",
    "/run/containerd/tare/k8s.io",
    "/run/containerd/runc/k8s.io",
    "/run/containerd/s",
];

/// Ends with 3 when it is told to; that it has said its lines shows that it listens.
const POLITE: &str = "trap 'exit 3' TERM; echo out; echo err >&2; while :; do sleep 1000 & wait; done";

#[test]
fn cri_of_containerd_of_this_machine() {
    need!("containerd", "ctr", "umoci");
    cri(&[]);
}

#[test]
fn cri_of_another_containerd() {
    need!("umoci");
    let Some(dir) = std::env::var_os("TARE_CONTAINERD").map(PathBuf::from) else {
        skip!(
            "TARE_CONTAINERD does not name the directory of another containerd (integration/engines-setup fetches one)"
        );
    };
    cri(&["containerd", "ctr"].map(|name| dir.join(name)));
}

#[test]
fn cri_with_systemd() {
    need_systemd!();
    need!("containerd", "ctr", "umoci");
    let config = format!("{CONFIG}{SYSTEMD_CONFIG}");
    let shown = all(World::beside_systemd(), &[], &config, &["tare", "runc"]);
    assert_shown("the CRI with systemd", shown);
}

fn cri(programs: &[PathBuf]) {
    assert_shown("the shim under the CRI", all(World::start(), programs, CONFIG, &["tare"]));
}

fn all(world: World, programs: &[PathBuf], config: &str, handlers: &[&str]) -> (Vec<String>, String) {
    world.add_program(&shim_under_test());
    programs.iter().for_each(|program| world.add_program(program));
    let before = world.snapshot();
    world.prepare(User::Root, &format!("cat >cri.toml <<'END'\n{config}END\necho 'SystemdCgroup = true' >shim.toml"));
    let server = Server::start(
        &world,
        &[
            "containerd",
            "--config=/run/world/cri.toml",
            "--root=/run/world/containerd",
            "--state=/run/world/containerd.state",
            "--address=/run/world/containerd.sock",
        ],
        "containerd successfully booted",
    );
    world.prepare(User::Root, IMPORT);
    for handler in handlers {
        // A pod that went wrong is still there, so that there is nothing to be said of what it leaves.
        if let Err(problem) = block_on(pod(&world, handler)) {
            return (vec![format!("{problem} (with {handler})")], server.log_tail());
        }
    }
    let log = server.stop(&world);
    let failures = world.finish(&before, STATES, |_| true);
    (failures, log)
}

/// The life of a pod with two containers.
async fn pod(world: &World, handler: &str) -> Result<(), String> {
    let cri = Cri::connect(&world.root().join("run/world/containerd.sock")).await?;
    until_known(&cri).await?;
    let config = sandbox_config(world);
    let request = RunPodSandboxRequest {
        config: Some(config.clone()).into(),
        runtime_handler: handler.into(),
        ..Default::default()
    };
    let sandbox = cri.call(request).await?.pod_sandbox_id;
    let wanted = Wanted { name: "polite", command: &["sh", "-c", POLITE], stdin: false };
    let polite = start(&cri, &sandbox, &config, wanted).await?;
    let wanted = Wanted { name: "deaf", command: &["sleep", "1000"], stdin: false };
    let deaf = start(&cri, &sandbox, &config, wanted).await?;
    same("the one parent of the pause container and the two others", parents(world), "3 containerd-shim\n".to_owned())?;

    let log = wait::file(&world.root().join("run/world/polite.log"), |text| text.lines().count() == 2);
    // A line is a time, the stream, whether the line is full or partial, and what was written; the streams are read apart.
    let lines: BTreeSet<&str> = log.lines().filter_map(|line| Some(line.split_once(' ')?.1)).collect();
    same("the log", lines, BTreeSet::from(["stdout F out", "stderr F err"]))?;
    same("status", status(&cri, &polite).await?, (ContainerState::CONTAINER_RUNNING, 0))?;
    exec_sync(&cri, &polite).await?;
    resources(world, &cri, &polite).await?;
    if !world.is_beside_systemd() {
        streams::streams(world, &cri, &sandbox, &config, &polite).await?;
    }

    cri.call(StopContainerRequest { container_id: polite.clone(), timeout: 60, ..Default::default() }).await?;
    same("status", status(&cri, &polite).await?, (ContainerState::CONTAINER_EXITED, 3))?;
    same("the other's status", status(&cri, &deaf).await?, (ContainerState::CONTAINER_RUNNING, 0))?;
    cri.call(StopContainerRequest { container_id: deaf.clone(), timeout: 0, ..Default::default() }).await?;
    same("status", status(&cri, &deaf).await?, (ContainerState::CONTAINER_EXITED, 137))?;
    for container_id in [polite, deaf] {
        if world.is_beside_systemd() {
            let gone = format!("S=\n{}gone cri-containerd-{container_id}.scope", systemd::PROLOGUE);
            same("the unit", world.sh(User::Root, &gone).stdout, "gone\n".to_owned())?;
        }
        cri.call(RemoveContainerRequest { container_id, ..Default::default() }).await?;
    }
    // For a pod after this one.
    world.prepare(User::Root, "rm polite.log deaf.log");
    cri.call(StopPodSandboxRequest { pod_sandbox_id: sandbox.clone(), ..Default::default() }).await?;
    cri.call(RemovePodSandboxRequest { pod_sandbox_id: sandbox, ..Default::default() }).await?;
    Ok(())
}

/// The plugin begins to answer after the daemon has said that it is up, and hears of the image by an event.
async fn until_known(cri: &Cri) -> Result<(), String> {
    let until = wait::deadline();
    loop {
        let request = ImageStatusRequest { image: Some(image()).into(), ..Default::default() };
        let answer = cri.call(request).await;
        if answer.as_ref().is_ok_and(|it| it.image.is_some()) {
            return Ok(());
        }
        if std::time::Instant::now() >= until {
            return Err(format!("the CRI does not get to know its image: {:?}", answer.map(|it| it.image)));
        }
    }
}

/// A container to be.
struct Wanted<'a> {
    name: &'a str,
    command: &'a [&'a str],
    /// Whether its input is open, for those who attach.
    stdin: bool,
}

async fn start(
    cri: &Cri,
    sandbox: &str,
    sandbox_config: &PodSandboxConfig,
    wanted: Wanted<'_>,
) -> Result<String, String> {
    let Wanted { name, command, stdin } = wanted;
    let resources = LinuxContainerResources { memory_limit_in_bytes: 64 << 20, ..Default::default() };
    let context = LinuxContainerSecurityContext { namespace_options: Some(namespaces()).into(), ..Default::default() };
    let linux = LinuxContainerConfig {
        resources: Some(resources).into(),
        security_context: Some(context).into(),
        ..Default::default()
    };
    let config = ContainerConfig {
        metadata: Some(ContainerMetadata { name: name.into(), ..Default::default() }).into(),
        image: Some(image()).into(),
        command: words(command),
        log_path: format!("{name}.log"),
        stdin,
        linux: Some(linux).into(),
        ..Default::default()
    };
    let request = CreateContainerRequest {
        pod_sandbox_id: sandbox.into(),
        config: Some(config).into(),
        sandbox_config: Some(sandbox_config.clone()).into(),
        ..Default::default()
    };
    let id = cri.call(request).await?.container_id;
    cri.call(StartContainerRequest { container_id: id.clone(), ..Default::default() }).await?;
    Ok(id)
}

async fn exec(cri: &Cri, id: &str, command: &[&str]) -> Result<ExecSyncResponse, String> {
    cri.call(ExecSyncRequest { container_id: id.into(), cmd: words(command), ..Default::default() }).await
}

async fn exec_sync(cri: &Cri, id: &str) -> Result<(), String> {
    let done = exec(cri, id, &["sh", "-c", "echo hello; echo bad >&2; exit 9"]).await?;
    same("exec", (&done.stdout[..], &done.stderr[..], done.exit_code), (b"hello\n", b"bad\n", 9))
}

async fn resources(world: &World, cri: &Cri, id: &str) -> Result<(), String> {
    let stats = cri.call(ContainerStatsRequest { container_id: id.into(), ..Default::default() }).await?.stats;
    let some = stats.memory.working_set_bytes.value > 0 && stats.cpu.usage_core_nano_seconds.value > 0;
    same("statistics of memory and processor", some, true)?;
    let limit = LinuxContainerResources { memory_limit_in_bytes: 32 << 20, ..Default::default() };
    let update =
        UpdateContainerResourcesRequest { container_id: id.into(), linux: Some(limit).into(), ..Default::default() };
    let read = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max";
    unit(world, id, "loaded\nCG\n67108864\n")?;
    same("the memory limit", exec(cri, id, &["sh", "-c", read]).await?.stdout, b"67108864\n".to_vec())?;
    cri.call(update).await?;
    unit(world, id, "loaded\nCG\n33554432\n")?;
    same("the new memory limit", exec(cri, id, &["sh", "-c", read]).await?.stdout, b"33554432\n".to_vec())
}

/// What systemd, where it makes the cgroups, says of a container's unit: whether it is there, where, and its memory's limit.
fn unit(world: &World, id: &str, expected: &str) -> Result<(), String> {
    if !world.is_beside_systemd() {
        return Ok(());
    }
    let script = format!(
        "for name in LoadState Slice MemoryMax; do systemctl show -p $name --value cri-containerd-{id}.scope; done"
    );
    let shown = world.sh(User::Root, &script).stdout.replace(&world.cgroup_parent(), "CG");
    same("the container's unit", shown.as_str(), expected)
}

async fn status(cri: &Cri, id: &str) -> Result<(ContainerState, i32), String> {
    let status = cri.call(ContainerStatusRequest { container_id: id.into(), ..Default::default() }).await?.status;
    Ok((status.state.enum_value_or_default(), status.exit_code))
}

/// The parents of the containers' first processes: how many each has, and its name, of which the kernel knows 15 bytes.
fn parents(world: &World) -> String {
    let script = "for pid in $(PROCESSES); do cat /proc/$pid/status 2>/dev/null; done |
        awk '/^PPid:/ {parent = $2} /^NSpid:/ && NF == 3 && $3 == 1 {print parent}' | sort | uniq -c |
        while read -r count pid; do echo $count $(cat /proc/$pid/comm); done";
    world.sh(User::Root, &script.replace("PROCESSES", systemd::PROCESSES)).stdout
}

fn sandbox_config(world: &World) -> PodSandboxConfig {
    let metadata =
        PodSandboxMetadata { name: "pod".into(), uid: "1".into(), namespace: "default".into(), ..Default::default() };
    let context = LinuxSandboxSecurityContext { namespace_options: Some(namespaces()).into(), ..Default::default() };
    let linux = LinuxPodSandboxConfig {
        cgroup_parent: world.cgroup_parent(),
        security_context: Some(context).into(),
        ..Default::default()
    };
    PodSandboxConfig {
        metadata: Some(metadata).into(),
        log_directory: "/run/world".into(),
        linux: Some(linux).into(),
        ..Default::default()
    }
}

/// The pod's, but for the network: the host's needs no plugins.
fn namespaces() -> NamespaceOption {
    NamespaceOption {
        network: NamespaceMode::NODE.into(),
        pid: NamespaceMode::CONTAINER.into(),
        ipc: NamespaceMode::POD.into(),
        ..Default::default()
    }
}

fn image() -> ImageSpec {
    ImageSpec { image: IMAGE.into(), ..Default::default() }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// An error that names both, if they differ.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, is: T, ought: T) -> Result<(), String> {
    if is == ought { Ok(()) } else { Err(format!("--- {what}: {is:?} instead of {ought:?}")) }
}

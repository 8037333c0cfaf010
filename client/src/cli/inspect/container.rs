//! A container as docker's `inspect` shows it. The record has docker's names already; here is what docker has beside it, and its order.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde_json::{Value, json};

use super::Shown;
use crate::apparmor;
use crate::cli::size;
use crate::client::Client;
use crate::error::Result;
use crate::paths;
use crate::record::{Container, Endpoint, HealthState, Map, Mount, PortBinding, State as Record, Status};
use crate::spec::has_cgroups_2;
use crate::time::Time;
use crate::truth;

/// What there is of one container.
pub(super) async fn shown(client: &Client, name: &str, with_size: bool) -> Result<Shown> {
    let record = truth::find(client, name).await?;
    let mut object = of(client, &record);
    if with_size {
        let size = size::of(client, &record).await?;
        (object.size_rw, object.size_root_fs) = (Some(size.own), Some(size.whole));
    }
    Shown::of(&object)
}

/// Docker's form.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Inspected {
    id: String,
    created: Time,
    path: String,
    args: Vec<String>,
    state: State,
    image: String,
    resolv_conf_path: String,
    hostname_path: String,
    hosts_path: String,
    log_path: String,
    name: String,
    restart_count: u32,
    driver: &'static str,
    platform: &'static str,
    mount_label: &'static str,
    process_label: &'static str,
    app_armor_profile: String,
    #[serde(rename = "ExecIDs")]
    exec_ids: Option<Vec<String>>,
    host_config: Value,
    graph_driver: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_rw: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_root_fs: Option<u64>,
    mounts: Vec<Mount>,
    config: Value,
    network_settings: NetworkSettings,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    status: Status,
    running: bool,
    paused: bool,
    restarting: bool,
    #[serde(rename = "OOMKilled")]
    oom_killed: bool,
    dead: bool,
    pid: u32,
    exit_code: i64,
    error: String,
    started_at: Time,
    finished_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<Health>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Health {
    status: String,
    failing_streak: i64,
    log: Vec<crate::record::HealthResult>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    bridge: &'static str,
    #[serde(rename = "SandboxID")]
    sandbox_id: String,
    hairpin_mode: bool,
    #[serde(rename = "LinkLocalIPv6Address")]
    link_local_address: &'static str,
    #[serde(rename = "LinkLocalIPv6PrefixLen")]
    link_local_prefix: u8,
    ports: BTreeMap<String, Option<Vec<PortBinding>>>,
    sandbox_key: String,
    #[serde(rename = "SecondaryIPAddresses")]
    secondary: Option<Value>,
    #[serde(rename = "SecondaryIPv6Addresses")]
    secondary_v6: Option<Value>,
    #[serde(rename = "EndpointID")]
    endpoint_id: String,
    gateway: String,
    #[serde(rename = "GlobalIPv6Address")]
    global_v6_address: &'static str,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    global_v6_prefix: u8,
    #[serde(rename = "IPAddress")]
    ip_address: String,
    #[serde(rename = "IPPrefixLen")]
    ip_prefix_len: u8,
    #[serde(rename = "IPv6Gateway")]
    v6_gateway: &'static str,
    mac_address: String,
    networks: BTreeMap<String, Network>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Network {
    #[serde(rename = "IPAMConfig")]
    ipam_config: Option<Value>,
    links: Option<Vec<String>>,
    aliases: Option<Vec<String>>,
    #[serde(rename = "NetworkID")]
    network_id: String,
    #[serde(rename = "EndpointID")]
    endpoint_id: String,
    gateway: String,
    #[serde(rename = "IPAddress")]
    ip_address: String,
    #[serde(rename = "IPPrefixLen")]
    ip_prefix_len: u8,
    #[serde(rename = "IPv6Gateway")]
    v6_gateway: &'static str,
    #[serde(rename = "GlobalIPv6Address")]
    global_v6_address: &'static str,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    global_v6_prefix: u8,
    mac_address: String,
    driver_opts: Option<Value>,
}

/// Docker's form of a record.
pub(super) fn of(client: &Client, record: &Container) -> Inspected {
    let words: Vec<String> =
        record.config.entrypoint.iter().flatten().chain(record.config.cmd.iter().flatten()).cloned().collect();
    let (path, args) =
        words.split_first().map_or((String::new(), Vec::new()), |(first, rest)| (first.clone(), rest.to_vec()));
    // Before its first start it has none of these.
    let file = |path: &Path| if path.is_file() { paths::text(path) } else { String::new() };
    let files = crate::network::files(client, record);
    Inspected {
        id: record.id.clone(),
        created: record.created,
        path,
        args,
        state: state(&record.state),
        image: record.image.id.clone(),
        resolv_conf_path: file(&files.resolv_conf),
        hostname_path: file(&files.hostname),
        hosts_path: file(&files.hosts),
        log_path: file(&client.paths.log(&record.id)),
        name: format!("/{}", record.name),
        restart_count: record.state.restart_count,
        driver: "overlayfs",
        platform: "linux",
        mount_label: "",
        process_label: "",
        // As in docker, it has one from its first start on.
        app_armor_profile: apparmor::of(&record.host_config).filter(|_| was_begun(record)).unwrap_or_default(),
        exec_ids: None,
        host_config: host_config(record),
        graph_driver: json!({"Name": "overlayfs", "Data": {"Snapshot": record.snapshot, "Parent": record.image.chain_id}}),
        size_rw: None,
        size_root_fs: None,
        mounts: record.mounts.clone(),
        config: config(record),
        network_settings: network_settings(client, record),
    }
}

fn state(record: &Record) -> State {
    let is = |status: Status| record.status == status;
    State {
        status: record.status,
        running: is(Status::Running) || is(Status::Paused) || is(Status::Restarting),
        paused: is(Status::Paused),
        restarting: is(Status::Restarting),
        oom_killed: record.oom_killed,
        dead: is(Status::Dead),
        pid: record.pid,
        exit_code: record.exit_code,
        error: record.error.clone(),
        started_at: record.started_at,
        finished_at: record.finished_at,
        health: record.health.as_ref().map(health),
    }
}

fn health(state: &HealthState) -> Health {
    Health { status: state.status.clone(), failing_streak: state.failing_streak, log: state.log.clone() }
}

/// What docker has in it, and we never.
fn absent() -> Value {
    json!({
        "VolumeDriver": "", "Cgroup": "", "Isolation": "", "BlkioWeightDevice": [], "BlkioDeviceReadBps": null,
        "BlkioDeviceWriteBps": null, "BlkioDeviceReadIOps": null, "BlkioDeviceWriteIOps": null, "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0, "DeviceRequests": null, "KernelMemory": 0, "KernelMemoryTCP": 0, "CpuCount": 0, "CpuPercent": 0,
        "IOMaximumIOps": 0, "IOMaximumBandwidth": 0,
    })
}

/// Lists that docker writes as null when nothing was asked for.
const NULL_WHEN_EMPTY: [&str; 10] = [
    "Binds",
    "VolumesFrom",
    "CapAdd",
    "CapDrop",
    "ExtraHosts",
    "GroupAdd",
    "Links",
    "SecurityOpt",
    "DeviceCgroupRules",
    "Ulimits",
];

/// Fields that docker leaves out when nothing was asked for.
const ABSENT_WHEN_EMPTY: [&str; 5] = ["Annotations", "Mounts", "Tmpfs", "Sysctls", "Init"];

/// Whether a start was tried, be it in vain.
fn was_begun(record: &Container) -> bool {
    !record.state.started_at.is_never() || !record.state.error.is_empty()
}

fn host_config(record: &Container) -> Value {
    let mut value = serde_json::to_value(&record.host_config).unwrap_or_default();
    let Some(fields) = value.as_object_mut() else { return value };
    for name in NULL_WHEN_EMPTY {
        if fields.get(name).is_some_and(is_empty) {
            fields.insert(name.to_owned(), Value::Null);
        }
    }
    for name in ABSENT_WHEN_EMPTY {
        if fields.get(name).is_some_and(is_empty) {
            fields.remove(name);
        }
    }
    let host = &record.host_config;
    if host.privileged {
        // Nothing is hidden, which is another thing than a list that somebody gave as empty.
        for name in ["MaskedPaths", "ReadonlyPaths"] {
            fields.insert(name.to_owned(), Value::Null);
        }
    }
    let shares = host.privileged || host.pid_mode == "host" || host.ipc_mode == "host";
    if shares && !host.security_opt.iter().any(|it| it.starts_with("label")) {
        // So docker says that no label keeps it from what it shares with the host.
        fields
            .insert("SecurityOpt".to_owned(), json!([&host.security_opt[..], &["label=disable".to_owned()]].concat()));
    }
    if has_cgroups_2() && was_begun(record) {
        // There is no such thing in version 2, and from the start on docker says so.
        fields.insert("OomKillDisable".to_owned(), Value::Null);
    }
    if record.host_config.pids_limit == 0 {
        fields.insert("PidsLimit".to_owned(), Value::Null);
    }
    if record.host_config.runtime.is_empty() {
        fields.insert("Runtime".to_owned(), "tare".into());
    }
    if let Some(Value::Array(mounts)) = fields.get_mut("Mounts") {
        mounts.iter_mut().for_each(mount);
    }
    if let Value::Object(more) = absent() {
        fields.extend(more);
    }
    value
}

/// `--mount` in docker's form: options below the kind they are of, and nothing that was not said.
fn mount(value: &mut Value) {
    let Some(fields) = value.as_object() else { return };
    let get = |name: &str| fields.get(name).cloned().unwrap_or_default();
    let mut to = json!({"Type": get("Type"), "Target": get("Target")});
    for name in ["Source", "ReadOnly"] {
        if !is_empty(&get(name)) {
            to[name] = get(name);
        }
    }
    let options = |names: &[(&str, &str)]| {
        let said: serde_json::Map<String, Value> = names
            .iter()
            .filter(|(ours, _)| !is_empty(&get(ours)))
            .map(|(ours, dockers)| ((*dockers).to_owned(), get(ours)))
            .collect();
        Value::Object(said)
    };
    for (name, options) in [
        ("BindOptions", options(&[("Propagation", "Propagation")])),
        ("VolumeOptions", options(&[("NoCopy", "NoCopy"), ("Labels", "Labels")])),
        ("TmpfsOptions", options(&[("SizeBytes", "SizeBytes"), ("Mode", "Mode")])),
    ] {
        if !is_empty(&options) {
            to[name] = options;
        }
    }
    *value = to;
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(it) => !it,
        Value::Number(it) => it.as_f64() == Some(0.0),
        Value::String(it) => it.is_empty(),
        Value::Array(it) => it.is_empty(),
        Value::Object(it) => it.is_empty(),
    }
}

fn config(record: &Container) -> Value {
    let mut value = serde_json::to_value(&record.config).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.entry("OnBuild").or_insert(Value::Null);
        if let Some(Value::Object(check)) = fields.get_mut("Healthcheck") {
            check.retain(|_, it| !is_empty(it));
        }
    }
    value
}

fn network_settings(client: &Client, record: &Container) -> NetworkSettings {
    let runs = record.state.pid > 0;
    // Docker's old fields are those of the default network.
    let old = record.networks.get("bridge").cloned().unwrap_or_default();
    let mode = record.host_config.network_mode.as_str();
    let bare = ["host", "none"].contains(&mode);
    let own = runs && !bare && !mode.starts_with("container:");
    let networks = if bare {
        BTreeMap::from([(mode.to_owned(), bare_network(client, record))])
    } else {
        record.networks.iter().map(|(name, endpoint)| (name.clone(), network(record, endpoint))).collect()
    };
    NetworkSettings {
        bridge: "",
        sandbox_id: if own { record.id.clone() } else { String::new() },
        hairpin_mode: false,
        link_local_address: "",
        link_local_prefix: 0,
        ports: if own { ports(record) } else { BTreeMap::new() },
        sandbox_key: if own { paths::text(&client.paths.netns(&record.id)) } else { String::new() },
        secondary: None,
        secondary_v6: None,
        endpoint_id: endpoint_id(record, &old),
        gateway: old.gateway,
        global_v6_address: "",
        global_v6_prefix: 0,
        ip_address: old.ip_address,
        ip_prefix_len: old.ip_prefix_len,
        v6_gateway: "",
        mac_address: old.mac_address,
        networks,
    }
}

/// What is published; what is only exposed has none.
fn ports(record: &Container) -> BTreeMap<String, Option<Vec<PortBinding>>> {
    let mut all: BTreeMap<String, Option<Vec<PortBinding>>> =
        record.config.exposed_ports.keys().map(|port| (port.clone(), None)).collect();
    for (port, bindings) in &record.ports {
        let shown = |it: &PortBinding| PortBinding {
            host_ip: if it.host_ip.is_empty() { "0.0.0.0".to_owned() } else { it.host_ip.clone() },
            host_port: it.host_port.clone(),
        };
        all.insert(port.clone(), (!bindings.is_empty()).then(|| bindings.iter().map(shown).collect()));
    }
    all
}

/// The host's network, or none: an id is all there is of it.
fn bare_network(client: &Client, record: &Container) -> Network {
    let known = crate::network::list(client).unwrap_or_default();
    let known = known.into_iter().find(|it| it.name == record.host_config.network_mode);
    let mut shown =
        network(record, &Endpoint { network_id: known.map(|it| it.id).unwrap_or_default(), ..Endpoint::default() });
    if record.state.pid > 0 {
        shown.endpoint_id = crate::network::endpoint_id(&record.id, &shown.network_id);
    }
    shown
}

/// As `network inspect` has it; there is none while the container does not run.
fn endpoint_id(record: &Container, endpoint: &Endpoint) -> String {
    if endpoint.ip_address.is_empty() {
        String::new()
    } else {
        crate::network::endpoint_id(&record.id, &endpoint.network_id)
    }
}

fn network(record: &Container, endpoint: &Endpoint) -> Network {
    let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    let requested: Map = [("IPv4Address".to_owned(), endpoint.requested_ip.clone())].into();
    Network {
        ipam_config: (!endpoint.requested_ip.is_empty()).then(|| json!(requested)),
        links: some(&endpoint.links),
        aliases: some(&endpoint.aliases),
        network_id: endpoint.network_id.clone(),
        endpoint_id: endpoint_id(record, endpoint),
        gateway: endpoint.gateway.clone(),
        ip_address: endpoint.ip_address.clone(),
        ip_prefix_len: endpoint.ip_prefix_len,
        v6_gateway: "",
        global_v6_address: "",
        global_v6_prefix: 0,
        mac_address: endpoint.mac_address.clone(),
        driver_opts: None,
    }
}

use super::container::of;
use crate::client::{Client, Programs};
use crate::paths::Paths;
use crate::record::{Container, Endpoint, PortBinding, Status};

/// What Debian's docker 20.10 has in each part of a container's inspect.
const FIELDS: &[(&str, &str)] = &[
    (
        "",
        "Id Created Path Args State Image ResolvConfPath HostnamePath HostsPath LogPath Name RestartCount Driver Platform \
         MountLabel ProcessLabel AppArmorProfile ExecIDs HostConfig GraphDriver Mounts Config NetworkSettings",
    ),
    ("/State", "Status Running Paused Restarting OOMKilled Dead Pid ExitCode Error StartedAt FinishedAt"),
    (
        "/HostConfig",
        "Binds ContainerIDFile LogConfig NetworkMode PortBindings RestartPolicy AutoRemove VolumeDriver VolumesFrom CapAdd \
         CapDrop CgroupnsMode Dns DnsOptions DnsSearch ExtraHosts GroupAdd IpcMode Cgroup Links OomScoreAdj PidMode Privileged \
         PublishAllPorts ReadonlyRootfs SecurityOpt UTSMode UsernsMode ShmSize Runtime ConsoleSize Isolation CpuShares Memory \
         NanoCpus CgroupParent BlkioWeight BlkioWeightDevice BlkioDeviceReadBps BlkioDeviceWriteBps BlkioDeviceReadIOps \
         BlkioDeviceWriteIOps CpuPeriod CpuQuota CpuRealtimePeriod CpuRealtimeRuntime CpusetCpus CpusetMems Devices \
         DeviceCgroupRules DeviceRequests KernelMemory KernelMemoryTCP MemoryReservation MemorySwap MemorySwappiness \
         OomKillDisable PidsLimit Ulimits CpuCount CpuPercent IOMaximumIOps IOMaximumBandwidth MaskedPaths ReadonlyPaths",
    ),
    (
        "/Config",
        "Hostname Domainname User AttachStdin AttachStdout AttachStderr Tty OpenStdin StdinOnce Env Cmd Image Volumes WorkingDir \
         Entrypoint OnBuild Labels",
    ),
    (
        "/NetworkSettings",
        "Bridge SandboxID HairpinMode LinkLocalIPv6Address LinkLocalIPv6PrefixLen Ports SandboxKey SecondaryIPAddresses \
         SecondaryIPv6Addresses EndpointID Gateway GlobalIPv6Address GlobalIPv6PrefixLen IPAddress IPPrefixLen IPv6Gateway \
         MacAddress Networks",
    ),
    (
        "/NetworkSettings/Networks/bridge",
        "IPAMConfig Links Aliases NetworkID EndpointID Gateway IPAddress IPPrefixLen IPv6Gateway GlobalIPv6Address \
         GlobalIPv6PrefixLen MacAddress DriverOpts",
    ),
];

fn running() -> Container {
    let mut record = Container { id: "ab".repeat(32), name: "web".to_owned(), ..Container::default() };
    (record.state.status, record.state.pid) = (Status::Running, 7);
    record.config.cmd = Some(vec!["sleep".to_owned(), "1".to_owned()]);
    record.host_config.network_mode = "bridge".to_owned();
    let endpoint = Endpoint { ip_address: "172.17.0.2".to_owned(), network_id: "cd".repeat(32), ..Endpoint::default() };
    record.networks.insert("bridge".to_owned(), endpoint);
    record.config.exposed_ports.insert("80/tcp".to_owned(), serde_json::json!({}));
    let binding = PortBinding { host_ip: String::new(), host_port: "8080".to_owned() };
    record.ports.insert("80/tcp".to_owned(), vec![binding]);
    record
}

fn inspected(record: &Container) -> serde_json::Value {
    let paths = Paths { root: "/root-dir".into(), run: "/run-dir".into(), store: "/store".into() };
    let client = Client::new(paths, Programs::from_env().unwrap());
    serde_json::to_value(of(&client, record)).unwrap()
}

#[test]
fn a_container_has_dockers_fields() {
    let mut record = running();
    record.config.exposed_ports.clear();
    let value = inspected(&record);
    for (part, fields) in FIELDS {
        let object = value.pointer(part).and_then(|it| it.as_object()).unwrap_or_else(|| panic!("{part} is none"));
        let mut expected: Vec<&str> = fields.split_whitespace().collect();
        expected.sort_unstable();
        let mut have: Vec<&str> = object.keys().map(String::as_str).collect();
        have.sort_unstable();
        assert_eq!(have, expected, "{part}");
    }
}

#[test]
fn what_is_empty_is_as_dockers() {
    let value = inspected(&running());
    for (pointer, expected) in [
        ("/Name", serde_json::json!("/web")),
        ("/Path", "sleep".into()),
        ("/Args", serde_json::json!(["1"])),
        ("/HostConfig/Binds", serde_json::Value::Null),
        ("/HostConfig/Ulimits", serde_json::Value::Null),
        ("/HostConfig/PidsLimit", serde_json::Value::Null),
        ("/HostConfig/Devices", serde_json::json!([])),
        ("/HostConfig/PortBindings", serde_json::json!({})),
        ("/Config/Volumes", serde_json::Value::Null),
        ("/Config/Labels", serde_json::json!({})),
        ("/NetworkSettings/IPAddress", "172.17.0.2".into()),
        ("/NetworkSettings/Ports/80~1tcp/0/HostPort", "8080".into()),
        ("/NetworkSettings/Ports/80~1tcp/0/HostIp", "0.0.0.0".into()),
        ("/State/Running", true.into()),
    ] {
        assert_eq!(value.pointer(pointer), Some(&expected), "{pointer}");
    }
}

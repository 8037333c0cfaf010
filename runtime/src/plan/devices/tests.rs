//! Nodes of every sort, the defaults, and what is refused.

use super::*;
use serde_json::{Value, json};

fn lowered(devices: Value, mounts: Value) -> Result<Devices> {
    let spec: Spec =
        serde_json::from_value(json!({"ociVersion": "1.3.0", "mounts": mounts, "linux": {"devices": devices}}))
            .unwrap();
    let mounts = crate::plan::mounts::lower(&spec, Path::new("/b"), &Default::default()).unwrap();
    lower(&spec, &mounts)
}

fn paths(devices: &Devices) -> Vec<&str> {
    devices.nodes.iter().map(|node| node.path.to_str().unwrap()).collect()
}

#[test]
fn every_container_has_the_default_devices() {
    let devices = lowered(json!([]), json!([])).unwrap();
    assert_eq!(paths(&devices), ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"]);
    assert!(devices.nodes.iter().all(|node| node.mode == 0o666));
}

#[test]
fn the_configuration_comes_before_the_defaults() {
    let devices = lowered(
        json!([{"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 8612, "uid": 5},
               {"path": "/dev/pipe", "type": "p"},
               {"path": "/dev/disk", "type": "b", "major": 7, "minor": 1048575}]),
        json!([]),
    )
    .unwrap();
    assert_eq!(paths(&devices)[..3], ["/dev/null", "/dev/pipe", "/dev/disk"]);
    assert_eq!(devices.nodes.len(), 8);
    // podman hands the whole mode over, with the type's bits.
    assert_eq!((devices.nodes[0].mode, devices.nodes[0].uid), (0o644, Some(5)));
    assert_eq!(devices.nodes[1].kind, DeviceKind::Pipe);
    assert_eq!(devices.nodes[2].number(), makedev(7, 1_048_575));
}

#[test]
fn what_a_mount_covers_is_not_made() {
    let mount = json!([{"destination": "/dev/random", "source": "/dev/urandom", "options": ["bind"]}]);
    assert!(!paths(&lowered(json!([]), mount).unwrap()).contains(&"/dev/random"));
    let dev = json!([{"destination": "/dev/", "source": "/dev", "options": ["rbind"]}]);
    assert_eq!(lowered(json!([]), dev).unwrap(), Devices { nodes: Vec::new(), dev: Dev::Bound });
    // The host's one devtmpfs is as good as bound.
    let dev = json!([{"destination": "/dev", "type": "devtmpfs", "source": "devtmpfs"}]);
    assert_eq!(lowered(json!([]), dev).unwrap(), Devices { nodes: Vec::new(), dev: Dev::Bound });
}

#[test]
fn wrong_devices_are_sentences() {
    let table = [
        (
            json!({"path": "dev/x", "type": "c"}),
            "linux.devices[0]: the path \"dev/x\" is not the absolute path of a node",
        ),
        (json!({"path": "/", "type": "c"}), "is not the absolute path of a node"),
        (json!({"path": "/dev/../etc/x", "type": "c"}), "contains .."),
        (json!({"path": "/dev/x", "type": "a"}), "has the type a"),
        (json!({"path": "/dev/x", "type": "c", "major": -1}), "the major number -1 of /dev/x is not one"),
        (json!({"path": "/dev/x", "type": "b", "major": 1, "minor": 1048576}), "the minor number 1048576"),
        (json!({"path": "/dev/x", "type": "c", "major": 1, "fileMode": 262144}), "is more than permission bits"),
    ];
    for (device, sentence) in table {
        let error = lowered(json!([device]), json!([])).unwrap_err().to_string();
        assert!(error.contains(sentence), "{device}: {error}");
    }
}

//! Which devices a container may use → `DevicePolicy` and `DeviceAllow`.
//!
//! systemd writes its own idea of a unit's devices at each `systemctl daemon-reload`: on version 1 over ours, on version 2
//! as a program beside ours, and a device must be allowed by both. It can only allow, and names devices by a path or by
//! the name of a driver: what that cannot say leaves version 2 to our program alone.

use crate::cgroup::layout::Version;
use crate::dbus::{Type, Value};
use crate::plan::cgroup::devices::{Access, Effect, Node, NodeType};

use super::Property;

/// The properties for `access`. `drivers` is /proc/devices, which names the drivers of this host by their numbers.
pub fn rules(access: &Access, version: Version, drivers: &str) -> Vec<Property> {
    let everything = || vec![Property::new("DevicePolicy", Value::text("auto"))];
    if access.default() == Effect::Allow {
        return everything();
    }
    let mut entries = Vec::new();
    for (node, uses) in access.exceptions() {
        match path(node, drivers) {
            Some(path) => entries.push(Value::Struct(vec![Value::Text(path), Value::Text(uses.to_string())])),
            None if version == Version::V2 => return everything(),
            // Written all the same, and so there until the next reload.
            None => {}
        }
    }
    vec![
        Property::new("DevicePolicy", Value::text("strict")),
        Property::new("DeviceAllow", Value::Array(Type::Struct(vec![Type::Text, Type::Text]), entries)),
    ]
}

/// What systemd calls a device or a group of them; `None` where it has no word.
fn path(node: Node, drivers: &str) -> Option<String> {
    let sort = match node.typ {
        NodeType::Block => "block",
        NodeType::Char => "char",
    };
    match (node.major, node.minor) {
        (Some(major), Some(minor)) => Some(format!("/dev/{sort}/{major}:{minor}")),
        (Some(major), None) => Some(format!("{sort}-{}", driver(node.typ, major, drivers)?)),
        (None, None) => Some(format!("{sort}-*")),
        (None, Some(_)) => None,
    }
}

/// The name of the driver with this number: two lists, each below its heading. A name that several numbers have would allow
/// more than was asked for.
fn driver(typ: NodeType, major: u32, drivers: &str) -> Option<&str> {
    let heading = match typ {
        NodeType::Block => "Block devices:",
        NodeType::Char => "Character devices:",
    };
    let list = drivers.lines().skip_while(|line| *line != heading).skip(1).take_while(|line| !line.is_empty());
    let list: Vec<(u32, &str)> = list
        .filter_map(|line| line.trim_start().split_once(' '))
        .filter_map(|(number, name)| Some((number.parse().ok()?, name.trim())))
        .collect();
    let alone = |name: &str| list.iter().all(|(number, other)| *number == major || *other != name);
    let plain = |name: &str| !name.contains(['*', '?', '[', '\\', ' ']);
    list.iter().find(|(number, name)| *number == major && plain(name) && alone(name)).map(|(_, name)| *name)
}

//! Spec → the scope that systemd is to make for a container. Pure.
//!
//! Limits become properties of the unit as well as writes (`super::limits`), so that systemd, when it next writes a file
//! of its own, writes what is there already. What no property can say is written only.

mod annotations;
mod devices;
mod name;
mod properties;
mod text;

use std::borrow::Cow;
use std::collections::HashMap;

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use super::Limit;
use crate::cgroup::layout::Version;
use crate::dbus::Value;
use crate::error::Result;

pub use devices::rules as device_rules;
pub use properties::from_limits;

/// Which service manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Domain {
    /// The host's.
    System,
    /// The user's own.
    User,
}

/// A service manager, and where its units lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Which it is.
    pub domain: Domain,
    /// Its own cgroup below the mount point of a hierarchy, without a slash at either end: empty for the host's.
    pub base: String,
}

/// A property of a unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Property {
    /// Its name on the bus.
    pub name: Cow<'static, str>,
    /// Its value.
    pub value: Value,
    /// The first version of systemd that has it, where one from before is still met.
    pub since: u16,
}

/// The unit of a container.
#[derive(Clone, Debug, PartialEq)]
pub struct UnitPlan {
    /// Whose unit it is.
    pub domain: Domain,
    /// Its name.
    pub name: String,
    /// Its slice.
    pub slice: String,
    /// Its properties, but for the process and the devices.
    pub properties: Vec<Property>,
    /// What annotations ask for: after everything else.
    pub asked: Vec<Property>,
}

impl Property {
    fn new(name: impl Into<Cow<'static, str>>, value: Value) -> Self {
        Self { name: name.into(), value, since: 0 }
    }

    fn since(self, since: u16) -> Self {
        Self { since, ..self }
    }
}

/// Lowers the unit of container `id`; returns its cgroup below the mount point too.
pub(super) fn lower(
    spec: &Spec,
    id: &str,
    site: &Site,
    given: Option<&std::path::Path>,
    limits: &[Limit],
    version: Version,
) -> Result<(UnitPlan, String)> {
    let name::Name { slice, unit } = name::name(given, id, site.domain)?;
    let path = [&*site.base, &*name::expand(&slice)?, &*unit];
    let path = path.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
    let mut properties = vec![
        Property::new("Description", Value::Text(format!("container {id}"))),
        Property::new("Slice", Value::text(&*slice)),
        // The container may divide its cgroup, and what is written there beside systemd stays.
        Property::new("Delegate", Value::Bool(true)),
        Property::new("DefaultDependencies", Value::Bool(false)),
        // One that failed (an end for lack of memory counts as that) is not to stay.
        Property::new("CollectMode", Value::text("inactive-or-failed")).since(236),
        Property::new("MemoryAccounting", Value::Bool(true)),
        Property::new("CPUAccounting", Value::Bool(true)),
        Property::new("TasksAccounting", Value::Bool(true)),
        Property::new(if version == Version::V1 { "BlockIOAccounting" } else { "IOAccounting" }, Value::Bool(true)),
    ];
    properties.extend(from_limits(limits, version)?);
    let none = HashMap::new();
    let asked = annotations::lower(spec.annotations().as_ref().unwrap_or(&none))?;
    Ok((UnitPlan { domain: site.domain, name: unit, slice, properties, asked }, path))
}

/// Leaves out the weight of a cgroup that is to run only when nothing else does: systemd has made it idle already, and the
/// kernel takes no weight of an idle one.
pub fn drop_weight_of_idle(limits: &mut [Limit]) {
    let writes = || limits.iter().flat_map(|limit| &limit.writes);
    if writes().any(|write| write.file == "cpu.idle" && write.value.trim() == "1") {
        limits.iter_mut().for_each(|limit| limit.writes.retain(|write| write.file != "cpu.weight"));
    }
}

#[cfg(test)]
mod tests;

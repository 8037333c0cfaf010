//! `features`: what this program can do, as the spec's features structure: whatever the present host lacks.

use serde_json::{Value, json};

use crate::cli::SPEC_VERSION;
use crate::error::{Error, Kind, Result};
use crate::output::print;
use crate::plan;
use crate::plan::hooks::Stage;
use crate::plan::mounts;
use crate::plan::namespaces::KINDS;
use crate::plan::process::capabilities;

/// The highest capability there is a name for: CAP_CHECKPOINT_RESTORE.
const LAST_CAPABILITY: u32 = 40;

/// Runs the command.
pub fn run() -> Result<()> {
    let mut text = serde_json::to_vec_pretty(&features())
        .map_err(|error| Error::caused(Kind::System, "print the features", error))?;
    text.push(b'\n');
    print(&text)
}

fn features() -> Value {
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC_VERSION,
        "hooks": Stage::ALL.map(Stage::name),
        "mountOptions": mounts::known_options().collect::<Vec<_>>(),
        "linux": linux(),
        "annotations": {
            "org.opencontainers.runc.checkpoint.enabled": "true",
            "tare.version": env!("CARGO_PKG_VERSION"),
            "tare.commit": env!("TARE_COMMIT"),
        },
        // What in a configuration's annotations changes what is done as root of the host.
        "potentiallyUnsafeConfigAnnotations": ["org.criu.config", "org.systemd.property."],
    })
}

fn seccomp() -> Value {
    let known = plan::seccomp::features();
    json!({
        "enabled": true,
        "actions": known.actions,
        "operators": known.operators,
        "archs": known.archs,
        "knownFlags": known.known_flags,
        "supportedFlags": crate::init::seccomp::supported_flags(),
    })
}

fn linux() -> Value {
    let mut namespaces = KINDS.map(|(_, _, name)| name);
    namespaces.sort_unstable();
    json!({
        "namespaces": namespaces,
        "capabilities": (0..=LAST_CAPABILITY).map(capabilities::name).collect::<Vec<_>>(),
        "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true},
        "seccomp": seccomp(),
        "apparmor": {"enabled": true},
        "selinux": {"enabled": true},
        "intelRdt": {"enabled": true, "schemata": true, "monitoring": true},
        "memoryPolicy": {
            "modes": [
                "MPOL_DEFAULT", "MPOL_BIND", "MPOL_INTERLEAVE", "MPOL_WEIGHTED_INTERLEAVE", "MPOL_PREFERRED",
                "MPOL_PREFERRED_MANY", "MPOL_LOCAL",
            ],
            "flags": ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"],
        },
        "mountExtensions": {"idmap": {"enabled": true}},
        "netDevices": {"enabled": true},
    })
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::Features;

    use super::*;

    #[test]
    fn nothing_of_the_spec_is_left_unsaid() {
        let features: Features = serde_json::from_value(features()).unwrap();
        let spoken = serde_json::to_string(&features).unwrap();
        // An absent property means "unknown", and an orchestrator then assumes the worst.
        assert!(!spoken.contains("null"), "{spoken}");
        assert!(crate::bundle::parse_spec(br#"{"ociVersion": "1.0.0"}"#).is_ok(), "ociVersionMin is accepted");
    }
}

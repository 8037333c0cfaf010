//! What travels in a `google.protobuf.Any`, and under which type URL.
//!
//! containerd names a message by its full name alone, without the customary host in front, and compares the whole URL: an
//! Any with `type.googleapis.com/` is refused by it where it expects a type. Structures of the OCI specifications travel as
//! JSON, under a path of containerd's own.
//!
//! ```text
//! type_url: "containerd.events.TaskExit"                                    value: the message
//! type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process"     value: JSON
//! ```

use protobuf::well_known_types::any::Any;
use protobuf::{Message, Result};

use crate::{cgroups_v1, cgroups_v2, cri, events, linux_runc, runc, runtimeoptions, streaming, transfer, types};

/// The type URL of an OCI `config.json`.
pub const SPEC: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
/// The type URL of its `process`, as an exec has one.
pub const PROCESS: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
/// The type URL of its `linux.resources`, as an update has them.
pub const LINUX_RESOURCES: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
/// The type URL of a runtime's features.
pub const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// A message that travels in an `Any`.
pub trait Packed: Message {
    /// Its full name, which is its type URL.
    const TYPE_URL: &'static str;
}

macro_rules! packed {
    ($($package:literal: $($module:ident::$message:ident)*;)*) => {
        $($(impl Packed for $module::$message {
            const TYPE_URL: &'static str = concat!($package, ".", stringify!($message));
        })*)*
    };
}

packed! {
    "containerd.events": events::TaskCreate events::TaskStart events::TaskDelete events::TaskExit events::TaskOOM
        events::TaskExecAdded events::TaskExecStarted events::TaskPaused events::TaskResumed events::TaskCheckpointed
        events::SandboxCreate events::SandboxStart events::SandboxExit;
    "containerd.linux.runc": linux_runc::CreateOptions linux_runc::CheckpointOptions;
    "containerd.runc.v1": runc::Options runc::CheckpointOptions runc::ProcessDetails;
    "containerd.services.streaming.v1": streaming::StreamInit;
    "containerd.types": types::RuntimeRequest types::RuntimeInfo types::Sandbox;
    "containerd.types.transfer": transfer::Data transfer::WindowUpdate;
    "io.containerd.cgroups.v1": cgroups_v1::Metrics;
    "io.containerd.cgroups.v2": cgroups_v2::Metrics;
    "runtime.v1": cri::PodSandboxConfig;
    "runtimeoptions.v1": runtimeoptions::Options;
}

/// The message as an `Any` that containerd accepts.
pub fn pack<M: Packed>(message: &M) -> Result<Any> {
    Ok(Any { type_url: M::TYPE_URL.to_owned(), value: message.write_to_bytes()?, ..Any::default() })
}

/// What is in the `Any`, or None when it is another type than asked for.
///
/// Callers that are not containerd may put a host in front of the name; what stands before the last slash says nothing.
pub fn unpack<M: Packed>(any: &Any) -> Result<Option<M>> {
    let name = any.type_url.rsplit_once('/').map_or(any.type_url.as_str(), |(_, name)| name);
    if name == M::TYPE_URL { M::parse_from_bytes(&any.value).map(Some) } else { Ok(None) }
}

/// JSON of the OCI specifications as an `Any`, under one of this module's type URLs.
pub fn json(type_url: &str, value: Vec<u8>) -> Any {
    Any { type_url: type_url.to_owned(), value, ..Any::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_message_is_named_as_containerd_names_it() {
        let exit = events::TaskExit { container_id: "c".into(), exit_status: 137, ..Default::default() };
        let any = pack(&exit).unwrap();
        assert_eq!(any.type_url, "containerd.events.TaskExit");
        assert_eq!(unpack::<events::TaskExit>(&any).unwrap(), Some(exit));
    }

    #[test]
    fn the_type_is_what_follows_the_last_slash() {
        let mut any = pack(&runc::Options { root: "/r".into(), ..Default::default() }).unwrap();
        any.type_url.insert_str(0, "type.googleapis.com/");
        assert_eq!(unpack::<runc::Options>(&any).unwrap().unwrap().root, "/r");
        assert_eq!(unpack::<runtimeoptions::Options>(&any).unwrap(), None);
    }

    #[test]
    fn garbage_of_the_right_type_is_an_error() {
        let any = json(runc::Options::TYPE_URL, vec![0xff; 3]);
        assert!(unpack::<runc::Options>(&any).is_err());
    }
}

//! Between our types and those of the messages.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tare_proto::{FieldMask, MessageField, Timestamp, types};

use crate::content::digest::Digest;
use crate::descriptor::{Descriptor, Platform};
use crate::error::{Error, Result};
use crate::metadata::Labels;
use crate::snapshots::Mount;

/// A time.
pub(crate) fn timestamp(time: SystemTime) -> MessageField<Timestamp> {
    let (seconds, nanos) = match time.duration_since(UNIX_EPOCH) {
        Ok(since) => (since.as_secs().cast_signed(), since.subsec_nanos()),
        // Before 1970: whole seconds down, the rest up.
        Err(before) => {
            let before = before.duration();
            let down = u64::from(before.subsec_nanos() > 0);
            let up = if down == 1 { 1_000_000_000 - before.subsec_nanos() } else { 0 };
            (-(before.as_secs() + down).cast_signed(), up)
        }
    };
    let mut message = Timestamp::new();
    message.seconds = seconds;
    message.nanos = nanos.cast_signed();
    MessageField::some(message)
}

/// A time, if it is one: what is not set is none.
pub(crate) fn time(message: &MessageField<Timestamp>) -> Option<SystemTime> {
    let message = message.as_ref()?;
    let nanos = Duration::from_nanos(u64::try_from(message.nanos).ok()?);
    let seconds = Duration::from_secs(message.seconds.unsigned_abs());
    let at = if message.seconds < 0 { UNIX_EPOCH.checked_sub(seconds) } else { UNIX_EPOCH.checked_add(seconds) };
    at?.checked_add(nanos)
}

/// A size or an offset.
pub(crate) fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A size or an offset; `what` says of what.
pub(crate) fn unsigned(bytes: i64, what: &str) -> Result<u64> {
    u64::try_from(bytes).map_err(|_| Error::invalid(format!("{what} is {bytes}: it cannot be negative")))
}

/// Labels and annotations.
pub(crate) fn map(labels: &Labels) -> HashMap<String, String> {
    labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The same, of what is not needed any more.
pub(crate) fn into_map(labels: Labels) -> HashMap<String, String> {
    labels.into_iter().collect()
}

/// Labels and annotations.
pub(crate) fn labels(map: HashMap<String, String>) -> Labels {
    map.into_iter().collect()
}

/// Which fields to change; none: all that can be.
pub(crate) fn paths(mask: MessageField<FieldMask>) -> Vec<String> {
    mask.into_option().map(|it| it.paths).unwrap_or_default()
}

/// Of a blob. What containerd's message has no place for is left out.
pub(crate) fn descriptor(it: &Descriptor) -> types::Descriptor {
    into_descriptor(it.clone())
}

/// The same, of what is not needed any more.
pub(crate) fn into_descriptor(it: Descriptor) -> types::Descriptor {
    let mut message = types::Descriptor::new();
    message.media_type = it.media_type;
    message.digest = it.digest.into();
    message.size = signed(it.size);
    message.annotations = into_map(it.annotations);
    message
}

/// Of a blob; `what` names whose it is.
pub(crate) fn from_descriptor(message: MessageField<types::Descriptor>, what: &str) -> Result<Descriptor> {
    let Some(message) = message.into_option() else {
        return Err(Error::invalid(format!("{what} has no descriptor")));
    };
    let digest: Digest = message.digest.parse().map_err(|error: Error| error.within(what))?;
    let size = unsigned(message.size, &format!("the size of {what}"))?;
    let mut it = Descriptor::new(message.media_type, digest, size);
    it.annotations = labels(message.annotations);
    Ok(it)
}

/// For which machines.
pub(crate) fn platform(it: &Platform) -> types::Platform {
    let mut message = types::Platform::new();
    message.os.clone_from(&it.os);
    message.architecture.clone_from(&it.architecture);
    message.variant = it.variant.clone().unwrap_or_default();
    message.os_version = it.os_version.clone().unwrap_or_default();
    message.os_features.clone_from(&it.os_features);
    message
}

/// To be done by the client.
pub(crate) fn mount(it: Mount) -> types::Mount {
    let mut message = types::Mount::new();
    message.type_ = it.kind;
    message.source = it.source;
    message.target = it.target;
    message.options = it.options;
    message
}

/// As a client gives one back.
pub(crate) fn from_mount(message: types::Mount) -> Mount {
    Mount { kind: message.type_, source: message.source, target: message.target, options: message.options }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back_also_those_before_1970() {
        let odd = Duration::new(77, 123_456_789);
        for at in [UNIX_EPOCH, UNIX_EPOCH + odd, UNIX_EPOCH - odd, UNIX_EPOCH - Duration::from_secs(3)] {
            let message = timestamp(at);
            assert!((0..1_000_000_000).contains(&message.nanos), "{message:?}");
            assert_eq!(time(&message), Some(at));
        }
        assert_eq!(time(&MessageField::none()), None);
        let mut wrong = Timestamp::new();
        wrong.nanos = -1;
        assert_eq!(time(&MessageField::some(wrong)), None);
    }

    #[test]
    fn a_descriptor_must_be_one() {
        let mut it = Descriptor::new("application/x", Digest::of(b"abc"), 3);
        it.annotations.insert("a".into(), "b".into());
        assert_eq!(from_descriptor(MessageField::some(descriptor(&it)), "it").unwrap(), it);
        let mut wrong = descriptor(&it);
        wrong.size = -1;
        assert!(from_descriptor(MessageField::some(wrong), "it").unwrap_err().message.contains("negative"));
        let mut wrong = descriptor(&it);
        wrong.digest = "sha256:../x".into();
        assert!(from_descriptor(MessageField::some(wrong), "image \"a\"").unwrap_err().message.contains("image \"a\""));
        assert!(from_descriptor(MessageField::none(), "image \"a\"").is_err());
    }
}

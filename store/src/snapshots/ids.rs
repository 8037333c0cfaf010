//! Maps of users, as labels and mount options have them: `0:100000:65536`, several with commas between.

use crate::error::{Error, Result};
use crate::metadata::Labels;

/// Users of a container's root file system.
pub(super) const UIDS: &str = "containerd.io/snapshot/uidmapping";
/// Groups likewise.
pub(super) const GIDS: &str = "containerd.io/snapshot/gidmapping";

/// Who root is outside: the owner of a new upper directory. `None` without maps.
pub(super) fn root(labels: &Labels) -> Result<Option<(u32, u32)>> {
    match (labels.get(UIDS), labels.get(GIDS)) {
        (None, None) => Ok(None),
        (Some(uids), Some(gids)) => Ok(Some((root_of(UIDS, uids)?, root_of(GIDS, gids)?))),
        _ => Err(Error::invalid(format!("a snapshot that is mapped needs both labels, {UIDS} and {GIDS}"))),
    }
}

/// Mount options that say the same.
pub(super) fn options(labels: &Labels) -> Vec<String> {
    let option = |label, name: &str| labels.get(label).map(|map| format!("{name}={map}"));
    [option(UIDS, "uidmap"), option(GIDS, "gidmap")].into_iter().flatten().collect()
}

fn root_of(label: &str, text: &str) -> Result<u32> {
    let wrong = |why: &str| Error::invalid(format!("label {label} has {text:?}: {why}"));
    let mut root = None;
    for entry in text.split(',') {
        let numbers: Vec<u32> = entry
            .split(':')
            .map(|it| if it.bytes().all(|it| it.is_ascii_digit()) { it.parse().ok() } else { None })
            .collect::<Option<_>>()
            .ok_or_else(|| wrong("a number of 32 bits is wanted"))?;
        let [inside, outside, length] = numbers[..] else {
            return Err(wrong("write <first inside>:<first outside>:<how many>, several with commas between"));
        };
        let ends = |first: u32| length > 0 && first.checked_add(length - 1).is_some_and(|last| last < u32::MAX);
        if !ends(inside) || !ends(outside) {
            return Err(wrong("a range is empty or goes beyond what identifies users"));
        }
        if inside == 0 {
            root = Some(outside);
        }
    }
    root.ok_or_else(|| wrong("it does not map 0, the owner of the root directory"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(uids: &str, gids: &str) -> Labels {
        [(UIDS, uids), (GIDS, gids)].into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn maps_are_read_strictly() {
        assert_eq!(root(&Labels::new()).unwrap(), None);
        let mapped = labels("0:100000:65536", "1:5:1,0:200000:65536");
        assert_eq!(root(&mapped).unwrap(), Some((100_000, 200_000)));
        assert_eq!(options(&mapped), ["uidmap=0:100000:65536", "gidmap=1:5:1,0:200000:65536"]);
        for wrong in [
            "",
            "0:1",
            "0:1:2:3",
            "0:x:1",
            "0:+1:1",
            "0:1:0",
            "0:4294967295:1",
            "0:4294967290:10",
            "1:1:1",
            "0:1:1,",
            "4294967296:0:1",
        ] {
            let error = root(&labels(wrong, "0:0:1")).unwrap_err();
            assert_eq!(error.kind, crate::error::Kind::InvalidArgument, "{wrong}");
        }
        let mut half = mapped;
        half.remove(GIDS);
        root(&half).unwrap_err();
    }
}

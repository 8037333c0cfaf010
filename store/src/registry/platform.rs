//! Which manifest of an index is for a machine: the rules of containerd's `platforms.Only`.
//!
//! A machine runs what was built for it and for what came before it: a v7 of arm runs v6, an arm64 runs arm v8 and below,
//! a v3 of amd64 runs v2. The nearest goes first.

use crate::descriptor::{Descriptor, Platform};
use crate::registry::manifest::Index;

/// Marks an entry of an index that says something of another entry.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";

/// The platform of this host.
#[must_use]
pub fn host() -> Platform {
    let architecture = match std::env::consts::ARCH {
        "x86" => "386",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        other => other,
    };
    normalized(&Platform { os: "linux".into(), architecture: architecture.into(), ..Platform::default() })
}

/// The same platform, under the one name that it has here.
#[must_use]
pub fn normalized(platform: &Platform) -> Platform {
    let lower = |text: &str| text.to_ascii_lowercase();
    let variant = platform.variant.as_deref().map(lower).unwrap_or_default();
    let (architecture, variant) = match (lower(&platform.architecture).as_str(), variant.as_str()) {
        ("i386" | "i486" | "i586" | "i686" | "x86", _) => ("386".to_owned(), String::new()),
        ("x86_64" | "x86-64" | "amd64", "" | "v1") => ("amd64".to_owned(), String::new()),
        ("x86_64" | "x86-64" | "amd64", variant) => ("amd64".to_owned(), variant.to_owned()),
        ("aarch64" | "arm64", "" | "8" | "v8" | "v8.0") => ("arm64".to_owned(), String::new()),
        ("aarch64" | "arm64", "9" | "v9.0") => ("arm64".to_owned(), "v9".to_owned()),
        ("aarch64" | "arm64", variant) => ("arm64".to_owned(), variant.to_owned()),
        ("armhf", _) => ("arm".to_owned(), "v7".to_owned()),
        ("armel", _) => ("arm".to_owned(), "v6".to_owned()),
        ("arm", "" | "7") => ("arm".to_owned(), "v7".to_owned()),
        ("arm", "5" | "6" | "8") => ("arm".to_owned(), format!("v{variant}")),
        (other, variant) => (other.to_owned(), variant.to_owned()),
    };
    let os = match lower(&platform.os).as_str() {
        "macos" => "darwin".to_owned(),
        other => other.to_owned(),
    };
    let variant = Some(variant).filter(|variant| !variant.is_empty());
    Platform { os, architecture, variant, ..platform.clone() }
}

/// What this platform runs, the nearest first; each as architecture and variant, by their normal names.
fn runs(platform: &Platform) -> Vec<(String, Option<String>)> {
    let wanted = normalized(platform);
    let variant = wanted.variant.as_deref();
    let level = |text: &str| text.strip_prefix('v').and_then(|level| level.parse::<u32>().ok());
    let mut found = vec![(wanted.architecture.clone(), wanted.variant.clone())];
    let mut down = |architecture: &str, from: u32, to: u32| {
        for level in (to..=from).rev() {
            let variant = Some(format!("v{level}")).filter(|it| !(architecture == "amd64" && it == "v1"));
            found.push((architecture.to_owned(), variant));
        }
    };
    match wanted.architecture.as_str() {
        "amd64" => {
            if let Some(level) = variant.and_then(level).filter(|level| (2..=4).contains(level)) {
                down("amd64", level - 1, 1);
            }
            found.push(("386".to_owned(), None));
        }
        "arm" => {
            if let Some(level) = variant.and_then(level).filter(|level| (6..=8).contains(level)) {
                down("arm", level - 1, 5);
            }
        }
        "arm64" => {
            for older in arm64_before(variant) {
                found.push(("arm64".to_owned(), older));
            }
            let mut down = |architecture: &str, from: u32, to: u32| {
                found.extend((to..=from).rev().map(|level| (architecture.to_owned(), Some(format!("v{level}")))));
            };
            down("arm", 8, 5);
        }
        _ => {}
    }
    found
}

/// The levels of arm64 below one: v9.n contains v8.(n+5), and each contains what has a smaller number behind the dot.
fn arm64_before(variant: Option<&str>) -> Vec<Option<String>> {
    let named = |major: u32, minor: u32| match (major, minor) {
        (8, 0) => None,
        (major, 0) => Some(format!("v{major}")),
        (major, minor) => Some(format!("v{major}.{minor}")),
    };
    let numbers = variant.and_then(|it| it.strip_prefix('v')).and_then(|it| {
        let (major, minor) = it.split_once('.').unwrap_or((it, "0"));
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    });
    match numbers {
        Some((8, minor @ 1..=9)) => (0..minor).rev().map(|minor| named(8, minor)).collect(),
        Some((9, minor @ 0..=9)) => {
            let newer = (0..minor).rev().map(|minor| named(9, minor));
            newer.chain((0..=(minor + 5).min(9)).rev().map(|minor| named(8, minor))).collect()
        }
        _ => Vec::new(),
    }
}

/// How well something built for `built` suits a machine: 0 is best, nothing means that it does not run.
#[must_use]
pub fn rank(machine: &Platform, built: &Platform) -> Option<usize> {
    let (machine, built) = (normalized(machine), normalized(built));
    if machine.os != built.os {
        return None;
    }
    runs(&machine).into_iter().position(|it| it == (built.architecture.clone(), built.variant.clone()))
}

/// An entry that is for no machine: an attestation, or what else a builder puts beside its images.
#[must_use]
pub fn is_attestation(entry: &Descriptor) -> bool {
    entry.annotations.contains_key(REFERENCE_TYPE)
        || entry.platform.as_ref().is_some_and(|it| it.os == "unknown" && it.architecture == "unknown")
}

/// The entries that may serve a machine, the best first; last come those that do not say what they are for: their
/// configuration does.
#[must_use]
pub fn choose<'a>(index: &'a Index, machine: &Platform) -> Vec<&'a Descriptor> {
    let mut found: Vec<(usize, &Descriptor)> = index
        .manifests
        .iter()
        .filter(|entry| !is_attestation(entry))
        .filter_map(|entry| match &entry.platform {
            Some(platform) => rank(machine, platform).map(|rank| (rank, entry)),
            None => Some((usize::MAX, entry)),
        })
        .collect();
    // Stable: of equals, the index' order decides.
    found.sort_by_key(|(rank, _)| *rank);
    found.into_iter().map(|(_, entry)| entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::digest::Digest;
    use crate::registry::media;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn a_machine_runs_what_came_before_it() {
        for (machine, from_best_to_worst) in [
            ("linux/amd64", &["linux/amd64", "linux/386"][..]),
            ("linux/amd64/v3", &["linux/amd64/v3", "linux/amd64/v2", "linux/amd64", "linux/386"]),
            ("linux/arm", &["linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]),
            ("linux/arm/v6", &["linux/arm/v6", "linux/arm/v5"]),
            ("linux/arm64", &["linux/arm64/v8", "linux/arm/v8", "linux/arm/v7", "linux/arm/v6", "linux/arm/v5"]),
            (
                "linux/arm64/v9",
                &["linux/arm64/v9", "linux/arm64/v8.5", "linux/arm64/v8.1", "linux/arm64", "linux/arm/v7"],
            ),
            ("linux/riscv64", &["linux/riscv64"]),
        ] {
            let ranks: Vec<_> =
                from_best_to_worst.iter().map(|it| rank(&platform(machine), &platform(it)).expect(it)).collect();
            assert!(ranks.is_sorted_by(|a, b| a < b), "{machine}: {ranks:?}");
        }
        for (machine, other) in [
            ("linux/amd64", "linux/amd64/v2"),
            ("linux/amd64", "linux/arm64"),
            ("linux/amd64", "windows/amd64"),
            ("linux/arm/v6", "linux/arm/v7"),
            ("linux/386", "linux/amd64"),
            ("linux/arm64", "linux/arm64/v9"),
        ] {
            assert_eq!(rank(&platform(machine), &platform(other)), None, "{machine} {other}");
        }
    }

    #[test]
    fn names_for_the_same_are_the_same() {
        for (a, b) in [
            ("linux/x86_64", "linux/amd64/v1"),
            ("linux/aarch64", "linux/arm64/v8"),
            ("linux/armhf", "linux/arm"),
            ("linux/armel", "linux/arm/v6"),
            ("Linux/i386", "linux/386"),
        ] {
            assert_eq!(normalized(&platform(a)), normalized(&platform(b)), "{a} {b}");
        }
        assert_eq!(host(), normalized(&host()));
    }

    #[test]
    fn attestations_are_passed_over_and_the_nearest_goes_first() {
        let entry = |size, platform: Option<&str>| {
            let mut entry = Descriptor::new(media::MANIFEST, Digest::of(b"x"), size);
            entry.platform = platform.map(|it| it.parse().unwrap());
            entry
        };
        let mut attestation = entry(1, None);
        attestation.annotations.insert(REFERENCE_TYPE.into(), "attestation-manifest".into());
        let index = Index {
            manifests: vec![
                entry(0, Some("unknown/unknown")),
                attestation,
                entry(2, None),
                entry(3, Some("linux/386")),
                entry(4, Some("linux/amd64")),
                entry(5, Some("linux/amd64/v1")),
                entry(6, Some("linux/arm64")),
            ],
            ..Index::default()
        };
        let chosen: Vec<u64> = choose(&index, &platform("linux/amd64")).iter().map(|it| it.size).collect();
        assert_eq!(chosen, [4, 5, 3, 2]);
        let chosen: Vec<u64> = choose(&index, &platform("linux/s390x")).iter().map(|it| it.size).collect();
        assert_eq!(chosen, [2]);
    }
}

//! Names: those that containers are given, and what a name may be.

use std::hash::{BuildHasher, RandomState};

use crate::error::{Error, Result};

const MOODS: [&str; 64] = [
    "agile", "amused", "ancient", "ardent", "balmy", "blithe", "bold", "brave", "breezy", "bright", "brisk", "calm",
    "candid", "clever", "cosy", "curious", "daring", "deft", "eager", "earnest", "elated", "fond", "frank", "gentle",
    "glad", "happy", "hopeful", "humble", "jolly", "keen", "kind", "lively", "loyal", "lucid", "mellow", "merry",
    "mild", "modest", "nimble", "noble", "patient", "pensive", "placid", "polite", "proud", "quiet", "rapid", "rosy",
    "sad", "serene", "sharp", "shy", "silent", "sober", "steady", "stoic", "sunny", "tender", "tidy", "upbeat",
    "vivid", "warm", "wise", "witty",
];

/// People who found something out.
const PEOPLE: [&str; 96] = [
    "abel",
    "agnesi",
    "airy",
    "ampere",
    "anning",
    "archimedes",
    "avogadro",
    "babbage",
    "bardeen",
    "bernoulli",
    "boole",
    "born",
    "bose",
    "boyle",
    "brahe",
    "cantor",
    "carson",
    "cassini",
    "cavendish",
    "chandrasekhar",
    "clarke",
    "copernicus",
    "coulomb",
    "curie",
    "dalton",
    "darwin",
    "davy",
    "descartes",
    "dijkstra",
    "dirac",
    "doppler",
    "edison",
    "einstein",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "fermi",
    "feynman",
    "fibonacci",
    "fourier",
    "franklin",
    "galileo",
    "galois",
    "gauss",
    "germain",
    "goedel",
    "goodall",
    "halley",
    "hamilton",
    "heisenberg",
    "herschel",
    "hertz",
    "hilbert",
    "hodgkin",
    "hopper",
    "hubble",
    "huygens",
    "hypatia",
    "joule",
    "kepler",
    "knuth",
    "kovalevskaya",
    "lagrange",
    "lamarr",
    "laplace",
    "leavitt",
    "leibniz",
    "linnaeus",
    "lovelace",
    "maxwell",
    "meitner",
    "mendel",
    "mendeleev",
    "moebius",
    "napier",
    "newton",
    "nightingale",
    "noether",
    "ohm",
    "pascal",
    "pasteur",
    "pauli",
    "planck",
    "poincare",
    "ramanujan",
    "riemann",
    "ritchie",
    "sagan",
    "shannon",
    "somerville",
    "tesla",
    "torvalds",
    "turing",
    "volta",
    "wright",
];

/// A name such as `sad_carson`; from the second try on with a number behind it, so that one is free some time.
#[must_use]
pub fn generate(attempt: u32) -> String {
    // Seeded by the system for each state: no other source of chance is needed for a name.
    let chance = RandomState::new().hash_one(attempt);
    let pick = |list: &[&'static str], chance: u64| list[usize::try_from(chance % list.len() as u64).unwrap_or(0)];
    let name = format!("{}_{}", pick(&MOODS, chance), pick(&PEOPLE, chance >> 16));
    if attempt == 0 { name } else { format!("{name}{}", chance >> 32 & 0xfff) }
}

/// Whether this may name a container, a network or a volume: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, as with docker.
///
/// # Errors
/// A sentence that says what a name is.
pub fn check(what: &str, name: &str) -> Result<()> {
    let inner = |it: u8| it.is_ascii_alphanumeric() || b"_.-".contains(&it);
    let well =
        name.len() >= 2 && name.len() <= 128 && name.as_bytes()[0].is_ascii_alphanumeric() && name.bytes().all(inner);
    if well {
        return Ok(());
    }
    Err(Error::usage(format!(
        "{name:?} cannot name a {what}: a name has 2 to 128 letters, digits, _, . and -, and begins with a letter or a digit"
    )))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn generated_names_are_names_and_differ() {
        let names: BTreeSet<String> = (0..200).map(|_| generate(0)).collect();
        assert!(names.len() > 150, "{}", names.len());
        for name in &names {
            check("container", name).unwrap();
            assert_eq!(name.split('_').count(), 2);
        }
        assert!(generate(1).ends_with(|it: char| it.is_ascii_digit()));
        assert_eq!(
            (MOODS.iter().collect::<BTreeSet<_>>().len(), PEOPLE.iter().collect::<BTreeSet<_>>().len()),
            (64, 96)
        );
    }

    #[test]
    fn nothing_else_is_a_name() {
        for name in ["web", "a1", "A.b_c-d", "0x"] {
            check("container", name).unwrap();
        }
        let long = "x".repeat(129);
        for name in ["", "a", "-web", "_web", ".web", "a/b", "a b", "../x", "ä1", "a\n", long.as_str()] {
            let error = check("volume", name).expect_err(name);
            assert!(error.message.contains("cannot name a volume"), "{error}");
        }
    }
}

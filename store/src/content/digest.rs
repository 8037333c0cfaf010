//! Digests: the one form in which they exist here, and what computes them.
//!
//! A digest that came from outside becomes part of a path. So it is parsed into an algorithm that is known and exactly as many
//! lower-case hexadecimal digits as that has, and nothing else is ever a [`Digest`] (CVE-2024-3727).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::digest::Digest as _;
use sha2::{Sha256, Sha512};

use crate::error::Error;

/// The algorithms of the OCI image specification (descriptor.md, "Registered algorithms").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// What everybody uses.
    Sha256,
    /// What some want.
    Sha512,
}

impl Algorithm {
    /// Its name in a digest, and of its directory.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    const fn digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }

    /// Starts to compute one.
    #[must_use]
    pub fn hasher(self) -> Hasher {
        match self {
            Self::Sha256 => Hasher::Sha256(Sha256::new()),
            Self::Sha512 => Hasher::Sha512(Sha512::new()),
        }
    }
}

/// `sha256:…` or `sha512:…`, well-formed by construction.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest {
    algorithm: Algorithm,
    hex: Box<str>,
}

impl Digest {
    /// Of these bytes, by sha256.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Algorithm::Sha256.hasher();
        hasher.update(bytes);
        hasher.finish()
    }

    /// How it was computed.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The digits alone.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.hex
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |why: &str| Error::invalid(format!("{:?} is not a digest: {why}", shortened(text)));
        let (name, hex) = text.split_once(':').ok_or_else(|| wrong("it has no algorithm, as in sha256:…"))?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(wrong("the algorithm is neither sha256 nor sha512")),
        };
        if hex.len() != algorithm.digits() || !hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(wrong(&format!("{name} has {} lower-case hexadecimal digits", algorithm.digits())));
        }
        Ok(Self { algorithm, hex: hex.into() })
    }
}

/// What an error message can bear of a text from outside.
fn shortened(text: &str) -> String {
    text.chars().take(150).collect()
}

impl TryFrom<String> for Digest {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        [digest.algorithm.name(), ":", &digest.hex].concat()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A digest that is being computed.
#[derive(Clone)]
pub enum Hasher {
    /// By sha256.
    Sha256(Sha256),
    /// By sha512.
    Sha512(Sha512),
}

impl Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(it) => it.update(bytes),
            Self::Sha512(it) => it.update(bytes),
        }
    }

    /// The digest of all bytes.
    #[must_use]
    pub fn finish(self) -> Digest {
        match self {
            Self::Sha256(it) => digest(Algorithm::Sha256, &it.finalize()),
            Self::Sha512(it) => digest(Algorithm::Sha512, &it.finalize()),
        }
    }
}

fn digest(algorithm: Algorithm, bytes: &[u8]) -> Digest {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    let hex: String = bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
    Digest { algorithm, hex: hex.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn computes_what_the_standards_give_as_examples() {
        // FIPS 180-4, "abc".
        let mut long = Algorithm::Sha512.hasher();
        long.update(b"a");
        long.update(b"bc");
        assert_eq!(Digest::of(b"abc").hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert!(long.finish().to_string().starts_with("sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea2"));
    }

    #[test]
    fn nothing_else_is_a_digest() {
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(format!("sha256:{hex}").parse::<Digest>().unwrap().to_string(), format!("sha256:{hex}"));
        let upper = hex.to_uppercase();
        for wrong in [
            hex.to_owned(),
            format!("sha256:{upper}"),
            format!("sha256:{hex}0"),
            format!("sha256:{}", &hex[1..]),
            format!("sha512:{hex}"),
            format!("md5:{hex}"),
            format!("sha256:../{}", &hex[3..]),
            format!("sha256:{}/..", &hex[3..]),
            format!("sha256:{}\0", &hex[1..]),
            "sha256:".to_owned(),
            String::new(),
        ] {
            let error = wrong.parse::<Digest>().unwrap_err();
            assert_eq!(error.kind, crate::error::Kind::InvalidArgument, "{wrong}");
            assert!(serde_json::from_value::<Digest>(wrong.clone().into()).is_err(), "{wrong}");
        }
    }
}

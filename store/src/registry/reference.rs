//! Names of images, as people write them and as registries know them.
//!
//! The grammar is that of the distribution project, with docker's normalisation: `debian` is
//! `docker.io/library/debian:latest`. A parsed name holds nothing but what its grammar allows, so that it can stand in an URL.

use std::fmt;
use std::str::FromStr;

use crate::content::digest::Digest;
use crate::error::Error;

/// The registry of names that name none.
pub const DEFAULT_REGISTRY: &str = "docker.io";

/// The longest name that registries take, in bytes, without tag and digest.
const LONGEST_NAME: usize = 255;
/// The longest tag.
const LONGEST_TAG: usize = 128;

/// Where images of one name lie: `docker.io/library/debian`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository {
    registry: String,
    path: String,
}

impl Repository {
    /// The registry by its name, with its port if it has one: `docker.io`, `localhost:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The name within the registry: `library/debian`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.path)
    }
}

impl FromStr for Repository {
    type Err = Error;

    /// A name without tag and digest.
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |why: &str| Error::invalid(format!("{:?} is not the name of an image: {why}", shortened(text)));
        let (registry, path) = split_registry(text);
        let path = if registry == DEFAULT_REGISTRY && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        if !is_authority(&registry) {
            return Err(wrong("before the first / stands no host, or its port is no number below 65536"));
        }
        if path.len() + registry.len() > LONGEST_NAME {
            return Err(wrong("it is longer than 255 characters"));
        }
        if path.split('/').any(str::is_empty) {
            return Err(wrong("a part of it is empty"));
        }
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(wrong("repositories have lower-case names"));
        }
        if !path.split('/').all(is_component) {
            return Err(wrong(
                "its parts are letters a to z and digits, with single . or _, double __, or - between them",
            ));
        }
        if registry == DEFAULT_REGISTRY && text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong("64 hexadecimal digits are an identifier, and no registry is asked for one"));
        }
        Ok(Self { registry, path })
    }
}

/// One image at a registry: a repository, and a tag or a digest or both.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    repository: Repository,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Where it lies.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Its tag; with a digest beside it, the tag is only said.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Its digest: what it must be, whatever the tag points to.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same repository's image of this digest, and of no tag.
    #[must_use]
    pub fn at(&self, digest: Digest) -> Self {
        Self { repository: self.repository.clone(), tag: None, digest: Some(digest) }
    }

    /// The same repository's image of this tag, and of no digest.
    pub fn tagged(&self, tag: &str) -> Result<Self, Error> {
        if !is_tag(tag) {
            return Err(wrong_tag(tag));
        }
        Ok(Self { repository: self.repository.clone(), tag: Some(tag.to_owned()), digest: None })
    }

    /// What a registry is asked for: the digest, or else the tag.
    #[must_use]
    pub fn wanted(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_default(),
        }
    }

    /// As people write it: without `docker.io/library/`, and without `:latest`.
    #[must_use]
    pub fn familiar(&self) -> String {
        let name = self.repository.to_string();
        // What is left must not begin like a registry of its own, nor be as long as an identifier.
        let short = name.strip_prefix("docker.io/").filter(|it| split_registry(it).1 == *it).unwrap_or(&name);
        let short = short.strip_prefix("library/").filter(|it| !it.contains('/') && it.len() != 64).unwrap_or(short);
        let tag = self.tag.as_deref().filter(|tag| *tag != "latest" || self.digest.is_some());
        let tag = tag.map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = self.digest.as_ref().map(|digest| format!("@{digest}")).unwrap_or_default();
        format!("{short}{tag}{digest}")
    }
}

impl fmt::Display for Reference {
    /// In full: the name under which an image is kept.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>()?)),
            None => (text, None),
        };
        // A colon after the last slash begins the tag; one before it, a port.
        let colon = rest.rfind(':').filter(|colon| !rest[*colon..].contains('/'));
        let (name, tag) = colon.map_or((rest, None), |colon| (&rest[..colon], Some(&rest[colon + 1..])));
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(wrong_tag(tag));
        }
        let tag = match (tag, &digest) {
            (None, None) => Some("latest"),
            (tag, _) => tag,
        };
        Ok(Self { repository: name.parse()?, tag: tag.map(str::to_owned), digest })
    }
}

fn wrong_tag(tag: &str) -> Error {
    Error::invalid(format!(
        "{:?} is not a tag: it begins with a letter, a digit or _, goes on with those and . and -, and has at most 128",
        shortened(tag)
    ))
}

/// Whether this can be the tag of an image.
#[must_use]
pub fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= LONGEST_TAG
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

/// The first part is a registry if it cannot be anything else: it has a dot, a port, capitals, or is `localhost`.
fn split_registry(text: &str) -> (String, &str) {
    match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            // The old name of the same registry.
            let registry = if first == "index.docker.io" { DEFAULT_REGISTRY } else { first };
            (registry.to_owned(), rest)
        }
        _ => (DEFAULT_REGISTRY.to_owned(), text),
    }
}

/// Letters and digits, with separators only between them.
fn is_component(part: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = part.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    alphanumeric(*first)
        && alphanumeric(*last)
        && part
            .split(|it: char| it.is_ascii() && alphanumeric(it as u8))
            .all(|between| matches!(between, "" | "." | "_" | "__") || between.bytes().all(|byte| byte == b'-'))
}

/// `host`, `host:port` or `[address]:port`.
#[must_use]
pub fn is_authority(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, "")) => (address, None),
            Some((address, port)) if port.starts_with(':') => (address, Some(&port[1..])),
            _ => return false,
        },
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let host_fits = if text.starts_with('[') {
        host.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        host.len() <= LONGEST_NAME && host.split('.').all(is_label)
    };
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    host_fits && port.is_none_or(is_port)
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn shortened(text: &str) -> String {
    text.chars().take(150).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn short_names_are_dockers() {
        let digest = format!("sha256:{HEX}");
        for (written, full, familiar) in [
            ("debian", "docker.io/library/debian:latest", "debian"),
            ("debian:12", "docker.io/library/debian:12", "debian:12"),
            ("team/app", "docker.io/team/app:latest", "team/app"),
            ("index.docker.io/debian", "docker.io/library/debian:latest", "debian"),
            ("docker.io/library/debian", "docker.io/library/debian:latest", "debian"),
            ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b"),
            ("localhost/app", "localhost/app:latest", "localhost/app"),
            ("docker.io/other.example/app", "docker.io/other.example/app:latest", "docker.io/other.example/app"),
            (&format!("library/{HEX}:1"), &format!("docker.io/library/{HEX}:1"), &format!("library/{HEX}:1")),
            ("docker.io/docker.io/app", "docker.io/docker.io/app:latest", "docker.io/docker.io/app"),
            ("docker.io/localhost/app", "docker.io/localhost/app:latest", "docker.io/localhost/app"),
            ("localhost:5000/app:1", "localhost:5000/app:1", "localhost:5000/app:1"),
            ("Build/app", "Build/app:latest", "Build/app"),
            ("[::1]:5000/app", "[::1]:5000/app:latest", "[::1]:5000/app"),
            ("registry.example/a/b__c/d--e.f_g:V1.0-x", "registry.example/a/b__c/d--e.f_g:V1.0-x", ""),
            (&format!("debian@{digest}"), &format!("docker.io/library/debian@{digest}"), ""),
            (&format!("debian:12@{digest}"), &format!("docker.io/library/debian:12@{digest}"), ""),
        ] {
            let reference: Reference = written.parse().unwrap();
            assert_eq!(reference.to_string(), full, "{written}");
            assert_eq!(full.parse::<Reference>().unwrap(), reference, "{written}");
            let short = reference.familiar();
            assert!(familiar.is_empty() || short == familiar, "{written}: {short}");
            assert_eq!(short.parse::<Reference>().unwrap(), reference, "{written}: {short}");
        }
    }

    #[test]
    fn nothing_else_is_a_name() {
        let long = format!("registry.example/{}", "a/".repeat(130) + "a");
        for wrong in [
            "",
            ":tag",
            "@sha256:",
            "Debian",
            "a//b",
            "/a",
            "a/",
            "a/../b",
            "registry.example/../b",
            "a_-b",
            "a...b",
            "a___b",
            "-a",
            "a-",
            "debian:",
            "debian:-x",
            "debian:a/b:c",
            "debian@sha256:abc",
            "debian@md5:abc",
            HEX,
            "registry.example:70000/a",
            "registry.example:/a",
            "registry.example:+5/a",
            "[::1/a",
            "[zz]:1/a",
            "user@registry.example/a",
            "registry..example/a",
            "-registry.example/a",
            "a b",
            "a\n",
            "a%2fb",
            "é",
            "registry.example/a?b",
            "registry.example/a#b",
            "http://registry.example/a",
            &long,
        ] {
            let error = wrong.parse::<Reference>().unwrap_err();
            assert_eq!(error.kind, crate::error::Kind::InvalidArgument, "{wrong}");
        }
        assert!(format!("a:{}", "t".repeat(129)).parse::<Reference>().is_err());
    }

    #[test]
    fn a_digest_goes_before_a_tag() {
        let both: Reference = format!("debian:12@sha256:{HEX}").parse().unwrap();
        assert_eq!(both.wanted(), format!("sha256:{HEX}"));
        assert_eq!(both.tagged("13").unwrap().to_string(), "docker.io/library/debian:13");
        assert!(both.tagged("a/b").is_err());
        assert_eq!(both.at(Digest::of(b"x")).wanted(), Digest::of(b"x").to_string());
    }
}

//! Names of images: as people write them, as the store keeps them (`docker.io/library/debian:latest`), and as tables show them.
//!
//! The grammar is the store's to judge. Here a name is only taken apart, so that what is wrong is refused by one sentence of one program.

use std::fmt;

/// The registry of names that name none.
pub const DEFAULT_REGISTRY: &str = "docker.io";

/// A name, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The registry by its name, with its port if it has one.
    pub registry: String,
    /// The name within it: `library/debian`.
    pub path: String,
    /// `latest`, where neither a tag nor a digest is said.
    pub tag: Option<String>,
    /// `sha256:…`.
    pub digest: Option<String>,
}

impl Reference {
    /// Takes a name apart. Nothing is checked but that there is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.to_owned())),
            None => (text, None),
        };
        // A colon after the last slash begins the tag; one before it, a port.
        let colon = rest.rfind(':').filter(|colon| !rest[*colon..].contains('/'));
        let (name, tag) = colon.map_or((rest, None), |colon| (&rest[..colon], Some(rest[colon + 1..].to_owned())));
        let tag = tag.or_else(|| digest.is_none().then(|| "latest".to_owned()));
        let (registry, path) = split_registry(name);
        if path.is_empty() || path.bytes().any(|byte| byte.is_ascii_uppercase() || byte.is_ascii_whitespace()) {
            return None;
        }
        let path = if registry == DEFAULT_REGISTRY && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        Some(Self { registry: registry.to_owned(), path, tag, digest })
    }

    /// Registry and path: `docker.io/library/debian`.
    #[must_use]
    pub fn repository(&self) -> String {
        format!("{}/{}", self.registry, self.path)
    }

    /// As tables show it: without what docker adds by itself, where the rest still means the same.
    #[must_use]
    pub fn familiar_repository(&self) -> String {
        // What begins like a registry of its own would be taken for one.
        if self.registry != DEFAULT_REGISTRY || split_registry(&self.path).1 != self.path {
            return self.repository();
        }
        // What is as long as an identifier would be taken for one.
        let short = self.path.strip_prefix("library/").filter(|it| !it.contains('/') && it.len() != 64);
        short.unwrap_or(&self.path).to_owned()
    }

    /// The familiar name with its tag or its digest, always one of them: `debian:latest`.
    #[must_use]
    pub fn familiar(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("{}@{digest}", self.familiar_repository()),
            (None, tag) => format!("{}:{}", self.familiar_repository(), tag.as_deref().unwrap_or("latest")),
        }
    }

    /// Without the tag, where there is a digest: the digest alone counts, and one image is kept under one name.
    #[must_use]
    pub fn by_digest(self) -> Self {
        let tag = self.tag.filter(|_| self.digest.is_none());
        Self { tag, ..self }
    }
}

impl fmt::Display for Reference {
    /// In full.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

/// The first part is a registry if it cannot be anything else: it has a dot, a port or capitals, or is `localhost`.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (if first == "index.docker.io" { DEFAULT_REGISTRY } else { first }, rest)
        }
        _ => (DEFAULT_REGISTRY, name),
    }
}

/// As docker's tables show a name: docker's own registry and its library are left out, and `latest` is said.
#[must_use]
pub fn familiar(name: &str) -> String {
    Reference::parse(name).map_or_else(|| name.to_owned(), |it| it.familiar())
}

/// A digest's first twelve digits, by which people know an image.
#[must_use]
pub fn short(digest: &str) -> &str {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    hex.get(..12).unwrap_or(hex)
}

/// The hexadecimal part of what may be (the beginning of) an id: lower-case digits, perhaps behind `sha256:`.
#[must_use]
pub fn id_prefix(text: &str) -> Option<&str> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let digits = hex.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
    (digits && !hex.is_empty() && hex.len() <= 64).then_some(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dockers() {
        let hex = "a".repeat(64);
        let digest = format!("sha256:{hex}");
        for (written, full, familiar) in [
            ("debian", "docker.io/library/debian:latest", "debian:latest"),
            ("debian:12", "docker.io/library/debian:12", "debian:12"),
            ("team/app", "docker.io/team/app:latest", "team/app:latest"),
            ("index.docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
            ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
            ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
            ("localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest"),
            ("docker.io/other.example/app", "docker.io/other.example/app:latest", "docker.io/other.example/app:latest"),
            ("docker.io/localhost/app", "docker.io/localhost/app:latest", "docker.io/localhost/app:latest"),
            (&format!("library/{hex}"), &format!("docker.io/library/{hex}:latest"), &format!("library/{hex}:latest")),
            ("[::1]:5000/app:1", "[::1]:5000/app:1", "[::1]:5000/app:1"),
            (&format!("debian@{digest}"), &format!("docker.io/library/debian@{digest}"), &format!("debian@{digest}")),
        ] {
            let reference = Reference::parse(written).unwrap();
            assert_eq!(reference.to_string(), full, "{written}");
            assert_eq!(reference.familiar(), familiar, "{written}");
            assert_eq!(Reference::parse(full), Some(reference), "{written}");
        }
        for none in ["", ":tag", "Debian", "a b", "registry.example/"] {
            assert_eq!(Reference::parse(none), None, "{none:?}");
        }
        let both = Reference::parse(&format!("debian:12@{digest}")).unwrap().by_digest();
        assert_eq!(both.to_string(), format!("docker.io/library/debian@{digest}"));
    }

    #[test]
    fn ids_are_hexadecimal() {
        assert_eq!(id_prefix("sha256:0a"), Some("0a"));
        assert_eq!(id_prefix("beef"), Some("beef"));
        for wrong in ["", "sha256:", "busybox", "BEEF", &"a".repeat(65)] {
            assert_eq!(id_prefix(wrong), None, "{wrong}");
        }
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(familiar("sha256:0123456789ab"), "sha256:0123456789ab");
    }
}

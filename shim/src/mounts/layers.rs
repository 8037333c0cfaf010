//! An overlay's options, taken apart. Pure.
//!
//! ```text
//! lowerdir=/a:/b\:c::/data,upperdir=/u,workdir=/w,index=off
//!          merged    data-only                    other
//! ```
//!
//! A backslash escapes the colon between lower directories and the comma between options; a value in double quotes (an SELinux
//! context) may have commas.

use std::path::PathBuf;

/// The options of an overlay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Layers {
    /// Topmost first.
    pub(super) lower: Vec<Lower>,
    /// Where changes go.
    pub(super) upper: Option<PathBuf>,
    /// Where changes are prepared.
    pub(super) work: Option<PathBuf>,
    /// Every other option, in their order.
    pub(super) other: Vec<String>,
}

/// A lower directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lower {
    /// Where it is.
    pub(super) path: PathBuf,
    /// What it gives.
    pub(super) role: Role,
}

/// What a lower directory gives to the overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Its names and files.
    Merged,
    /// Only the data of files that others name.
    DataOnly,
}

/// Takes apart what mount(2) would be given, joined by commas.
pub(super) fn parse(options: &[String]) -> Layers {
    let mut layers = Layers::default();
    for option in options.iter().flat_map(|option| split(option, ',')) {
        match parameter(option) {
            ("lowerdir", Some(value)) => layers.lower.extend(lowers(value)),
            ("lowerdir+", Some(value)) => layers.lower.push(Lower { path: unescape(value), role: Role::Merged }),
            ("datadir+", Some(value)) => layers.lower.push(Lower { path: unescape(value), role: Role::DataOnly }),
            ("upperdir", Some(value)) => layers.upper = Some(unescape(value)),
            ("workdir", Some(value)) => layers.work = Some(unescape(value)),
            ("", None) => {}
            _ => layers.other.push(option.to_owned()),
        }
    }
    layers
}

/// An empty element between two colons makes what follows it data-only.
fn lowers(value: &str) -> Vec<Lower> {
    let mut role = Role::Merged;
    let mut lowers = Vec::new();
    for path in split(value, ':') {
        match path {
            "" => role = Role::DataOnly,
            path => lowers.push(Lower { path: unescape(path), role }),
        }
    }
    lowers
}

/// Splits at each `separator` that is neither escaped nor in quotes.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start) = (Vec::new(), 0);
    let (mut escaped, mut quoted) = (false, false);
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            // A quote in the middle of a value is a part of a path.
            '"' if quoted || text[..at].ends_with('=') => quoted = !quoted,
            _ if character == separator && !quoted => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn unescape(text: &str) -> PathBuf {
    let mut characters = text.chars();
    let mut plain = String::with_capacity(text.len());
    while let Some(character) = characters.next() {
        plain.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    PathBuf::from(plain)
}

/// An option as fsconfig(2) takes it: mount(2) has quotes so that a value may have commas, which are not part of it.
pub(super) fn parameter(option: &str) -> (&str, Option<&str>) {
    match option.split_once('=') {
        Some((name, value)) => {
            (name, Some(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)))
        }
        None => (option, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(options: &[&str]) -> Layers {
        parse(&options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
    }

    fn merged(path: &str) -> Lower {
        Lower { path: path.into(), role: Role::Merged }
    }

    fn data(path: &str) -> Lower {
        Lower { path: path.into(), role: Role::DataOnly }
    }

    #[test]
    fn directories_are_told_from_other_options() {
        let layers = of(&["index=off", "userxattr", "workdir=/w", "upperdir=/u", "lowerdir=/b:/a"]);
        assert_eq!(layers.lower, [merged("/b"), merged("/a")]);
        assert_eq!((layers.upper, layers.work), (Some("/u".into()), Some("/w".into())));
        assert_eq!(layers.other, ["index=off", "userxattr"]);
        assert_eq!(parameter("index=off"), ("index", Some("off")));
        assert_eq!(parameter("userxattr"), ("userxattr", None));
    }

    #[test]
    fn separators_can_be_escaped_and_quoted() {
        assert_eq!(of(&[r"lowerdir=/a\:b:/c\,d:/e\\"]).lower, [merged("/a:b"), merged("/c,d"), merged(r"/e\")]);
        assert_eq!(of(&[r"upperdir=/u\:1,workdir=/w\,2"]).upper, Some("/u:1".into()));
        assert_eq!(of(&[r"upperdir=/u\:1,workdir=/w\,2"]).work, Some("/w,2".into()));
        let label = r#"context="system_u:object_r:container_file_t:s0:c1,c2""#;
        assert_eq!(of(&[&format!("{label},volatile")]).other, [label, "volatile"]);
        assert_eq!(parameter(label), ("context", Some("system_u:object_r:container_file_t:s0:c1,c2")));
        assert_eq!(of(&[r#"lowerdir=/a"b:/c,volatile"#]).lower, [merged("/a\"b"), merged("/c")]);
    }

    #[test]
    fn data_only_directories_are_marked() {
        assert_eq!(of(&["lowerdir=/a:/b::/c::/d"]).lower, [merged("/a"), merged("/b"), data("/c"), data("/d")]);
        assert_eq!(of(&["lowerdir+=/a:b", "datadir+=/c"]).lower, [merged("/a:b"), data("/c")]);
    }

    #[test]
    fn nothing_is_nothing() {
        assert_eq!(of(&[]), Layers::default());
        assert_eq!(of(&["", ","]), Layers::default());
    }
}

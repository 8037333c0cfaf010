//! The command line, in the syntax of Go's `flag` package, because that is what daemons were written against.
//!
//! ```text
//! containerd-shim-tare-v2 -namespace NS -id ID -address A -publish-binary B [-bundle DIR] [-debug] start|delete
//! -flag  --flag  -flag=value  -flag value        a switch takes its value only after `=`
//! ```
//!
//! The first word without a dash, or `--`, ends the flags. What the daemon also says through the environment or on stdin is
//! bootstrap's to weigh.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::error::{Error, Result};

/// What the last word asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Action {
    /// Nothing: with `-socket`, serve there.
    #[default]
    None,
    /// Get a shim and say where it listens.
    Start,
    /// Clean up after a shim that died.
    Delete,
    /// A word nobody knows.
    Unknown(String),
}

/// The flags as given; an empty one is one not given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Args {
    /// Log the details too.
    pub debug: bool,
    /// `-v`, `-version`: say which version this is.
    pub version: bool,
    /// `-info`: say what shim and runtime can do.
    pub info: bool,
    /// `-h`, `-help`: say how to call this.
    pub help: bool,
    /// Whose containers these are.
    pub namespace: String,
    /// The task, or the sandbox.
    pub id: String,
    /// Where to serve, when there is no action.
    pub socket: String,
    /// Where Go's shim serves the profiles of Go's runtime. We have no such thing: accepted, and without effect. SIGUSR1 is how to
    /// see what this shim is doing.
    pub debug_socket: String,
    /// The bundle, where it is not the working directory.
    pub bundle: PathBuf,
    /// The daemon's gRPC address.
    pub address: String,
    /// The program that publishes events.
    pub publish_binary: PathBuf,
    /// What to do.
    pub action: Action,
}

enum Flag<'a> {
    Switch(&'a mut bool),
    Text(&'a mut String),
    Path(&'a mut PathBuf),
}

impl Args {
    fn flag(&mut self, name: &str) -> Option<Flag<'_>> {
        Some(match name {
            "debug" => Flag::Switch(&mut self.debug),
            "v" | "version" => Flag::Switch(&mut self.version),
            "info" => Flag::Switch(&mut self.info),
            "h" | "help" => Flag::Switch(&mut self.help),
            "namespace" => Flag::Text(&mut self.namespace),
            "id" => Flag::Text(&mut self.id),
            "socket" => Flag::Text(&mut self.socket),
            "debug-socket" => Flag::Text(&mut self.debug_socket),
            "bundle" => Flag::Path(&mut self.bundle),
            "address" => Flag::Text(&mut self.address),
            "publish-binary" => Flag::Path(&mut self.publish_binary),
            _ => return None,
        })
    }
}

/// Reads the words after the program's name.
///
/// # Errors
/// A flag that does not exist, lacks its value or has one it can't have: a sentence for stderr; the exit status is then 2.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Args> {
    let mut args = Args::default();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let word = text(word)?;
        let Some(flag) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
            args.action = action(word);
            break;
        };
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        if flag.is_empty() {
            args.action = words.next().map(text).transpose()?.map(action).unwrap_or_default();
            break;
        }
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (flag, None),
        };
        if name.is_empty() || name.starts_with('-') {
            return Err(Error::invalid(format!("bad flag syntax: {word}")));
        }
        match args.flag(name) {
            None => return Err(Error::invalid(format!("flag provided but not defined: -{name}"))),
            Some(Flag::Switch(place)) => *place = value.map_or(Ok(true), |value| switch(name, &value))?,
            Some(Flag::Text(place)) => *place = required(name, value, &mut words)?,
            Some(Flag::Path(place)) => *place = required(name, value, &mut words)?.into(),
        }
    }
    Ok(args)
}

fn text(word: OsString) -> Result<String> {
    word.into_string().map_err(|word| Error::invalid(format!("argument {} is not UTF-8", word.display())))
}

fn required(name: &str, value: Option<String>, words: &mut impl Iterator<Item = OsString>) -> Result<String> {
    match value {
        Some(value) => Ok(value),
        None => text(words.next().ok_or_else(|| Error::invalid(format!("flag needs an argument: -{name}")))?),
    }
}

/// The words for true and false that Go's strconv.ParseBool takes.
fn switch(name: &str, value: &str) -> Result<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Error::invalid(format!("invalid boolean value {value:?} for -{name}"))),
    }
}

fn action(word: String) -> Action {
    match word.as_str() {
        "start" => Action::Start,
        "delete" => Action::Delete,
        "" => Action::None,
        _ => Action::Unknown(word),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Args> {
        parse(line.split(' ').filter(|word| !word.is_empty()).map(|word| OsString::from(word.trim_matches('\''))))
    }

    #[test]
    fn the_daemons_ways_of_calling() {
        let full = "-namespace k8s.io -address /run/c.sock -publish-binary /usr/bin/containerd -id abc -debug start";
        let args = parsed(full).unwrap();
        assert_eq!(
            args,
            Args {
                namespace: "k8s.io".into(),
                address: "/run/c.sock".into(),
                publish_binary: "/usr/bin/containerd".into(),
                id: "abc".into(),
                debug: true,
                action: Action::Start,
                ..Args::default()
            }
        );
        let args = parsed("--namespace=moby --id=x=y -bundle /b -publish-binary= delete -debug").unwrap();
        assert_eq!((args.namespace.as_str(), args.id.as_str()), ("moby", "x=y"));
        assert_eq!(args.bundle, PathBuf::from("/b"));
        assert_eq!((args.action, args.debug), (Action::Delete, false));
    }

    #[test]
    fn syntax() {
        let switches: &[(&str, bool)] =
            &[("-debug", true), ("--debug=T", true), ("-debug=0", false), ("-debug=False", false), ("-", false)];
        for (line, debug) in switches {
            assert_eq!(parsed(line).unwrap().debug, *debug, "{line}");
        }
        let actions: &[(&str, Action)] = &[
            ("", Action::None),
            ("-debug", Action::None),
            ("-debug false start", Action::Unknown("false".into())),
            ("-id -debug start", Action::Start),
            ("-- -debug", Action::Unknown("-debug".into())),
            ("-v", Action::None),
            ("-", Action::Unknown("-".into())),
        ];
        for (line, action) in actions {
            assert_eq!(parsed(line).unwrap().action, *action, "{line}");
        }
    }

    #[test]
    fn what_is_refused() {
        let cases: &[(&str, &str)] = &[
            ("-nope", "flag provided but not defined: -nope"),
            ("--nope=1 start", "flag provided but not defined: -nope"),
            ("---id x", "bad flag syntax: ---id"),
            ("-=x", "bad flag syntax: -=x"),
            ("-id", "flag needs an argument: -id"),
            ("-debug=maybe", "invalid boolean value \"maybe\" for -debug"),
        ];
        for (line, message) in cases {
            assert_eq!(parsed(line).unwrap_err().message, *message, "{line}");
        }
        use std::os::unix::ffi::OsStringExt;
        assert!(parse([OsString::from_vec(vec![0xff])]).is_err());
    }
}

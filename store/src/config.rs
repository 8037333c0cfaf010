//! Where things lie and what is allowed: flags and environment.
//!
//! A flag wins over its environment variable, that over the default. Every root can be set, so that several stores, and tests, run
//! side by side.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::error::{Error, Result};

/// Where the data of the store lies, if nobody says otherwise.
pub const ROOT: &str = "/var/lib/tare-store";
/// Where its socket lies.
pub const RUN_DIR: &str = "/run/tare-store";
/// The socket's name there.
pub const SOCKET: &str = "ttrpc.sock";

/// What the daemon was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Everything that stays.
    pub root: PathBuf,
    /// The socket; the directory is the daemon's own.
    pub socket: PathBuf,
    /// Directories with `<host>/hosts.toml` or docker's certificates, the first that knows a host.
    pub hosts_dirs: Vec<PathBuf>,
    /// Docker's config.json, for calls that bring none.
    pub docker_config: Option<PathBuf>,
    /// Blobs that move at once with each registry.
    pub transfers: usize,
    /// Layers that are extracted at once.
    pub extractions: usize,
    /// The one that "" means; nothing: the best that this host can do.
    pub snapshotter: Option<String>,
    /// Keep no compressed blob whose layer is unpacked, also when a pull does not ask for it.
    pub discard_blobs: bool,
    /// How long a registry may send nothing.
    pub stall: Duration,
    /// When to collect.
    pub collect: Schedule,
    /// End after so long without a client; nothing: never.
    pub idle: Option<Duration>,
}

/// When collection runs by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// So long after something was removed; nothing: only when a call asks for it.
    pub after: Option<Duration>,
    /// And at the latest so long after the last one, if anything changed.
    pub every: Option<Duration>,
}

/// Flags of `tare-store serve`.
#[derive(Args, Debug, Clone, Default)]
pub struct ServeArgs {
    /// Directory of all that stays [env: TARE_STORE_ROOT] [default: /var/lib/tare-store, or $XDG_DATA_HOME/tare-store for other users]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Directory with a subdirectory for each registry: hosts.toml, or ca.crt, client.cert and client.key; may be repeated [env: TARE_STORE_HOSTS_DIR, with colons] [default: /etc/containerd/certs.d and /etc/docker/certs.d]
    #[arg(long, value_name = "DIR")]
    pub hosts_dir: Vec<PathBuf>,
    /// Docker's config.json for calls that bring none; empty: none [env: TARE_STORE_DOCKER_CONFIG] [default: $DOCKER_CONFIG/config.json or ~/.docker/config.json]
    #[arg(long, value_name = "FILE", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub docker_config: Option<PathBuf>,
    /// Blobs that are fetched from or sent to a registry at once [env: TARE_STORE_PARALLEL] [default: 4]
    #[arg(long, value_name = "N")]
    pub parallel: Option<usize>,
    /// Layers that are extracted at once, those that wait for their bytes not counted [env: TARE_STORE_EXTRACTIONS] [default: the number of processors]
    #[arg(long, value_name = "N")]
    pub extractions: Option<usize>,
    /// The snapshotter to use where a call names none: overlayfs or native [env: TARE_STORE_SNAPSHOTTER] [default: overlayfs where the kernel has it]
    #[arg(long, value_name = "NAME")]
    pub snapshotter: Option<String>,
    /// Keep no compressed layer that is unpacked: such images cannot be pushed or exported [env: TARE_STORE_DISCARD_BLOBS=1]
    #[arg(long)]
    pub discard_blobs: bool,
    /// How long a registry may send nothing before it counts as gone [env: TARE_STORE_STALL] [default: 30s]
    #[arg(long, value_name = "TIME")]
    pub stall: Option<String>,
    /// Collect so long after something was removed, or "never" [env: TARE_STORE_GC_DELAY] [default: 1m]
    #[arg(long, value_name = "TIME")]
    pub gc_delay: Option<String>,
    /// And at the latest so long after the last time, or "never" [env: TARE_STORE_GC_INTERVAL] [default: 24h]
    #[arg(long, value_name = "TIME")]
    pub gc_interval: Option<String>,
    /// End when no client was there for so long, or "never" [env: TARE_STORE_IDLE] [default: never]
    #[arg(long, value_name = "TIME")]
    pub idle: Option<String>,
}

/// Where a variable of the environment is looked up.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The environment of this process.
#[must_use]
pub fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// The socket that clients and daemon mean: as said, or of the environment (`TARE_STORE_SOCKET`), or the usual one.
#[must_use]
pub fn socket(flag: Option<PathBuf>, env: Environment<'_>) -> PathBuf {
    let given = flag.or_else(|| env("TARE_STORE_SOCKET").map(PathBuf::from));
    given.unwrap_or_else(|| user_dir(RUN_DIR, "XDG_RUNTIME_DIR", None, env).join(SOCKET))
}

/// A directory of the system for root, and of the user for others.
fn user_dir(system: &str, variable: &str, below_home: Option<&str>, env: Environment<'_>) -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return system.into();
    }
    let own = env(variable)
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env("HOME")?).join(below_home?)))
        .unwrap_or_else(|| format!("/run/user/{}", nix::unistd::geteuid()).into());
    own.join("tare-store")
}

impl ServeArgs {
    /// Makes a configuration of flags and environment.
    ///
    /// # Errors
    /// A value that is none: which, and how one is written.
    pub fn config(self, socket: PathBuf, env: Environment<'_>) -> Result<Config> {
        let text = |flag: Option<String>, name: &str| flag.or_else(|| env(name)?.into_string().ok());
        let number = |flag: Option<usize>, name: &str, or: usize| match (flag, text(None, name)) {
            (Some(0), _) => Err(Error::invalid(format!("{name}: 0 would do nothing: write 1 or more"))),
            (Some(given), _) => Ok(given),
            (None, Some(given)) => match given.parse() {
                Ok(given) if given > 0 => Ok(given),
                _ => Err(Error::invalid(format!("{name}: {given:?} is not a number above 0"))),
            },
            (None, None) => Ok(or),
        };
        let time = |flag: Option<String>, name: &str, or: Option<Duration>| match text(flag, name) {
            Some(given) if given == "never" => Ok(None),
            Some(given) => duration(&given).map(Some).map_err(|error| error.within(name)),
            None => Ok(or),
        };
        let path = |flag: Option<PathBuf>, name: &str| flag.or_else(|| env(name).map(PathBuf::from));

        let hosts_dirs = match (self.hosts_dir, env("TARE_STORE_HOSTS_DIR")) {
            (flags, _) if !flags.is_empty() => flags,
            (_, Some(listed)) => std::env::split_paths(&listed).collect(),
            (_, None) => vec!["/etc/containerd/certs.d".into(), "/etc/docker/certs.d".into()],
        };
        let docker_config = path(self.docker_config, "TARE_STORE_DOCKER_CONFIG")
            .or_else(|| Some(PathBuf::from(env("DOCKER_CONFIG")?).join("config.json")))
            .or_else(|| Some(PathBuf::from(env("HOME")?).join(".docker/config.json")))
            .filter(|it| !it.as_os_str().is_empty());
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let discard = text(None, "TARE_STORE_DISCARD_BLOBS").is_some_and(|it| it != "0");
        Ok(Config {
            root: path(self.root, "TARE_STORE_ROOT")
                .unwrap_or_else(|| user_dir(ROOT, "XDG_DATA_HOME", Some(".local/share"), env)),
            socket,
            hosts_dirs,
            docker_config,
            transfers: number(self.parallel, "TARE_STORE_PARALLEL", 4)?,
            extractions: number(self.extractions, "TARE_STORE_EXTRACTIONS", processors)?,
            snapshotter: text(self.snapshotter, "TARE_STORE_SNAPSHOTTER"),
            discard_blobs: self.discard_blobs || discard,
            // A registry that may be silent for ever would hold a pull for ever.
            stall: time(self.stall, "TARE_STORE_STALL", None)?.unwrap_or(Duration::from_secs(30)),
            collect: Schedule {
                after: time(self.gc_delay, "TARE_STORE_GC_DELAY", Some(Duration::from_mins(1)))?,
                every: time(self.gc_interval, "TARE_STORE_GC_INTERVAL", Some(Duration::from_hours(24)))?,
            },
            idle: time(self.idle, "TARE_STORE_IDLE", None)?,
        })
    }
}

impl Config {
    /// As with no flags and no environment, in this directory: for tests and fuzz targets.
    #[must_use]
    pub fn in_dir(dir: &std::path::Path) -> Self {
        Self {
            root: dir.join("root"),
            socket: dir.join("run").join(SOCKET),
            hosts_dirs: Vec::new(),
            docker_config: None,
            transfers: 4,
            extractions: 2,
            snapshotter: None,
            discard_blobs: false,
            stall: Duration::from_secs(30),
            collect: Schedule { after: None, every: None },
            idle: None,
        }
    }
}

/// A time as people write it: `90s`, `5m`, `24h`, `7d`, `1h30m`; a number alone is seconds.
///
/// # Errors
/// It is none, or 0, or longer than a hundred years.
pub fn duration(text: &str) -> Result<Duration> {
    let wrong =
        || Error::invalid(format!("{text:?} is not a time: write a number with ms, s, m, h or d, as in 90s or 1h30m"));
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|it: char| it.is_ascii_digit()).len();
        let number: u32 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.len() - rest.trim_start_matches(|it: char| it.is_ascii_alphabetic()).len();
        let unit = match &rest[..letters] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "" if digits == text.len() => Duration::from_secs(1),
            "m" => Duration::from_mins(1),
            "h" => Duration::from_hours(1),
            "d" => Duration::from_hours(24),
            _ => return Err(wrong()),
        };
        rest = &rest[letters..];
        total = unit.checked_mul(number).and_then(|it| total.checked_add(it)).ok_or_else(wrong)?;
    }
    if total.is_zero() || total > Duration::from_hours(24 * 36_525) {
        return Err(wrong());
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_default() {
        let nothing = |_: &str| None;
        let config = ServeArgs::default().config(socket(None, &nothing), &nothing).unwrap();
        assert_eq!((config.transfers, config.stall), (4, Duration::from_secs(30)));
        assert_eq!((config.docker_config, config.idle, config.snapshotter), (None, None, None));
        assert_eq!(config.hosts_dirs.len(), 2);
        if nix::unistd::geteuid().is_root() {
            assert_eq!(config.root, PathBuf::from(ROOT));
            assert_eq!(config.socket, PathBuf::from("/run/tare-store/ttrpc.sock"));
        }

        let some = |name: &str| match name {
            "TARE_STORE_ROOT" => Some("/r".into()),
            "TARE_STORE_SOCKET" => Some("/s/sock".into()),
            "TARE_STORE_HOSTS_DIR" => Some("/a:/b".into()),
            "TARE_STORE_PARALLEL" => Some("7".into()),
            "TARE_STORE_STALL" => Some("1m30s".into()),
            "TARE_STORE_GC_DELAY" => Some("never".into()),
            "TARE_STORE_DISCARD_BLOBS" => Some("1".into()),
            "DOCKER_CONFIG" => Some("/d".into()),
            "HOME" => Some("/h".into()),
            _ => None,
        };
        let config = ServeArgs::default().config(socket(None, &some), &some).unwrap();
        assert_eq!((config.root.to_str().unwrap(), config.socket.to_str().unwrap()), ("/r", "/s/sock"));
        assert_eq!(config.hosts_dirs, [PathBuf::from("/a"), PathBuf::from("/b")]);
        assert_eq!((config.transfers, config.stall, config.discard_blobs), (7, Duration::from_secs(90), true));
        assert_eq!(config.collect, Schedule { after: None, every: Some(Duration::from_hours(24)) });
        assert_eq!(config.docker_config.unwrap().to_str().unwrap(), "/d/config.json");

        let flags = ServeArgs {
            root: Some("/x".into()),
            hosts_dir: vec!["/y".into()],
            parallel: Some(2),
            stall: Some("5s".into()),
            docker_config: Some("".into()),
            ..ServeArgs::default()
        };
        let config = flags.config(socket(Some("/z".into()), &some), &some).unwrap();
        assert_eq!((config.root.to_str().unwrap(), config.socket.to_str().unwrap()), ("/x", "/z"));
        assert_eq!(config.hosts_dirs, [PathBuf::from("/y")]);
        assert_eq!((config.transfers, config.stall, config.docker_config), (2, Duration::from_secs(5), None));
    }

    #[test]
    fn what_is_no_value_is_refused_with_its_name() {
        for (name, value) in
            [("TARE_STORE_PARALLEL", "0"), ("TARE_STORE_EXTRACTIONS", "many"), ("TARE_STORE_IDLE", "1y")]
        {
            let env = |asked: &str| (asked == name).then(|| value.into());
            let error = ServeArgs::default().config("/s".into(), &env).unwrap_err();
            assert!(error.message.starts_with(name), "{error}");
        }
    }

    #[test]
    fn times() {
        for (text, seconds) in [("90s", 90), ("90", 90), ("5m", 300), ("1h30m", 5400), ("7d", 604_800)] {
            assert_eq!(duration(text).unwrap().as_secs(), seconds, "{text}");
        }
        assert_eq!(duration("250ms").unwrap(), Duration::from_millis(250));
        for wrong in ["", "s", "-1s", "1.5h", "1h30", "99999999999s", "4294967295d", "0", "1 s", "٣s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}

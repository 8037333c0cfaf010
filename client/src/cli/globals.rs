//! What stands before the command.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, FromArgMatches};

use super::help;
use super::sentence;
use crate::error::{Error, Result};
use crate::paths::Paths;

/// The flags before the command.
#[derive(Debug, Default, Args)]
pub(super) struct Globals {
    /// Directory of what outlives a boot: records, logs, volumes [env: TARECTL_ROOT] [default: /var/lib/tarectl]
    #[arg(long, value_name = "string")]
    root: Option<PathBuf>,
    /// Directory of what does not: bundles, sockets, network namespaces [env: TARECTL_RUN] [default: /run/tarectl]
    #[arg(long, value_name = "string")]
    run: Option<PathBuf>,
    /// Socket of tare-store [env: TARE_STORE_SOCKET] [default: /run/tare-store/ttrpc.sock]
    #[arg(long, value_name = "string")]
    store: Option<PathBuf>,
    /// Say what is done; there is nothing to say more yet
    #[arg(short = 'D', long)]
    debug: bool,
    /// How much is said of it
    #[arg(short, long, value_name = "string")]
    log_level: Option<String>,
    #[arg(short = 'H', long, value_name = "list", hide = true)]
    host: Option<String>,
    #[arg(short, long, value_name = "string", hide = true)]
    context: Option<String>,
    #[arg(long, value_name = "string", hide = true)]
    config: Option<String>,
    /// By this the shim says where its caller listens: there is nobody.
    #[arg(long, value_name = "string", hide = true)]
    address: Option<String>,
    /// Print the version
    #[arg(short, long)]
    version: bool,
}

/// What the command line is.
pub(super) enum Line {
    /// Help is asked for: of the program, or of the command with these words.
    Help(Vec<String>),
    /// The version is asked for.
    Version,
    /// A command with its arguments.
    Command {
        /// The flags before it.
        globals: Globals,
        /// Its words and arguments.
        words: Vec<OsString>,
    },
}

/// Reads the flags before the command. `words` begins with the program's name.
pub(super) fn read(words: Vec<OsString>) -> Result<Line> {
    let definition = super::commands::docker_style(Globals::augment_args(clap::Command::new("tarectl")));
    let matches = match definition.allow_external_subcommands(true).try_get_matches_from(words) {
        Ok(matches) => matches,
        Err(error) if error.kind() == clap::error::ErrorKind::DisplayHelp => return Ok(Line::Help(Vec::new())),
        Err(error) => return Err(sentence::of(&error, "", "[OPTIONS] COMMAND")),
    };
    let globals = Globals::from_arg_matches(&matches).map_err(|error| sentence::of(&error, "", ""))?;
    globals.refused()?;
    if globals.version {
        return Ok(Line::Version);
    }
    let Some((name, rest)) = matches.subcommand() else { return Ok(Line::Help(Vec::new())) };
    let rest = rest.get_many::<OsString>("").into_iter().flatten().cloned();
    if name == "help" {
        return Ok(Line::Help(rest.map(|it| it.to_string_lossy().into_owned()).collect()));
    }
    let words = std::iter::once(OsString::from(name)).chain(rest).collect();
    Ok(Line::Command { globals, words })
}

impl Globals {
    /// Where things lie.
    pub(super) fn paths(&self) -> Result<Paths> {
        let mut paths = Paths::from_env();
        for (given, path) in
            [(&self.root, &mut paths.root), (&self.run, &mut paths.run), (&self.store, &mut paths.store)]
        {
            if let Some(given) = given {
                *path = std::path::absolute(given)
                    .map_err(|error| Error::usage(format!("{} is not a directory's path: {error}", given.display())))?;
            }
        }
        paths.check()?;
        Ok(paths)
    }

    fn refused(&self) -> Result<()> {
        let why = if self.host.is_some() || self.context.is_some() {
            "tarectl works on this machine and speaks to no daemon: leave --host and --context out"
        } else if self.config.is_some() {
            "tarectl reads docker's configuration from $DOCKER_CONFIG: set that in place of --config"
        } else {
            return self.log_level.as_deref().map_or(Ok(()), check_level);
        };
        Err(Error::usage(why))
    }
}

/// As docker's: of the levels it knows, in whatever letters.
fn check_level(level: &str) -> Result<()> {
    const LEVELS: [&str; 8] = ["trace", "debug", "info", "warn", "warning", "error", "fatal", "panic"];
    if LEVELS.iter().any(|it| it.eq_ignore_ascii_case(level)) {
        return Ok(());
    }
    Err(Error::usage(format!("--log-level {level:?} is none: there are debug, info, warn, error and fatal")))
}

/// The definition, for help, completions and manual pages.
pub(super) fn definition() -> clap::Command {
    Globals::augment_args(clap::Command::new("tarectl")).about(help::ABOUT).long_about(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_of_the_log_is_one_of_dockers() {
        let read = |level: &str| read(["tarectl", "--log-level", level, "ps"].map(OsString::from).to_vec());
        for level in ["debug", "info", "warn", "WARNING", "error", "fatal", "panic", "trace"] {
            assert!(matches!(read(level), Ok(Line::Command { .. })), "{level}");
        }
        for level in ["", "loud", "7"] {
            let Err(error) = read(level) else { panic!("{level:?} is taken") };
            let sentence = format!("--log-level {level:?} is none: there are debug, info, warn, error and fatal");
            assert_eq!(error.to_string(), sentence);
        }
    }
}

//! The command line: runc's own spelling of every command, flag, alias and default.
//!
//! It is read in two steps, so that an argument error of a command already reaches the log file the global flags name,
//! and so that only the command in use is built: [`globals`] reads what stands before the command and returns a
//! [`Line`]; [`Line::command`] reads the rest. Both may answer with a text to print (help, version) instead.
//!
//! Callers write flags as Go programs read them: `-root x` is `--root x`, `--detach=false` is no flag at all. What clap
//! reads otherwise is rewritten first (`go_style.rs`). This module knows nothing of what a command does.

mod args;
mod criu_args;
mod go_style;
#[cfg(test)]
mod tests;
mod values;

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, FromArgMatches};

pub use self::args::*;
pub use self::criu_args::*;
use self::go_style::go_style;
use crate::error::{Error, Kind, Result};

/// The version of the runtime-spec this program implements.
pub const SPEC_VERSION: &str = "1.3.0";

/// What `--version` prints after the program's name; dockerd and go-runc read these lines.
const VERSION: &str =
    concat!("version ", env!("CARGO_PKG_VERSION"), "\ncommit: ", env!("TARE_COMMIT"), "\nspec: 1.3.0");

const ABOUT: &str = "an OCI runtime for Linux containers";

/// The commands in one table: variant, arguments, name, line of help, and who may see it.
macro_rules! commands {
    ($($variant:ident($args:ty) $name:literal $about:literal;)*) => {
        /// A command with its arguments.
        #[derive(Clone, Debug)]
        #[allow(clippy::large_enum_variant)] // one value exists, for the life of the program
        pub enum Command {
            $(#[doc = $about] $variant($args),)*
        }

        impl Command {
            /// The definition of one command, without the others; `None` if there is none of that name.
            fn definition(name: &str) -> Option<clap::Command> {
                match name {
                    // About it last: the arguments bring the documentation of their type along.
                    $($name => Some(described(<$args>::augment_args(clap::Command::new($name)), $about)),)*
                    _ => None,
                }
            }

            /// The command `name` from what clap read for it.
            fn from_matches(name: &str, matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
                match name {
                    $($name => <$args>::from_arg_matches(matches).map(Self::$variant),)*
                    _ => Err(clap::Error::new(ErrorKind::InvalidSubcommand)),
                }
            }
        }

        const NAMES: &[&str] = &[$($name),*];
    };
}

commands! {
    Checkpoint(CheckpointArgs) "checkpoint" "checkpoint a running container";
    Create(CreateArgs) "create" "create a container";
    Delete(DeleteArgs) "delete" "delete any resources held by the container";
    Events(EventsArgs) "events" "display container events such as OOM notifications, cpu, memory, and IO usage statistics";
    Exec(ExecArgs) "exec" "execute a new process inside the container";
    Features(FeaturesArgs) "features" "show the enabled features";
    Kill(KillArgs) "kill" "send a signal (default: SIGTERM) to the container's init process";
    List(ListArgs) "list" "list the containers of the given root";
    Pause(IdArgs) "pause" "suspend all processes inside the container";
    Ps(PsArgs) "ps" "display the processes running inside a container";
    Restore(RestoreArgs) "restore" "restore a container from a previous checkpoint";
    Resume(IdArgs) "resume" "resume all processes that have been paused";
    Run(RunArgs) "run" "create and run a container";
    Spec(SpecArgs) "spec" "create a new specification file";
    Start(IdArgs) "start" "execute the user-defined process in a created container";
    State(IdArgs) "state" "output the state of a container";
    Update(UpdateArgs) "update" "update container resource constraints";
}

/// What the command line asks for: a text (help, version) or something to do.
#[derive(Debug)]
pub enum Asked<T> {
    /// To be printed on standard output; the exit status is then 0.
    Text(String),
    /// To be done.
    For(T),
}

/// A command line whose global flags are read; the command's own arguments are not yet.
#[derive(Debug)]
pub struct Line {
    /// The flags before the command.
    pub global: Global,
    name: String,
    rest: Vec<OsString>,
}

/// Reads the global flags and the name of the command. `args` begins with the program's own name.
pub fn globals(args: impl IntoIterator<Item = OsString>) -> Result<Asked<Line>> {
    let definition = program().allow_external_subcommands(true);
    let args = go_style(&definition, args.into_iter().collect());
    let matches = match definition.try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) if error.kind() == ErrorKind::DisplayVersion => return Ok(Asked::Text(error.to_string())),
        Err(error) if error.kind() == ErrorKind::DisplayHelp => return Ok(Asked::Text(help(&[])?)),
        Err(error) => return Err(sentence(&error, "tare")),
    };
    let global = Global::from_arg_matches(&matches).map_err(|error| sentence(&error, "tare"))?;
    let global = global.or_root_of(std::env::var_os("TARE_ROOT")).map_err(Error::invalid)?;
    let Some((name, rest)) = matches.subcommand() else {
        return Ok(Asked::Text(help(&[])?));
    };
    let rest: Vec<OsString> = rest.get_many::<OsString>("").into_iter().flatten().cloned().collect();
    match name {
        "help" | "h" => Ok(Asked::Text(help(&rest)?)),
        _ => Ok(Asked::For(Line { name: name.to_owned(), global, rest })),
    }
}

impl Line {
    /// Reads the command's own arguments.
    pub fn command(self) -> Result<Asked<Command>> {
        let name = self.name;
        let Some(definition) = Command::definition(&name) else {
            return Err(Error::invalid(format!("no such command: {name} (tare --help lists them)")));
        };
        let definition = definition.bin_name(format!("tare {name}"));
        let program = std::iter::once(OsString::from(&name));
        let args = go_style(&definition, program.chain(self.rest).collect());
        let read = definition.try_get_matches_from(args).and_then(|found| Command::from_matches(&name, &found));
        match read {
            Ok(command) => Ok(Asked::For(command)),
            Err(error) if error.kind() == ErrorKind::DisplayHelp => Ok(Asked::Text(error.to_string())),
            Err(error) => Err(sentence(&error, &format!("tare {name}"))),
        }
    }
}

/// The program with its global flags and no command.
fn program() -> clap::Command {
    let program = Global::augment_args(clap::Command::new("tare").version(VERSION).disable_version_flag(true));
    described(program, ABOUT)
}

fn described(command: clap::Command, about: &'static str) -> clap::Command {
    command.about(about).long_about(None)
}

/// The whole definition, as help, completions and manual pages need it.
pub fn tree() -> clap::Command {
    program().subcommand_required(true).subcommands(NAMES.iter().filter_map(|name| Command::definition(name)))
}

/// The help of the program, or of the command `words` names.
fn help(words: &[OsString]) -> Result<String> {
    let mut tree = tree();
    tree.build();
    match words.first() {
        None => Ok(tree.render_help().to_string()),
        Some(word) => match word.to_str().and_then(|name| tree.find_subcommand_mut(name)) {
            Some(command) => Ok(command.render_help().to_string()),
            None => Err(Error::invalid(format!("no such command: {}", word.display()))),
        },
    }
}

/// What clap found wrong, as one sentence.
fn sentence(error: &clap::Error, program: &str) -> Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(" "),
        _ => String::new(),
    };
    let arg = text(ContextKind::InvalidArg);
    let value = text(ContextKind::InvalidValue);
    let what = match error.kind() {
        ErrorKind::UnknownArgument if arg.starts_with('-') => format!("unknown flag {arg}"),
        ErrorKind::UnknownArgument => format!("one argument too many: {arg}"),
        ErrorKind::MissingRequiredArgument => format!("{arg} is missing"),
        ErrorKind::ArgumentConflict => format!("{arg} cannot be used with {}", text(ContextKind::PriorArg)),
        ErrorKind::InvalidValue | ErrorKind::TooFewValues if value.is_empty() => format!("{arg} needs a value"),
        ErrorKind::InvalidValue => match error.get(ContextKind::ValidValue) {
            Some(ContextValue::Strings(valid)) => {
                format!("{arg}: {value:?} is not one of {}", valid.join(", "))
            }
            _ => format!("{arg}: {value:?} is not valid"),
        },
        ErrorKind::ValueValidation => match std::error::Error::source(error) {
            Some(cause) => format!("{arg}: {value:?}: {cause}"),
            None => format!("{arg}: {value:?} is not valid"),
        },
        ErrorKind::InvalidUtf8 => "an argument is not valid UTF-8".to_owned(),
        // The first line of clap's own text is a whole sentence.
        _ => error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    };
    Error::new(Kind::Invalid, format!("{program}: {what}"))
}

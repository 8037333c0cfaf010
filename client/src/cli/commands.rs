//! The table of commands: docker's words, and the function behind each.

use std::ffi::OsString;
use std::future::Future;
use std::pin::Pin;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::{
    about, args, background, containers, events, files, help, image_args, images, inspect, networks, ps, sentence,
    stats, system, top, update, volumes,
};
use crate::client::Client;
use crate::error::{Error, Result};

/// Management words, with what they are about.
pub(super) const GROUPS: &[(&str, &str)] = &[
    ("container", "Containers"),
    ("image", "Images"),
    ("network", "Networks"),
    ("system", "All of it"),
    ("volume", "Volumes"),
];

/// What runs a command.
type Run = for<'a> fn(&'a Client, &'a ArgMatches) -> Pin<Box<dyn Future<Output = Result<u8>> + 'a>>;

/// One command.
pub(super) struct Entry {
    /// Its names, the first the usual one: `ps`, `container ls`.
    pub(super) words: &'static [&'static str],
    /// Behind its name.
    pub(super) usage: &'static str,
    /// One line.
    pub(super) about: &'static str,
    /// Not in lists: for other programs.
    pub(super) hidden: bool,
    /// Others than root may call it.
    pub(super) for_everybody: bool,
    define: fn(Command) -> Command,
    /// What runs it.
    pub(super) run: Run,
}

macro_rules! entry {
    ($words:expr, $args:ty, $usage:literal, $about:literal, $run:path) => {
        Entry {
            words: &$words,
            usage: $usage,
            about: $about,
            hidden: false,
            for_everybody: false,
            define: |command| <$args as Args>::augment_args(command),
            run: |client, matches| {
                Box::pin(async move {
                    let args = <$args as FromArgMatches>::from_arg_matches(matches)
                        .map_err(|error| sentence::of(&error, $words[0], $usage))?;
                    $run(client, args).await
                })
            },
        }
    };
}

/// All of them.
pub(super) const ENTRIES: &[Entry] = &[
    entry!(
        ["attach", "container attach"],
        args::Attach,
        "[OPTIONS] CONTAINER",
        "Look on at a running container",
        containers::attach
    ),
    entry!(
        ["commit", "container commit"],
        args::Commit,
        "[OPTIONS] CONTAINER [NAME[:TAG]]",
        "Make an image of what a container has changed",
        files::commit
    ),
    entry!(
        ["cp", "container cp"],
        args::Cp,
        "[OPTIONS] CONTAINER:SOURCE DESTINATION|- or SOURCE|- CONTAINER:DESTINATION",
        "Copy files into a container, or out of one",
        files::cp
    ),
    entry!(
        ["create", "container create"],
        args::Create,
        "[OPTIONS] IMAGE [COMMAND] [ARG...]",
        "Make a container, and do not start it",
        containers::create
    ),
    entry!(["diff", "container diff"], args::One, "CONTAINER", "Show which files a container has changed", files::diff),
    entry!(
        ["events", "system events"],
        args::Events,
        "[OPTIONS]",
        "Show what happens, and what has happened",
        events::run
    ),
    entry!(
        ["exec", "container exec"],
        args::Exec,
        "[OPTIONS] CONTAINER COMMAND [ARG...]",
        "Run a command in a running container",
        containers::exec
    ),
    entry!(
        ["export", "container export"],
        args::Export,
        "[OPTIONS] CONTAINER",
        "Write all files of a container to an archive",
        files::export
    ),
    entry!(
        ["import", "image import"],
        args::Import,
        "[OPTIONS] FILE|- [NAME[:TAG]]",
        "Make an image of an archive of files",
        files::import
    ),
    entry!(
        ["history", "image history"],
        image_args::History,
        "[OPTIONS] IMAGE",
        "Show how an image was made",
        images::history
    ),
    entry!(
        ["images", "image ls", "image list"],
        image_args::Images,
        "[OPTIONS] [NAME[:TAG]]",
        "List images",
        images::images
    ),
    entry!(["info", "system info"], args::Formatted, "[OPTIONS]", "Show what there is, and on which host", about::info),
    entry!(
        ["inspect"],
        args::Inspect,
        "[OPTIONS] NAME|ID [NAME|ID...]",
        "Show all that is known of containers, images, networks, volumes",
        inspect::any
    ),
    entry!(
        ["container inspect"],
        args::Inspect,
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Show all that is known of containers",
        inspect::containers
    ),
    entry!(
        ["image inspect"],
        args::InspectOne,
        "[OPTIONS] IMAGE [IMAGE...]",
        "Show all that is known of images",
        images::inspect
    ),
    entry!(["image prune"], args::PruneAll, "[OPTIONS]", "Remove images that no container uses", images::prune),
    entry!(
        ["kill", "container kill"],
        args::Kill,
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Send a signal to containers",
        containers::kill
    ),
    entry!(["load", "image load"], image_args::Load, "[OPTIONS]", "Take images from an archive", images::load),
    entry!(["login"], image_args::Login, "[OPTIONS] [SERVER]", "Log in to a registry", images::login),
    entry!(["logout"], image_args::Logout, "[SERVER]", "Forget the password of a registry", images::logout),
    entry!(
        ["logs", "container logs"],
        args::Logs,
        "[OPTIONS] CONTAINER",
        "Show what a container has written",
        containers::logs
    ),
    entry!(
        ["network connect"],
        args::Connect,
        "[OPTIONS] NETWORK CONTAINER",
        "Give a container one more network",
        networks::connect
    ),
    entry!(["network create"], args::NetworkCreate, "[OPTIONS] NETWORK", "Make a network", networks::create),
    entry!(
        ["network disconnect"],
        args::Disconnect,
        "[OPTIONS] NETWORK CONTAINER",
        "Take a network from a container",
        networks::disconnect
    ),
    entry!(
        ["network inspect"],
        args::InspectOne,
        "[OPTIONS] NETWORK [NETWORK...]",
        "Show all that is known of networks",
        networks::inspect
    ),
    entry!(["network ls", "network list"], args::List, "[OPTIONS]", "List networks", networks::ls),
    entry!(["network prune"], args::Prune, "[OPTIONS]", "Remove networks that no container uses", networks::prune),
    entry!(["network rm", "network remove"], args::Remove, "NETWORK [NETWORK...]", "Remove networks", networks::rm),
    entry!(
        ["pause", "container pause"],
        args::Containers,
        "CONTAINER [CONTAINER...]",
        "Freeze all that runs in containers",
        containers::pause
    ),
    entry!(
        ["port", "container port"],
        args::Port,
        "CONTAINER [PORT[/PROTOCOL]]",
        "Show where a container's ports are published",
        networks::port
    ),
    entry!(["container prune"], args::Prune, "[OPTIONS]", "Remove containers that do not run", containers::prune),
    entry!(["ps", "container ls", "container list", "container ps"], args::Ps, "[OPTIONS]", "List containers", ps::run),
    entry!(
        ["pull", "image pull"],
        image_args::Pull,
        "[OPTIONS] NAME[:TAG|@DIGEST]",
        "Fetch an image from a registry",
        images::pull
    ),
    entry!(
        ["push", "image push"],
        image_args::Push,
        "[OPTIONS] NAME[:TAG]",
        "Send an image to a registry",
        images::push
    ),
    entry!(
        ["rename", "container rename"],
        args::Rename,
        "CONTAINER NEW_NAME",
        "Give a container another name",
        containers::rename
    ),
    entry!(
        ["restart", "container restart"],
        args::Stop,
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Stop containers and start them again",
        containers::restart
    ),
    entry!(
        ["rm", "container rm", "container remove"],
        args::Rm,
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Remove containers",
        containers::rm
    ),
    entry!(
        ["rmi", "image rm", "image remove"],
        image_args::Rmi,
        "[OPTIONS] IMAGE [IMAGE...]",
        "Remove images",
        images::rmi
    ),
    entry!(
        ["run", "container run"],
        args::Run,
        "[OPTIONS] IMAGE [COMMAND] [ARG...]",
        "Make a container of an image and start it",
        containers::run
    ),
    entry!(
        ["save", "image save"],
        image_args::Save,
        "[OPTIONS] IMAGE [IMAGE...]",
        "Write images to an archive",
        images::save
    ),
    entry!(["search"], image_args::Search, "[OPTIONS] TERM", "Look for images at a registry", images::search),
    entry!(
        ["start", "container start"],
        args::Start,
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Start containers",
        containers::start
    ),
    entry!(
        ["stats", "container stats"],
        args::Stats,
        "[OPTIONS] [CONTAINER...]",
        "Show what containers use",
        stats::run
    ),
    entry!(
        ["stop", "container stop"],
        args::Stop,
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Ask containers to end, and end them if they do not",
        containers::stop
    ),
    entry!(["system df"], args::Df, "[OPTIONS]", "Show what takes how much disk", system::df),
    entry!(["system prune"], args::SystemPrune, "[OPTIONS]", "Remove what no container uses", system::prune),
    entry!(["tag", "image tag"], image_args::Tag, "IMAGE[:TAG] NAME[:TAG]", "Give an image one more name", images::tag),
    entry!(["top", "container top"], args::Top, "CONTAINER [PS OPTIONS]", "Show what runs in a container", top::run),
    entry!(
        ["unpause", "container unpause"],
        args::Containers,
        "CONTAINER [CONTAINER...]",
        "Let frozen containers go on",
        containers::unpause
    ),
    entry!(
        ["update", "container update"],
        args::Update,
        "[OPTIONS] CONTAINER [CONTAINER...]",
        "Change the limits of containers",
        update::run
    ),
    entry!(["version"], args::Formatted, "[OPTIONS]", "Show the versions of all programs", about::version)
        .for_everybody(),
    entry!(["volume create"], args::VolumeCreate, "[OPTIONS] [VOLUME]", "Make a volume", volumes::create),
    entry!(
        ["volume inspect"],
        args::InspectOne,
        "[OPTIONS] VOLUME [VOLUME...]",
        "Show all that is known of volumes",
        volumes::inspect
    ),
    entry!(["volume ls", "volume list"], args::List, "[OPTIONS]", "List volumes", volumes::ls),
    entry!(["volume prune"], args::PruneAll, "[OPTIONS]", "Remove volumes that no container uses", volumes::prune),
    entry!(["volume rm", "volume remove"], args::Remove, "[OPTIONS] VOLUME [VOLUME...]", "Remove volumes", volumes::rm),
    entry!(
        ["wait", "container wait"],
        args::Containers,
        "CONTAINER [CONTAINER...]",
        "Wait until containers end, and show their exit codes",
        containers::wait
    ),
    entry!(["boot"], args::None, "", "Start what should run, after the host has booted", background::boot),
    entry!(
        ["publish"],
        args::Publish,
        "--topic TOPIC --namespace NAMESPACE",
        "Take note of an event; shims call it",
        background::publish
    )
    .hidden(),
    entry!(["revive"], args::One, "CONTAINER", "Start a container again when its time has come", background::revive)
        .hidden(),
    entry!(["watch-health"], args::One, "CONTAINER", "Check a container's health", background::watch_health).hidden(),
];

impl Entry {
    /// Of nobody's interest but other programs'.
    const fn hidden(mut self) -> Self {
        self.hidden = true;
        self
    }

    /// It touches nothing.
    const fn for_everybody(mut self) -> Self {
        self.for_everybody = true;
        self
    }
}

/// What words name.
pub(super) enum Found {
    /// A command, and the one of its names.
    Entry(&'static Entry, &'static str),
    /// A management word with nothing behind it.
    Group(&'static str),
}

/// The command that these words begin with.
pub(super) fn find(words: &[OsString]) -> Result<Found> {
    let word = |at: usize| words.get(at).map(|it| it.to_string_lossy().into_owned());
    let first = word(0).unwrap_or_default();
    let Some((group, _)) = GROUPS.iter().find(|(name, _)| *name == first) else {
        let mut all = ENTRIES.iter().flat_map(|entry| entry.words.iter().map(move |name| (entry, *name)));
        return match all.find(|(_, name)| *name == first && !name.contains(' ')) {
            Some((entry, name)) => Ok(Found::Entry(entry, name)),
            None => {
                let commands = ENTRIES.iter().filter(|it| !it.hidden).flat_map(|it| it.words).copied();
                Err(unknown("", &first, commands.filter(|it| !it.contains(' ')).chain(GROUPS.iter().map(|it| it.0))))
            }
        };
    };
    let Some(second) = word(1).filter(|it| it != "help" && !["--help", "-h"].contains(&it.as_str())) else {
        return Ok(Found::Group(group));
    };
    if second.starts_with('-') {
        return Err(Error::usage(format!(
            "tarectl {group} has no flag {second}: tarectl {group} --help lists its commands"
        )));
    }
    match of_group(group).find(|(name, _, _)| *name == second) {
        Some((_, whole, entry)) => Ok(Found::Entry(entry, whole)),
        None => Err(unknown(group, &second, of_group(group).map(|(name, _, _)| name))),
    }
}

/// The commands behind a management word: the second word, both, and the command.
pub(super) fn of_group(group: &str) -> impl Iterator<Item = (&'static str, &'static str, &'static Entry)> {
    ENTRIES.iter().flat_map(move |entry| {
        entry.words.iter().filter_map(move |words| Some((words.strip_prefix(group)?.strip_prefix(' ')?, *words, entry)))
    })
}

/// There is none; perhaps one that is nearly so.
fn unknown(group: &str, given: &str, names: impl Iterator<Item = &'static str>) -> Error {
    let whole = |name: &str| format!("{group} {name}").trim_start().to_owned();
    let near = names
        .map(|name| (strsim::jaro_winkler(given, name), name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|one, other| one.0.total_cmp(&other.0));
    match near {
        Some((_, near)) => Error::usage(format!(
            "there is no command {:?}, but {:?}: tarectl --help lists them",
            whole(given),
            whole(near)
        )),
        None => help::none(&whole(given)),
    }
}

impl Entry {
    /// Its definition, under the name it is called by.
    pub(super) fn definition(&self, name: &'static str) -> Command {
        let word = name.rsplit(' ').next().unwrap_or(name);
        let command = (self.define)(Command::new(word).bin_name(format!("tarectl {name}")));
        let command = command.override_usage(format!("tarectl {name} {}", self.usage));
        docker_style(command.about(self.about).long_about(None)).hide(self.hidden)
    }
}

/// What makes clap read as docker does: a switch may be `--switch=false`, the last of a flag counts, and what stands behind a flag with
/// a value is its value, however it begins.
pub(super) fn docker_style(command: Command) -> Command {
    let mut has_h = false;
    let command =
        command.args_override_self(true).disable_help_flag(true).disable_help_subcommand(true).mut_args(|arg| {
            has_h |= arg.get_short() == Some('h');
            match arg.get_action() {
                ArgAction::SetTrue => arg
                    .action(ArgAction::Set)
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true")
                    .default_value("false")
                    .value_parser(switch)
                    .value_name(""),
                ArgAction::Set | ArgAction::Append if !arg.is_positional() => {
                    // A switch that is on by default.
                    let is_switch = arg.get_num_args().is_some_and(|it| it.min_values() == 0);
                    if is_switch { arg.value_parser(switch) } else { arg.allow_hyphen_values(true) }
                }
                _ => arg,
            }
        });
    let help = Arg::new("help").long("help").action(ArgAction::Help).help("Print this help");
    // In docker's run, -h is the host name.
    command.arg(if has_h { help } else { help.short('h') })
}

/// As Go reads a truth.
fn switch(text: &str) -> std::result::Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("give true or false".to_owned()),
    }
}

/// The whole definition, as completions and manual pages need it.
pub fn tree() -> Command {
    let shown = || ENTRIES.iter().filter(|it| !it.hidden);
    let plain =
        shown().flat_map(|entry| entry.words.iter().filter(|it| !it.contains(' ')).map(move |it| entry.definition(it)));
    let groups = GROUPS.iter().map(|(group, about)| {
        let commands = of_group(group).map(|(_, name, entry)| entry.definition(name));
        Command::new(*group).about(*about).subcommand_required(true).subcommands(commands)
    });
    super::globals::definition().subcommand_required(true).subcommands(plain).subcommands(groups)
}

#[cfg(test)]
mod tests;

//! The flags of the commands of containers; those that `run` and `create` share are in [`super::flags`].

use clap::Args;

use super::flags::{Container, Words};

/// Nothing at all.
#[derive(Debug, Args)]
pub(crate) struct None {}

/// What `run` has and `create` has not.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Print its id and leave it to itself
    #[arg(short, long)]
    pub detach: bool,
    /// Keys that leave it to itself, as in ctrl-p,ctrl-q
    #[arg(long, value_name = "string")]
    pub detach_keys: Option<String>,
    /// Pass signals on to it
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", value_name = "")]
    pub sig_proxy: bool,
    #[command(flatten)]
    pub container: Container,
    #[command(subcommand)]
    pub words: Words,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    pub container: Container,
    #[command(subcommand)]
    pub words: Words,
}

#[derive(Debug, Args)]
pub(crate) struct Start {
    /// Look on: print its output, pass signals on
    #[arg(short, long)]
    pub attach: bool,
    /// Give it this standard input
    #[arg(short, long)]
    pub interactive: bool,
    /// Keys that leave it to itself, as in ctrl-p,ctrl-q
    #[arg(long, value_name = "string")]
    pub detach_keys: Option<String>,
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// Keys that leave it to itself, as in ctrl-p,ctrl-q
    #[arg(long, value_name = "string")]
    pub detach_keys: Option<String>,
    /// Do not give it this standard input
    #[arg(long)]
    pub no_stdin: bool,
    /// Pass signals on to it
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", value_name = "")]
    pub sig_proxy: bool,
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Do not wait for it
    #[arg(short, long)]
    pub detach: bool,
    /// Keys that leave it to itself, as in ctrl-p,ctrl-q
    #[arg(long, value_name = "string")]
    pub detach_keys: Option<String>,
    /// Environment variable: NAME=VALUE, or NAME with the caller's value
    #[arg(short, long, value_name = "list")]
    pub env: Vec<String>,
    /// File with environment variables, one a line
    #[arg(long, value_name = "list")]
    pub env_file: Vec<String>,
    /// Give it this standard input
    #[arg(short, long)]
    pub interactive: bool,
    /// Let it do everything
    #[arg(long)]
    pub privileged: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// User, and group: name or number, as in app:www or 1000:1000
    #[arg(short, long, value_name = "string")]
    pub user: Option<String>,
    /// Directory that it starts in
    #[arg(short, long, value_name = "string")]
    pub workdir: Option<String>,
    #[command(subcommand)]
    pub words: Words,
}

/// `stop` and `restart`.
#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// Signal that is sent first
    #[arg(short, long, value_name = "string")]
    pub signal: Option<String>,
    /// Seconds until it is killed; -1: never
    #[arg(short = 't', long = "time", visible_alias = "timeout", value_name = "int")]
    pub time: Option<i64>,
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// Signal that is sent
    #[arg(short, long, value_name = "string", default_value = "KILL")]
    pub signal: String,
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

/// `pause`, `unpause`, `wait`.
#[derive(Debug, Args)]
pub(crate) struct Containers {
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Kill those that run
    #[arg(short, long)]
    pub force: bool,
    /// Remove a link; tarectl's links go with their containers
    #[arg(short, long, hide = true)]
    pub link: bool,
    /// Remove their unnamed volumes too
    #[arg(short, long)]
    pub volumes: bool,
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Rename {
    #[arg(value_name = "CONTAINER")]
    pub container: String,
    #[arg(value_name = "NEW_NAME")]
    pub name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Show what was told of each line too
    #[arg(long)]
    pub details: bool,
    /// Go on with what comes
    #[arg(short, long)]
    pub follow: bool,
    /// Only what was written since: a time, or how long ago, as in 42m
    #[arg(long, value_name = "string")]
    pub since: Option<String>,
    /// So many lines from the end; all
    #[arg(short = 'n', long, value_name = "string", default_value = "all")]
    pub tail: String,
    /// Show when each line was written
    #[arg(short, long)]
    pub timestamps: bool,
    /// Only what was written until: a time, or how long ago, as in 42m
    #[arg(long, value_name = "string")]
    pub until: Option<String>,
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// All containers, also those that do not run
    #[arg(short, long)]
    pub all: bool,
    /// Only those of which this is true, as in status=exited, name=web, label=tier=front
    #[arg(short, long, value_name = "filter")]
    pub filter: Vec<String>,
    /// table, json, or a template for each, as in '{{.Names}}'
    #[arg(long, value_name = "string", default_value = "")]
    pub format: String,
    /// The last so many, whether they run or not
    #[arg(short = 'n', long, value_name = "int", default_value = "-1")]
    pub last: i64,
    /// The last one, whether it runs or not
    #[arg(short, long)]
    pub latest: bool,
    /// Show whole ids and commands
    #[arg(long)]
    pub no_trunc: bool,
    /// Show the ids alone
    #[arg(short, long)]
    pub quiet: bool,
    /// Show how much they have written
    #[arg(short, long)]
    pub size: bool,
}

//! The flags of the commands that are neither of containers nor of images alone.

use clap::Args;

pub(crate) use super::container_args::*;
use super::flags::{Resources, Words};

/// `network ls`, `volume ls`.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only those of which this is true, as in name=web or label=tier
    #[arg(short, long, value_name = "filter")]
    pub filter: Vec<String>,
    /// table, json, or a template for each, as in '{{.Name}}'
    #[arg(long, value_name = "string", default_value = "")]
    pub format: String,
    /// Show whole ids
    #[arg(long)]
    pub no_trunc: bool,
    /// Show the names alone, or the ids of networks
    #[arg(short, long)]
    pub quiet: bool,
}

/// `inspect`, `container inspect`.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// json, or a template for each, as in '{{.State.Status}}'
    #[arg(short, long, value_name = "string", default_value = "")]
    pub format: String,
    /// Show how much containers have written
    #[arg(short, long)]
    pub size: bool,
    /// Look only among these: container, image, network or volume
    #[arg(long = "type", value_name = "string")]
    pub kind: Option<String>,
    #[arg(required = true, value_name = "NAME|ID")]
    pub names: Vec<String>,
}

/// `image inspect`, `network inspect`, `volume inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectOne {
    /// json, or a template for each, as in '{{.Name}}'
    #[arg(short, long, value_name = "string", default_value = "")]
    pub format: String,
    /// Of a network: also ask the plugins whether what they made is still there, and say what is not
    #[arg(short, long, hide = true)]
    pub verbose: bool,
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Stats {
    /// All containers, also those that do not run
    #[arg(short, long)]
    pub all: bool,
    /// table, json, or a template for each, as in '{{.Name}} {{.CPUPerc}}'
    #[arg(long, value_name = "string", default_value = "")]
    pub format: String,
    /// Show it once and end
    #[arg(long)]
    pub no_stream: bool,
    /// Show whole ids
    #[arg(long)]
    pub no_trunc: bool,
    #[arg(value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Top {
    /// The container, then options of ps(1).
    #[command(subcommand)]
    pub words: Words,
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Only those of which this is true, as in type=container, event=die, container=web
    #[arg(short, long, value_name = "filter")]
    pub filter: Vec<String>,
    /// json, or a template for each, as in '{{.Action}}'
    #[arg(long, value_name = "string", default_value = "")]
    pub format: String,
    /// Begin here: a time, or how long ago, as in 42m
    #[arg(long, value_name = "string")]
    pub since: Option<String>,
    /// End here: a time, or how long ago, as in 0s
    #[arg(long, value_name = "string")]
    pub until: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Update {
    #[command(flatten)]
    pub resources: Resources,
    /// What happens after an exit: no, on-failure[:N], always or unless-stopped
    #[arg(long, value_name = "string")]
    pub restart: Option<String>,
    #[arg(required = true, value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Port {
    #[arg(value_name = "CONTAINER")]
    pub container: String,
    #[arg(value_name = "PORT[/PROTOCOL]")]
    pub port: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Cp {
    /// Keep the owners
    #[arg(short, long)]
    pub archive: bool,
    /// Follow a link that is the source itself
    #[arg(short = 'L', long)]
    pub follow_link: bool,
    /// Say nothing
    #[arg(short, long)]
    pub quiet: bool,
    #[arg(value_name = "SOURCE")]
    pub source: String,
    #[arg(value_name = "DESTINATION")]
    pub destination: String,
}

#[derive(Debug, Args)]
pub(crate) struct One {
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// File to write; without it, standard output
    #[arg(short, long, value_name = "string")]
    pub output: Option<String>,
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

#[derive(Debug, Args)]
pub(crate) struct Commit {
    /// Who made it
    #[arg(short, long, value_name = "string")]
    pub author: Option<String>,
    /// Instruction of a Dockerfile for the image, as in 'CMD ["web"]'
    #[arg(short, long, value_name = "list")]
    pub change: Vec<String>,
    /// What was changed
    #[arg(short, long, value_name = "string")]
    pub message: Option<String>,
    /// Pause the container while it is read
    #[arg(short, long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", value_name = "")]
    pub pause: bool,
    #[arg(value_name = "CONTAINER")]
    pub container: String,
    #[arg(value_name = "NAME[:TAG]")]
    pub name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// Instruction of a Dockerfile for the image, as in 'CMD ["web"]'
    #[arg(short, long, value_name = "list")]
    pub change: Vec<String>,
    /// What it is
    #[arg(short, long, value_name = "string")]
    pub message: Option<String>,
    /// Platform of the image: os/arch[/variant]
    #[arg(long, value_name = "string")]
    pub platform: Option<String>,
    #[arg(value_name = "FILE|-")]
    pub file: String,
    #[arg(value_name = "NAME[:TAG]")]
    pub name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Only those of which this is true, as in until=24h or label=tier
    #[arg(long, value_name = "filter")]
    pub filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
}

/// `image prune`, `volume prune`.
#[derive(Debug, Args)]
pub(crate) struct PruneAll {
    /// All that no container uses, not only those without a name
    #[arg(short, long)]
    pub all: bool,
    /// Only those of which this is true, as in until=24h or label=tier
    #[arg(long, value_name = "filter")]
    pub filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SystemPrune {
    /// All images that no container uses, not only those without a name
    #[arg(short, long)]
    pub all: bool,
    /// Only those of which this is true, as in until=24h or label=tier
    #[arg(long, value_name = "filter")]
    pub filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// Unnamed volumes too
    #[arg(long)]
    pub volumes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Df {
    /// table, json, or a template for each, as in '{{.Type}} {{.Size}}'
    #[arg(long, value_name = "string", default_value = "")]
    pub format: String,
    /// Show each image, container and volume
    #[arg(short, long)]
    pub verbose: bool,
}

/// `info`, `version`.
#[derive(Debug, Args)]
pub(crate) struct Formatted {
    /// json, or a template, as in '{{.ServerVersion}}'
    #[arg(short, long, value_name = "string", default_value = "")]
    pub format: String,
}

#[derive(Debug, Args)]
pub(crate) struct VolumeCreate {
    /// Driver: local
    #[arg(short, long, value_name = "string", default_value = "local")]
    pub driver: String,
    /// Label: NAME=VALUE
    #[arg(long, value_name = "list")]
    pub label: Vec<String>,
    /// Option of the driver; local has none here
    #[arg(short, long, value_name = "map")]
    pub opt: Vec<String>,
    #[arg(value_name = "VOLUME")]
    pub name: Option<String>,
}

/// `volume rm`, `network rm`.
#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Do not mind those that are not there
    #[arg(short, long)]
    pub force: bool,
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct NetworkCreate {
    /// Containers may be connected later too: always so
    #[arg(long)]
    pub attachable: bool,
    /// Driver: bridge
    #[arg(short, long, value_name = "string", default_value = "bridge")]
    pub driver: String,
    /// Address of the bridge in the network
    #[arg(long, value_name = "string")]
    pub gateway: Option<String>,
    /// Nothing outside can be reached
    #[arg(long)]
    pub internal: bool,
    /// Part of the network that addresses are taken from
    #[arg(long, value_name = "string")]
    pub ip_range: Option<String>,
    /// Label: NAME=VALUE
    #[arg(long, value_name = "list")]
    pub label: Vec<String>,
    /// Option of the driver, as in com.docker.network.driver.mtu=1400
    #[arg(short, long, value_name = "map")]
    pub opt: Vec<String>,
    /// Addresses of the network, as in 172.28.0.0/16
    #[arg(long, value_name = "string")]
    pub subnet: Option<String>,
    /// IPv6, which tarectl's networks have not
    #[arg(long, hide = true)]
    pub ipv6: bool,
    #[arg(value_name = "NETWORK")]
    pub name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Connect {
    /// Another name of it there
    #[arg(long, value_name = "list")]
    pub alias: Vec<String>,
    /// Its IPv4 address there
    #[arg(long, value_name = "string")]
    pub ip: Option<String>,
    /// Another container that it knows by this name: CONTAINER[:NAME]
    #[arg(long, value_name = "list")]
    pub link: Vec<String>,
    #[arg(value_name = "NETWORK")]
    pub network: String,
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

#[derive(Debug, Args)]
pub(crate) struct Disconnect {
    /// Do not mind a container that is gone
    #[arg(short, long)]
    pub force: bool,
    #[arg(value_name = "NETWORK")]
    pub network: String,
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

/// What containerd's shims say to whoever takes their events.
#[derive(Debug, Args)]
pub(crate) struct Publish {
    /// What kind of event
    #[arg(long, value_name = "string")]
    pub topic: String,
    /// Whose container
    #[arg(long, value_name = "string")]
    pub namespace: Option<String>,
}

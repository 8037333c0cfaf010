//! The flags of the commands of images.

use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Images {
    /// All images, also those between; tarectl keeps none of these
    #[arg(short, long)]
    pub all: bool,
    /// Show the digests of their manifests
    #[arg(long)]
    pub digests: bool,
    /// Only those of which this is true, as in dangling=true, reference=debian*, label=tier
    #[arg(short, long, value_name = "filter")]
    pub filter: Vec<String>,
    /// table, json, or a template for each, as in '{{.Repository}}:{{.Tag}}'
    #[arg(long, value_name = "string", default_value = "")]
    pub format: String,
    /// Show whole ids
    #[arg(long)]
    pub no_trunc: bool,
    /// Show the ids alone
    #[arg(short, long)]
    pub quiet: bool,
    #[arg(value_name = "NAME[:TAG]")]
    pub name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// All tags of the name
    #[arg(short, long)]
    pub all_tags: bool,
    #[arg(long, hide = true)]
    pub disable_content_trust: bool,
    /// Platform of the image: os/arch[/variant]
    #[arg(long, value_name = "string")]
    pub platform: Option<String>,
    /// Show no progress
    #[arg(short, long)]
    pub quiet: bool,
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    pub name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Push {
    /// All tags of the name
    #[arg(short, long)]
    pub all_tags: bool,
    #[arg(long, hide = true)]
    pub disable_content_trust: bool,
    /// Show no progress
    #[arg(short, long)]
    pub quiet: bool,
    #[arg(value_name = "NAME[:TAG]")]
    pub name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Tag {
    #[arg(value_name = "IMAGE[:TAG]")]
    pub source: String,
    #[arg(value_name = "NAME[:TAG]")]
    pub target: String,
}

#[derive(Debug, Args)]
pub(crate) struct Rmi {
    /// Remove all names of an image, and those whose containers do not run
    #[arg(short, long)]
    pub force: bool,
    /// Keep what lies below; tarectl names nothing that does
    #[arg(long)]
    pub no_prune: bool,
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Save {
    /// File to write; without it, standard output
    #[arg(short, long, value_name = "string")]
    pub output: Option<String>,
    /// Platform: os/arch[/variant]
    #[arg(long, value_name = "string")]
    pub platform: Option<String>,
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Load {
    /// File to read; without it, standard input
    #[arg(short, long, value_name = "string")]
    pub input: Option<String>,
    /// Platform: os/arch[/variant]
    #[arg(long, value_name = "string")]
    pub platform: Option<String>,
    /// Show no progress
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct History {
    /// table, json, or a template for each, as in '{{.CreatedBy}}'
    #[arg(long, value_name = "string", default_value = "")]
    pub format: String,
    /// Times and sizes for people
    #[arg(short = 'H', long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", value_name = "")]
    pub human: bool,
    /// Show all of each line
    #[arg(long)]
    pub no_trunc: bool,
    /// Show the ids alone
    #[arg(short, long)]
    pub quiet: bool,
    #[arg(value_name = "IMAGE")]
    pub image: String,
}

#[derive(Debug, Args)]
pub(crate) struct Search {
    /// Only those of which this is true, as in stars=3 or is-official=true
    #[arg(short, long, value_name = "filter")]
    pub filter: Vec<String>,
    /// table, json, or a template for each, as in '{{.Name}}'
    #[arg(long, value_name = "string", default_value = "")]
    pub format: String,
    /// So many at most
    #[arg(long, value_name = "int", default_value = "25")]
    pub limit: u32,
    /// Show whole descriptions
    #[arg(long)]
    pub no_trunc: bool,
    #[arg(value_name = "TERM")]
    pub term: String,
}

#[derive(Debug, Args)]
pub(crate) struct Login {
    /// Password; it is seen by all who see the processes of this host
    #[arg(short, long, value_name = "string")]
    pub password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    pub password_stdin: bool,
    /// User
    #[arg(short, long, value_name = "string")]
    pub username: Option<String>,
    #[arg(value_name = "SERVER")]
    pub server: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Logout {
    #[arg(value_name = "SERVER")]
    pub server: Option<String>,
}

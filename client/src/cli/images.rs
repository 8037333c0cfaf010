//! The commands of images: flags to the options of [`crate::image`], rows to tables.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;

use super::args::{InspectOne, PruneAll};
use super::filter::Filters;
use super::image_args::{History, Images, Load, Login, Logout, Pull, Push, Rmi, Save, Search, Tag};
use super::output::{self, Format};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::image::{archive, history, list, login, prune, pull, push, remove, search, tag};
use crate::units;

/// `images`.
pub(super) async fn images(client: &Client, args: Images) -> Result<u8> {
    let format = Format::parse(&args.format)?;
    let filters = Filters::parse(&args.filter, &list::FILTERS)?.pairs();
    let rows = list::rows(client, &list::Options { name: args.name, filters, no_trunc: args.no_trunc }).await?;
    if args.quiet {
        return output::text(&output::column(&rows, "ID")).map(|()| 0);
    }
    let columns = if args.digests { list::COLUMNS_WITH_DIGESTS } else { list::COLUMNS };
    output::text(&format.list(columns, &[("CREATED AT", "CreatedAt")], &rows)?).map(|()| 0)
}

/// `pull`.
pub(super) async fn pull(client: &Client, args: Pull) -> Result<u8> {
    let platform = args.platform.unwrap_or_default();
    let options = pull::Options { all_tags: args.all_tags, quiet: args.quiet, platform };
    pull::pull(client, &args.name, &options, &mut io::stdout()).await.map(|()| 0)
}

/// `push`.
pub(super) async fn push(client: &Client, args: Push) -> Result<u8> {
    let options = push::Options { all_tags: args.all_tags, quiet: args.quiet };
    push::push(client, &args.name, &options, &mut io::stdout()).await.map(|()| 0)
}

/// `tag`.
pub(super) async fn tag(client: &Client, args: Tag) -> Result<u8> {
    tag::tag(client, &args.source, &args.target).await.map(|()| 0)
}

/// `rmi`.
pub(super) async fn rmi(client: &Client, args: Rmi) -> Result<u8> {
    let force = args.force;
    output::each(&args.images, async |name| remove::remove(client, name, force, &mut io::stdout()).await).await
}

/// `save`.
pub(super) async fn save(client: &Client, args: Save) -> Result<u8> {
    if args.platform.is_some() {
        return Err(Error::usage("tarectl saves the platform it has pulled: leave --platform out"));
    }
    archive::save(client, &args.images, args.output.as_deref().map(Path::new), &mut io::stdout()).await.map(|()| 0)
}

/// `load`.
pub(super) async fn load(client: &Client, args: Load) -> Result<u8> {
    if args.platform.is_some() {
        return Err(Error::usage("tarectl loads the platform of this host: leave --platform out"));
    }
    if args.input.is_none() && io::stdin().is_terminal() {
        return Err(Error::usage(
            "load reads an archive from standard input, which is a terminal: use -i FILE or a pipe",
        ));
    }
    archive::load(client, args.input.as_deref().map(Path::new), args.quiet, &mut io::stdout()).await.map(|()| 0)
}

/// `history`.
pub(super) async fn history(client: &Client, args: History) -> Result<u8> {
    let format = Format::parse(&args.format)?;
    let options = history::Options { exact: !args.human, no_trunc: args.no_trunc };
    let rows = history::rows(client, &args.image, options).await?;
    if args.quiet {
        return output::text(&output::column(&rows, "ID")).map(|()| 0);
    }
    let columns = if args.human { history::COLUMNS } else { history::COLUMNS_EXACT };
    output::text(&format.list(columns, &[], &rows)?).map(|()| 0)
}

/// `search`.
pub(super) async fn search(client: &Client, args: Search) -> Result<u8> {
    let format = Format::parse(&args.format)?;
    if !(1..=100).contains(&args.limit) {
        return Err(Error::usage(format!("--limit {} is not from 1 to 100", args.limit)));
    }
    let filters = Filters::parse(&args.filter, &search::FILTERS)?.pairs();
    let options = search::Options { limit: args.limit, filters, no_trunc: args.no_trunc };
    let rows = search::rows(client, &args.term, &options).await?;
    output::text(&format.list(search::COLUMNS, &[], &rows)?).map(|()| 0)
}

/// `login`.
pub(super) async fn login(client: &Client, args: Login) -> Result<u8> {
    if args.password.is_some() && args.password_stdin {
        return Err(Error::usage("--password and --password-stdin both give the password: leave one out"));
    }
    if args.password_stdin && args.username.is_none() {
        return Err(Error::usage("--password-stdin needs --username too"));
    }
    let options =
        login::Options { username: args.username, password: args.password, password_stdin: args.password_stdin };
    login::login(client, args.server.as_deref(), &options, &mut io::stdout()).await.map(|()| 0)
}

/// `logout`.
#[allow(clippy::unused_async)] // as all commands
pub(super) async fn logout(_: &Client, args: Logout) -> Result<u8> {
    login::logout(args.server.as_deref(), &mut io::stdout()).map(|()| 0)
}

/// `image inspect`.
pub(super) async fn inspect(client: &Client, args: InspectOne) -> Result<u8> {
    super::inspect::show(client, &args.format, &args.names, &["image"], false).await
}

/// `image prune`.
pub(super) async fn prune(client: &Client, args: PruneAll) -> Result<u8> {
    let filters = Filters::parse(&args.filter, &prune::FILTERS)?.pairs();
    let what = if args.all { "all images that no container uses" } else { "all images without a name" };
    if !args.force && !confirmed(&[what])? {
        return Ok(0);
    }
    let pruned = prune::prune(client, &prune::Options { all: args.all, filters }).await?;
    if !pruned.lines.is_empty() {
        output::text(&format!("Deleted Images:\n{}\n\n", pruned.lines.join("\n")))?;
    }
    reclaimed(pruned.bytes)
}

/// Docker's last line of a prune.
pub(super) fn reclaimed(bytes: u64) -> Result<u8> {
    output::line(&format!("Total reclaimed space: {}", units::human_size(bytes))).map(|()| 0)
}

/// Asks whether this is really to be removed.
pub(super) fn confirmed(what: &[&str]) -> Result<bool> {
    let mut question = "WARNING! This will remove:\n".to_owned();
    if let [what] = what {
        question = format!("WARNING! This will remove {what}.\n");
    } else {
        what.iter().for_each(|it| question.push_str(&format!("  - {it}\n")));
    }
    output::text(&format!("{question}Are you sure you want to continue? [y/N] "))?;
    let mut answer = String::new();
    // Nobody there is a no.
    let _ = io::stdin().lock().read_line(&mut answer);
    let _ = io::stdout().flush();
    Ok(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
}

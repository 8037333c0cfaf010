//! The commands of volumes.

use std::path::Path;

use serde_json::{Value, json};

use super::args::{InspectOne, List, PruneAll, Remove, VolumeCreate};
use super::images::{confirmed, reclaimed};
use super::networks::pairs;
use super::output::{self, Format};
use super::ps::joined;
use crate::client::Client;
use crate::error::Result;
use crate::volumes::{self, Filter};

/// `volume create`.
pub(super) async fn create(client: &Client, args: VolumeCreate) -> Result<u8> {
    let options = volumes::Options {
        name: args.name.filter(|it| !it.is_empty()),
        labels: super::request::labels(&args.label)?,
        driver: args.driver,
        options: pairs("--opt", &args.opt)?,
    };
    let volume = volumes::create(client, &options).await?;
    output::line(&volume.name).map(|()| 0)
}

/// `volume ls`.
pub(super) async fn ls(client: &Client, args: List) -> Result<u8> {
    let format = Format::parse(&args.format)?;
    let all = volumes::list(client, &Filter::parse(&args.filter)?).await?;
    if args.quiet {
        let names: String = all.iter().map(|it| format!("{}\n", it.name)).collect();
        return output::text(&names).map(|()| 0);
    }
    let rows: Vec<Value> = all
        .iter()
        .map(|it| {
            json!({
                "Name": it.name, "Driver": it.driver, "Scope": it.scope, "Mountpoint": it.mountpoint,
                "Labels": it.labels.as_ref().map(joined).unwrap_or_default(), "Links": "N/A", "Size": "N/A",
            })
        })
        .collect();
    output::text(&format.list(&[("DRIVER", "Driver"), ("VOLUME NAME", "Name")], &[], &rows)?).map(|()| 0)
}

/// `volume inspect`.
pub(super) async fn inspect(client: &Client, args: InspectOne) -> Result<u8> {
    super::inspect::show(client, &args.format, &args.names, &["volume"], false).await
}

/// `volume rm`.
pub(super) async fn rm(client: &Client, args: Remove) -> Result<u8> {
    let force = args.force;
    let remove = async |name: &str| {
        volumes::remove(client, name, force).await?;
        output::line(name)
    };
    output::each(&args.names, remove).await
}

/// `volume prune`: as docker since 23.0, those without a name alone, and with -a all.
pub(super) async fn prune(client: &Client, args: PruneAll) -> Result<u8> {
    let filter = Filter::parse(&args.filter)?;
    let what = if args.all {
        "all volumes that no container uses"
    } else {
        "all volumes without a name that no container uses"
    };
    if !args.force && !confirmed(&[what])? {
        return Ok(0);
    }
    let pruned = volumes::prune(client, &filter, !args.all).await?;
    if !pruned.volumes.is_empty() {
        output::text(&format!("Deleted Volumes:\n{}\n\n", pruned.volumes.join("\n")))?;
    }
    reclaimed(pruned.bytes)
}

/// What a volume has on disk; nothing when it cannot be looked at.
pub(super) fn size(mountpoint: &str) -> u64 {
    volumes::size(Path::new(mountpoint)).unwrap_or(0)
}

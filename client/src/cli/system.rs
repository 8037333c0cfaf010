//! `system df` and `system prune`.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tare_proto::store::{UsageRequest, UsageResponse};

use super::args::{Df, SystemPrune};
use super::filter::{self, Filters};
use super::images::{confirmed, reclaimed};
use super::output::{self, Format};
use super::{containers, networks, ps, size, volumes as cli_volumes};
use crate::client::Client;
use crate::error::{Context, Error, Result};
use crate::image::{list, prune};
use crate::record::Container;
use crate::records::{self, Listed};
use crate::volumes::Volume;
use crate::{network, truth, units, volumes};

/// `system df`.
pub(super) async fn df(client: &Client, args: Df) -> Result<u8> {
    let format = Format::parse(&args.format)?;
    if args.verbose && !args.format.is_empty() {
        return Err(Error::usage("--verbose has tables of its own: leave it or --format out"));
    }
    let seen = Seen::look(client).await?;
    let code = output::lacking(&seen.damaged);
    if args.verbose {
        return output::text(&seen.tables()?).map(|()| code);
    }
    let columns = [
        ("TYPE", "Type"),
        ("TOTAL", "TotalCount"),
        ("ACTIVE", "Active"),
        ("SIZE", "Size"),
        ("RECLAIMABLE", "Reclaimable"),
    ];
    output::text(&format.list(&columns, &[], &seen.rows())?).map(|()| code)
}

/// Everything that takes disk.
struct Seen {
    containers: Vec<(Container, size::Size)>,
    images: Vec<Value>,
    store: UsageResponse,
    volumes: Vec<(Volume, u64)>,
    /// Volume and container.
    used: Vec<(String, String)>,
    /// Containers of which nothing is known.
    damaged: Vec<(String, Error)>,
}

impl Seen {
    async fn look(client: &Client) -> Result<Self> {
        let mut containers = Vec::new();
        let Listed { records, damaged } = truth::list(client).await?;
        let used = volumes::users(&records);
        for record in records {
            let size = size::of(client, &record).await?;
            containers.push((record, size));
        }
        let usage = client.store.store().await?.usage(client.store.context(), &UsageRequest::new()).await;
        let store = usage.context(|| client.store.call("ask the store what it has"))?;
        let images = list::rows(client, &list::Options { no_trunc: true, ..list::Options::default() }).await?;
        let volumes = volumes::list(client, &volumes::Filter::parse(&[])?).await?;
        let volumes = volumes
            .into_iter()
            .map(|it| (cli_volumes::size(&it.mountpoint), it))
            .map(|(size, it)| (it, size))
            .collect();
        Ok(Self { containers, images, store, volumes, used, damaged })
    }

    fn rows(&self) -> Vec<Value> {
        let row = |kind: &str, total: usize, active: usize, size: u64, free: u64| {
            let share = (free * 100).checked_div(size).unwrap_or(0);
            json!({
                "Type": kind, "TotalCount": total.to_string(), "Active": active.to_string(), "Size": units::human_size(size),
                "Reclaimable": format!("{} ({share}%)", units::human_size(free)),
            })
        };
        let ids: BTreeSet<String> = self.images.iter().map(|it| it["ID"].to_string()).collect();
        let active: BTreeSet<&str> = self.containers.iter().map(|(it, _)| it.image.id.as_str()).collect();
        let own = |all: &mut dyn Iterator<Item = &(Container, size::Size)>| all.map(|(_, size)| size.own).sum::<u64>();
        let written = own(&mut self.containers.iter());
        let running = self.containers.iter().filter(|(it, _)| it.state.pid > 0);
        let kept = own(&mut running.clone());
        // The store counts the containers' snapshots with those of images.
        let images = (self.store.blob_bytes + self.store.snapshot_bytes).saturating_sub(written);
        let all: u64 = self.volumes.iter().map(|(_, size)| size).sum();
        let unused: u64 = self.volumes.iter().filter(|(it, _)| !self.is_used(&it.name)).map(|(_, size)| size).sum();
        let used = self.volumes.iter().filter(|(it, _)| self.is_used(&it.name)).count();
        vec![
            row("Images", ids.len(), active.len().min(ids.len()), images, self.unused_images()),
            row("Containers", self.containers.len(), running.count(), written, written - kept),
            row("Local Volumes", self.volumes.len(), used, all, unused),
        ]
    }

    fn is_used(&self, volume: &str) -> bool {
        self.used.iter().any(|(name, _)| name == volume)
    }

    /// What would be free without the images that no container was made of.
    fn unused_images(&self) -> u64 {
        let used: BTreeSet<&str> = self.containers.iter().map(|(it, _)| it.image.name.as_str()).collect();
        let free = self.store.images.iter().filter(|it| !used.contains(it.name.as_str()));
        free.map(|it| (it.blob_bytes + it.snapshot_bytes).saturating_sub(it.shared_bytes)).sum()
    }

    fn tables(&self) -> Result<String> {
        let images: Vec<Value> = self
            .images
            .iter()
            .map(|it| {
                let mut row = it.clone();
                let id = it["ID"].as_str().unwrap_or_default();
                row["Containers"] =
                    self.containers.iter().filter(|(it, _)| it.image.id == id).count().to_string().into();
                row["ID"] = records::short(id.trim_start_matches("sha256:")).into();
                row
            })
            .collect();
        let containers: Vec<Value> =
            self.containers.iter().map(|(record, size)| ps::row(record, false, &units::human_size(size.own))).collect();
        let volumes: Vec<Value> = self
            .volumes
            .iter()
            .map(|(volume, size)| {
                let links = self.used.iter().filter(|(name, _)| *name == volume.name).count();
                json!({"Name": volume.name, "Links": links.to_string(), "Size": units::human_size(*size)})
            })
            .collect();
        let image_columns = [
            ("REPOSITORY", "Repository"),
            ("TAG", "Tag"),
            ("IMAGE ID", "ID"),
            ("CREATED", "CreatedSince"),
            ("SIZE", "Size"),
            ("CONTAINERS", "Containers"),
        ];
        let container_columns = [
            ("CONTAINER ID", "ID"),
            ("IMAGE", "Image"),
            ("COMMAND", "Command"),
            ("LOCAL VOLUMES", "LocalVolumes"),
            ("SIZE", "Size"),
            ("CREATED", "RunningFor"),
            ("STATUS", "Status"),
            ("NAMES", "Names"),
        ];
        Ok(format!(
            "Images space usage:\n\n{}\nContainers space usage:\n\n{}\nLocal Volumes space usage:\n\n{}",
            Format::Table.list(&image_columns, &[], &images)?,
            Format::Table.list(&container_columns, &[], &containers)?,
            Format::Table.list(&[("VOLUME NAME", "Name"), ("LINKS", "Links"), ("SIZE", "Size")], &[], &volumes)?,
        ))
    }
}

/// `system prune`.
pub(super) async fn prune(client: &Client, args: SystemPrune) -> Result<u8> {
    let filters = Filters::parse(&args.filter, &filter::PRUNE)?;
    if args.volumes && filters.has("until") {
        return Err(Error::usage(
            "volumes have no time by which --filter until could choose: leave it or --volumes out",
        ));
    }
    let mut what = vec!["all containers that do not run", "all networks that no container uses"];
    if args.volumes {
        what.push("all volumes without a name that no container uses");
    }
    what.push(if args.all { "all images that no container uses" } else { "all images without a name" });
    if !args.force && !confirmed(&what)? {
        return Ok(0);
    }
    let containers::Pruned { removed, mut bytes, damaged } = containers::pruned(client, &filters).await?;
    let told = |title: &str, lines: &[String]| {
        if lines.is_empty() { Ok(()) } else { output::text(&format!("{title}:\n{}\n\n", lines.join("\n"))) }
    };
    told("Deleted Containers", &removed)?;
    told("Deleted Networks", &network::prune(client, &networks::wanted(&args.filter)?).await?)?;
    if !damaged.is_empty() {
        // Nothing else may go: a container of which nothing is known may have any volume and any image.
        let code = output::lacking(&damaged);
        return reclaimed(bytes).map(|_| code);
    }
    if args.volumes {
        let pruned = volumes::prune(client, &volumes::Filter::parse(&args.filter)?, true).await?;
        bytes += pruned.bytes;
        told("Deleted Volumes", &pruned.volumes)?;
    }
    let pruned = prune::prune(client, &prune::Options { all: args.all, filters: filters.pairs() }).await?;
    told("Deleted Images", &pruned.lines)?;
    reclaimed(bytes + pruned.bytes)
}

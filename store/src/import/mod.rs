//! Import: from an archive or a directory to images.
//!
//! ```text
//! archive ─> blobs, as they come ─> index.json      (OCI layout)       ─┐
//!                                   manifest.json   (docker)           ─┼─> documents ─> layers ─> publish
//!                                   repositories    (docker, long ago) ─┘
//! ```
//!
//! An archive that is several of these at once is read as the first of them. A failure leaves no image; blobs that were taken in
//! stay until the next collection, so that another try finds them.

mod docker;
mod intake;

use std::path::PathBuf;

use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::mpsc;

use self::docker::{Config, File, Files, Found};
use self::intake::Received;
use crate::descriptor::{Descriptor, Platform};
use crate::documents::{From, Image, Tree, Wanted};
use crate::error::{Error, Result};
use crate::fault;
use crate::fetch::Fetches;
use crate::layers;
use crate::layers::publish::Ready;
use crate::metadata::{Labels, Namespace, NewImage};
use crate::progress::Progress;
use crate::registry::reference::{Reference, is_tag};
use crate::registry::{limit, platform};
use crate::store::{Call, Store, blocking};

/// Where the archive is.
pub enum Source {
    /// A file, or an OCI layout's directory, on this host.
    Path(PathBuf),
    /// A client sends it; when nobody can send any more, it has ended.
    Stream(mpsc::Receiver<Bytes>),
}

/// What to take in, and what to do with it.
pub struct Request {
    /// From where.
    pub source: Source,
    /// For images that the archive gives none, or only a tag.
    pub name: Option<String>,
    /// What to unpack: all that are in the archive, the one for a platform, or (`None`) the one for this host if there is one.
    pub wanted: Option<Wanted>,
    /// Unpack for this snapshotter ("" is the default one), or only take in.
    pub unpack: Option<String>,
    /// The images' labels.
    pub labels: Labels,
}

/// One name, and what it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The image's name.
    pub name: String,
    /// What it means.
    pub target: Descriptor,
    /// What was unpacked of it.
    pub images: Vec<Image>,
}

/// Takes images from an archive, verifies and unpacks them, and makes them visible.
pub async fn import(store: &Store, ns: &Namespace, request: Request, progress: &Progress) -> Result<Vec<Imported>> {
    steps(store, ns, request, progress).await.map_err(|error| error.within("import"))
}

async fn steps(store: &Store, ns: &Namespace, request: Request, progress: &Progress) -> Result<Vec<Imported>> {
    let Request { source, name, wanted, unpack, labels } = request;
    let base: Option<Reference> = name.map(|it| it.parse()).transpose()?;
    let call = Call::begin(store, ns, "import", progress).await?;

    let files = take_in(&call, source).await?;
    fault::point("import.taken")?;
    let roots = find_roots(&call, files).await?;

    let mut imported = Vec::new();
    for root in roots {
        let names = root.full_names(base.as_ref())?;
        let tree = Tree::read(&call, From::Here, root.target, &Wanted::Present).await?;
        let shown = names.join(", ");
        let images = one(&call, &tree, &names, wanted.as_ref(), unpack.as_deref(), &labels);
        let images = images.await.map_err(|error| error.within(shown))?;
        imported.extend(names.into_iter().map(|name| Imported {
            name,
            target: tree.root.clone(),
            images: images.clone(),
        }));
    }
    Ok(imported)
}

/// Verifies, unpacks and publishes one image.
async fn one(
    call: &Call,
    tree: &Tree,
    names: &[String],
    wanted: Option<&Wanted>,
    unpack: Option<&str>,
    labels: &Labels,
) -> Result<Vec<Image>> {
    tree.require_blobs(call).await?;
    let images = choose(call, tree, wanted)?;
    let mut ready = Ready::default();
    if let Some(snapshotter) = unpack {
        for image in &images {
            ready.publish_layers(call).await?;
            ready = layers::unpack(call, image, snapshotter, &Fetches::none()).await?;
        }
    }
    let new = |name: &String| NewImage { name: name.clone(), target: tree.root.clone(), labels: labels.clone() };
    ready.publish(call, tree, names.iter().map(new).collect(), true).await?;
    fault::point("import.published")?;
    Ok(images)
}

/// Those to unpack.
fn choose(call: &Call, tree: &Tree, wanted: Option<&Wanted>) -> Result<Vec<Image>> {
    let best = |machine: &Platform| {
        let ranked = tree.images.iter().filter_map(|it| Some((platform::rank(machine, &it.platform)?, it)));
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, image)| image.clone())
    };
    match wanted {
        Some(Wanted::All | Wanted::Present) => Ok(tree.images.clone()),
        Some(Wanted::One(machine)) => {
            let none = || Error::not_found(format!("the archive has no image for {machine}"));
            best(machine).map(|it| vec![it]).ok_or_else(none)
        }
        None => {
            let image = best(&platform::host())
                .or_else(|| tree.images.iter().find(|it| it.platform.architecture.is_empty()).cloned());
            if image.is_none() && !tree.images.is_empty() {
                call.progress.notice(format!("{} is not unpacked: it has nothing for this host", tree.root.digest));
            }
            Ok(image.into_iter().collect())
        }
    }
}

async fn take_in(call: &Call, source: Source) -> Result<Files> {
    let call = call.clone();
    blocking(move || match source {
        Source::Path(path) => intake::path(&call, &path),
        Source::Stream(from) => intake::stream(&call, Received { from, piece: Bytes::new() }),
    })
    .await
}

/// One image of the archive, with the names that the archive gives it.
struct Root {
    target: Descriptor,
    names: Vec<String>,
}

impl Root {
    /// The names under which it is kept; an image that gets none is called by its digest.
    fn full_names(&self, base: Option<&Reference>) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for name in &self.names {
            match base {
                // A tag alone: an OCI layout has no other names by its specification.
                Some(base) if is_tag(name) => names.push(base.tagged(name)?.to_string()),
                None if is_tag(name) => {}
                _ => names.push(name.parse::<Reference>().map(|it| it.to_string()).unwrap_or_else(|_| name.clone())),
            }
        }
        if names.is_empty() {
            names.push(base.map_or_else(|| self.target.digest.to_string(), ToString::to_string));
        }
        names.sort();
        names.dedup();
        Ok(names)
    }
}

async fn find_roots(call: &Call, files: Files) -> Result<Vec<Root>> {
    let call = call.clone();
    blocking(move || {
        let read = |file: &File| {
            let at = Descriptor::new("application/json", file.digest.clone(), file.size);
            call.store.content.read(&call.ns, &at, limit::DOCUMENT)
        };
        if files.files.contains_key("index.json") {
            layout_roots(&read(files.get("index.json")?)?)
        } else if files.files.contains_key("manifest.json") {
            let found = docker::images(&read(files.get("manifest.json")?)?, &files)?;
            found.into_iter().map(|it| docker_root(&call, it)).collect()
        } else if files.files.contains_key("repositories") {
            let found = docker::old_images(&read(files.get("repositories")?)?, &files, &read)?;
            found.into_iter().map(|it| docker_root(&call, it)).collect()
        } else {
            Err(Error::data_loss(
                "the archive holds no images: it has no index.json (OCI layout), no manifest.json and no repositories (docker save)",
            ))
        }
    })
    .await
}

/// What index.json lists; one image may stand there under several names.
fn layout_roots(index: &[u8]) -> Result<Vec<Root>> {
    #[derive(Deserialize)]
    struct Layout {
        manifests: Vec<Descriptor>,
    }
    let layout: Layout = serde_json::from_slice(index)
        .map_err(|error| Error::data_loss(format!("index.json of the archive is broken: {error}")))?;
    if layout.manifests.len() > limit::MANIFESTS {
        return Err(Error::data_loss(format!("index.json of the archive lists more than {} images", limit::MANIFESTS)));
    }
    let mut roots: Vec<Root> = Vec::new();
    for mut target in layout.manifests {
        let full = target.annotations.get("io.containerd.image.name");
        let name = full.or_else(|| target.annotations.get("org.opencontainers.image.ref.name")).cloned();
        // They are of the place in the layout, not of the image.
        target.annotations.clear();
        match roots.iter_mut().find(|it| it.target.digest == target.digest) {
            Some(root) => root.names.extend(name),
            None => roots.push(Root { target, names: name.into_iter().collect() }),
        }
    }
    Ok(roots)
}

fn docker_root(call: &Call, found: Found) -> Result<Root> {
    let put = |bytes: &[u8]| call.store.content.put(&call.ns, bytes, &Labels::new(), Some(call.lease.id()));
    let config = match found.config {
        Config::File(at) => *at,
        Config::Made(bytes) => Descriptor::new(crate::registry::media::DOCKER_CONFIG, put(&bytes)?, bytes.len() as u64),
    };
    let manifest = docker::manifest(&config, &found.layers)?;
    let target = Descriptor::new(crate::registry::media::DOCKER_MANIFEST, put(&manifest)?, manifest.len() as u64);
    Ok(Root { target, names: found.names })
}

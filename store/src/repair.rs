//! Repair: what a check found damaged or missing is fetched again from where it came, or unpacked again from its blobs.
//!
//! Nothing that is whole is touched: a blob takes the place of the damaged one when it is complete and verified.

use crate::check::Repair;
use crate::content::digest::Digest;
use crate::descriptor::Descriptor;
use crate::documents::{From, Tree, Wanted, replace};
use crate::error::{Error, Kind, Result};
use crate::fetch::{Fetches, Remote, again};
use crate::layers;
use crate::metadata::Namespace;
use crate::progress::Progress;
use crate::registry::{Access, Reference, Repository, limit, platform};
use crate::store::{Call, Store, blocking};

/// Makes one thing good again. The error says why that cannot be, and what else can be done.
pub async fn repair(store: &Store, repair: &Repair, access: &Access, progress: &Progress) -> Result<()> {
    match repair {
        Repair::Fetch { ns, digest, size, sources } => {
            let call = Call::begin(store, ns, "repair", progress).await?;
            let steps = fetch(&call, digest, *size, sources, access).await;
            steps.map_err(|error| error.within(format_args!("repair blob {digest}")))
        }
        Repair::Unpack { ns, snapshotter, name } => {
            let steps = unpack(store, ns, snapshotter, name, progress).await;
            steps.map_err(|error| error.within(format_args!("repair snapshot {name}")))
        }
    }
}

/// From the first repository that has it.
async fn fetch(call: &Call, digest: &Digest, size: u64, sources: &[(String, String)], access: &Access) -> Result<()> {
    let mut failure = Error::precondition("nobody knows where it came from: pull or import its image again");
    for (host, path) in sources {
        let Ok(repository) = format!("{host}/{path}").parse::<Repository>() else { continue };
        let remote = Remote::open(call, &repository, access.clone()).await?;
        match one(call, &remote, digest, size).await {
            Ok(()) => return Ok(()),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// A blob, or else a document: what it is, its row does not say.
async fn one(call: &Call, remote: &Remote, digest: &Digest, size: u64) -> Result<()> {
    let at = Descriptor::new("application/octet-stream", digest.clone(), size);
    match again(call, remote, &at).await {
        Err(error) if error.kind == Kind::NotFound && size <= limit::DOCUMENT => {}
        fetched => return fetched,
    }
    let reference: Reference = format!("{}@{digest}", remote.registry.repository()).parse()?;
    let at = remote.resolve(&reference).await?;
    let bytes = remote.document(&at, limit::DOCUMENT).await?;
    let (call, source) = (call.clone(), remote.source_label());
    blocking(move || replace(&call, &at, &bytes, &source)).await
}

/// Removes the snapshot and those upon it, and unpacks the images again that had them.
async fn unpack(store: &Store, ns: &Namespace, snapshotter: &str, name: &str, progress: &Progress) -> Result<()> {
    let call = Call::begin(store, ns, "repair", progress).await?;
    let images = images_upon(&call, name).await?;
    if images.is_empty() {
        return Err(Error::precondition("no image that is here has this layer: remove the snapshot"));
    }
    let (here, driver, base) = (call.clone(), store.snapshots.driver(snapshotter)?.name(), name.to_owned());
    blocking(move || remove_upwards(&here, driver, &base)).await?;
    for (tree, image) in images {
        let image = &tree.images[image];
        let ready = layers::unpack(&call, image, snapshotter, &Fetches::none()).await?;
        ready.publish(&call, &tree, Vec::new(), true).await?;
    }
    Ok(())
}

/// The images that have this layer, each with its place in its tree.
async fn images_upon(call: &Call, chain: &str) -> Result<Vec<(Tree, usize)>> {
    let here = call.clone();
    let named = blocking(move || here.store.metadata.images(&here.ns, &[])).await?;
    let mut found = Vec::new();
    for image in named {
        for wanted in [Wanted::Present, Wanted::One(platform::host())] {
            let Ok(tree) = Tree::read(call, From::Here, image.target.clone(), &wanted).await else { continue };
            let has = |it: &crate::documents::Image| it.chain_ids.iter().any(|it| it.to_string() == chain);
            if let Some(place) = tree.images.iter().position(has) {
                found.push((tree, place));
                break;
            }
        }
    }
    Ok(found)
}

/// A snapshot that a container uses stays, and so does what it stands on: that is told.
fn remove_upwards(call: &Call, snapshotter: &str, name: &str) -> Result<()> {
    let above = call.store.snapshots.list(&call.ns, snapshotter, &[format!("parent=={name}")])?;
    for child in above {
        if child.kind != crate::snapshots::Kind::Committed {
            return Err(Error::precondition(format!(
                "snapshot {:?} stands on it and is in use: remove that first",
                child.name
            )));
        }
        remove_upwards(call, snapshotter, &child.name)?;
    }
    call.store.snapshots.remove(&call.ns, snapshotter, name)
}

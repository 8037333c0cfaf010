//! Unpack: an image that is here becomes snapshots.

use crate::descriptor::Platform;
use crate::documents::{From, Image, Tree, Wanted};
use crate::error::{Error, Result};
use crate::fetch::Fetches;
use crate::images;
use crate::layers;
use crate::metadata::Namespace;
use crate::progress::Progress;
use crate::registry::platform;
use crate::store::{Call, Store};

/// Unpacks an image for a platform (`None`: this host's), and says what it is. Its layers show together, when all are complete.
pub async fn unpack(
    store: &Store,
    ns: &Namespace,
    name: &str,
    machine: Option<Platform>,
    snapshotter: &str,
    progress: &Progress,
) -> Result<Image> {
    let steps = async {
        let call = Call::begin(store, ns, "unpack", progress).await?;
        let named = images::find(&call, name).await?;
        let wanted = Wanted::One(machine.unwrap_or_else(platform::host));
        let tree = Tree::read(&call, From::Here, named.target, &wanted).await?;
        let image = tree.images.first().cloned();
        let image = image.ok_or_else(|| Error::precondition("it is no image that can be unpacked"))?;
        let ready = layers::unpack(&call, &image, snapshotter, &Fetches::none()).await?;
        ready.publish(&call, &tree, Vec::new(), true).await?;
        Ok(image)
    };
    steps.await.map_err(|error: Error| error.within(format_args!("unpack {name}")))
}

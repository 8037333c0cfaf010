//! Images that are here: found by name or digest, shown, named once more.

use crate::content::digest::Digest;
use crate::descriptor::{Descriptor, Platform};
use crate::documents::{From, Image, Tree, Wanted, document};
use crate::error::{Error, Kind, Result};
use crate::fetch::Remote;
use crate::metadata::{Image as Named, Namespace, NewImage, Publication};
use crate::progress::Progress;
use crate::registry::manifest::Document;
use crate::registry::{Access, Reference, limit, platform};
use crate::store::{Call, Store, blocking};

/// The shortest beginning of a digest that is looked for, in hexadecimal digits.
const SHORTEST: usize = 4;

/// An image by its name, in full or as people write it, by its digest, or by the beginning of that.
pub(crate) async fn find(call: &Call, text: &str) -> Result<Named> {
    let (call, text) = (call.clone(), text.to_owned());
    blocking(move || find_now(&call, &text)).await
}

fn find_now(call: &Call, text: &str) -> Result<Named> {
    let missing = || Error::not_found(format!("there is no image {text:?} in namespace {}: pull it first", call.ns));
    // A digest is nothing but that: archives can have images called "sha256:…" (CVE-2026-50195).
    let digest = [text, &format!("sha256:{text}")].iter().find_map(|it| it.parse::<Digest>().ok());
    if let Some(digest) = digest {
        let found = call.store.metadata.images(&call.ns, &[])?;
        return found.into_iter().find(|it| it.target.digest == digest).ok_or_else(missing);
    }
    let names = [Some(text.to_owned()), text.parse::<Reference>().ok().map(|it| it.to_string())];
    for name in names.into_iter().flatten() {
        match call.store.metadata.image(&call.ns, &name) {
            Err(error) if error.kind == Kind::NotFound => {}
            found => return found,
        }
    }
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    if hex.len() < SHORTEST || !hex.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(missing());
    }
    let mut found = call.store.metadata.images(&call.ns, &[])?;
    found.retain(|it| it.target.digest.hex().starts_with(hex));
    let Some(first) = found.first() else { return Err(missing()) };
    if let Some(other) = found.iter().find(|it| it.target.digest != first.target.digest) {
        return Err(Error::invalid(format!(
            "{text:?} begins the digests of several images, as {} and {}: write more of it",
            first.name, other.name
        )));
    }
    Ok(first.clone())
}

/// The documents of an image that is to leave the store. Without a wish: all of an index if all is here; otherwise what is here
/// of it, if that is one image.
pub(crate) async fn tree(call: &Call, root: Descriptor, wanted: Option<&Wanted>) -> Result<Tree> {
    match wanted {
        Some(Wanted::One(_)) => {
            let tree = Tree::read(call, From::Here, root, wanted.unwrap_or(&Wanted::Present)).await?;
            match tree.images.first().cloned() {
                Some(image) => Tree::read(call, From::Here, image.manifest, &Wanted::Present).await,
                None => Ok(tree),
            }
        }
        Some(Wanted::All) => Tree::read(call, From::Here, root, &Wanted::All).await,
        Some(Wanted::Present) | None => {
            let tree = Tree::read(call, From::Here, root, &Wanted::Present).await?;
            match (&tree.absent[..], &tree.images[..]) {
                ([], _) => Ok(tree),
                ([_, ..], [image]) => {
                    call.progress.notice(format!(
                        "only the image for {} is here, so it goes without the index that lists others",
                        image.platform
                    ));
                    let manifest = image.manifest.clone();
                    Tree::read(call, From::Here, manifest, &Wanted::Present).await
                }
                ([absent, ..], images) => Err(Error::precondition(format!(
                    "{} of its images are here, and {} is not: choose a platform, or pull all platforms",
                    images.len(),
                    absent.platform.as_ref().map_or_else(|| absent.digest.to_string(), Platform::to_string)
                ))),
            }
        }
    }
}

/// Everything that is known of one image.
#[derive(Debug, Clone)]
pub struct Inspected {
    /// As it was found.
    pub image: Named,
    /// For the chosen platform; an artifact has none.
    pub chosen: Option<Image>,
    /// The manifest that was chosen, and its bytes.
    pub manifest: (Descriptor, Vec<u8>),
    /// Its configuration's bytes.
    pub config: Vec<u8>,
    /// Whether the root snapshot is there.
    pub unpacked: bool,
    /// Unpacked size of all layers, in bytes; 0 unless all are there.
    pub size: u64,
    /// All names of the same target.
    pub names: Vec<String>,
}

/// Looks an image up, with its documents. `machine`: this host's without one.
pub async fn inspect(
    store: &Store,
    ns: &Namespace,
    name: &str,
    machine: Option<Platform>,
    snapshotter: &str,
) -> Result<Inspected> {
    let call = Call::begin(store, ns, "inspect", &Progress::silent()).await?;
    let image = find(&call, name).await?;
    let steps = async {
        let driver = store.snapshots.driver(snapshotter)?.name();
        let asked = machine.is_some();
        let wanted = Wanted::One(machine.unwrap_or_else(platform::host));
        let tree = match Tree::read(&call, From::Here, image.target.clone(), &wanted).await {
            // Nobody said for which machine: the one that is here.
            Err(error) if error.kind == Kind::NotFound && !asked => {
                Tree::read(&call, From::Here, image.target.clone(), &Wanted::Present).await?
            }
            tree => tree?,
        };
        let chosen = tree.images.first().cloned();
        let at = chosen.as_ref().map_or_else(|| tree.root.clone(), |it| it.manifest.clone());
        let manifest = document(&call, From::Here, &at, limit::DOCUMENT, &|_| Ok(())).await?;
        let config = match &chosen {
            Some(image) => document(&call, From::Here, &image.config, limit::CONFIG, &|_| Ok(())).await?,
            None => Vec::new(),
        };
        let (here, root) = (call.clone(), image.target.digest.clone());
        let chains: Vec<String> = chosen.iter().flat_map(|it| it.chain_ids.iter().map(Digest::to_string)).collect();
        let (names, size) = blocking(move || {
            let images = here.store.metadata.images(&here.ns, &[])?;
            let names = images.into_iter().filter(|it| it.target.digest == root).map(|it| it.name).collect();
            Ok((names, unpacked_size(&here, driver, &chains)))
        })
        .await?;
        Ok(Inspected {
            image: image.clone(),
            chosen,
            manifest: (at, manifest),
            config,
            unpacked: size.is_some(),
            size: size.unwrap_or(0),
            names,
        })
    };
    steps.await.map_err(|error: Error| error.within(format_args!("inspect {name}")))
}

/// Nothing, unless all layers are there.
fn unpacked_size(call: &Call, driver: &str, chains: &[String]) -> Option<u64> {
    chains.iter().map(|it| Some(call.store.snapshots.usage(&call.ns, driver, it).ok()?.size)).sum()
}

/// Gives an image one more name.
pub async fn tag(store: &Store, ns: &Namespace, source: &str, target: &str, force: bool) -> Result<String> {
    let name = target.parse::<Reference>()?;
    if name.digest().is_some() {
        return Err(Error::invalid(format!("{target:?} has a digest: a name that is given has a tag at most")));
    }
    let name = name.to_string();
    let call = Call::begin(store, ns, "tag", &Progress::silent()).await?;
    let image = find(&call, source).await?;
    let made = name.clone();
    blocking(move || {
        let metadata = &call.store.metadata;
        match metadata.create_image(&call.ns, &made, &image.target, &image.labels) {
            Err(error) if error.kind == Kind::AlreadyExists => match metadata.image(&call.ns, &made)? {
                there if there.target.digest == image.target.digest => Ok(()),
                _ if !force => Err(error),
                _ => {
                    let images = vec![NewImage { name: made, target: image.target, labels: image.labels }];
                    let publication = Publication {
                        ns: &call.ns,
                        lease: Some(&*call.lease),
                        layers: Vec::new(),
                        blobs: Vec::new(),
                        images,
                    };
                    metadata.publish(publication).map(drop)
                }
            },
            made => made.map(drop),
        }
    })
    .await?;
    Ok(name)
}

/// Something that refers to an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Referrer {
    /// Its manifest.
    pub at: Descriptor,
    /// What kind of an artifact it is.
    pub kind: String,
}

/// What refers to an image: of what is here, and with `remote` also of what its registry has.
pub async fn referrers(
    store: &Store,
    ns: &Namespace,
    name: &str,
    kind: Option<&str>,
    remote: Option<Access>,
) -> Result<Vec<Referrer>> {
    let call = Call::begin(store, ns, "referrers", &Progress::silent()).await?;
    let image = find(&call, name).await?;
    let mut found = here(&call, &image.target.digest).await?;
    if let Some(access) = remote {
        let reference: Reference =
            image.name.parse().map_err(|error: Error| error.within("it has no name at a registry"))?;
        let remote = Remote::open(&call, reference.repository(), access).await?;
        for at in remote.registry.referrers(&image.target.digest, kind).await? {
            if found.iter().all(|it| it.at.digest != at.digest) {
                let kind = at.artifact_type.clone().unwrap_or_default();
                found.push(Referrer { at, kind });
            }
        }
    }
    found.retain(|it| kind.is_none_or(|kind| it.kind == kind));
    Ok(found)
}

/// Manifests whose labels say that they are kept with this subject, or that are images of their own and name it.
async fn here(call: &Call, subject: &Digest) -> Result<Vec<Referrer>> {
    let (call, subject) = (call.clone(), subject.clone());
    blocking(move || {
        let filter = format!("labels.\"{}\"=={subject}", crate::documents::SUBJECT);
        let blobs = call.store.content.list(&call.ns, &[filter])?;
        let mut at: Vec<Descriptor> = blobs.into_iter().map(|it| Descriptor::new("", it.digest, it.size)).collect();
        at.extend(call.store.metadata.images(&call.ns, &[])?.into_iter().map(|it| it.target));
        let mut found: Vec<Referrer> = Vec::new();
        for mut at in at {
            if at.digest == subject || found.iter().any(|it| it.at.digest == at.digest) {
                continue;
            }
            let Ok(bytes) = call.store.content.read(&call.ns, &at, limit::DOCUMENT) else { continue };
            let Ok(document) = Document::parse(&at.media_type, &bytes) else { continue };
            if document.subject().is_some_and(|it| it.digest == subject) {
                at.media_type = document.media_type().to_owned();
                let kind = match document {
                    Document::Index(index) => index.artifact_type.unwrap_or_default(),
                    Document::Manifest(manifest) => manifest.kind().to_owned(),
                };
                found.push(Referrer { at, kind });
            }
        }
        Ok(found)
    })
    .await
}

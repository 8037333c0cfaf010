//! Layers onto mounts, and mounts to layers.
//!
//! The store mounts nothing: it takes only mounts that it gave itself, and works on the trees that they name.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use tare_proto::diff::*;
use tare_proto::{MessageField, diff_ttrpc, types};
use ttrpc::asynchronous::TtrpcContext;

use super::session::{Call, Session};
use super::wire;
use crate::descriptor::Descriptor;
use crate::error::{Error, Kind, Result};
use crate::fs::sync_file_system;
use crate::layers::changes;
use crate::snapshots::{Driver, Mount};
use crate::store::{Awaited, blocking_while_awaited};
use crate::unpack::compress::Compression;
use crate::unpack::diff::{DiffOptions, Source};
use crate::unpack::{self, Form, Options};

#[async_trait]
impl diff_ttrpc::Diff for Session {
    async fn apply(&self, context: &TtrpcContext, request: ApplyRequest) -> ttrpc::Result<ApplyResponse> {
        let applied = self.answer(context, move |call| apply(call, request)).await?;
        let mut response = ApplyResponse::new();
        response.applied = MessageField::some(wire::descriptor(&applied));
        Ok(response)
    }

    async fn diff(&self, context: &TtrpcContext, request: DiffRequest) -> ttrpc::Result<DiffResponse> {
        let call = self.call(context)?;
        let made = blocking_while_awaited(move |awaited| diff(&call, request, awaited)).await?;
        let mut response = DiffResponse::new();
        response.diff = MessageField::some(wire::descriptor(&made));
        Ok(response)
    }
}

fn apply(call: &Call, request: ApplyRequest) -> Result<Descriptor> {
    let layer = wire::from_descriptor(request.diff, "the layer")?;
    let at = Located::find(call, request.mounts)?;
    let (Some(root), true) = (at.trees.first(), at.writable) else {
        return Err(Error::precondition(
            "a layer is applied to the mounts of an active snapshot: these can only be read",
        ));
    };
    let lowers = at.trees.get(1..).unwrap_or_default();
    let below = || lowers.iter().map(copy).collect();
    let form = match (at.driver, lowers) {
        // What is there, if anything, is the merged tree.
        (Driver::Native, _) | (Driver::Overlay, []) => Form::Tree,
        (Driver::Overlay, _) => {
            require_empty(&at.paths[0])?;
            Form::Overlay { lowers: &below, userxattr: call.snapshots().userxattr() }
        }
    };
    let options = Options {
        source: format!("layer {}", layer.digest),
        rootless: !nix::unistd::geteuid().is_root(),
        ..Options::default()
    };
    let blob = call.content().reader(&call.ns, &layer.digest)?;
    let extracted = unpack::extract(blob, &layer.media_type, root.as_fd(), &form, &options, &|_| ())?;
    if request.sync_fs {
        sync_file_system(root, &at.paths[0])?;
    }
    Ok(Descriptor::new(Compression::None.media_type(), extracted.diff_id, extracted.size))
}

/// An upper directory can take one layer: a second one's whiteouts would be among the first one's files.
fn require_empty(path: &Path) -> Result<()> {
    let shown = path.display();
    let mut entries =
        std::fs::read_dir(path).map_err(|error| Error::internal(format!("look into {shown}: {error}")))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(Error::precondition(
            "the snapshot has changes already: commit it, prepare another on it, and apply the layer there",
        )),
    }
}

fn diff(call: &Call, request: DiffRequest, awaited: &Awaited) -> Result<Descriptor> {
    let compression = compression(&request.media_type)?;
    let right = Located::find(call, request.right)?;
    let left = Located::find(call, request.left)?;
    let source = source(&left, &right, call.snapshots().userxattr())?;
    let latest = request.source_date_epoch.as_ref().map(|it| it.seconds);
    let options = DiffOptions { latest_mtime: latest, source: format!("the changes in {}", right.shown()) };

    let reference = if request.ref_.is_empty() { format!("diff-{}", right.shown()) } else { request.ref_ };
    let ingest = call.content().ingest(&call.ns, &reference, None, None)?;
    let labels = wire::labels(request.labels);
    let made = changes::write(ingest, compression, (&source, &options), labels, call.lease(), awaited)?;
    let media_type =
        if request.media_type.is_empty() { compression.media_type().to_owned() } else { request.media_type };
    Ok(Descriptor::new(media_type, made.digest, made.size))
}

fn compression(media_type: &str) -> Result<Compression> {
    match media_type {
        "" | "application/vnd.oci.image.layer.v1.tar+gzip" | "application/vnd.docker.image.rootfs.diff.tar.gzip" => {
            Ok(Compression::Gzip)
        }
        "application/vnd.oci.image.layer.v1.tar+zstd" => Ok(Compression::Zstd),
        "application/vnd.oci.image.layer.v1.tar" | "application/vnd.docker.image.rootfs.diff.tar" => {
            Ok(Compression::None)
        }
        other => Err(Error::invalid(format!("{other:?} is no media type of a layer that this store makes"))),
    }
}

/// What the right one has that the left one has not.
fn source<'a>(left: &'a Located, right: &'a Located, userxattr: bool) -> Result<Source<'a>> {
    let Some((upper, lowers)) = right.trees.split_first() else {
        return Err(Error::invalid("the request has no right mounts, so there is nothing to compare"));
    };
    let upper = upper.as_fd();
    let lower = left.trees.first().map(AsFd::as_fd);
    if left.paths == right.paths {
        return Ok(Source::Trees { lower, upper });
    }
    match right.driver {
        Driver::Native => Ok(Source::Trees { lower, upper }),
        Driver::Overlay if left.paths == right.paths[1..] => {
            Ok(Source::Overlay { upper, lowers: lowers.iter().map(AsFd::as_fd).collect(), userxattr })
        }
        Driver::Overlay => Err(Error::new(
            Kind::Unimplemented,
            "overlayfs' snapshots are compared only with what they stand on: give its view as the left mounts",
        )),
    }
}

/// The trees that mounts of ours name, the top one first.
struct Located {
    driver: Driver,
    paths: Vec<PathBuf>,
    trees: Vec<OwnedFd>,
    writable: bool,
}

impl Located {
    fn find(call: &Call, mounts: Vec<types::Mount>) -> Result<Self> {
        let mut mounts = mounts.into_iter().map(wire::from_mount);
        let mut found = Self { driver: Driver::Overlay, paths: Vec::new(), trees: Vec::new(), writable: false };
        let Some(mount) = mounts.next() else { return Ok(found) };
        if mounts.next().is_some() {
            return Err(Error::invalid("several mounts: those of this store's snapshots are one each"));
        }
        (found.paths, found.writable) = paths(&mount)?;
        for path in &found.paths {
            let (driver, tree) = call.snapshots().tree_at(&call.ns, path)?;
            found.driver = driver;
            found.trees.push(tree);
        }
        Ok(found)
    }

    /// For messages, and to name an ingest.
    fn shown(&self) -> String {
        self.paths.first().map(|it| it.display().to_string()).unwrap_or_default()
    }
}

/// The directories that one mount is made of, the top one first, and whether it can be written to.
fn paths(mount: &Mount) -> Result<(Vec<PathBuf>, bool)> {
    let option = |name: &str| mount.options.iter().find_map(|it| it.strip_prefix(name)?.strip_prefix('='));
    match mount.kind.as_str() {
        "bind" | "rbind" => Ok((vec![mount.source.clone().into()], !mount.options.iter().any(|it| it == "ro"))),
        "overlay" => {
            let upper = option("upperdir");
            let lowers = option("lowerdir").into_iter().flat_map(|it| it.split(':'));
            Ok((upper.into_iter().chain(lowers).map(PathBuf::from).collect(), upper.is_some()))
        }
        other => Err(Error::invalid(format!("a mount of type {other:?} is none of this store's snapshots"))),
    }
}

fn copy(tree: &OwnedFd) -> Result<OwnedFd> {
    tree.try_clone().map_err(|error| Error::internal(format!("keep a layer's directory open: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, source: &str, options: &[&str]) -> Mount {
        let options = options.iter().map(|it| (*it).to_owned()).collect();
        Mount { kind: kind.into(), source: source.into(), target: String::new(), options }
    }

    #[test]
    fn the_top_directory_comes_first() {
        let list = |it: &[&str]| it.iter().map(PathBuf::from).collect::<Vec<_>>();
        let overlay = mount("overlay", "overlay", &["workdir=/w", "upperdir=/u", "lowerdir=/b:/a", "index=off"]);
        assert_eq!(paths(&overlay).unwrap(), (list(&["/u", "/b", "/a"]), true));
        let view = mount("overlay", "overlay", &["lowerdir=/b:/a"]);
        assert_eq!(paths(&view).unwrap(), (list(&["/b", "/a"]), false));
        assert_eq!(paths(&mount("bind", "/u", &["rw", "rbind"])).unwrap(), (list(&["/u"]), true));
        assert_eq!(paths(&mount("bind", "/u", &["ro", "rbind"])).unwrap(), (list(&["/u"]), false));
        assert!(paths(&mount("ext4", "/dev/sda", &[])).is_err());
    }

    #[test]
    fn only_layers_are_made() {
        assert_eq!(compression("").unwrap(), Compression::Gzip);
        assert_eq!(compression("application/vnd.oci.image.layer.v1.tar+zstd").unwrap(), Compression::Zstd);
        assert!(compression("application/json").is_err());
    }
}

//! `cp`: files into a container and out of one, that runs or not.
//!
//! ```text
//! cp CONTAINER:/path DIR|FILE|-      cp DIR|FILE|- CONTAINER:/path
//! ```
//!
//! The container's side is one descriptor: the root that its first process has, with all that is mounted there, or its root mounted
//! here, in a mount namespace that ends with this process. Every path is resolved in it by the kernel, and what is copied is reached
//! through descriptors alone (see [`crate::tree`]): whatever the container does meanwhile, nothing outside is read or written
//! (CVE-2018-15664, CVE-2026-42306, CVE-2026-41567). Nothing of the container is loaded or run (CVE-2019-14271).
//!
//! Owners are kept on the way into a container and are the caller's on the way out, with `-a` and without, as docker does it.
//!
//! As docker's, except: what comes out of a container has no set-uid, no set-gid bit and no capability, for it becomes the caller's.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::archive::{self, Out};
use crate::client::Client;
use crate::error::{Context, Error, Result};
use crate::record::Container;
use crate::tree::{Copier, Owner};
use crate::{beneath, events};

mod local;
mod place;
mod root;

use place::{Asked, Landing};
use root::Opened;

/// How.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// What a link stands for is copied, if the link is what is asked for.
    pub follow_link: bool,
}

/// One of the two sides.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Side {
    /// A path in a container.
    Container(String, String),
    /// A path here.
    Local(String),
    /// Standard input or output: a tar archive.
    Stream,
}

/// Copies from `source` to `target`, one of which is `CONTAINER:PATH`; the other may be `-` for a tar archive.
///
/// # Errors
/// Neither or both are containers, a path is not there, or a call fails.
pub async fn copy(client: &Client, source: &str, target: &str, options: &Options) -> Result<()> {
    match (side(source, "source")?, side(target, "destination")?) {
        (Side::Container(..), Side::Container(..)) => Err(Error::usage(
            "copying between containers is not supported: copy to this host first, or pipe one cp into the other",
        )),
        (Side::Container(name, path), to) => {
            let opened = root::open(client, &name, None).await?;
            out(&opened, &path, &to, options)?;
            events::container(&client.paths, "archive-path", &opened.record, &[]);
            Ok(())
        }
        (from, Side::Container(name, path)) => {
            let opened = root::open(client, &name, Some(&path)).await?;
            into(&opened, &from, &path, options)?;
            events::container(&client.paths, "extract-to-dir", &opened.record, &[]);
            Ok(())
        }
        _ => Err(Error::usage(
            "must specify at least one container source: one of the two is CONTAINER:PATH, as in web:/etc/hosts",
        )),
    }
}

/// What one argument says. A name before a colon is a container's, unless it looks like a path.
fn side(text: &str, what: &str) -> Result<Side> {
    if text.is_empty() {
        return Err(Error::usage(format!("{what} can not be empty: give a path, CONTAINER:PATH or -")));
    }
    if text == "-" {
        return Ok(Side::Stream);
    }
    match text.split_once(':') {
        Some((name, path)) if !name.starts_with(['/', '.']) => {
            if name.is_empty() || path.is_empty() {
                return Err(Error::usage(format!(
                    "{text:?} lacks a container or a path: give CONTAINER:PATH, as in web:/"
                )));
            }
            Ok(Side::Container(name.to_owned(), path.to_owned()))
        }
        _ => Ok(Side::Local(text.to_owned())),
    }
}

fn not_there(path: &Path, record: &Container) -> Error {
    Error::not_found(format!("could not find the file {} in container {}", path.display(), record.name))
}

/// Out of a container.
fn out(opened: &Opened, path: &str, to: &Side, options: &Options) -> Result<()> {
    let asked = Asked::new(path);
    let clean = beneath::lexical(Path::new(path));
    let follow = options.follow_link || asked.slash || asked.contents;
    let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
    let found = match beneath::open(&opened.root, &clean, flags) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Err(not_there(&clean, &opened.record)),
        found => found.context(|| format!("open {} in container {}", clean.display(), opened.record.name))?,
    };
    let is_dir = place::is_dir(found.as_fd())?;
    if asked.slash && !is_dir {
        return Err(Error::usage(format!("{path:?} in container {} is not a directory", opened.record.name)));
    }
    let name = if asked.contents { None } else { clean.file_name().map(PathBuf::from) };
    match to {
        Side::Local(text) => {
            let mut copier = Copier::new(Owner::Caller);
            local::landing(text, is_dir, name.as_deref())?.copy(&mut copier, found.as_fd(), &clean)
        }
        _ => {
            let mut archive = Out::new(io::BufWriter::new(io::stdout().lock()));
            archive.add(found.as_fd(), name.as_deref().unwrap_or(Path::new(".")))?;
            archive.finish().map(drop)
        }
    }
}

/// Into a container.
fn into(opened: &Opened, from: &Side, path: &str, options: &Options) -> Result<()> {
    let clean = opened.resolve(Path::new(path))?;
    opened.check_writable(&clean)?;
    let asked = Asked::new(path);
    if *from == Side::Stream {
        let dir = beneath::open(&opened.root, &clean, OFlags::PATH);
        let is_dir = dir.as_ref().is_ok_and(|dir| place::is_dir(dir.as_fd()).unwrap_or(false));
        if !is_dir {
            return Err(Error::usage(format!("destination \"{}:{path}\" must be a directory", opened.record.name)));
        }
        return archive::extract(io::stdin().lock(), opened.root.as_fd(), &clean);
    }
    let Side::Local(text) = from else { return Ok(()) };
    let source = local::source(text, options.follow_link)?;
    let landing = Landing::find(
        |path, flags| beneath::open(&opened.root, path, flags),
        &clean,
        &asked,
        source.is_dir,
        source.name.as_deref(),
    )
    .map_err(|error| place::in_container(error, &clean, &opened.record))?;
    landing.copy(&mut Copier::new(Owner::Kept), source.fd.as_fd(), Path::new(text))
}

#[cfg(test)]
mod tests;

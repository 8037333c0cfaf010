//! Images: a name for a descriptor.

use std::time::SystemTime;

use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::filter::{Filter, Matched, label};
use super::{Labels, Metadata, Namespace, failed, from_json, labels, merge_labels, time, to_json};
use crate::content::digest::Digest;
use crate::descriptor::Descriptor;
use crate::error::{Error, Result};

/// A name, what it stands for, and what is said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// As clients call it: by convention a reference in full.
    pub name: String,
    /// An index or a manifest.
    pub target: Descriptor,
    /// What clients, and collection, know of it.
    pub labels: Labels,
    /// When the name was first given.
    pub created: SystemTime,
    /// When anything of it last changed.
    pub updated: SystemTime,
}

impl Matched for Image {
    fn field(&self, path: &[String]) -> Option<String> {
        match path.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["name"] => Some(self.name.clone()),
            ["target", "digest"] => Some(self.target.digest.to_string()),
            ["target", "mediatype"] => Some(self.target.media_type.clone()),
            ["labels", ..] => label(&self.labels, &path[1..]),
            ["annotations", ..] => label(&self.target.annotations, &path[1..]),
            _ => None,
        }
    }
}

/// The paths of containerd's field masks.
pub type ImageField = String;

const COLUMNS: &str = "name, target, labels, created, updated";

impl Metadata {
    /// The image of this name.
    pub fn image(&self, ns: &Namespace, name: &str) -> Result<Image> {
        self.read(|transaction| get(transaction, ns, name)?.ok_or_else(|| missing(ns, name)))
    }

    /// All that one of the filters matches, by name; all, if there is no filter.
    pub fn images(&self, ns: &Namespace, filters: &[String]) -> Result<Vec<Image>> {
        let filter = Filter::parse(filters)?;
        self.read(|transaction| {
            let text = format!("SELECT {COLUMNS} FROM images WHERE ns = ?1 ORDER BY name");
            let mut statement = transaction.prepare_cached(&text).map_err(|it| failed("list images", it))?;
            let mut rows = statement.query([ns.as_str()]).map_err(|it| failed("list images", it))?;
            let mut images = Vec::new();
            while let Some(row) = rows.next().map_err(|it| failed("list images", it))? {
                let image = from_row(row)?;
                if filter.matches(&image) {
                    images.push(image);
                }
            }
            Ok(images)
        })
    }

    /// Gives a name that is free; durable.
    pub fn create_image(&self, ns: &Namespace, name: &str, target: &Descriptor, labels: &Labels) -> Result<Image> {
        self.durable(|transaction| {
            if get(transaction, ns, name)?.is_some() {
                return Err(Error::exists(format!("image {name:?} is already there in namespace {ns}")));
            }
            put(transaction, ns, name, target, labels, self.now())
        })
    }

    /// Changes what `paths` names (`target`, `annotations`, `labels`, `labels.<key>`), or without paths target and labels; durable.
    pub fn update_image(
        &self,
        ns: &Namespace,
        name: &str,
        target: &Descriptor,
        new: &Labels,
        paths: &[ImageField],
    ) -> Result<Image> {
        self.durable(|transaction| {
            let mut image = get(transaction, ns, name)?.ok_or_else(|| missing(ns, name))?;
            let mut to = if paths.is_empty() { target.clone() } else { image.target.clone() };
            for path in merge_labels(&mut image.labels, new, paths) {
                match (path, path.strip_prefix("annotations.")) {
                    ("target", _) => to = target.clone(),
                    ("annotations", _) => to.annotations.clone_from(&target.annotations),
                    (_, Some(key)) => {
                        to.annotations.insert(key.to_owned(), target.annotations.get(key).cloned().unwrap_or_default());
                    }
                    _ => return Err(Error::invalid(format!("{path:?} of image {name:?} cannot be updated"))),
                }
            }
            put(transaction, ns, name, &to, &image.labels, self.now())
        })
    }

    /// Takes the name away; durable. With `only`, fails unless it stands for that.
    pub fn delete_image(&self, ns: &Namespace, name: &str, only: Option<&Digest>) -> Result<()> {
        self.freeing(|transaction| {
            let image = get(transaction, ns, name)?.ok_or_else(|| missing(ns, name))?;
            if let Some(only) = only.filter(|it| **it != image.target.digest) {
                let found = image.target.digest;
                return Err(Error::not_found(format!("image {name:?} in namespace {ns} is {found}, not {only}")));
            }
            let text = "DELETE FROM images WHERE ns = ?1 AND name = ?2";
            transaction.execute(text, [ns.as_str(), name]).map_err(|it| failed("delete an image", it))?;
            Ok(())
        })
    }
}

fn missing(ns: &Namespace, name: &str) -> Error {
    Error::not_found(format!("there is no image {name:?} in namespace {ns}"))
}

pub(super) fn get(transaction: &Transaction<'_>, ns: &Namespace, name: &str) -> Result<Option<Image>> {
    let text = format!("SELECT {COLUMNS} FROM images WHERE ns = ?1 AND name = ?2");
    let mut statement = transaction.prepare_cached(&text).map_err(|it| failed("read an image", it))?;
    let found = statement.query_row([ns.as_str(), name], |row| Ok(from_row(row))).optional();
    found.map_err(|it| failed("read an image", it))?.transpose()
}

/// Makes the row, or changes it; the time of its making stays.
pub(super) fn put(
    transaction: &Transaction<'_>,
    ns: &Namespace,
    name: &str,
    target: &Descriptor,
    new: &Labels,
    now: i64,
) -> Result<Image> {
    if name.is_empty() {
        return Err(Error::invalid("an image needs a name"));
    }
    if target.media_type.is_empty() {
        return Err(Error::invalid(format!("the target of image {name:?} has no media type")));
    }
    labels::validate(new)?;
    super::namespaces::ensure(transaction, ns)?;
    let text =
        "INSERT INTO images (ns, name, digest, target, labels, created, updated) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)
                ON CONFLICT (ns, name) DO UPDATE SET digest = ?3, target = ?4, labels = ?5, updated = ?6";
    let row =
        params![ns.as_str(), name, target.digest.to_string(), to_json(target)?, to_json(&labels::kept(new))?, now];
    let mut statement = transaction.prepare_cached(text).map_err(|it| failed("write an image", it))?;
    statement.execute(row).map_err(|it| failed("write an image", it))?;
    get(transaction, ns, name)?.ok_or_else(|| missing(ns, name))
}

fn from_row(row: &Row<'_>) -> Result<Image> {
    let reading = |it| failed("read an image", it);
    let text = |column: usize| row.get_ref(column).and_then(|it| Ok(it.as_str()?)).map_err(reading);
    Ok(Image {
        name: text(0)?.to_owned(),
        target: from_json(text(1)?)?,
        labels: labels::from_column(text(2)?)?,
        created: time(row.get(3).map_err(reading)?),
        updated: time(row.get(4).map_err(reading)?),
    })
}

//! What `docker save` writes: which files of the archive are an image's configuration and layers.
//!
//! ```text
//! manifest.json   [{"Config": "<hex>.json", "RepoTags": ["app:1"], "Layers": ["<id>/layer.tar", …]}, …]     docker 1.10 and later
//! repositories    {"app": {"1": "<id>"}}; <id>/json has "parent", <id>/layer.tar is the layer                before that
//! ```
//!
//! Layers are tar streams, not compressed (others compress them); one that was saved before is a symbolic link to the first.
//! Names in an archive are keys here and nothing else: no file is ever opened by one.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::content::digest::Digest;
use crate::descriptor::Descriptor;
use crate::error::{Error, Result};
use crate::registry::{limit, media};

/// A file of an archive, as it was taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct File {
    /// Of its bytes.
    pub(crate) digest: Digest,
    /// Of bytes.
    pub(crate) size: u64,
    /// Its first bytes, which say how it is compressed.
    pub(crate) magic: [u8; 4],
}

/// The files of an archive by name, and its links by name.
#[derive(Debug, Default)]
pub(crate) struct Files {
    pub(crate) files: BTreeMap<String, File>,
    /// To the name of a file, resolved.
    pub(crate) links: BTreeMap<String, String>,
}

impl Files {
    /// The file of this name, through links.
    pub(crate) fn get(&self, name: &str) -> Result<&File> {
        let mut at = name;
        // As many links as a chain of docker's can have and more; a ring ends here.
        for _ in 0..limit::LAYERS {
            match (self.files.get(at), self.links.get(at)) {
                (Some(file), _) => return Ok(file),
                (None, Some(target)) => at = target,
                (None, None) => break,
            }
        }
        let shown: String = name.chars().take(150).collect();
        Err(Error::data_loss(format!("the archive names {shown:?}, which is not in it")))
    }
}

/// An image of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// As the archive has them: names with tags.
    pub(crate) names: Vec<String>,
    /// Its configuration.
    pub(crate) config: Config,
    /// Lowest first.
    pub(crate) layers: Vec<Descriptor>,
}

/// Where a configuration is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Config {
    /// A file of the archive.
    File(Box<Descriptor>),
    /// Made from what the oldest archives have.
    Made(Vec<u8>),
}

/// Gives the bytes of a file that is a document.
pub(crate) type Read<'a> = dyn Fn(&File) -> Result<Vec<u8>> + 'a;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

/// The images that manifest.json lists.
pub(crate) fn images(manifest: &[u8], files: &Files) -> Result<Vec<Found>> {
    let entries: Vec<Entry> = json("manifest.json", manifest)?;
    if entries.len() > limit::MANIFESTS {
        return Err(too_many("images", entries.len(), limit::MANIFESTS));
    }
    entries.into_iter().map(|entry| image(entry, files)).collect()
}

fn image(entry: Entry, files: &Files) -> Result<Found> {
    let names = entry.layers.unwrap_or_default();
    if names.len() > limit::LAYERS {
        return Err(too_many("layers", names.len(), limit::LAYERS));
    }
    let config = files.get(&name(&entry.config)?)?;
    let layers = names.iter().map(|it| Ok(layer(files.get(&name(it)?)?))).collect::<Result<_>>()?;
    Ok(Found {
        names: entry.repo_tags.unwrap_or_default(),
        config: Config::File(Box::new(Descriptor::new(media::DOCKER_CONFIG, config.digest.clone(), config.size))),
        layers,
    })
}

fn layer(file: &File) -> Descriptor {
    let media_type = match file.magic {
        [0x1f, 0x8b, ..] => media::DOCKER_LAYER_GZIP,
        [0x28, 0xb5, 0x2f, 0xfd] => media::DOCKER_LAYER_ZSTD,
        _ => media::DOCKER_LAYER,
    };
    Descriptor::new(media_type, file.digest.clone(), file.size)
}

/// What the oldest archives say of one layer, and of the image that it is the top of.
#[derive(Deserialize)]
struct Old {
    parent: Option<String>,
    architecture: Option<String>,
    os: Option<String>,
    created: Option<String>,
    author: Option<String>,
    config: Option<Value>,
    container_config: Option<Value>,
}

/// The images that `repositories` lists: the form from before manifest.json.
pub(crate) fn old_images(repositories: &[u8], files: &Files, read: &Read<'_>) -> Result<Vec<Found>> {
    let repositories: BTreeMap<String, BTreeMap<String, String>> = json("repositories", repositories)?;
    let mut tops: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (repository, tags) in repositories {
        for (tag, id) in tags {
            tops.entry(id).or_default().push(format!("{repository}:{tag}"));
        }
    }
    if tops.len() > limit::MANIFESTS {
        return Err(too_many("images", tops.len(), limit::MANIFESTS));
    }
    tops.into_iter().map(|(top, names)| old_image(&top, names, files, read)).collect()
}

fn old_image(top: &str, names: Vec<String>, files: &Files, read: &Read<'_>) -> Result<Found> {
    let (mut layers, mut records) = (Vec::new(), Vec::new());
    let mut next = Some(top.to_owned());
    while let Some(id) = next {
        if layers.len() == limit::LAYERS {
            return Err(too_many("layers", layers.len() + 1, limit::LAYERS));
        }
        let record: Old = json("a layer's json", &read(files.get(&name(&format!("{id}/json"))?)?)?)?;
        layers.push(layer(files.get(&name(&format!("{id}/layer.tar"))?)?));
        next = record.parent.clone().filter(|it| !it.is_empty());
        records.push(record);
    }
    layers.reverse();
    records.reverse();
    if let Some(packed) = layers.iter().find(|it| it.media_type != media::DOCKER_LAYER) {
        // Its diff id is known to nobody.
        return Err(Error::unimplemented(format!(
            "layer {} of an archive without manifest.json is compressed",
            packed.digest
        )));
    }
    Ok(Found { names, config: Config::Made(old_config(&layers, &records)?), layers })
}

/// A configuration of today from what the oldest archives say; the digests of layers that are not compressed are their diff ids.
fn old_config(layers: &[Descriptor], records: &[Old]) -> Result<Vec<u8>> {
    let Some(top) = records.last() else { return Err(Error::data_loss("an image of the archive has no layers")) };
    let history: Vec<Value> = records
        .iter()
        .map(|it| {
            let command = it.container_config.as_ref().and_then(|it| it.get("Cmd")).and_then(Value::as_array);
            let command = command.map(|words| words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "));
            serde_json::json!({"created": it.created, "created_by": command, "author": it.author})
        })
        .map(without_null)
        .collect();
    let config = serde_json::json!({
        "architecture": top.architecture.as_deref().unwrap_or_default(),
        "os": top.os.as_deref().unwrap_or("linux"),
        "created": top.created,
        "author": top.author,
        "config": top.config,
        "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|it| it.digest.to_string()).collect::<Vec<_>>()},
        "history": history,
    });
    serde_json::to_vec(&without_null(config))
        .map_err(|error| Error::internal(format!("write a configuration: {error}")))
}

fn without_null(value: Value) -> Value {
    match value {
        Value::Object(map) => map.into_iter().filter(|(_, value)| !value.is_null()).collect(),
        other => other,
    }
}

/// The manifest that an image of an archive gets here.
pub(crate) fn manifest(config: &Descriptor, layers: &[Descriptor]) -> Result<Vec<u8>> {
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media::DOCKER_MANIFEST,
        "config": config,
        "layers": layers,
    });
    serde_json::to_vec(&manifest).map_err(|error| Error::internal(format!("write a manifest: {error}")))
}

/// A name in an archive in its one form: without `.`, and never leading up.
pub(crate) fn name(text: &str) -> Result<String> {
    let parts: Vec<&str> = text.split('/').filter(|it| !matches!(*it, "" | ".")).collect();
    if parts.contains(&"..") || parts.is_empty() {
        let shown: String = text.chars().take(150).collect();
        return Err(Error::data_loss(format!("the archive has the name {shown:?}, which leads out of it")));
    }
    Ok(parts.join("/"))
}

/// What a link at `from` leads to.
pub(crate) fn link_target(from: &str, target: &str) -> Result<String> {
    let mut parts: Vec<&str> = if target.starts_with('/') { Vec::new() } else { from.split('/').collect() };
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or_else(|| Error::data_loss(format!("the link {from:?} leads out of the archive")))?;
            }
            part => parts.push(part),
        }
    }
    name(&parts.join("/"))
}

fn json<T: for<'a> Deserialize<'a>>(what: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        let error: String = error.to_string().chars().take(300).collect();
        Error::data_loss(format!("{what} of the archive is broken: {error}"))
    })
}

fn too_many(what: &str, number: usize, most: usize) -> Error {
    Error::data_loss(format!("the archive has {number} {what} and more; {most} is the most"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8], magic: [u8; 4]) -> File {
        File { digest: Digest::of(bytes), size: bytes.len() as u64, magic }
    }

    fn files(entries: &[(&str, &[u8])]) -> Files {
        let files = entries.iter().map(|(name, bytes)| ((*name).to_owned(), file(bytes, *b"data"))).collect();
        Files { files, links: BTreeMap::new() }
    }

    #[test]
    fn manifest_json_names_configuration_and_layers() {
        let mut files = files(&[("abc.json", b"config"), ("one/layer.tar", b"1"), ("two/layer.tar", b"22")]);
        files.files.get_mut("two/layer.tar").unwrap().magic = [0x1f, 0x8b, 8, 0];
        files.links.insert("three/layer.tar".into(), link_target("three/layer.tar", "../one/layer.tar").unwrap());
        let manifest = br#"[{"Config":"abc.json","RepoTags":["app:1","app:2"],"Layers":["./one/layer.tar","two/layer.tar","three/layer.tar"]},
                            {"Config":"abc.json","RepoTags":null,"Layers":null}]"#;
        let images = images(manifest, &files).unwrap();
        assert_eq!(images[0].names, ["app:1", "app:2"]);
        assert_eq!(
            images[0].config,
            Config::File(Box::new(Descriptor::new(media::DOCKER_CONFIG, Digest::of(b"config"), 6)))
        );
        let kinds: Vec<_> = images[0].layers.iter().map(|it| (it.media_type.as_str(), it.size)).collect();
        assert_eq!(kinds, [(media::DOCKER_LAYER, 1), (media::DOCKER_LAYER_GZIP, 2), (media::DOCKER_LAYER, 1)]);
        assert_eq!((images[1].names.len(), images[1].layers.len()), (0, 0));
    }

    #[test]
    fn what_is_not_there_and_what_leads_out_is_refused() {
        let mut files = files(&[("abc.json", b"config")]);
        files.links.insert("a".into(), "b".into());
        files.links.insert("b".into(), "a".into());
        for (layer, said) in
            [("gone/layer.tar", "not in it"), ("a", "not in it"), ("../up", "leads out"), ("/", "leads out")]
        {
            let manifest = format!(r#"[{{"Config":"abc.json","Layers":["{layer}"]}}]"#);
            let error = images(manifest.as_bytes(), &files).unwrap_err();
            assert!(error.message.contains(said), "{layer}: {error}");
        }
        assert!(link_target("a/b", "../../c").is_err());
        assert_eq!(link_target("a/b", "/c/./d").unwrap(), "c/d");
        let many = format!(r#"[{{"Config":"abc.json","Layers":[{}"a"]}}]"#, r#""a","#.repeat(limit::LAYERS));
        assert!(images(many.as_bytes(), &files).unwrap_err().message.contains("layers"));
        assert!(images(b"{}", &files).unwrap_err().message.contains("manifest.json of the archive is broken"));
    }

    #[test]
    fn the_oldest_form_gets_a_configuration() {
        let base: &[u8] = br##"{"id":"base","created":"2015-01-01T00:00:00Z","container_config":{"Cmd":["/bin/sh","-c","#(nop) ADD x"]}}"##;
        let top: &[u8] =
            br#"{"id":"top","parent":"base","architecture":"amd64","os":"linux","config":{"Env":["A=1"]}}"#;
        let files = files(&[("base/json", base), ("base/layer.tar", b"b"), ("top/json", top), ("top/layer.tar", b"t")]);
        let read = |file: &File| Ok(if file.digest == Digest::of(base) { base.to_vec() } else { top.to_vec() });
        let images = old_images(br#"{"app":{"1":"top","2":"top"}}"#, &files, &read).unwrap();
        assert_eq!(images.len(), 1);
        assert_eq!(images[0].names, ["app:1", "app:2"]);
        let Config::Made(config) = &images[0].config else { panic!("it is made") };
        let config: Value = serde_json::from_slice(config).unwrap();
        assert_eq!(config["config"]["Env"][0], "A=1");
        assert_eq!(config["rootfs"]["diff_ids"][0], Digest::of(b"b").to_string());
        assert_eq!(config["rootfs"]["diff_ids"][1], Digest::of(b"t").to_string());
        assert_eq!(config["history"][0]["created_by"], "/bin/sh -c #(nop) ADD x");
        // A ring of parents ends.
        let ring = |_: &File| Ok(br#"{"parent":"top"}"#.to_vec());
        assert!(old_images(br#"{"app":{"1":"top"}}"#, &files, &ring).is_err());
    }
}

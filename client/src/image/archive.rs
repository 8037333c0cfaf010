//! `save` and `load`: images as archives that docker reads and writes.
//!
//! A file is written and read by the store itself; standard input and output go through the connection, no more than a few megabytes
//! at once.

use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use tare_proto::MessageField;
use tare_proto::store::{ExportRequest, ImageResult, ImportOptions, ImportRequest};
use tare_proto::ttrpc;

use super::progress::{Show, To, Verb};
use super::pull::said;
use super::reference::familiar;
use super::{dangling, resolve, stream};
use crate::client::Client;
use crate::error::{Context, Error, Result};
use crate::events;
use crate::outfile::OutFile;

/// What may be sent and not be taken yet: store.proto's word to its clients.
const WINDOW: u64 = 4 << 20;
/// Bytes in one message.
const CHUNK: u64 = 512 << 10;

/// Writes images as one archive, to a file or to standard output.
///
/// # Errors
/// One is not here, or what it is written to fails.
pub async fn save(client: &Client, words: &[String], output: Option<&Path>, out: &mut dyn Write) -> Result<()> {
    let mut request = ExportRequest::new();
    for word in words {
        let image = resolve::find(client, word).await?;
        request.images.push(image.name);
    }
    match output {
        Some(path) => {
            let mut file = OutFile::open(path)?;
            to(client, &request, &mut file).await?;
            file.finish()
        }
        None if io::stdout().is_terminal() => Err(Error::usage(
            "save writes an archive, which a terminal cannot show: give a file with -o, or redirect standard output",
        )),
        None => to(client, &request, out).await,
    }
}

async fn to(client: &Client, request: &ExportRequest, out: &mut dyn Write) -> Result<()> {
    let doing = format!("save {}", request.images.iter().map(|it| familiar(it)).collect::<Vec<_>>().join(", "));
    let store = client.store.store().await?;
    let mut stream = store.export(client.store.context(), request).await.context(|| client.store.call(&doing))?;
    let mut complete = false;
    while let Some(progress) = client.store.next(&mut stream).await? {
        out.write_all(&progress.data).context(|| doing.clone())?;
        complete |= progress.result.is_some();
    }
    if !complete {
        return Err(stream::without_result(&doing));
    }
    out.flush().context(|| doing.clone())?;
    for name in &request.images {
        events::other(&client.paths, "image", "save", &familiar(name), &[("name", &familiar(name))]);
    }
    Ok(())
}

/// Takes the images of an archive, from a file or from standard input, and says which.
///
/// # Errors
/// It is no archive of images, or cannot be read.
pub async fn load(client: &Client, input: Option<&Path>, quiet: bool, out: &mut dyn Write) -> Result<()> {
    // The store's sentence would not say that it is the store that looks.
    let full = input.map(source).transpose()?;
    if full.is_none() && io::stdin().is_terminal() {
        return Err(Error::usage(
            "load reads an archive, which a terminal cannot give: name a file with -i, or redirect standard input",
        ));
    }
    // Which names an archive has shows at its end; those that move must not take with them what containers were made of.
    let kept = dangling::keep_used(client).await?;
    let mut show = Show::new(Verb::Load, To::Stdout, quiet || !io::stdout().is_terminal());
    let loaded = import(client, full.as_deref(), &mut show).await;
    for image in kept {
        dangling::settle(client, Some(image)).await?;
    }
    let images = loaded.map_err(|error| match input {
        Some(path) => error.within(format!("load {}", path.display())),
        None => error,
    })?;
    for image in &images {
        said(out, &line(image))?;
        events::other(&client.paths, "image", "load", &image.config, &[("name", &familiar(&image.name))]);
    }
    Ok(())
}

/// What is given with -i, from wherever the store runs.
fn source(path: &Path) -> Result<PathBuf> {
    const REMEDY: &str = "give -i a file that docker save or tarectl save wrote, or the directory of an OCI layout";
    let wrong = |why: &dyn std::fmt::Display| Error::usage(format!("load {path:?}: {why}: {REMEDY}"));
    let full = path.canonicalize().map_err(|error| wrong(&error))?;
    if full.is_dir() && !full.join("oci-layout").is_file() {
        return Err(wrong(&"this directory is no OCI layout, it has no file oci-layout"));
    }
    Ok(full)
}

/// As docker says it.
fn line(image: &ImageResult) -> String {
    if image.name.is_empty() || dangling::is_nameless(&image.name) {
        format!("Loaded image ID: {}", image.config)
    } else {
        format!("Loaded image: {}", familiar(&image.name))
    }
}

async fn import(client: &Client, path: Option<&Path>, show: &mut Show) -> Result<Vec<ImageResult>> {
    let doing = "load images";
    let mut options = ImportOptions::new();
    options.path = path.map(crate::paths::text).unwrap_or_default();
    let store = client.store.store().await?;
    let call = store.import(client.store.context()).await.context(|| client.store.call(doing))?;
    let (sender, mut receiver) = call.split();
    let mut first = ImportRequest::new();
    first.options = MessageField::some(options);
    first.end = path.is_some();
    sender.send(&first).await.context(|| client.store.call(doing))?;
    let (mut sent, mut received, mut open) = (0, 0, path.is_none());
    let mut ended = None;
    let mut input = io::stdin().lock();
    let result = loop {
        while open && sent < received + WINDOW {
            let mut request = ImportRequest::new();
            let read = Read::by_ref(&mut input).take(CHUNK).read_to_end(&mut request.data);
            read.context(|| "read the archive from standard input".to_owned())?;
            sent += request.data.len() as u64;
            request.end = request.data.is_empty();
            // If the store has given up, its error is what it says next.
            open = !request.end && sender.send(&request).await.is_ok();
            if request.end {
                let _ = sender.send(&request).await;
            }
        }
        match receiver.recv().await {
            Ok(progress) => {
                client.store.used();
                received = received.max(progress.received);
                show.progress(&progress);
                ended = progress.result.into_option().or(ended);
            }
            // The stream's end is an error of its library's: the store says how it ended before.
            Err(ttrpc::Error::Eof) => break Ok(()),
            Err(error) => break Err(error).context(|| client.store.call(doing)),
        }
    };
    show.end();
    result?;
    Ok(ended.ok_or_else(|| stream::without_result(doing))?.images)
}

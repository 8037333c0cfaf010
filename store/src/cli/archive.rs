//! Import and export: by path where the daemon can open it, through the connection where only this process can.

use std::io::{IsTerminal, Read, Write};
use std::path::Path;

use tare_proto::MessageField;
use tare_proto::store::{ExportRequest, ImportOptions, ImportRequest, Progress};
use tokio::sync::mpsc;

use super::args;
use super::output::{Done, Failure, apart, bytes, labels};
use super::transfer::{absolute, follow, print, without_result};
use super::{Session, watch::Watch};
use crate::error::{Context, Error, Kind, Result};

/// What may be sent and not be taken yet: store.proto's word to its clients.
const WINDOW: u64 = 4 << 20;

/// Bytes in one message.
const CHUNK: usize = 512 << 10;

pub(super) async fn import(session: &Session, args: args::Import) -> Done {
    let mut options = ImportOptions::new();
    options.name = args.name.unwrap_or_default();
    options.platform = args.platform.platform.unwrap_or_default();
    options.all_platforms = args.platform.all_platforms;
    options.no_unpack = args.no_unpack;
    options.snapshotter = args.snapshotter.unwrap_or_default();
    options.labels = labels(&args.label)?;
    let from_stdin = args.path == Path::new("-");
    if !from_stdin {
        options.path = absolute(&args.path)?;
        // The daemon's answer would name a path without saying that it is the daemon who looks.
        args.path.symlink_metadata().context(|| format!("open {}", args.path.display())).map_err(which)?;
    } else if std::io::stdin().is_terminal() {
        return Err(Failure::usage(
            "import reads an archive from standard input, which is a terminal: name a file or use a pipe",
        ));
    }
    let stream = session.client.store().import(session.client.context()).await;
    let (sender, mut receiver) = stream.map_err(|error| session.client.failed(error))?.split();
    let mut first = ImportRequest::new();
    first.options = MessageField::some(options);
    first.end = !from_stdin;
    let failed = |error| session.client.failed(error);
    sender.send(&first).await.map_err(failed)?;

    let (mut input, mut sent, mut received) = (from_stdin.then(stdin), 0, 0);
    let mut watch = session.watch();
    let mut ended = None;
    let result: std::result::Result<(), Failure> = loop {
        let room = sent < received + WINDOW;
        tokio::select! {
            // The stream's end is an error of its library's: the store says how it ended before.
            progress = receiver.recv() => match progress {
                Ok(progress) => {
                    session.client.used();
                    received = received.max(progress.received);
                    if let Err(failure) = watch.show(&progress) {
                        break Err(failure);
                    }
                    ended = progress.result.into_option().or(ended);
                }
                Err(ttrpc::Error::Eof) => break Ok(()),
                Err(error) => break Err(failed(error).into()),
            },
            piece = next(&mut input), if room && input.is_some() => {
                let mut request = ImportRequest::new();
                match piece {
                    Some(Ok(data)) => {
                        sent += data.len() as u64;
                        request.data = data;
                    }
                    Some(Err(error)) => break Err(error.into()),
                    None => {
                        input = None;
                        request.end = true;
                    }
                }
                // If the store has given up, its error is what it says next.
                if sender.send(&request).await.is_err() {
                    input = None;
                }
            }
        }
    };
    watch.end();
    result?;
    print(session, &ended.ok_or_else(without_result)?, "imported")
}

/// What may be named, where what was named is not there.
fn which(error: Error) -> Error {
    if error.kind != Kind::NotFound {
        return error;
    }
    let message = format!(
        "{error}; name an archive or the directory of an OCI layout, or pipe an archive to `tare-store import -`"
    );
    Error { message, ..error }
}

async fn next(input: &mut Option<mpsc::Receiver<Result<Vec<u8>>>>) -> Option<Result<Vec<u8>>> {
    match input {
        Some(input) => input.recv().await,
        None => None,
    }
}

/// Standard input in pieces, read on a thread of its own and only as fast as they are taken.
pub(super) fn stdin() -> mpsc::Receiver<Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::task::spawn_blocking(move || {
        let mut input = std::io::stdin().lock();
        loop {
            let mut piece = Vec::with_capacity(CHUNK);
            let read = Read::by_ref(&mut input).take(CHUNK as u64).read_to_end(&mut piece);
            let piece = read.context(|| "read standard input".to_owned()).map(|_| piece);
            let last = piece.as_ref().map_or(true, Vec::is_empty);
            let ended = matches!(&piece, Ok(it) if it.is_empty());
            if ended || sender.blocking_send(piece).is_err() || last {
                return;
            }
        }
    });
    receiver
}

pub(super) async fn export(session: &Session, args: args::Export) -> Done {
    let mut request = ExportRequest::new();
    request.images = args.images;
    request.platform = args.platform.platform.unwrap_or_default();
    request.all_platforms = args.platform.all_platforms;
    request.oci_only = args.oci_only;
    let to_stdout = args.directory.is_none() && args.output == Path::new("-");
    if to_stdout && std::io::stdout().is_terminal() {
        return Err(Failure::usage(
            "export writes an archive to standard output, which is a terminal: use a pipe, -o FILE or --directory DIR",
        ));
    }
    if to_stdout && session.json {
        return Err(Failure::usage(
            "export writes an archive to standard output, where --json writes too: use -o FILE or --directory DIR",
        ));
    }
    if let Some(directory) = &args.directory {
        (request.path, request.directory) = (absolute(directory)?, true);
    } else if !to_stdout {
        request.path = absolute(&args.output)?;
    }
    let stream = session.client.store().export(session.client.context(), &request).await;
    let mut stream = stream.map_err(|error| session.client.failed(error))?;
    if !to_stdout {
        let ended = follow(session, stream).await?;
        return print(session, &ended, "exported");
    }
    let mut watch = session.watch();
    let (mut total, mut complete) = (0, false);
    let result: Done = loop {
        match session.client.next(&mut stream).await {
            Ok(Some(progress)) => {
                complete |= progress.result.is_some();
                match write(&mut watch, progress).await {
                    Ok(written) => total += written,
                    Err(failure) => break Err(failure),
                }
            }
            Ok(None) if complete => break Ok(()),
            Ok(None) => break Err(without_result().into()),
            Err(error) => break Err(error.into()),
        }
    };
    watch.end();
    result?;
    if !session.quiet {
        eprintln!("{} exported", bytes(total));
    }
    Ok(())
}

/// Passes on what one message has of the archive.
async fn write(watch: &mut Watch, mut progress: Progress) -> std::result::Result<u64, Failure> {
    let data = std::mem::take(&mut progress.data);
    watch.show(&progress)?;
    let length = data.len() as u64;
    let written = tokio::task::spawn_blocking(move || {
        let mut out = std::io::stdout().lock();
        out.write_all(&data).and_then(|()| out.flush())
    });
    match written.await {
        Ok(Ok(())) => Ok(length),
        Ok(Err(error)) => Err(Failure::output(&error)),
        Err(error) => Err(Error::internal(format!("write to standard output: {error}")).into()),
    }
}

/// All of standard input, when it must be small.
pub(super) async fn small_stdin(what: &'static str) -> Result<String> {
    apart(move || {
        let mut text = String::new();
        let read = std::io::stdin().lock().take(1 << 20).read_to_string(&mut text);
        read.context(|| format!("read {what} from standard input")).map(|_| text)
    })
    .await
}

//! Import and export: archives through the connection, or by path.

use bytes::Bytes;
use tare_proto::store::{ExportRequest, ImportOptions, ImportRequest, Progress, Result as Ended};
use tare_proto::stream::{Incoming, Stream};
use tokio::sync::{mpsc, watch};
use ttrpc::asynchronous::ServerStreamSender;

use super::progress::{Also, Out, tell};
use super::session::Call;
use super::whole::{image_result, wanted};
use super::wire;
use crate::error::{Error, Result};
use crate::{export, import, progress};

/// Pieces between the connection and the flow.
const QUEUE: usize = 2;

/// Takes an archive.
pub(super) async fn import(call: &Call, stream: Stream<Progress, ImportRequest>) -> Result<()> {
    let Stream { out, incoming: mut requests } = stream;
    let Some(first) = next(&mut requests).await? else {
        return Err(Error::invalid("the client ended the import without a word"));
    };
    let options = first.options.unwrap_or_default();
    let (told, received) = watch::channel(0);
    let (progress, updates) = progress::Progress::watched();
    let (source, pump) = if options.path.is_empty() {
        let (pieces, source) = mpsc::channel(QUEUE);
        let pump = pump(first.data, first.end, requests, pieces, told);
        (import::Source::Stream(source), Some(pump))
    } else {
        (import::Source::Path(options.path.clone().into()), None)
    };
    let work = async {
        let flow = flow(call, options, source, &progress);
        let Some(pump) = pump else { return flow.await };
        tokio::select! {
            result = flow => result,
            error = pump => Err(error),
        }
    };
    let ended = |imported: Vec<import::Imported>| {
        let mut ended = Ended::new();
        ended.images = imported.iter().map(|it| image_result(&it.name, &it.target, &it.images, false)).collect();
        ended
    };
    tell(&Out::Both(out), updates, Also::Received(received), work, ended).await
}

async fn flow(
    call: &Call,
    options: ImportOptions,
    source: import::Source,
    progress: &progress::Progress,
) -> Result<Vec<import::Imported>> {
    let request = import::Request {
        source,
        name: Some(options.name).filter(|it| !it.is_empty()),
        wanted: wanted(&options.platform, options.all_platforms)?,
        unpack: (!options.no_unpack).then_some(options.snapshotter),
        labels: wire::labels(options.labels),
    };
    import::import(call.store(), &call.ns, request, progress).await
}

/// From the connection to the flow, up to the end that the client says. Returns only if it is not said.
async fn pump(
    data: Vec<u8>,
    end: bool,
    mut requests: Incoming<ImportRequest>,
    pieces: mpsc::Sender<Bytes>,
    told: watch::Sender<u64>,
) -> Error {
    let (mut data, mut end) = (data, end);
    loop {
        let length = data.len() as u64;
        // A flow that takes no more has its own reason, and says it.
        if length > 0 && pieces.send(data.into()).await.is_err() {
            break;
        }
        told.send_modify(|taken| *taken += length);
        if end {
            break;
        }
        (data, end) = match next(&mut requests).await {
            Ok(Some(request)) => (request.data, request.end),
            // An end that nobody announced is no end: what came is not taken for the whole.
            Ok(None) => {
                return Error::invalid(
                    "the archive is cut off: the client ended the stream and did not say that it was complete",
                );
            }
            Err(error) => return error,
        };
    }
    drop(pieces);
    requests.discard().await;
    std::future::pending().await
}

async fn next(requests: &mut Incoming<ImportRequest>) -> Result<Option<ImportRequest>> {
    requests.recv().await.map_err(|error| Error::invalid(format!("read the stream of an import: {error}")))
}

/// Gives an archive.
pub(super) async fn export(call: &Call, request: ExportRequest, stream: ServerStreamSender<Progress>) -> Result<()> {
    let (progress, updates) = progress::Progress::watched();
    let (target, also) = if request.path.is_empty() {
        let (pieces, data) = mpsc::channel(QUEUE);
        (export::Target::Stream(pieces), Also::Data(data))
    } else if request.directory {
        (export::Target::Directory(request.path.into()), Also::Nothing)
    } else {
        (export::Target::File(request.path.into()), Also::Nothing)
    };
    let work = async {
        let request = export::Request {
            images: request.images,
            wanted: wanted(&request.platform, request.all_platforms)?,
            oci_only: request.oci_only,
            target,
        };
        export::export(call.store(), &call.ns, request, &progress).await
    };
    let ended = |names: Vec<String>| {
        let mut ended = Ended::new();
        let result = |name: String| {
            let mut result = tare_proto::store::ImageResult::new();
            result.name = name;
            result
        };
        ended.images = names.into_iter().map(result).collect();
        ended
    };
    tell(&Out::Plain(stream), updates, also, work, ended).await
}

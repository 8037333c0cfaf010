//! Blobs by their digest. What is still coming: [`super::write`].

use std::io::{Read, Seek, SeekFrom};

use async_trait::async_trait;
use tare_proto::content::*;
use tare_proto::{Empty, MessageField, content_ttrpc};
use ttrpc::asynchronous::{ServerStream, ServerStreamSender, TtrpcContext};

use super::session::{Session, unsent};
use super::{wire, write};
use crate::content;
use crate::content::digest::Digest;
use crate::error::{Context, Error};

/// Blobs in one message of a list.
const BATCH: usize = 100;

/// Bytes in one message. Each is on its way before the next is read, so that a slow client costs no more than these.
pub(super) const CHUNK: usize = 256 << 10;

#[async_trait]
impl content_ttrpc::Content for Session {
    async fn info(&self, context: &TtrpcContext, request: InfoRequest) -> ttrpc::Result<InfoResponse> {
        let info = self
            .answer(context, move |call| {
                let digest: Digest = request.digest.parse()?;
                let found = call.content().info(&call.ns, &digest)?;
                found.ok_or_else(|| Error::not_found(format!("there is no blob {digest} in namespace {}", call.ns)))
            })
            .await?;
        let mut response = InfoResponse::new();
        response.info = MessageField::some(message(&info));
        Ok(response)
    }

    async fn update(&self, context: &TtrpcContext, request: UpdateRequest) -> ttrpc::Result<UpdateResponse> {
        let info = self
            .answer(context, move |call| {
                let new = request.info.into_option().ok_or_else(|| Error::invalid("the request has no blob"))?;
                let paths = wire::paths(request.update_mask);
                call.content().update(&call.ns, &new.digest.parse()?, &wire::labels(new.labels), &paths)
            })
            .await?;
        let mut response = UpdateResponse::new();
        response.info = MessageField::some(message(&info));
        Ok(response)
    }

    async fn list(
        &self,
        context: &TtrpcContext,
        request: ListContentRequest,
        stream: ServerStreamSender<ListContentResponse>,
    ) -> ttrpc::Result<()> {
        let call = self.call(context)?;
        self.stream(context, async {
            let all = call.blocking(move |call| call.content().list(&call.ns, &request.filters)).await?;
            for batch in all.chunks(BATCH) {
                let mut response = ListContentResponse::new();
                response.info = batch.iter().map(message).collect();
                stream.send(&response).await.map_err(|error| unsent(&error))?;
            }
            Ok(())
        })
        .await
    }

    async fn delete(&self, context: &TtrpcContext, request: DeleteContentRequest) -> ttrpc::Result<Empty> {
        self.answer(context, move |call| call.content().delete(&call.ns, &request.digest.parse()?)).await?;
        Ok(Empty::new())
    }

    async fn read(
        &self,
        context: &TtrpcContext,
        request: ReadContentRequest,
        stream: ServerStreamSender<ReadContentResponse>,
    ) -> ttrpc::Result<()> {
        let call = self.call(context)?;
        self.stream(context, async {
            let begin = u64::try_from(request.offset).unwrap_or(0);
            let (mut reader, end) = call
                .blocking(move |call| {
                    let digest: Digest = request.digest.parse()?;
                    let mut reader = call.content().reader(&call.ns, &digest)?;
                    let size = reader.size();
                    if begin > size {
                        return Err(Error::out_of_range(format!(
                            "read blob {digest} from byte {begin}: it has {size} bytes"
                        )));
                    }
                    reader.seek(SeekFrom::Start(begin)).context(|| format!("read blob {digest}"))?;
                    // Nothing, or too much: up to the end.
                    let wanted = u64::try_from(request.size).ok().filter(|it| *it > 0).unwrap_or(u64::MAX);
                    Ok((reader, size.min(begin.saturating_add(wanted))))
                })
                .await?;
            let mut offset = begin;
            while offset < end {
                let size = usize::try_from(end - offset).unwrap_or(CHUNK).min(CHUNK);
                let (back, data) = call
                    .blocking(move |_| {
                        let mut data = vec![0; size];
                        reader.read_exact(&mut data).context(|| "read a blob".to_owned())?;
                        Ok((reader, data))
                    })
                    .await?;
                reader = back;
                let mut response = ReadContentResponse::new();
                response.offset = wire::signed(offset);
                offset += data.len() as u64;
                response.data = data;
                stream.send(&response).await.map_err(|error| unsent(&error))?;
            }
            Ok(())
        })
        .await
    }

    async fn status(&self, context: &TtrpcContext, request: StatusRequest) -> ttrpc::Result<StatusResponse> {
        let status = self.answer(context, move |call| call.content().status(&call.ns, &request.ref_)).await?;
        let mut response = StatusResponse::new();
        response.status = MessageField::some(status_message(&status));
        Ok(response)
    }

    async fn list_statuses(
        &self,
        context: &TtrpcContext,
        request: ListStatusesRequest,
    ) -> ttrpc::Result<ListStatusesResponse> {
        let all = self.answer(context, move |call| call.content().statuses(&call.ns, &request.filters)).await?;
        let mut response = ListStatusesResponse::new();
        response.statuses = all.iter().map(status_message).collect();
        Ok(response)
    }

    async fn write(
        &self,
        context: &TtrpcContext,
        stream: ServerStream<WriteContentResponse, WriteContentRequest>,
    ) -> ttrpc::Result<()> {
        let stream = stream.into();
        let call = self.call(context)?;
        self.stream(context, write::write(call, stream)).await
    }

    async fn abort(&self, context: &TtrpcContext, request: AbortRequest) -> ttrpc::Result<Empty> {
        self.answer(context, move |call| call.content().abort(&call.ns, &request.ref_)).await?;
        Ok(Empty::new())
    }
}

fn message(info: &content::Info) -> Info {
    let mut message = Info::new();
    message.digest = info.digest.to_string();
    message.size = wire::signed(info.size);
    message.created_at = wire::timestamp(info.created);
    message.updated_at = wire::timestamp(info.updated);
    message.labels = wire::map(&info.labels);
    message
}

fn status_message(status: &content::Status) -> Status {
    let mut message = Status::new();
    message.started_at = wire::timestamp(status.started);
    message.updated_at = wire::timestamp(status.updated);
    message.ref_.clone_from(&status.reference);
    message.offset = wire::signed(status.offset);
    message.total = wire::signed(status.total.unwrap_or(0));
    message.expected = status.expected.as_ref().map(ToString::to_string).unwrap_or_default();
    message
}

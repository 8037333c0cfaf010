//! Snapshots: root file systems as mounts that the client does.

use async_trait::async_trait;
use tare_proto::snapshots::*;
use tare_proto::{Empty, MessageField, snapshots_ttrpc};
use ttrpc::asynchronous::{ServerStreamSender, TtrpcContext};

use super::session::{Call, Session, unsent};
use super::wire;
use crate::error::Error;
use crate::metadata::Labels;
use crate::snapshots::{self, Driver, changes};

/// Snapshots in one message of a list.
const BATCH: usize = 100;

#[async_trait]
impl snapshots_ttrpc::Snapshots for Session {
    async fn prepare(
        &self,
        context: &TtrpcContext,
        request: PrepareSnapshotRequest,
    ) -> ttrpc::Result<PrepareSnapshotResponse> {
        let copies = matches!(self.store.snapshots.driver(&request.snapshotter), Ok(Driver::Native));
        let work = move |call: &Call| {
            let labels = wire::labels(request.labels);
            call.snapshots().prepare(&wanted(call, &request.snapshotter, &request.key, &request.parent, &labels))
        };
        let mounts = if copies { self.answer(context, work).await? } else { self.answer_soon(context, work).await? };
        let mut response = PrepareSnapshotResponse::new();
        response.mounts = mounts.into_iter().map(wire::mount).collect();
        Ok(response)
    }

    async fn view(&self, context: &TtrpcContext, request: ViewSnapshotRequest) -> ttrpc::Result<ViewSnapshotResponse> {
        let mounts = self
            .answer_soon(context, move |call| {
                let labels = wire::labels(request.labels);
                call.snapshots().view(&wanted(call, &request.snapshotter, &request.key, &request.parent, &labels))
            })
            .await?;
        let mut response = ViewSnapshotResponse::new();
        response.mounts = mounts.into_iter().map(wire::mount).collect();
        Ok(response)
    }

    async fn mounts(&self, context: &TtrpcContext, request: MountsRequest) -> ttrpc::Result<MountsResponse> {
        let mounts = self
            .answer_soon(context, move |call| call.snapshots().mounts(&call.ns, &request.snapshotter, &request.key))
            .await?;
        let mut response = MountsResponse::new();
        response.mounts = mounts.into_iter().map(wire::mount).collect();
        Ok(response)
    }

    async fn commit(&self, context: &TtrpcContext, request: CommitSnapshotRequest) -> ttrpc::Result<Empty> {
        self.answer(context, move |call| {
            let labels = wire::labels(request.labels);
            let active = wanted(call, &request.snapshotter, &request.key, &request.parent, &labels);
            call.snapshots().commit(&request.name, &active)
        })
        .await?;
        Ok(Empty::new())
    }

    async fn remove(&self, context: &TtrpcContext, request: RemoveSnapshotRequest) -> ttrpc::Result<Empty> {
        self.answer_soon(context, move |call| {
            call.snapshots().remove(&call.ns, &request.snapshotter, &request.key)?;
            // What only this one kept is collected by and by.
            call.removed(false)
        })
        .await?;
        Ok(Empty::new())
    }

    async fn stat(&self, context: &TtrpcContext, request: StatSnapshotRequest) -> ttrpc::Result<StatSnapshotResponse> {
        let info = self
            .answer_soon(context, move |call| call.snapshots().stat(&call.ns, &request.snapshotter, &request.key))
            .await?;
        let mut response = StatSnapshotResponse::new();
        response.info = MessageField::some(message(&info));
        Ok(response)
    }

    async fn update(
        &self,
        context: &TtrpcContext,
        request: UpdateSnapshotRequest,
    ) -> ttrpc::Result<UpdateSnapshotResponse> {
        let info = self
            .answer_soon(context, move |call| {
                let new = request.info.into_option().ok_or_else(|| Error::invalid("the request has no snapshot"))?;
                let paths = wire::paths(request.update_mask);
                call.snapshots().update(&call.ns, &request.snapshotter, &new.name, &wire::labels(new.labels), &paths)
            })
            .await?;
        let mut response = UpdateSnapshotResponse::new();
        response.info = MessageField::some(message(&info));
        Ok(response)
    }

    async fn list(
        &self,
        context: &TtrpcContext,
        request: ListSnapshotsRequest,
        stream: ServerStreamSender<ListSnapshotsResponse>,
    ) -> ttrpc::Result<()> {
        let call = self.call(context)?;
        self.stream(context, async {
            let all = call
                .blocking(move |call| call.snapshots().list(&call.ns, &request.snapshotter, &request.filters))
                .await?;
            for batch in all.chunks(BATCH) {
                let mut response = ListSnapshotsResponse::new();
                response.info = batch.iter().map(message).collect();
                stream.send(&response).await.map_err(|error| unsent(&error))?;
            }
            Ok(())
        })
        .await
    }

    async fn usage(&self, context: &TtrpcContext, request: UsageRequest) -> ttrpc::Result<UsageResponse> {
        let usage = self
            .answer(context, move |call| call.snapshots().usage(&call.ns, &request.snapshotter, &request.key))
            .await?;
        let mut response = UsageResponse::new();
        response.size = wire::signed(usage.size);
        response.inodes = wire::signed(usage.inodes);
        Ok(response)
    }

    async fn cleanup(&self, context: &TtrpcContext, request: CleanupRequest) -> ttrpc::Result<Empty> {
        self.answer(context, move |call| {
            call.snapshots().driver(&request.snapshotter)?;
            call.snapshots().cleanup()
        })
        .await?;
        Ok(Empty::new())
    }
}

/// What a call of the client's is about.
fn wanted<'a>(
    call: &'a Call,
    snapshotter: &'a str,
    key: &'a str,
    parent: &'a str,
    labels: &'a Labels,
) -> changes::Request<'a> {
    changes::Request { ns: &call.ns, snapshotter, key, parent, labels, lease: call.lease() }
}

fn message(info: &snapshots::Info) -> Info {
    let mut message = Info::new();
    message.name.clone_from(&info.name);
    message.parent = info.parent.clone().unwrap_or_default();
    message.kind = match info.kind {
        snapshots::Kind::View => Kind::VIEW,
        snapshots::Kind::Active => Kind::ACTIVE,
        snapshots::Kind::Committed => Kind::COMMITTED,
    }
    .into();
    message.created_at = wire::timestamp(info.created);
    message.updated_at = wire::timestamp(info.updated);
    message.labels = wire::map(&info.labels);
    message
}

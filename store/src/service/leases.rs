//! Leases: what is not to be collected.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use tare_proto::leases::*;
use tare_proto::{Empty, MessageField, leases_ttrpc};
use ttrpc::asynchronous::TtrpcContext;

use super::session::Session;
use super::wire;
use crate::error::{Error, Result};
use crate::metadata;

#[async_trait]
impl leases_ttrpc::Leases for Session {
    async fn create(&self, context: &TtrpcContext, request: CreateRequest) -> ttrpc::Result<CreateResponse> {
        let lease = self
            .answer(context, move |call| {
                let id = if request.id.is_empty() { fresh() } else { request.id };
                call.metadata().create_lease(&call.ns, &id, &wire::labels(request.labels))
            })
            .await?;
        let mut response = CreateResponse::new();
        response.lease = MessageField::some(message(&lease));
        Ok(response)
    }

    async fn delete(&self, context: &TtrpcContext, request: DeleteRequest) -> ttrpc::Result<Empty> {
        self.answer(context, move |call| {
            call.metadata().delete_lease(&call.ns, &request.id)?;
            call.removed(request.sync)
        })
        .await?;
        Ok(Empty::new())
    }

    async fn list(&self, context: &TtrpcContext, request: ListRequest) -> ttrpc::Result<ListResponse> {
        let leases = self.answer(context, move |call| call.metadata().leases(&call.ns, &request.filters)).await?;
        let mut response = ListResponse::new();
        response.leases = leases.iter().map(message).collect();
        Ok(response)
    }

    async fn add_resource(&self, context: &TtrpcContext, request: AddResourceRequest) -> ttrpc::Result<Empty> {
        self.answer(context, move |call| {
            call.metadata().add_resource(&call.ns, &request.id, &resource(request.resource)?)
        })
        .await?;
        Ok(Empty::new())
    }

    async fn delete_resource(&self, context: &TtrpcContext, request: DeleteResourceRequest) -> ttrpc::Result<Empty> {
        self.answer(context, move |call| {
            call.metadata().delete_resource(&call.ns, &request.id, &resource(request.resource)?)
        })
        .await?;
        Ok(Empty::new())
    }

    async fn list_resources(
        &self,
        context: &TtrpcContext,
        request: ListResourcesRequest,
    ) -> ttrpc::Result<ListResourcesResponse> {
        let resources = self.answer(context, move |call| call.metadata().resources(&call.ns, &request.id)).await?;
        let mut response = ListResourcesResponse::new();
        let message = |it: metadata::Resource| {
            let mut message = Resource::new();
            (message.id, message.type_) = (it.id, it.kind);
            message
        };
        response.resources = resources.into_iter().map(message).collect();
        Ok(response)
    }
}

fn resource(message: MessageField<Resource>) -> Result<metadata::Resource> {
    let message = message.into_option().ok_or_else(|| Error::invalid("the request names no resource"))?;
    Ok(metadata::Resource { kind: message.type_, id: message.id })
}

fn message(lease: &metadata::LeaseInfo) -> Lease {
    let mut message = Lease::new();
    message.id.clone_from(&lease.id);
    message.labels = wire::map(&lease.labels);
    message.created_at = wire::timestamp(lease.created);
    message
}

/// A name that no lease has: the time, and a number of this daemon.
fn fresh() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_nanos());
    format!("lease-{now:x}-{:x}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

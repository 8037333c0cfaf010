//! Namespaces, and which program answers.

use async_trait::async_trait;
use tare_proto::namespaces::*;
use tare_proto::version::VersionResponse;
use tare_proto::{Empty, MessageField, namespaces_ttrpc, version_ttrpc};
use ttrpc::asynchronous::TtrpcContext;

use super::session::{Call, Session};
use super::wire;
use crate::error::{Error, Result};
use crate::metadata::{self, Labels};

#[async_trait]
impl namespaces_ttrpc::Namespaces for Session {
    async fn get(&self, context: &TtrpcContext, request: GetNamespaceRequest) -> ttrpc::Result<GetNamespaceResponse> {
        let found = self.answer(context, move |call| find(call, &request.name)).await?;
        let mut response = GetNamespaceResponse::new();
        response.namespace = MessageField::some(found);
        Ok(response)
    }

    async fn list(&self, context: &TtrpcContext, _: ListNamespacesRequest) -> ttrpc::Result<ListNamespacesResponse> {
        let all = self.answer(context, |call| call.metadata().namespaces()).await?;
        let mut response = ListNamespacesResponse::new();
        response.namespaces = all.iter().map(|(name, labels)| message(name, labels)).collect();
        Ok(response)
    }

    async fn create(
        &self,
        context: &TtrpcContext,
        request: CreateNamespaceRequest,
    ) -> ttrpc::Result<CreateNamespaceResponse> {
        let made = self
            .answer(context, move |call| {
                let (name, labels) = read(request.namespace)?;
                call.metadata().create_namespace(&name, &labels)?;
                Ok(message(&name, &labels))
            })
            .await?;
        let mut response = CreateNamespaceResponse::new();
        response.namespace = MessageField::some(made);
        Ok(response)
    }

    async fn update(
        &self,
        context: &TtrpcContext,
        request: UpdateNamespaceRequest,
    ) -> ttrpc::Result<UpdateNamespaceResponse> {
        let changed = self
            .answer(context, move |call| {
                let (name, labels) = read(request.namespace)?;
                let labels = call.metadata().update_namespace(&name, &labels, &wire::paths(request.update_mask))?;
                Ok(message(&name, &labels))
            })
            .await?;
        let mut response = UpdateNamespaceResponse::new();
        response.namespace = MessageField::some(changed);
        Ok(response)
    }

    async fn delete(&self, context: &TtrpcContext, request: DeleteNamespaceRequest) -> ttrpc::Result<Empty> {
        self.answer(context, move |call| call.metadata().delete_namespace(&request.name.parse()?)).await?;
        Ok(Empty::new())
    }
}

fn find(call: &Call, name: &str) -> Result<Namespace> {
    let all = call.metadata().namespaces()?;
    let found = all.iter().find(|(it, _)| it.as_str() == name);
    let (name, labels) = found.ok_or_else(|| Error::not_found(format!("there is no namespace {name:?}")))?;
    Ok(message(name, labels))
}

fn read(message: MessageField<Namespace>) -> Result<(metadata::Namespace, Labels)> {
    let message = message.into_option().ok_or_else(|| Error::invalid("the request has no namespace"))?;
    Ok((message.name.parse()?, wire::labels(message.labels)))
}

fn message(name: &metadata::Namespace, labels: &Labels) -> Namespace {
    let mut message = Namespace::new();
    message.name = name.to_string();
    message.labels = wire::map(labels);
    message
}

#[async_trait]
impl version_ttrpc::Version for Session {
    async fn version(&self, _: &TtrpcContext, _: Empty) -> ttrpc::Result<VersionResponse> {
        let mut response = VersionResponse::new();
        response.version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(response)
    }
}

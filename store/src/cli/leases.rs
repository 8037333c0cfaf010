//! Leases and namespaces.

use serde_json::json;
use tare_proto::MessageField;
use tare_proto::leases::*;
use tare_proto::namespaces;

use super::Session;
use super::args_parts as args;
use super::output::{self, Done, ago, json_time, label_paths, labels, table};

pub(super) async fn run(session: &Session, command: args::Lease) -> Done {
    use args::Lease;
    let (client, leases) = (&session.client, session.client.leases());
    match command {
        Lease::Ls { filters } => list(session, filters).await,
        Lease::Create { id, expire, label } => {
            let mut request = CreateRequest::new();
            request.id = id.unwrap_or_default();
            request.labels = labels(&label)?;
            if let Some(time) = expire {
                request.labels.insert("containerd.io/gc.expire".to_owned(), time);
            }
            let response = leases.create(client.context(), &request).await.map_err(|error| client.failed(error))?;
            let made = response.lease.unwrap_or_default();
            if session.json { output::document(&as_json(&made)) } else { output::line(&made.id) }
        }
        Lease::Rm { ids, sync } => {
            let last = ids.len() - 1;
            for (n, id) in ids.into_iter().enumerate() {
                let mut request = DeleteRequest::new();
                (request.id, request.sync) = (id, sync && n == last);
                leases.delete(client.context(), &request).await.map_err(|error| client.failed(error))?;
            }
            Ok(())
        }
        Lease::Add { id, kind, resource } => {
            let mut request = AddResourceRequest::new();
            (request.id, request.resource) = (id, thing(kind, resource));
            let response = leases.add_resource(client.context(), &request).await;
            response.map(drop).map_err(|error| client.failed(error).into())
        }
        Lease::Drop { id, kind, resource } => {
            let mut request = DeleteResourceRequest::new();
            (request.id, request.resource) = (id, thing(kind, resource));
            let response = leases.delete_resource(client.context(), &request).await;
            response.map(drop).map_err(|error| client.failed(error).into())
        }
        Lease::Resources { id } => {
            let mut request = ListResourcesRequest::new();
            request.id = id;
            let response = leases.list_resources(client.context(), &request).await;
            let all = response.map_err(|error| client.failed(error))?.resources;
            if session.json {
                let one = |it: &Resource| json!({ "type": it.type_, "id": it.id });
                return output::document(&all.iter().map(one).collect());
            }
            let row = |it: &Resource| [it.type_.clone(), it.id.clone()];
            table(["TYPE", "ID"], &all.iter().map(row).collect::<Vec<_>>())
        }
    }
}

fn thing(kind: String, id: String) -> MessageField<Resource> {
    let mut it = Resource::new();
    (it.type_, it.id) = (kind, id);
    MessageField::some(it)
}

async fn list(session: &Session, filters: Vec<String>) -> Done {
    let mut request = ListRequest::new();
    request.filters = filters;
    let response = session.client.leases().list(session.client.context(), &request).await;
    let all = response.map_err(|error| session.client.failed(error))?.leases;
    if session.json {
        return output::document(&all.iter().map(as_json).collect());
    }
    let row = |it: &Lease| {
        let mut labels: Vec<_> = it.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        labels.sort();
        [it.id.clone(), ago(&it.created_at), labels.join(" ")]
    };
    table(["ID", "CREATED", "LABELS"], &all.iter().map(row).collect::<Vec<_>>())
}

fn as_json(it: &Lease) -> serde_json::Value {
    json!({ "id": it.id, "createdAt": json_time(&it.created_at), "labels": it.labels })
}

pub(super) async fn namespaces(session: &Session, command: args::Namespace) -> Done {
    use args::Namespace;
    let (client, service) = (&session.client, session.client.namespaces());
    let named = |name: String, labels| {
        let mut it = namespaces::Namespace::new();
        (it.name, it.labels) = (name, labels);
        MessageField::some(it)
    };
    match command {
        Namespace::Ls => {
            let request = namespaces::ListNamespacesRequest::new();
            let response = service.list(client.context(), &request).await.map_err(|error| client.failed(error))?;
            if session.json {
                let one = |it: &namespaces::Namespace| json!({ "name": it.name, "labels": it.labels });
                return output::document(&response.namespaces.iter().map(one).collect());
            }
            response.namespaces.iter().try_for_each(|it| output::line(&it.name))
        }
        Namespace::Create { name, labels: given } => {
            let mut request = namespaces::CreateNamespaceRequest::new();
            request.namespace = named(name, labels(&given)?);
            let response = service.create(client.context(), &request).await;
            response.map(drop).map_err(|error| client.failed(error).into())
        }
        Namespace::Label { name, labels: given } => {
            let mut request = namespaces::UpdateNamespaceRequest::new();
            let new = labels(&given)?;
            request.update_mask = label_paths(&new);
            request.namespace = named(name, new);
            let response = service.update(client.context(), &request).await;
            response.map(drop).map_err(|error| client.failed(error).into())
        }
        Namespace::Rm { name } => {
            let mut request = namespaces::DeleteNamespaceRequest::new();
            request.name = name;
            let response = service.delete(client.context(), &request).await;
            response.map(drop).map_err(|error| client.failed(error).into())
        }
    }
}

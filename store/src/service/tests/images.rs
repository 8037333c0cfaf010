use tare_proto::images::*;
use tare_proto::images_ttrpc::ImagesClient;
use tare_proto::leases::{AddResourceRequest, CreateRequest, DeleteRequest, ListResourcesRequest, Resource};
use tare_proto::leases_ttrpc::LeasesClient;
use tare_proto::namespaces::{CreateNamespaceRequest, GetNamespaceRequest, ListNamespacesRequest, Namespace};
use tare_proto::namespaces_ttrpc::NamespacesClient;
use tare_proto::types::Descriptor;
use tare_proto::{FieldMask, MessageField};
use ttrpc::Code;

use super::*;
use crate::metadata::{NewImage, Publication};

fn image(name: &str, blob: &[u8]) -> MessageField<Image> {
    let mut target = Descriptor::new();
    target.media_type = "application/vnd.oci.image.manifest.v1+json".into();
    (target.digest, target.size) = (Digest::of(blob).to_string(), 3);
    let mut image = Image::new();
    (image.name, image.target) = (name.into(), MessageField::some(target));
    MessageField::some(image)
}

fn create(name: &str, blob: &[u8]) -> CreateImageRequest {
    let mut request = CreateImageRequest::new();
    request.image = image(name, blob);
    request
}

#[tokio::test]
async fn names_come_change_and_go() {
    let daemon = Daemon::start().await;
    let images = ImagesClient::new(daemon.client().await);
    let mut first = create("a", b"1");
    first.image.as_mut().unwrap().labels.insert("k".into(), "v".into());
    let made = images.create(plain(), &first).await.unwrap().image.unwrap();
    assert!(made.created_at.seconds > 0 && made.target.digest == Digest::of(b"1").to_string());
    assert_eq!(code(images.create(plain(), &first).await), Code::ALREADY_EXISTS);
    assert_eq!(code(images.create(plain(), &create("", b"1")).await), Code::INVALID_ARGUMENT);
    assert_eq!(code(images.create(plain(), &CreateImageRequest::new()).await), Code::INVALID_ARGUMENT);

    // Labels alone: the target may be left out, and stays.
    let mut update = UpdateImageRequest::new();
    let mut new = Image::new();
    new.name = "a".into();
    new.labels = HashMap::from([("l".into(), "w".into())]);
    update.image = MessageField::some(new);
    let mut mask = FieldMask::new();
    mask.paths = vec!["labels.l".into()];
    update.update_mask = MessageField::some(mask);
    let changed = images.update(plain(), &update).await.unwrap().image.unwrap();
    assert_eq!((changed.labels.len(), changed.target.digest.clone()), (2, made.target.digest.clone()));
    let mut update = UpdateImageRequest::new();
    update.image = image("a", b"2");
    let changed = images.update(plain(), &update).await.unwrap().image.unwrap();
    assert_eq!((changed.labels.len(), changed.target.digest.clone()), (0, Digest::of(b"2").to_string()));
    assert_eq!(changed.created_at, made.created_at);

    let mut get = GetImageRequest::new();
    get.name = "a".into();
    assert_eq!(images.get(plain(), &get).await.unwrap().image.unwrap(), changed);
    assert_eq!(code(images.get(within("other"), &get).await), Code::NOT_FOUND);
    let mut list = ListImagesRequest::new();
    list.filters = vec!["name~=^b".into(), "name==a".into()];
    assert_eq!(images.list(plain(), &list).await.unwrap().images.len(), 1);
    list.filters = vec!["name=a".into()];
    assert_eq!(code(images.list(plain(), &list).await), Code::INVALID_ARGUMENT);

    let mut delete = DeleteImageRequest::new();
    delete.name = "a".into();
    delete.target = made.target.clone();
    assert_eq!(code(images.delete(plain(), &delete).await), Code::NOT_FOUND, "it points elsewhere by now");
    delete.target = changed.target.clone();
    images.delete(plain(), &delete).await.unwrap();
    assert_eq!(code(images.get(plain(), &get).await), Code::NOT_FOUND);
    daemon.stop().await;
}

#[tokio::test]
async fn deleting_the_last_name_synchronously_frees_the_blobs() {
    let daemon = Daemon::start().await;
    let client = daemon.client().await;
    let digest: Digest = stored(&client, b"1").await.parse().unwrap();
    let images = ImagesClient::new(client);
    images.create(plain(), &create("a", b"1")).await.unwrap();
    let mut delete = DeleteImageRequest::new();
    (delete.name, delete.sync) = ("a".into(), true);
    images.delete(plain(), &delete).await.unwrap();
    let ns = "default".parse().unwrap();
    assert_eq!(daemon.store.content.info(&ns, &digest).unwrap(), None);
    daemon.stop().await;
}

#[tokio::test]
async fn a_list_that_does_not_fit_says_what_helps() {
    let daemon = Daemon::start().await;
    let ns = "default".parse().unwrap();
    let target = crate::descriptor::Descriptor::new("application/x", Digest::of(b"1"), 1);
    let labels = crate::metadata::Labels::from([("k".to_owned(), "v".repeat(4000))]);
    let new = |n: usize| NewImage { name: format!("{n:04}"), target: target.clone(), labels: labels.clone() };
    let publication =
        Publication { ns: &ns, lease: None, layers: vec![], blobs: vec![], images: (0..1100).map(new).collect() };
    daemon.store.metadata.publish(publication).unwrap();
    let images = ImagesClient::new(daemon.client().await);
    let (refusal, sentence) = refused(images.list(plain(), &ListImagesRequest::new()).await);
    assert_eq!(refusal, Code::RESOURCE_EXHAUSTED);
    assert!(sentence.contains("filters"), "{sentence}");
    let mut some = ListImagesRequest::new();
    some.filters = vec!["name~=^00".into()];
    assert_eq!(images.list(plain(), &some).await.unwrap().images.len(), 100);
    daemon.stop().await;
}

#[tokio::test]
async fn leases_and_namespaces() {
    let daemon = Daemon::start().await;
    let client = daemon.client().await;
    let leases = LeasesClient::new(client.clone());
    let one = leases.create(plain(), &CreateRequest::new()).await.unwrap().lease.unwrap();
    let two = leases.create(plain(), &CreateRequest::new()).await.unwrap().lease.unwrap();
    assert!(!one.id.is_empty() && one.id != two.id, "names are chosen");
    let mut add = AddResourceRequest::new();
    add.id.clone_from(&one.id);
    assert_eq!(code(leases.add_resource(plain(), &add).await), Code::INVALID_ARGUMENT);
    let mut thing = Resource::new();
    (thing.type_, thing.id) = ("snapshots/overlayfs".into(), "s".into());
    add.resource = MessageField::some(thing.clone());
    leases.add_resource(plain(), &add).await.unwrap();
    let mut of = ListResourcesRequest::new();
    of.id.clone_from(&one.id);
    assert_eq!(leases.list_resources(plain(), &of).await.unwrap().resources, [thing]);
    let mut delete = DeleteRequest::new();
    (delete.id, delete.sync) = (one.id, true);
    leases.delete(plain(), &delete).await.unwrap();
    assert_eq!(code(leases.delete(plain(), &delete).await), Code::NOT_FOUND);

    let namespaces = NamespacesClient::new(client);
    let mut create = CreateNamespaceRequest::new();
    let mut new = Namespace::new();
    (new.name, new.labels) = ("n".into(), HashMap::from([("k".into(), "v".into())]));
    create.namespace = MessageField::some(new.clone());
    namespaces.create(plain(), &create).await.unwrap();
    assert_eq!(code(namespaces.create(plain(), &create).await), Code::ALREADY_EXISTS);
    let mut get = GetNamespaceRequest::new();
    get.name = "n".into();
    assert_eq!(namespaces.get(plain(), &get).await.unwrap().namespace.unwrap(), new);
    get.name = "other".into();
    assert_eq!(code(namespaces.get(plain(), &get).await), Code::NOT_FOUND);
    let all = namespaces.list(plain(), &ListNamespacesRequest::new()).await.unwrap().namespaces;
    assert!(all.iter().any(|it| it.name == "n"));
    create.namespace.as_mut().unwrap().name = "../x".into();
    assert_eq!(code(namespaces.create(plain(), &create).await), Code::INVALID_ARGUMENT);
    let images = ImagesClient::new(daemon.client().await);
    assert_eq!(code(images.list(within("a b"), &ListImagesRequest::new()).await), Code::INVALID_ARGUMENT);
    daemon.stop().await;
}

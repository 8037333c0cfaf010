//! Push: in which order things arrive, and what of it is seen when it fails in between. As root: layers have owners.

use integration::registry::{Instead, Registry};
use serde_json::json;

use crate::archive_tests::{base, ns, store, upper};
use crate::content::digest::Digest;
use crate::descriptor::Descriptor;
use crate::documents::Wanted;
use crate::images;
use crate::progress::Progress;
use crate::pull;
use crate::registry::{media, platform};
use crate::registry_tests::{image, push, request};

/// An index of two machines' images, under the tag `all`; its digest.
fn index(registry: &Registry) -> String {
    let mut listed = Vec::new();
    for (tag, machine) in [("one", platform::host()), ("two", "linux/s390x".parse().unwrap())] {
        let layer = if tag == "one" { base() } else { upper() };
        image(registry, tag, &[&layer]);
        let (_, bytes) = registry.kept_manifest("team/app", tag).unwrap();
        let mut at = Descriptor::new(media::MANIFEST, Digest::of(&bytes), bytes.len() as u64);
        at.platform = Some(machine);
        listed.push(at);
    }
    let index = json!({"schemaVersion": 2, "mediaType": media::INDEX, "manifests": listed});
    registry.manifest("team/app", Some("all"), media::INDEX, index.to_string())
}

#[tokio::test]
async fn a_name_leads_to_all_of_an_index_or_to_nothing() {
    let (dir, from, to) = (tempfile::tempdir().unwrap(), Registry::start(), Registry::start());
    let store = store(dir.path());
    let root = index(&from);
    let all = pull::Request { wanted: Wanted::All, unpack: None, ..request(&from, "all") };
    let pulled = pull::pull(&store, &ns(), all, &Progress::silent()).await.unwrap();
    assert_eq!((pulled.images.len(), pulled.target.digest.to_string()), (2, root.clone()));
    let target = format!("{}/copy:all", to.host());
    // The second machine's manifest is refused: nobody can see the first one's by a name.
    to.faults(|it| {
        it.instead
            .push_back(Instead::new(&format!("PUT /v2/copy/manifests/{}", pulled.images[1].manifest.digest), 403));
    });
    push(&store, &pulled.name, &target).await.unwrap_err();
    assert!(to.kept_manifest("copy", "all").is_none());
    assert!(to.kept_manifest("copy", &pulled.images[0].manifest.digest.to_string()).is_some());
    to.forget_seen();
    let pushed = push(&store, &pulled.name, &target).await.unwrap();
    assert_eq!(to.kept_manifest("copy", "all").unwrap().0, media::INDEX);
    // What had arrived is not sent again: the second manifest and the index are left.
    let sent: Vec<_> = to.seen("PUT").into_iter().map(|it| it.path).collect();
    assert_eq!(
        sent,
        [format!("/v2/copy/manifests/{}", pulled.images[1].manifest.digest), "/v2/copy/manifests/all".into()]
    );
    assert_eq!(pushed.sent, pulled.images[1].manifest.size + pulled.target.size);

    // All at once: blobs, manifests, the index.
    push(&store, &pulled.name, &format!("{}/whole:all", to.host())).await.unwrap();
    let kind = |path: &str| match path {
        path if path.contains("/blobs/uploads/") => 0,
        path if path.contains("/manifests/sha256:") => 1,
        _ => 2,
    };
    let order: Vec<_> = to.seen("PUT /v2/whole/").into_iter().map(|it| kind(&it.path)).collect();
    assert!(order.is_sorted() && order.ends_with(&[1, 1, 2]), "{order:?}");
}

/// A signature goes to a registry that keeps no lists of such: it is found there all the same, and comes back with its image.
#[tokio::test]
async fn what_refers_to_an_image_goes_along_to_registries_without_lists() {
    let (dir, from, to) = (tempfile::tempdir().unwrap(), Registry::start(), Registry::start());
    let store = store(dir.path());
    image(&from, "1", &[&base()]);
    let (_, bytes) = from.kept_manifest("team/app", "1").unwrap();
    let subject = Descriptor::new(media::MANIFEST, Digest::of(&bytes), bytes.len() as u64);
    let (empty, note) = (from.blob("team/app", b"{}".to_vec()), from.blob("team/app", b"signed".to_vec()));
    let signature = json!({"schemaVersion": 2, "mediaType": media::MANIFEST, "artifactType": "application/x.signature",
        "config": {"mediaType": media::EMPTY, "digest": empty, "size": 2},
        "layers": [{"mediaType": "text/plain", "digest": note, "size": 6}], "subject": subject});
    let signature = from.manifest("team/app", None, media::MANIFEST, signature.to_string());
    to.faults(|it| it.no_referrers = true);
    // Each as an image of its own: an artifact is one without anything to unpack.
    for (name, tag) in [(":1".to_owned(), "1"), (format!("@{signature}"), "signature")] {
        let reference = format!("{}/team/app{name}", from.host()).parse().unwrap();
        let request = pull::Request { reference, ..request(&from, "1") };
        let pulled = pull::pull(&store, &ns(), request, &Progress::silent()).await.unwrap();
        push(&store, &pulled.name, &format!("{}/team/app:{tag}", to.host())).await.unwrap();
    }
    let fallback = subject.digest.to_string().replacen(':', "-", 1);
    assert!(to.kept_manifest("team/app", &fallback).is_some(), "the list is kept under a tag");
    let second = tempfile::tempdir().unwrap();
    let second = crate::archive_tests::store(second.path());
    let request = pull::Request { referrers: true, ..request(&to, "1") };
    let pulled = pull::pull(&second, &ns(), request, &Progress::silent()).await.unwrap();
    let found = images::referrers(&second, &ns(), &pulled.name, None, None).await.unwrap();
    assert_eq!(found.iter().map(|it| it.at.digest.to_string()).collect::<Vec<_>>(), [signature]);
    assert!(second.content.info(&ns(), &note.parse().unwrap()).unwrap().is_some());
}

//! Names of images: whatever is taken can stand in an URL and in a path, and means the same when it is written out and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tare_store::descriptor::Platform;
use tare_store::registry::Reference;
use tare_store::registry::reference::is_authority;

fuzz_target!(|text: &str| {
    if let Ok(platform) = text.parse::<Platform>() {
        assert_eq!(platform.to_string().parse::<Platform>().unwrap(), platform);
    }
    let Ok(reference) = text.parse::<Reference>() else { return };
    assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
    assert_eq!(reference.familiar().parse::<Reference>().unwrap(), reference);
    let repository = reference.repository();
    assert!(is_authority(repository.registry()));
    let part = |part: &str| !part.is_empty() && part.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || b"._-".contains(&it));
    assert!(repository.path().split('/').all(|it| part(it) && it != "." && it != ".."), "{reference}");
    let wanted = reference.wanted();
    assert!(!wanted.is_empty() && wanted.bytes().all(|it| it.is_ascii_alphanumeric() || b"._-:".contains(&it)), "{wanted}");
    let url = format!("https://{}/v2/{}/manifests/{wanted}", repository.registry(), repository.path());
    assert_eq!(url.parse::<http::Uri>().unwrap().host().map(str::len), Some(host(repository.registry())));
});

fn host(authority: &str) -> usize {
    authority.rfind(']').map_or_else(|| authority.find(':').unwrap_or(authority.len()), |at| at + 1)
}

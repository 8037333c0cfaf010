//! Manifests, indexes and configurations: bounded, and one thing each.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tare_store::descriptor::Platform;
use tare_store::registry::manifest::{Document, ImageConfig};
use tare_store::registry::{limit, media, platform};

fuzz_target!(|bytes: &[u8]| {
    let mut read = 0;
    for media_type in media::DOCUMENTS.into_iter().chain([""]) {
        let Ok(document) = Document::parse(media_type, bytes) else { continue };
        assert!(media_type.is_empty() || document.media_type() == media_type);
        assert!(document.children().len() <= limit::MANIFESTS.max(limit::LAYERS + 1));
        match &document {
            Document::Index(index) => {
                assert!(media::is_index(document.media_type()));
                read |= 1;
                let machine: Platform = "linux/arm64/v9".parse().unwrap();
                assert!(platform::choose(index, &machine).len() <= index.manifests.len());
            }
            Document::Manifest(manifest) => {
                assert!(media::is_manifest(document.media_type()));
                read |= 2;
                let _ = (manifest.is_image(), ImageConfig::parse_for(manifest, bytes));
            }
        }
    }
    // CVE-2021-41190. What has neither config nor manifests is an empty index, whatever it is called.
    assert!(read != 3, "one document was read as a manifest and as an index");
    if let Ok(config) = ImageConfig::parse(bytes) {
        assert!(config.diff_ids.len() <= limit::LAYERS);
        assert_eq!(platform::normalized(&platform::normalized(&config.platform)), platform::normalized(&config.platform));
    }
});

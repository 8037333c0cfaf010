//! What registries say in headers: WWW-Authenticate, Link, Location, Content-Range.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tare_store::registry::blob::content_range;
use tare_store::registry::challenge::{challenges, next_page};
use tare_store::registry::http::location;

fuzz_target!(|text: &str| {
    let found = challenges(text);
    assert!(found.len() <= 16);
    for challenge in &found {
        assert!(!challenge.scheme.is_empty() && challenge.scheme.to_ascii_lowercase() == challenge.scheme);
        assert!(challenge.parameters.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() <= text.len());
    }
    if let Some(next) = next_page(text) {
        assert!(text.contains(&format!("<{next}>")));
    }
    let from = "https://registry.example:5000/v2/app/blobs/uploads/1?state=s".parse().unwrap();
    for said in [Some(text), next_page(text)].into_iter().flatten() {
        let Some(goes) = location(&from, said) else { continue };
        assert!(matches!(goes.scheme_str(), Some("http" | "https")));
        assert!(!goes.host().unwrap().is_empty() && !goes.authority().unwrap().as_str().contains('@'));
        // What names no host stays where it is.
        if !said.contains("//") && !said.contains(':') {
            assert_eq!(goes.authority(), (&from as &http::Uri).authority());
        }
    }
    if let Some((first, Some(total))) = content_range(text) {
        assert!(first < total);
    }
});

//! hosts.toml, and docker's config.json: hosts or a sentence.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tare_store::registry::docker_config::DockerConfig;
use tare_store::registry::hosts_toml::parse;
use tare_store::registry::reference::is_authority;

fuzz_target!(|text: &str| {
    let _ = DockerConfig::parse(text.as_bytes());
    let Ok(hosts) = parse(text) else { return };
    assert!(hosts.last().is_some(), "the registry itself is always one");
    for host in &hosts {
        assert!(host.dial_timeout <= 3_600_000);
        let Some(address) = &host.address else { continue };
        assert!(is_authority(&address.authority));
        assert!(address.prefix.is_empty() || address.prefix.starts_with('/') && !address.prefix.ends_with('/'));
        let url = format!("https://{}{}/library/x", address.authority, address.prefix);
        assert!(url.parse::<http::Uri>().is_ok(), "{url}");
        assert!(!address.prefix.split('/').any(|it| it == ".."));
    }
});

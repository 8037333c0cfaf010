use super::*;
use crate::registry::hosts::tests_support::plain_endpoint;

/// CVE-2026-48978 of oras, CVE-2020-15157 of containerd: where a realm may get credentials.
#[test]
fn cve_2026_48978_realms_elsewhere_are_strangers() {
    let judged = |registry: &str, realm: &str, realms: &[&str]| {
        let mut endpoint = plain_endpoint("registry.example");
        endpoint.realms = realms.iter().map(|it| (*it).to_owned()).collect();
        match judge(&endpoint, &registry.parse().unwrap(), &realm.parse().unwrap()) {
            Realm::Trusted => "trusted",
            Realm::Stranger => "stranger",
            Realm::Refused(_) => "refused",
        }
    };
    for (registry, realm, found) in [
        ("https://registry-1.docker.io", "https://auth.docker.io/token", "trusted"),
        ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth", "trusted"),
        ("https://quay.io", "https://quay.io/v2/auth", "trusted"),
        ("https://registry.example.org:5000", "https://registry.example.org/token", "trusted"),
        ("https://registry.example.org", "https://AUTH.example.org/token", "trusted"),
        ("https://quay.io", "https://auth.quay.io/token", "trusted"),
        ("https://registry.example.org", "https://evil.test/token", "stranger"),
        ("https://registry.example.org", "https://registry.example.org.evil.test/token", "stranger"),
        ("https://registry.example.org", "https://evilexample.org/token", "stranger"),
        ("https://example.org", "https://evil.org/token", "stranger"),
        ("https://registry.co.uk", "https://evil.co.uk/token", "stranger"),
        // Never without TLS where the registry has it, not even at home.
        ("https://registry.example.org", "http://registry.example.org/token", "refused"),
        ("https://registry.example.org", "http://auth.example.org/token", "refused"),
        // Bare addresses: metadata services, and what listens here.
        ("https://registry.example.org", "https://169.254.169.254/latest", "refused"),
        ("https://registry.example.org", "https://[::1]/x", "refused"),
        ("https://registry.example.org", "https://localhost/x", "refused"),
        ("http://registry.example.org", "http://127.0.0.1:80/x", "refused"),
        // No user in it, and no other protocol.
        ("https://registry.example.org", "https://registry.example.org@evil.test/", "refused"),
        ("https://registry.example.org", "ftp://registry.example.org/", "refused"),
        ("https://registry.example.org", "/token", "refused"),
        // Without TLS, only at home.
        ("http://localhost:5000", "http://localhost:5001/token", "trusted"),
        ("http://127.0.0.1:5000", "http://127.0.0.2:5001/token", "stranger"),
        ("http://registry.example.org", "http://auth.example.org/token", "stranger"),
    ] {
        assert_eq!(judged(registry, realm, &[]), found, "{registry} {realm}");
    }
    assert_eq!(judged("https://registry.example.org", "https://login.test/token", &["login.test"]), "trusted");
    assert_eq!(judged("https://registry.example.org", "https://login.test:1/token", &["login.test:1"]), "trusted");
    assert_eq!(judged("https://registry.example.org", "http://login.test/token", &["login.test"]), "refused");
}

#[test]
fn each_resource_is_asked_for_once() {
    for (theirs, ours, all) in [
        ("", "", &[][..]),
        ("", "repository:a:pull", &["repository:a:pull"]),
        ("repository:a:pull", "repository:a:pull,push", &["repository:a:pull,push"]),
        ("repository:p/a:pull", "repository:a:pull", &["repository:p/a:pull", "repository:a:pull"]),
        ("repository:a:pull repository:b:pull", "", &["repository:a:pull", "repository:b:pull"]),
    ] {
        assert_eq!(scopes(theirs, ours), all, "{theirs} {ours}");
    }
}

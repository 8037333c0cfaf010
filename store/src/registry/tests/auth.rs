use integration::registry::{Auth, Bearer, Instead};

use super::*;
use crate::error::Kind;

fn authorizations(served: &Served, part: &str) -> Vec<String> {
    served.seen(part).into_iter().map(|it| it.authorization.unwrap_or_default()).collect()
}

fn bearer(user: &str, password: &str) -> Bearer {
    Bearer { user: Some((user.into(), password.into())), ..Bearer::default() }
}

#[test]
fn basic_credentials_are_given_when_they_are_wanted() {
    let served = Served::start();
    let (descriptor, bytes) = blob(&served, "app", 1000);
    served.faults(|it| it.auth = Auth::Basic("me".into(), "se:cret".into()));
    run(async {
        let remote = remote(&served.host(), "app", user("me", "se:cret")).await;
        assert_eq!(fetch(&remote, &descriptor, 0).await.unwrap(), bytes);
        assert_eq!(fetch(&remote, &descriptor, 0).await.unwrap(), bytes);
        // Not before they are wanted, and from then on at once.
        assert_eq!(authorizations(&served, "/blobs/"), ["", "Basic bWU6c2U6Y3JldA==", "Basic bWU6c2U6Y3JldA=="]);
    });
    run(async {
        let host = served.host();
        let error = fetch(&remote(&host, "app", Access::default()).await, &descriptor, 0).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unauthenticated);
        says(&error, &[&host, "401 Unauthorized: UNAUTHORIZED", "none are known", &format!("`tarectl login {host}`")]);
        served.forget_seen();
        let error = fetch(&remote(&host, "app", user("me", "wrong")).await, &descriptor, 0).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unauthenticated);
        assert!(!error.message.contains("wrong"), "{error}");
        assert_eq!(served.seen("").len(), 2);
    });
}

#[test]
fn a_token_is_fetched_once_for_all_layers() {
    let served = Served::start();
    let (descriptor, bytes) = blob(&served, "app", 1000);
    served.faults(|it| it.auth = Auth::Bearer(bearer("me", "secret")));
    run(async {
        let remote = remote(&served.host(), "app", user("me", "secret")).await;
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (remote, descriptor) = (remote.clone(), descriptor.clone());
            tasks.spawn(async move { fetch(&remote, &descriptor, 0).await });
        }
        while let Some(fetched) = tasks.join_next().await {
            assert_eq!(fetched.unwrap().unwrap(), bytes);
        }
        let tokens = served.seen("/token");
        assert_eq!(tokens.len(), 1);
        assert_eq!(
            (tokens[0].method.as_str(), tokens[0].authorization.as_deref()),
            ("GET", Some("Basic bWU6c2VjcmV0"))
        );
        assert_eq!(tokens[0].path, "/token?service=registry&account=me&scope=repository%3Aapp%3Apull");
        // The password goes to the token server alone.
        assert!(authorizations(&served, "/blobs/").iter().all(|it| it.is_empty() || it.starts_with("Bearer token-")));
        // Tokens that run out, or are withdrawn, are fetched anew.
        served.expire_tokens();
        assert_eq!(fetch(&remote, &descriptor, 0).await.unwrap(), bytes);
        assert_eq!(served.seen("/token").len(), 2);
    });
}

#[test]
fn tokens_come_by_get_and_post_and_refresh_token() {
    let served = Served::start();
    let (descriptor, bytes) = blob(&served, "app", 1000);
    run(async {
        let host = served.host();
        served.faults(|it| it.auth = Auth::Bearer(Bearer { post_only: true, ..bearer("me", "s&cret") }));
        assert_eq!(fetch(&remote(&host, "app", user("me", "s&cret")).await, &descriptor, 0).await.unwrap(), bytes);
        let posted = served.seen("POST /token").remove(0);
        assert_eq!(
            posted.form,
            "service=registry&client_id=tare-store&scope=repository%3Aapp%3Apull&grant_type=password&username=me&password=s%26cret"
        );

        let refresh = |token: &str| {
            let credentials = Credentials { identity_token: token.into(), ..Credentials::default() };
            Access { credentials: Some(credentials), ..Access::default() }
        };
        served.forget_seen();
        served.faults(|it| it.auth = Auth::Bearer(bearer("me", "secret")));
        assert_eq!(fetch(&remote(&host, "app", refresh("refresh-1")).await, &descriptor, 0).await.unwrap(), bytes);
        let posted = served.seen("/token").remove(0);
        assert!(posted.form.ends_with("grant_type=refresh_token&refresh_token=refresh-1"), "{}", posted.form);
        let error = fetch(&remote(&host, "app", refresh("refresh-2")).await, &descriptor, 0).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unauthenticated);
        says(&error, &["no token from", "incorrect username or password", "log in again"]);

        // A token that is sent as it is.
        let token = Credentials { registry_token: "given".into(), ..Credentials::default() };
        let access = Access { credentials: Some(token), ..Access::default() };
        served.forget_seen();
        let error = fetch(&remote(&host, "app", access).await, &descriptor, 0).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unauthenticated);
        assert_eq!(authorizations(&served, ""), ["", "Bearer given"]);
    });
}

#[test]
fn everybody_gets_a_token_for_what_everybody_may_do() {
    let served = Served::start();
    let (descriptor, bytes) = blob(&served, "app", 1000);
    served.faults(|it| it.auth = Auth::Bearer(Bearer { anonymous_pull: true, ..bearer("me", "secret") }));
    run(async {
        let remote = remote(&served.host(), "app", Access::default()).await;
        assert_eq!(fetch(&remote, &descriptor, 0).await.unwrap(), bytes);
        assert_eq!(authorizations(&served, "/token"), [""]);
        let error = remote.put_manifest(Some("1"), media::MANIFEST, b"{}").await.unwrap_err();
        assert_eq!(error.kind, Kind::Unauthenticated);
        says(&error, &["send the manifest 1 to app", "none are known"]);
        // Refused for good after one fresh token.
        assert!(served.seen("/token").len() <= 3);
    });
}

/// CVE-2026-48978 of oras: the password is for the registry's own token server.
#[test]
fn cve_2026_48978_a_realm_on_another_host_gets_no_credentials() {
    let served = Served::start();
    let evil = Served::start_at([127, 0, 0, 2].into(), None);
    evil.faults(|it| it.auth = Auth::Bearer(Bearer::default()));
    let (descriptor, _) = blob(&served, "app", 1000);
    let realm = Some(format!("{}/token", evil.url()));
    run(async {
        let host = served.host();
        served.faults(|it| it.auth = Auth::Bearer(Bearer { realm: realm.clone(), ..bearer("me", "secret") }));
        assert!(fetch(&remote(&host, "app", user("me", "secret")).await, &descriptor, 0).await.is_err());
        let token = Credentials { identity_token: "refresh-1".into(), ..Credentials::default() };
        let access = Access { credentials: Some(token), ..Access::default() };
        assert!(fetch(&remote(&host, "app", access).await, &descriptor, 0).await.is_err());
        let asked = evil.seen("");
        assert_eq!(asked.len(), 2, "it is asked for what everybody may do");
        assert!(
            asked.iter().all(|it| it.authorization.is_none() && it.method == "GET" && !it.path.contains("me")),
            "{asked:?}"
        );

        // If it refuses that, the reason is told.
        evil.faults(|it| it.instead = [Instead::new("/token", 401)].into());
        let error = fetch(&remote(&host, "app", user("me", "secret")).await, &descriptor, 0).await.unwrap_err();
        says(&error, &["the credentials were not sent there", "127.0.0.2", "`realms`"]);

        // Whoever trusts it says so.
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(&host)).unwrap();
        std::fs::write(
            dir.path().join(&host).join("hosts.toml"),
            "server = \"http://HOST\"\nrealms = [\"127.0.0.2\"]\n".replace("HOST", &host),
        )
        .unwrap();
        evil.forget_seen();
        let registry = Registry::new(with_hosts(dir.path().to_path_buf())).unwrap();
        let trusting = registry.remote(&format!("{host}/app").parse().unwrap(), user("me", "secret")).await.unwrap();
        assert!(fetch(&trusting, &descriptor, 0).await.is_err(), "its tokens are worth nothing");
        assert!(authorizations(&evil, "/token")[0].starts_with("Basic "));
    });
}

/// CVE-2020-15157 of containerd: not to where a redirect leads, not to where an image says that its layers are.
#[test]
fn cve_2020_15157_credentials_stay_at_their_host() {
    let served = Served::start();
    let evil = Served::start();
    let (descriptor, bytes) = blob(&served, "app", 1000);
    blob(&evil, "app", 1000);
    run(async {
        for auth in [Auth::Basic("me".into(), "secret".into()), Auth::Bearer(bearer("me", "secret"))] {
            served.faults(|it| it.auth = auth);
            let remote = remote(&served.host(), "app", user("me", "secret")).await;
            served.faults(|it| it.redirect = Some(evil.url()));
            assert_eq!(fetch(&remote, &descriptor, 0).await.unwrap(), bytes);
            // What stands at the end of a redirect has no say in who we are.
            let headers = vec![("www-authenticate", format!("Bearer realm=\"{}/token\"", evil.url()))];
            evil.faults(|it| it.instead = [Instead { headers, ..Instead::new("/blobs/", 401) }].into());
            let error = fetch(&remote, &descriptor, 0).await.unwrap_err();
            says(&error, &["401 Unauthorized (from 127.0.0.1, where it sent us)"]);
            assert!(authorizations(&evil, "").iter().all(String::is_empty));
            assert!(evil.seen("/token").is_empty());
            served.faults(|it| it.redirect = None);

            // A layer's own addresses are never asked, whatever the registry lacks.
            evil.forget_seen();
            let mut foreign =
                Descriptor::new("application/vnd.oci.image.layer.nondistributable.v1.tar", Digest::of(b"x"), 1);
            foreign.urls = vec![format!("{}/x", evil.url())];
            assert_eq!(fetch(&remote, &foreign, 0).await.unwrap_err().kind, Kind::NotFound);
            assert!(evil.seen("").is_empty());
        }
    });
}

#[test]
fn credentials_of_one_registry_are_not_those_of_another() {
    let served = Served::start();
    let other = Served::start();
    served.faults(|it| it.auth = Auth::Basic("me".into(), "secret".into()));
    let (descriptor, bytes) = blob(&served, "app", 1000);
    run(async {
        let mut access = user("me", "secret");
        access.credentials.as_mut().unwrap().host = other.host();
        let error = fetch(&remote(&served.host(), "app", access).await, &descriptor, 0).await.unwrap_err();
        says(&error, &["none are known"]);
        assert!(authorizations(&served, "").iter().all(String::is_empty));

        let auth = "bWU6c2VjcmV0";
        let config = |host: &str| serde_json::json!({"auths": {host: {"auth": auth}}}).to_string();
        let access = Access { docker_config: Some(config(&other.host())), ..Access::default() };
        assert!(fetch(&remote(&served.host(), "app", access).await, &descriptor, 0).await.is_err());
        assert!(authorizations(&served, "").iter().all(String::is_empty));
        let access = Access { docker_config: Some(config(&served.host())), ..Access::default() };
        assert_eq!(fetch(&remote(&served.host(), "app", access).await, &descriptor, 0).await.unwrap(), bytes);
    });
}

#[test]
fn logging_in_tries_credentials() {
    let served = Served::start();
    let registry = Registry::new(config()).unwrap();
    run(async {
        let host = served.host();
        assert_eq!(registry.login(&host, Access::default()).await.unwrap(), None, "it takes everybody");
        served.faults(|it| it.auth = Auth::Basic("me".into(), "secret".into()));
        assert_eq!(registry.login(&host, user("me", "secret")).await.unwrap(), None);
        let error = registry.login(&host, user("me", "wrong")).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unauthenticated);
        says(&error, &[&host, "log in"]);
        served.faults(|it| it.auth = Auth::Bearer(bearer("me", "secret")));
        assert_eq!(registry.login(&host, user("me", "secret")).await.unwrap().as_deref(), Some("refresh-1"));
        let error = registry.login(&host, user("me", "wrong")).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unauthenticated);
        says(&error, &[&host, "incorrect username or password"]);
        for wrong in ["", "a b", "registry/path", "short"] {
            assert_eq!(
                registry.login(wrong, Access::default()).await.unwrap_err().kind,
                Kind::InvalidArgument,
                "{wrong}"
            );
        }
    });
}

#[test]
fn token_servers_that_fail_are_named() {
    let served = Served::start();
    let (descriptor, bytes) = blob(&served, "app", 1000);
    served.faults(|it| it.auth = Auth::Bearer(Bearer::default()));
    run(async {
        let remote = remote(&served.host(), "app", Access::default()).await;
        for (body, says_so) in
            [("<html>", "no JSON"), ("{}", "has no token"), (r#"{"token": "a\nb"}"#, "no header can have")]
        {
            served.faults(|it| it.instead = [Instead { body: body.into(), ..Instead::new("/token", 200) }].into());
            says(&fetch(&remote, &descriptor, 0).await.unwrap_err(), &[&served.host(), "fetch the blob", says_so]);
        }
        let headers = vec![("location", "http://127.0.0.2/".to_owned())];
        served.faults(|it| it.instead = [Instead { headers, ..Instead::new("/token", 302) }].into());
        says(&fetch(&remote, &descriptor, 0).await.unwrap_err(), &["302 Found"]);
        served.faults(|it| it.instead = [Instead::new("/token", 503), Instead::new("/token", 429)].into());
        assert_eq!(fetch(&remote, &descriptor, 0).await.unwrap(), bytes);
    });
}

use std::net::Ipv4Addr;

use integration::registry::{Auth, Ca};

use super::*;
use crate::error::Kind;

fn write(dir: &std::path::Path, host: &str, file: &str, text: &str) {
    std::fs::create_dir_all(dir.join(host)).unwrap();
    std::fs::write(dir.join(host).join(file), text).unwrap();
}

async fn of(config: RegistryConfig, host: &str, access: Access) -> Remote {
    Registry::new(config).unwrap().remote(&format!("{host}/app").parse().unwrap(), access).await.unwrap()
}

#[test]
fn a_private_authority_is_trusted_where_it_is_configured() {
    let ca = Ca::new();
    let served = Served::start_at(Ipv4Addr::LOCALHOST.into(), Some(ca.server(Ipv4Addr::LOCALHOST.into(), false)));
    let (descriptor, bytes) = blob(&served, "app", 1 << 20);
    let dir = tempfile::tempdir().unwrap();
    run(async {
        let host = served.host();
        let error = fetch(&of(config(), &host, Access::default()).await, &descriptor, 0).await.unwrap_err();
        assert_eq!(error.kind, Kind::FailedPrecondition);
        says(&error, &[&host, "certificate", "certs.d, as ca.crt"]);
        assert!(served.seen("").is_empty(), "nothing was sent without a certificate that is believed");
        let careless = Access { skip_verify: true, ..Access::default() };
        assert_eq!(fetch(&of(config(), &host, careless).await, &descriptor, 0).await.unwrap(), bytes);
        write(dir.path(), &host, "ca.crt", ca.pem());
        let trusting = with_hosts(dir.path().to_path_buf());
        assert_eq!(fetch(&of(trusting.clone(), &host, Access::default()).await, &descriptor, 0).await.unwrap(), bytes);
        // Another authority's certificate is none.
        write(dir.path(), &host, "ca.crt", Ca::new().pem());
        assert!(fetch(&of(trusting.clone(), &host, Access::default()).await, &descriptor, 0).await.is_err());
        write(dir.path(), &host, "ca.crt", "nonsense");
        let error = fetch(&of(trusting, &host, Access::default()).await, &descriptor, 0).await.unwrap_err();
        says(&error, &["ca.crt", "no certificate in PEM"]);
    });
}

#[test]
fn a_clients_certificate_is_shown_to_its_host_alone() {
    let ca = Ca::new();
    let served = Served::start_at(Ipv4Addr::LOCALHOST.into(), Some(ca.server(Ipv4Addr::LOCALHOST.into(), true)));
    let elsewhere = Served::start_at(Ipv4Addr::LOCALHOST.into(), Some(ca.server(Ipv4Addr::LOCALHOST.into(), true)));
    let (descriptor, bytes) = blob(&served, "app", 1000);
    blob(&elsewhere, "app", 1000);
    let dir = tempfile::tempdir().unwrap();
    let host = served.host();
    write(dir.path(), &host, "ca.crt", ca.pem());
    run(async {
        let configured = with_hosts(dir.path().to_path_buf());
        assert!(fetch(&of(configured.clone(), &host, Access::default()).await, &descriptor, 0).await.is_err());
        let (certificate, key) = ca.client();
        write(dir.path(), &host, "client.cert", &certificate);
        write(dir.path(), &host, "client.key", &key);
        let remote = of(configured, &host, Access::default()).await;
        assert_eq!(fetch(&remote, &descriptor, 0).await.unwrap(), bytes);
        // The other one wants a certificate too, and gets none.
        served.faults(|it| it.redirect = Some(elsewhere.url()));
        assert!(fetch(&remote, &descriptor, 0).await.is_err());
        assert!(elsewhere.seen("").is_empty());
    });
}

#[test]
fn tls_is_not_left_on_the_way() {
    let ca = Ca::new();
    let served = Served::start_at(Ipv4Addr::LOCALHOST.into(), Some(ca.server(Ipv4Addr::LOCALHOST.into(), false)));
    let plain = Served::start();
    let (descriptor, _) = blob(&served, "app", 1000);
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &served.host(), "ca.crt", ca.pem());
    run(async {
        served.faults(|it| it.redirect = Some(plain.url()));
        let remote = of(with_hosts(dir.path().to_path_buf()), &served.host(), Access::default()).await;
        says(&fetch(&remote, &descriptor, 0).await.unwrap_err(), &["which is without TLS"]);
        assert!(plain.seen("").is_empty());
    });
}

#[test]
fn plain_http_is_for_loopback_and_those_who_ask_for_it() {
    let served = Served::start();
    let (descriptor, bytes) = blob(&served, "app", 1000);
    run(async {
        for name in [format!("localhost:{}", served.port()), served.host()] {
            assert_eq!(fetch(&of(config(), &name, Access::default()).await, &descriptor, 0).await.unwrap(), bytes);
        }
        // Whoever wants TLS checked, or skipped, wants TLS.
        let careless = Access { skip_verify: true, ..Access::default() };
        let error = fetch(&of(config(), &served.host(), careless).await, &descriptor, 0).await.unwrap_err();
        says(&error, &["it does not speak TLS", "plain_http"]);
        let plain = Access { plain_http: true, skip_verify: true, ..Access::default() };
        assert_eq!(fetch(&of(config(), &served.host(), plain).await, &descriptor, 0).await.unwrap(), bytes);
    });
}

#[test]
fn mirrors_are_asked_first_and_passed_over_when_they_fail() {
    let (served, mirror) = (Served::start(), Served::start());
    let (descriptor, bytes) = blob(&served, "app", 1 << 20);
    let (manifest, document) = image(&served, "app", "1");
    let dir = tempfile::tempdir().unwrap();
    let host = served.host();
    let hosts = format!(
        "server = \"http://{host}\"\n[host.\"http://{}\"]\ncapabilities = [\"pull\"]\n[host.\"http://{0}\".header]\nx-key = \"k\"\n",
        mirror.host()
    );
    write(dir.path(), &host, "hosts.toml", &hosts);
    run(async {
        let (access, heard) = noticing();
        let remote = of(with_hosts(dir.path().to_path_buf()), &host, access).await;
        // It has nothing yet.
        assert_eq!(fetch(&remote, &descriptor, 0).await.unwrap(), bytes);
        assert_eq!(remote.manifest(&manifest).await.unwrap(), document);
        says(
            &Error::internal(heard.lock().unwrap()[0].clone()),
            &[&mirror.host(), "404 Not Found", "the next host is asked"],
        );
        let asked = mirror.seen("/blobs/").remove(0);
        assert!(asked.path.ends_with(&format!("?ns={host}")), "{}", asked.path);
        assert_eq!(asked.headers["x-key"], "k");
        assert!(served.seen("").iter().all(|it| !it.headers.contains_key("x-key")));
        // What a tag is, it is not asked.
        let reference: Reference = format!("{host}/app:1").parse().unwrap();
        mirror.forget_seen();
        remote.resolve(&reference).await.unwrap();
        assert!(mirror.seen("").is_empty());
        // It has all, until it breaks in the middle.
        blob(&mirror, "app", 1 << 20);
        served.forget_seen();
        let stream = remote.blob(&descriptor, 0).await.unwrap();
        assert_eq!(stream.host(), mirror.host());
        assert_eq!(all(stream).await.unwrap(), bytes);
        assert!(served.seen("").is_empty());
        mirror.faults(|it| it.cut = Some((1000, 2)));
        assert_eq!(fetch(&remote, &descriptor, 0).await.unwrap(), bytes);
        assert_eq!(served.seen("/blobs/")[0].range.as_deref(), Some("bytes=2000-"));
        // Nobody pushes to it.
        mirror.forget_seen();
        assert!(remote.blob_exists(&descriptor).await.unwrap());
        remote.put_manifest(Some("2"), media::MANIFEST, &document).await.unwrap();
        assert!(mirror.seen("").is_empty());
        // It lies.
        mirror.faults(|it| it.wrong_bytes = true);
        assert_eq!(remote.document(&descriptor, limit::CONFIG).await.unwrap(), bytes);
        says(&Error::internal(heard.lock().unwrap().last().unwrap().clone()), &["what came has the digest"]);
        // And is left alone for the rest of the call.
        mirror.forget_seen();
        assert_eq!(fetch(&remote, &descriptor, 0).await.unwrap(), bytes);
        assert!(mirror.seen("").is_empty());
        assert!(!remote.avoid(&host), "there is no other");
        assert!(fetch(&remote, &descriptor, 0).await.unwrap_err().message.contains("no host"));
    });
}

/// A mirror's 401 is not answered with the registry's password.
#[test]
fn a_mirror_gets_no_credentials_of_the_registry() {
    let (served, mirror) = (Served::start(), Served::start());
    let (descriptor, bytes) = blob(&served, "app", 1000);
    let basic = || Auth::Basic("me".into(), "secret".into());
    served.faults(|it| it.auth = basic());
    mirror.faults(|it| it.auth = basic());
    let dir = tempfile::tempdir().unwrap();
    let host = served.host();
    let hosts = format!("server = \"http://{host}\"\n[host.\"http://{}\"]\n", mirror.host());
    write(dir.path(), &host, "hosts.toml", &hosts);
    run(async {
        let remote = of(with_hosts(dir.path().to_path_buf()), &host, user("me", "secret")).await;
        assert_eq!(fetch(&remote, &descriptor, 0).await.unwrap(), bytes);
        assert!(!mirror.seen("").is_empty());
        assert!(mirror.seen("").iter().all(|it| it.authorization.is_none()));
    });
}

#[test]
fn what_is_on_this_host_needs_no_proxy() {
    let served = Served::start();
    let (descriptor, bytes) = blob(&served, "app", 1000);
    run(async {
        let config = RegistryConfig { proxies: Proxies::Only("http://127.0.0.1:9".into()), ..config() };
        assert_eq!(fetch(&of(config, &served.host(), Access::default()).await, &descriptor, 0).await.unwrap(), bytes);
    });
}

/// Through a proxy that reads what it is asked, and refuses: to registries of TLS by CONNECT, to others by whole addresses.
#[test]
fn other_hosts_are_reached_through_the_proxy() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    run(async {
        let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://user:pass@{}", proxy.local_addr().unwrap());
        let config = RegistryConfig {
            proxies: Proxies::Only(address),
            tries: Tries { most: 1, ..Tries::default() },
            ..config()
        };
        let heard = async {
            let mut heard = Vec::new();
            for answer in ["HTTP/1.1 407 No\r\n\r\n", "HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n"] {
                let (mut stream, _) = proxy.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                stream.write_all(answer.as_bytes()).await.unwrap();
                heard.push(String::from_utf8(request).unwrap().to_lowercase());
            }
            heard
        };
        let asks = async {
            let descriptor = Descriptor::new(media::LAYER, Digest::of(b"x"), 1);
            let secure = of(config.clone(), "registry.invalid", Access::default()).await;
            let first = fetch(&secure, &descriptor, 0).await.unwrap_err();
            let plain = Access { plain_http: true, ..Access::default() };
            let second = fetch(&of(config.clone(), "registry.invalid", plain).await, &descriptor, 0).await.unwrap_err();
            (first, second)
        };
        let (heard, (first, second)) = tokio::join!(heard, asks);
        assert!(heard[0].starts_with("connect registry.invalid:443 http/1.1\r\n"), "{}", heard[0]);
        assert!(heard[1].starts_with("get http://registry.invalid/v2/app/blobs/"), "{}", heard[1]);
        assert!(heard.iter().all(|it| it.contains("proxy-authorization: basic dxnlcjpwyxnz")), "{heard:?}");
        says(&first, &["registry registry.invalid", "the proxy 127.0.0.1 wants credentials"]);
        assert_eq!(second.kind, Kind::NotFound);
    });
}

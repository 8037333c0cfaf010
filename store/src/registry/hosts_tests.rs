use super::*;

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn of(dir: &Path, name: &str, access: &Access) -> Result<Vec<Endpoint>> {
    endpoints(&[dir.join("none"), dir.to_path_buf()], &format!("{name}/app").parse().unwrap(), access)
}

fn shown(endpoint: &Endpoint) -> String {
    let can = endpoint.can;
    let can: String = [(can.pull, 'p'), (can.resolve, 'r'), (can.push, 'w'), (can.referrers, 'l')]
        .iter()
        .filter_map(|(can, letter)| can.then_some(*letter))
        .collect();
    let namespace = endpoint.namespace.as_deref().unwrap_or("-");
    format!("{:?} {}{} {can} {namespace}", endpoint.scheme, endpoint.authority, endpoint.prefix)
}

#[test]
fn without_configuration_a_registry_is_itself() {
    let dir = tempfile::tempdir().unwrap();
    for (registry, access, expected) in [
        ("docker.io", Access::default(), "Https registry-1.docker.io/v2 prwl -"),
        ("a.example:5000", Access::default(), "Https a.example:5000/v2 prwl -"),
        ("a.example", Access { plain_http: true, ..Access::default() }, "Http a.example/v2 prwl -"),
        ("localhost:5000", Access::default(), "Either localhost:5000/v2 prwl -"),
        ("127.1.2.3:5000", Access::default(), "Either 127.1.2.3:5000/v2 prwl -"),
        ("[::1]:5000", Access::default(), "Either [::1]:5000/v2 prwl -"),
        ("localhost:5000", Access { skip_verify: true, ..Access::default() }, "Https localhost:5000/v2 prwl -"),
        ("localhost.evil.example", Access::default(), "Https localhost.evil.example/v2 prwl -"),
    ] {
        assert_eq!(of(dir.path(), registry, &access).unwrap().iter().map(shown).collect::<Vec<_>>(), [expected]);
    }
}

#[test]
fn hosts_toml_orders_mirrors_as_they_stand() {
    let dir = tempfile::tempdir().unwrap();
    write(
        &dir.path().join("docker.io/hosts.toml"),
        r#"
server = "https://docker.io"
[host."https://z.example"]
  capabilities = ["pull"]
  [host."https://z.example".header]
    X-Key = ["1", "2"]
    X-One = "3"
[host."http://a.example:5000/proxy/hub"]
  capabilities = ["pull", "Resolve"]
  dial_timeout = "2s"
  realms = ["login.example"]
[host."b.example/x/v2/y"]
  override_path = true
  skip_verify = true
"#,
    );
    let hosts = of(dir.path(), "docker.io", &Access::default()).unwrap();
    assert_eq!(
        hosts.iter().map(shown).collect::<Vec<_>>(),
        [
            "Https z.example/v2 p docker.io",
            "Http a.example:5000/proxy/hub/v2 pr docker.io",
            "Https b.example/x/v2/y prwl docker.io",
            "Https registry-1.docker.io/v2 prwl -",
        ]
    );
    assert_eq!(hosts[0].headers.get_all("x-key").iter().count(), 2);
    assert_eq!((hosts[1].trust.dial_timeout, hosts[1].realms[0].as_str()), (2000, "login.example"));
    assert!(hosts[2].trust.skip_verify && !hosts[3].trust.skip_verify);
}

#[test]
fn certificates_are_found_as_docker_and_containerd_find_them() {
    let dir = tempfile::tempdir().unwrap();
    for (file, text) in [
        ("a.example_5000_/hosts.toml", "ca = \"own.pem\"\nclient = [[\"c.pem\", \"k.pem\"]]\n"),
        ("a.example_5000_/own.pem", "A"),
        ("a.example_5000_/c.pem", "C"),
        ("a.example_5000_/k.pem", "K"),
        ("localhost:5000/ca.crt", "CA"),
        ("localhost:5000/client.cert", "CERT"),
        ("localhost:5000/client.key", "KEY"),
        ("_default/hosts.toml", "[host.\"https://mirror.example\"]\n"),
    ] {
        write(&dir.path().join(file), text);
    }
    let own = of(dir.path(), "a.example:5000", &Access::default()).unwrap().remove(0);
    assert_eq!((own.trust.authorities[0].1.as_slice(), own.trust.client[0].1.as_slice()), (&b"A"[..], &b"C\nK"[..]));
    assert_eq!(shown(&own), "Https a.example:5000/v2 prwl -");
    let docker = of(dir.path(), "localhost:5000", &Access::default()).unwrap().remove(0);
    assert_eq!(docker.trust.client[0].1, b"CERT\nKEY");
    // It has certificates, so it is spoken to by TLS and by nothing else.
    assert_eq!(docker.scheme, Scheme::Https);
    assert!(docker.trust.elsewhere().client.is_empty());
    let other = of(dir.path(), "c.example", &Access::default()).unwrap();
    assert_eq!(
        other.iter().map(shown).collect::<Vec<_>>(),
        ["Https mirror.example/v2 prwl c.example", "Https c.example/v2 prwl -"]
    );
}

#[test]
fn broken_configuration_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for (text, says) in [
        ("server = ", "it is no hosts.toml"),
        ("server = \"ftp://a.example\"", "is not the address of a registry"),
        ("server = \"https://a.example/../b\"", "is not the address of a registry"),
        ("server = \"https://u:p@a.example\"", "is not the address of a registry"),
        ("capabilities = [\"fly\"]", "is no capability"),
        ("dial_timeout = \"soon\"", "is not a duration"),
        ("ca = \"missing.pem\"", "missing.pem: No such file"),
        ("client = [[\"a\", \"b\", \"c\"]]", "a client certificate is one file"),
        ("[header]\nContent-Length = \"1\"", "is not a header that can be sent"),
        ("[header]\n\"a b\" = \"1\"", "is not a header that can be sent"),
        ("[header]\nx = \"a\\nb\"", "is not a header that can be sent"),
    ] {
        write(&dir.path().join("a.example/hosts.toml"), text);
        let error = of(dir.path(), "a.example", &Access::default()).unwrap_err();
        assert!(error.message.contains(says), "{text}: {error}");
    }
}

use super::*;

#[test]
fn volumes_are_read_as_docker_reads_them() {
    let bind = |it: &str| Volume::Bind(it.to_owned());
    let here = std::env::current_dir().unwrap();
    for (text, expected) in [
        ("/data", Volume::Unnamed("/data".to_owned())),
        ("/srv/www:/var/www/", bind("/srv/www:/var/www")),
        ("/srv/../www:/a/./b:ro", bind("/www:/a/b:ro")),
        ("data:/data:nocopy,z", bind("data:/data:nocopy,z")),
        ("/a:/b:rslave", bind("/a:/b:rslave")),
        ("./x:/x", bind(&format!("{}/x:/x", here.display()))),
        (".:/x", bind(&format!("{}:/x", here.display()))),
    ] {
        assert_eq!(volume(text).unwrap(), expected, "{text}");
    }
    for (text, expected) in [
        ("", "empty part"),
        ("data:", "empty part"),
        ("data", "does not begin with /"),
        ("a:b", "does not begin with /"),
        ("/a:/", "has / itself"),
        ("/a:/..", "has / itself"),
        ("/a:/b:ro:rw", "too many parts"),
        ("/a:/b:rx", "which is none"),
        ("/a:/b:ro,rw", "exclude each other"),
        ("/a:/b:nocopy", "only a volume"),
        ("data:/b:shared", "a volume cannot have"),
        ("d!ta:/b", "does not begin with a path or a volume"),
    ] {
        let error = volume(text).expect_err(text);
        assert!(error.message.contains(expected), "{text}: {error}");
    }
}

#[test]
fn mounts_are_read_as_docker_reads_them() {
    let read = mount("type=bind,src=/tmp,\"dst=/a,b\",readonly,bind-propagation=rslave").unwrap();
    let expected = MountSpec {
        kind: "bind".to_owned(),
        source: "/tmp".to_owned(),
        target: "/a,b".to_owned(),
        read_only: true,
        propagation: "rslave".to_owned(),
        ..MountSpec::default()
    };
    assert_eq!(read, expected);
    let read = mount("source=data,target=/data,volume-nocopy,volume-label=a=b,readonly=false").unwrap();
    assert_eq!(
        (read.kind.as_str(), read.source.as_str(), read.no_copy, read.read_only),
        ("volume", "data", true, false)
    );
    assert_eq!(read.labels["a"], "b");
    let read = mount("type=tmpfs,destination=/t,tmpfs-size=1m,tmpfs-mode=0700").unwrap();
    assert_eq!((read.size_bytes, read.mode), (1 << 20, 0o700));
    for (text, expected) in [
        ("", "the field \"\""),
        ("type=bind,target=/x", "no source"),
        ("type=volume", "no target"),
        ("type=npipe,target=/x", "the type \"npipe\""),
        ("type=bind,source=/no/such/thing,target=/x", "is not there"),
        ("type=bind,source=/tmp,target=x", "does not begin with /"),
        ("type=bind,source=/tmp,target=/x,ro=perhaps", "has ro=perhaps"),
        ("type=bind,source=/tmp,target=/x,volume-nocopy", "which a bind cannot have"),
        ("type=tmpfs,source=/tmp,target=/x", "which a tmpfs cannot have"),
        ("type=tmpfs,target=/x,tmpfs-size=big", "tmpfs-size=big"),
        ("type=tmpfs,target=/x,tmpfs-mode=9", "no mode"),
        ("type=bind,source=/tmp,target=/x,bind-propagation=far", "the propagation \"far\""),
        ("target=/x,nope=1", "the field \"nope\""),
        ("target", "target without a value"),
        ("\"target=/x", "a quote without its end"),
        ("a\"b=/x", "a quote in the middle"),
    ] {
        let error = mount(text).expect_err(text);
        assert!(error.message.contains(expected), "{text}: {error}");
    }
}

#[test]
fn file_systems_in_memory_have_options() {
    let mut all = Map::new();
    tmpfs("/tmp", &mut all).unwrap();
    tmpfs("/run/:size=64m,mode=755,noexec,rw", &mut all).unwrap();
    assert_eq!(
        all.iter().map(|(a, b)| format!("{a}={b}")).collect::<Vec<_>>(),
        ["/run=size=64m,mode=755,noexec,rw", "/tmp="]
    );
    for wrong in ["", "tmp", "/", "/t:size=x", "/t:nope", "/t:mode=9"] {
        assert!(tmpfs(wrong, &mut all).is_err(), "{wrong}");
    }
}

#[test]
fn devices_are_read_as_docker_reads_them() {
    let read = |text: &str| {
        let device = device(text).unwrap();
        format!("{} {} {}", device.path_on_host, device.path_in_container, device.cgroup_permissions)
    };
    assert_eq!(read("/dev/null"), "/dev/null /dev/null rwm");
    assert_eq!(read("/dev/null:r"), "/dev/null /dev/null r");
    assert_eq!(read("/dev/null:/dev/x"), "/dev/null /dev/x rwm");
    assert_eq!(read("/dev/null:/dev/x:rw"), "/dev/null /dev/x rw");
    for wrong in ["", "null", "/dev/null:x", "/dev/null:/dev/x:q", "/dev/null:a:b:c", "/dev/no-such"] {
        assert!(device(wrong).is_err(), "{wrong}");
    }
    for rule in ["c 42:* rmw", "a *:* rwm", "b 8:0 r"] {
        device_rule(rule).unwrap();
    }
    for wrong in ["", "c 42 rwm", "x 1:1 r", "c 1:1 x", "c 1:1", "c a:1 r", "c 1:1  r"] {
        assert!(device_rule(wrong).is_err(), "{wrong}");
    }
}

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;
use crate::client::Programs;
use crate::paths::Paths;
use crate::record::{Container, MountSpec, Status};

struct World {
    dir: tempfile::TempDir,
    client: Client,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let paths = Paths { root: at("root"), run: at("run"), store: at("store.sock") };
        let none = || PathBuf::from("/nonexistent");
        let programs = Programs { store: none(), shim: none(), runtime: none(), tarectl: none() };
        std::fs::create_dir(at("image")).unwrap();
        Self { client: Client::new(paths, programs), dir }
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn prepare(&self, change: impl FnOnce(&mut Container)) -> Result<Container> {
        let mut record = Container { id: crate::records::new_id()?, ..Container::default() };
        change(&mut record);
        let root = File::open(self.image()).unwrap();
        run(prepare(&self.client, &mut record, root.as_fd()))?;
        let mut lock = crate::records::make(&self.client, &record.id)?;
        lock.save(&record)?;
        lock.show(&self.client)?;
        Ok(record)
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn named(name: &str) -> Options {
    Options { name: Some(name.to_owned()), ..Options::default() }
}

#[test]
fn volumes_are_made_listed_and_removed() {
    let World { client, dir: _dir } = World::new();
    assert_eq!(run(list(&client, &Filter::default())).unwrap(), []);
    let labels = Map::from([("a".to_owned(), "b".to_owned())]);
    let made = run(create(&client, &Options { labels: labels.clone(), ..named("data") })).unwrap();
    assert_eq!((made.name.as_str(), made.labels.as_ref(), made.anonymous), ("data", Some(&labels), false));
    assert!(Path::new(&made.mountpoint).is_dir());
    assert_eq!(run(create(&client, &named("data"))).unwrap(), made, "it is there already");
    let other = run(create(&client, &Options::default())).unwrap();
    assert!(other.anonymous && crate::records::is_id(&other.name));
    let names = |filters: &[&str]| {
        let given: Vec<String> = filters.iter().map(|it| (*it).to_owned()).collect();
        let all = run(list(&client, &Filter::parse(&given).unwrap())).unwrap();
        all.into_iter().map(|it| it.name).collect::<Vec<_>>()
    };
    assert_eq!(names(&[]).len(), 2);
    assert_eq!(names(&["label=a"]), ["data"]);
    assert_eq!(names(&["label=a=c"]), [""; 0]);
    assert_eq!(names(&["label!=a"]), std::slice::from_ref(&other.name));
    assert_eq!(names(&["name=at"]), ["data"]);
    assert_eq!(names(&["dangling=false"]), [""; 0]);
    assert_eq!(names(&["dangling=true", "driver=local"]).len(), 2);
    for wrong in ["foo=a", "dangling=maybe", "x"] {
        assert!(Filter::parse(&[wrong.to_owned()]).is_err(), "{wrong}");
    }
    run(remove(&client, "data", false)).unwrap();
    assert!(run(inspect(&client, "data")).unwrap_err().message.contains("no such volume"));
    assert_eq!(run(remove(&client, "data", false)).unwrap_err().kind, Kind::NotFound);
    run(remove(&client, "data", true)).unwrap();
    assert!(!Path::new(&made.mountpoint).try_exists().unwrap());
}

#[test]
fn wrong_volumes_are_refused() {
    let World { client, dir } = World::new();
    for name in ["", "x", "a/b", "../x", "/abs", "a b", "-x"] {
        assert!(run(create(&client, &named(name))).is_err(), "{name:?}");
        assert!(run(inspect(&client, name)).is_err() && run(remove(&client, name, false)).is_err(), "{name:?}");
    }
    assert!(run(create(&client, &Options { driver: "nfs".to_owned(), ..named("data") })).is_err());
    let options = Map::from([("type".to_owned(), "tmpfs".to_owned())]);
    assert!(run(create(&client, &Options { options, ..named("data") })).is_err());
    let left = std::fs::read_dir(dir.path().join("root/volumes"))
        .map(|entries| entries.filter(|it| it.as_ref().unwrap().file_name() != "_.lock").count());
    assert_eq!(left.unwrap_or(0), 0, "nothing half-made");
}

#[test]
fn a_new_volume_takes_over_what_the_image_has_there() {
    let world = World::new();
    let image = world.image();
    std::fs::create_dir_all(image.join("data/sub")).unwrap();
    std::fs::write(image.join("data/sub/file"), "content").unwrap();
    std::fs::hard_link(image.join("data/sub/file"), image.join("data/second")).unwrap();
    std::fs::set_permissions(image.join("data"), std::fs::Permissions::from_mode(0o750)).unwrap();
    symlink("sub/file", image.join("data/link")).unwrap();
    crate::testing::fifo(&image.join("data/fifo"));
    let record = world.prepare(|it| it.host_config.binds = vec!["files:/data".to_owned()]).unwrap();
    let [mount] = record.mounts.as_slice() else { panic!("{:?}", record.mounts) };
    assert_eq!((mount.kind.as_str(), mount.name.as_str(), mount.mode.as_str()), ("volume", "files", "z"));
    let data = Path::new(&mount.source);
    assert_eq!(std::fs::read_to_string(data.join("link")).unwrap(), "content");
    let metadata = |path: &str| data.join(path).metadata().unwrap();
    assert_eq!(metadata("second").ino(), metadata("sub/file").ino(), "one file with two names");
    assert_eq!(data.metadata().unwrap().mode() & 0o7777, 0o750);
    assert!(!data.join("../filling").try_exists().unwrap());
    // What is in it stays, and nothing comes back that somebody removed.
    std::fs::remove_file(data.join("second")).unwrap();
    std::fs::write(data.join("sub/file"), "changed").unwrap();
    world.prepare(|it| it.host_config.binds = vec!["files:/data".to_owned()]).unwrap();
    assert!(!data.join("second").try_exists().unwrap());
    assert_eq!(std::fs::read_to_string(data.join("sub/file")).unwrap(), "changed");
    // A fill that was cut off is done again.
    std::fs::write(data.join("../filling"), "").unwrap();
    world.prepare(|it| it.host_config.binds = vec!["files:/data".to_owned()]).unwrap();
    assert!(data.join("second").try_exists().unwrap());
    let empty = world.prepare(|it| it.host_config.binds = vec!["none:/data:nocopy".to_owned()]).unwrap();
    assert_eq!(std::fs::read_dir(&empty.mounts[0].source).unwrap().count(), 0);
}

/// CVE-2022-23648: a volume's path is a link in the image, and the host's files are copied in.
#[test]
fn cve_2022_23648_a_volume_is_not_filled_from_outside_the_image() {
    let world = World::new();
    let secret = world.dir.path().join("secret");
    std::fs::create_dir(&secret).unwrap();
    std::fs::write(secret.join("key"), "secret").unwrap();
    for (name, target) in [("absolute", secret.display().to_string()), ("relative", "../secret".to_owned())] {
        symlink(&target, world.image().join(name)).unwrap();
        let record =
            world.prepare(|it| it.config.volumes = Some([(format!("/{name}"), serde_json::json!({}))].into())).unwrap();
        assert_eq!(std::fs::read_dir(&record.mounts[0].source).unwrap().count(), 0, "{name}");
    }
    symlink("/proc/self/root/etc", world.image().join("magic")).unwrap();
    let magic = world.prepare(|it| it.config.volumes = Some([("/magic".to_owned(), serde_json::json!({}))].into()));
    assert_eq!(std::fs::read_dir(&magic.unwrap().mounts[0].source).unwrap().count(), 0);
}

#[test]
fn mounts_are_those_that_docker_would_make() {
    let world = World::new();
    let host = world.dir.path().join("host");
    std::fs::create_dir(&host).unwrap();
    let host = host.display().to_string();
    let record = world
        .prepare(|it| {
            it.host_config.binds =
                vec![format!("{host}:/h:ro"), format!("{host}/made//x/:/made"), format!("{host}:/s:rslave,z")];
            it.host_config.mounts = vec![
                MountSpec { kind: "tmpfs".to_owned(), target: "/t".to_owned(), ..MountSpec::default() },
                MountSpec {
                    kind: "volume".to_owned(),
                    target: "/v".to_owned(),
                    read_only: true,
                    ..MountSpec::default()
                },
            ];
            it.config.volumes =
                Some([("/h", 0), ("/anon/./x", 0)].map(|(place, _)| (place.to_owned(), serde_json::json!({}))).into());
        })
        .unwrap();
    let shown = |it: &crate::record::Mount| {
        format!(
            "{} {} {} {} {}",
            it.destination,
            it.kind,
            it.mode,
            if it.writable { "rw" } else { "ro" },
            it.propagation
        )
    };
    let all: Vec<String> = record.mounts.iter().map(shown).collect();
    assert_eq!(
        all,
        [
            "/anon/x volume  rw ",
            "/h bind ro ro rprivate",
            "/made bind  rw rprivate",
            "/s bind rslave,z rw rslave",
            "/t tmpfs  rw ",
            "/v volume z ro ",
        ]
    );
    assert!(Path::new(&host).join("made/x").is_dir(), "-v makes what is not there");
    // Another container takes them over, but for its tmpfs and what it says itself.
    let heir = world
        .prepare(|it| {
            it.host_config.volumes_from = vec![format!("{}:ro", record.id)];
            it.host_config.binds = vec!["own:/h".to_owned()];
        })
        .unwrap();
    let all: Vec<String> = heir.mounts.iter().map(shown).collect();
    assert_eq!(
        all,
        [
            "/anon/x volume  ro ",
            "/h volume z rw ",
            "/made bind  ro rprivate",
            "/s bind rslave,z ro rslave",
            "/v volume z ro "
        ]
    );
    assert_eq!(heir.mounts[0].name, record.mounts[0].name);
    // Its unnamed volumes stay while the other has them, and named ones anyway.
    let anonymous = record.mounts[0].name.clone();
    run(remove_anonymous(&world.client, &heir)).unwrap();
    assert!(run(inspect(&world.client, &anonymous)).is_ok());
    let conflict = run(remove(&world.client, "own", false)).unwrap_err();
    assert!(conflict.message.contains("volume is in use") && conflict.message.contains(&heir.id), "{conflict}");
    crate::records::lock(&world.client, &heir.id).unwrap().remove().unwrap();
    run(remove_anonymous(&world.client, &record)).unwrap();
    assert!(run(inspect(&world.client, &anonymous)).is_err());
    assert!(run(inspect(&world.client, "own")).is_ok());
    let pruned = run(prune(&world.client, &Filter::default(), false)).unwrap();
    assert_eq!(pruned.volumes, ["own"]);
}

#[test]
fn wrong_mounts_are_told_and_leave_nothing() {
    let world = World::new();
    let mount = |kind: &str, source: &str, target: &str| MountSpec {
        kind: kind.to_owned(),
        source: source.to_owned(),
        target: target.to_owned(),
        ..MountSpec::default()
    };
    type Change = Box<dyn FnOnce(&mut Container)>;
    let binds = |all: &[&str]| -> Change {
        let all: Vec<String> = all.iter().map(|it| (*it).to_owned()).collect();
        Box::new(move |it| it.host_config.binds = all)
    };
    let mounts = |all: Vec<MountSpec>| -> Change { Box::new(move |it| it.host_config.mounts = all) };
    let from = |name: &str| -> Change {
        let name = name.to_owned();
        Box::new(move |it| it.host_config.volumes_from = vec![name])
    };
    let rows: Vec<(Change, &str)> = vec![
        (binds(&["/a:b"]), "must be absolute"),
        (binds(&["/a:/"]), "can't be '/'"),
        (binds(&["/a:/../"]), "can't be '/'"),
        (binds(&["/a:/b:zz"]), "invalid mode"),
        (binds(&["rel/x:/y"]), "use an absolute path"),
        (binds(&["bad%name:/y"]), "cannot name a volume"),
        (binds(&["nothing"]), "SOURCE:TARGET"),
        (binds(&["v1:/x", "v2:/x/."]), "duplicate mount point: /x"),
        (mounts(vec![mount("bind", "/no/such/source", "/x")]), "bind source path does not exist"),
        (mounts(vec![mount("bind", "rel", "/x")]), "not an absolute path"),
        (mounts(vec![mount("foo", "", "/x")]), "mount type unknown"),
        (mounts(vec![mount("volume", "vv", "/")]), "can't be '/'"),
        (mounts(vec![mount("volume", "/abs", "/x")]), "cannot name a volume"),
        (from("nope"), "no container"),
        (from(""), "names no container"),
        (from("nope:zz"), "invalid mode"),
        (
            Box::new(|it| {
                it.host_config.binds = vec!["v1:/x".to_owned()];
                it.host_config.tmpfs.insert("/x".to_owned(), String::new());
            }),
            "duplicate mount point",
        ),
    ];
    for (change, why) in rows {
        let error = world.prepare(change).expect_err(why);
        assert!(error.message.contains(why), "{why}: {error}");
    }
    assert_eq!(run(list(&world.client, &Filter::default())).unwrap(), []);
}

/// A part of a volume is swapped for a link while it is mounted: what is mounted is inside, or it is an error.
#[test]
fn parts_of_volumes_are_opened_beneath_the_volume() {
    let world = World::new();
    let spec = |subpath: &str| MountSpec {
        kind: "volume".to_owned(),
        source: "shared".to_owned(),
        target: "/part".to_owned(),
        subpath: subpath.to_owned(),
        ..MountSpec::default()
    };
    let record = |subpath: &str| world.prepare(|it| it.host_config.mounts = vec![spec(subpath)]).unwrap();
    let first = record("sub");
    let volume = PathBuf::from(&first.mounts[0].source);
    assert!(hold(&first).is_err(), "it is not there yet");
    std::fs::create_dir(volume.join("sub")).unwrap();
    std::fs::write(volume.join("sub/inside"), "").unwrap();
    let held = hold(&first).unwrap();
    // It is exchanged after the look: what was opened is meant.
    std::fs::rename(volume.join("sub"), volume.join("moved")).unwrap();
    symlink("/etc", volume.join("sub")).unwrap();
    let source = held.source("/part").unwrap();
    assert!(Path::new(&source).join("inside").try_exists().unwrap(), "{source}");
    assert_eq!(held.source("/other"), None);
    assert!(hold(&first).is_err(), "a link out of the volume");
    symlink("../../../../../../../etc", volume.join("up")).unwrap();
    assert!(hold(&record("up")).is_err());
    for wrong in ["/etc", "../x", "a/../../x"] {
        assert!(hold(&record(wrong)).unwrap_err().message.contains("without .."), "{wrong}");
    }
}

#[test]
fn what_a_killed_removal_left_has_no_volume() {
    let world = World::new();
    let using = |status| {
        world.prepare(|it| {
            it.host_config.binds = vec!["data:/d".to_owned()];
            it.state.status = status;
        })
    };
    let left = using(Status::Removing).unwrap();
    run(remove(&world.client, "data", false)).unwrap();
    assert_eq!(crate::records::find(&world.client, &left.id).unwrap_err().kind, Kind::NotFound);
    using(Status::Removing).unwrap();
    let dangling = Filter::parse(&["dangling=true".to_owned()]).unwrap();
    assert_eq!(run(list(&world.client, &dangling)).unwrap().len(), 1);
    using(Status::Removing).unwrap();
    assert_eq!(run(prune(&world.client, &Filter::default(), false)).unwrap().volumes, ["data"]);
    using(Status::Created).unwrap();
    assert_eq!(run(remove(&world.client, "data", false)).unwrap_err().kind, Kind::Conflict);
}

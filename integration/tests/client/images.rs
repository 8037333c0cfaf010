//! Images: fetched, sent, named, removed, saved and loaded, with docker's words, from registries in the world's own network.

use std::fs;
use std::path::Path;

use integration::registry::{Debian, Instead, Registry};
use integration::{skip, store, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{BUSYBOX, World};

/// A registry that only the world reaches.
fn registry(world: &World) -> Registry {
    world.inside(Registry::start)
}

/// The busybox at a registry, and no longer here. Its name, and what it was tagged there.
fn pushed(world: &World, host: &str) -> String {
    let name = format!("{host}/team/box");
    world.ok(&["tag", BUSYBOX, &name]);
    world.ok(&["push", &name]);
    world.ok(&["rmi", &name, BUSYBOX]);
    assert_eq!(world.ok(&["images", "-q"]), "");
    name
}

/// Lines, with what differs from run to run made alike.
fn lines(text: &str) -> Vec<String> {
    let word = |word: &str| match word.strip_suffix(':') {
        Some(id) if id.len() == 12 && id.bytes().all(|it| it.is_ascii_hexdigit()) => "ID:".to_owned(),
        _ if word.starts_with("sha256:") => "DIGEST".to_owned(),
        _ => word.to_owned(),
    };
    text.lines().map(|line| line.split(' ').map(word).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn what_is_pushed_and_pulled_is_told_as_docker_tells_it() {
    let world = World::new();
    let registry = registry(&world);
    let name = format!("{}/team/box", registry.host());
    world.ok(&["tag", BUSYBOX, &name]);
    let pushed = lines(&world.ok(&["push", &name]));
    assert_eq!(
        pushed[..2],
        ["Using default tag: latest".to_owned(), format!("The push refers to repository [{name}]")]
    );
    assert_eq!(pushed.iter().filter(|it| *it == "ID: Pushed").count(), 2, "{pushed:?}");
    assert!(pushed.last().unwrap().starts_with("latest: digest: DIGEST size: "), "{pushed:?}");
    let again = lines(&world.ok(&["push", &name]));
    assert_eq!(again.iter().filter(|it| *it == "ID: Layer already exists").count(), 2, "{again:?}");
    assert_eq!(world.ok(&["push", "-q", &name]), format!("{name}:latest"));

    world.ok(&["rmi", &name, BUSYBOX]);
    let pulled = lines(&world.ok(&["pull", &name]));
    let mut layers = pulled[2..pulled.len() - 3].to_vec();
    layers.sort();
    layers.retain(|it| it != "ID: Verifying Checksum");
    let each = ["ID: Download complete", "ID: Pull complete", "ID: Pulling fs layer"];
    assert_eq!(layers, each.iter().flat_map(|it| [*it, *it]).collect::<Vec<_>>());
    assert_eq!(pulled[..2], ["Using default tag: latest", "latest: Pulling from team/box"]);
    let end = |status: &str| {
        ["Digest: DIGEST".to_owned(), format!("Status: {status} {name}:latest"), format!("{name}:latest")]
    };
    assert_eq!(pulled[pulled.len() - 3..], end("Downloaded newer image for"));
    let again = lines(&world.ok(&["pull", &name]));
    assert_eq!(again[again.len() - 3..], end("Image is up to date for"));
    assert_eq!(world.ok(&["pull", "-q", &name]), format!("{name}:latest"));

    // All tags of a repository.
    world.ok(&["tag", &name, &format!("{name}:two")]);
    world.ok(&["push", "-a", &name]);
    world.ok(&["rmi", &name, &format!("{name}:two")]);
    let all = world.ok(&["pull", "-a", &name]);
    assert!(all.contains("two: Pulling from team/box") && all.ends_with(&name), "{all}");
    let mut tags: Vec<String> =
        world.ok(&["images", "--format", "{{.Tag}}", &name]).lines().map(str::to_owned).collect();
    tags.sort();
    assert_eq!(tags, ["latest", "two"]);
    for (args, why) in [
        (&["pull", "-a", &format!("{name}:two")][..], "leave out"),
        (&["pull", &format!("{name}:none")], "MANIFEST_UNKNOWN"),
        (&["pull", "Upper"], "is not the name of an image"),
        (&["push", "nothing/here"], "tarectl tag"),
        (&["push", "-a", &format!("{name}:two")], "leave out"),
    ] {
        let said = world.refused(args);
        assert!(said.contains(why), "{args:?}: {said}");
    }
}

#[test]
fn an_image_is_meant_by_name_id_prefix_and_digest() {
    let world = World::new();
    let registry = registry(&world);
    let name = pushed(&world, &registry.host());
    world.ok(&["pull", "-q", &name]);
    let id = world.ok(&["images", "-q", "--no-trunc", &name]);
    let digest = world.ok(&["images", "--digests", "--format", "{{.Digest}}", &name]);
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    assert!(digest.starts_with("sha256:") && digest != id, "{digest}");
    let hex = id.trim_start_matches("sha256:");
    for word in [name.as_str(), &format!("{name}:latest"), &id, hex, &hex[..12], &hex[..4], &format!("{name}@{digest}")]
    {
        assert_eq!(world.ok(&["run", "--rm", "--network", "none", word, "echo", "hello"]), "hello", "{word}");
        assert_eq!(world.ok(&["image", "inspect", "-f", "{{.Id}}", word]), id, "{word}");
    }
    // By digest at the registry.
    let by_digest = format!("{name}@{digest}");
    world.ok(&["rmi", &name]);
    assert_eq!(world.ok(&["run", "--rm", "--network", "none", &by_digest, "echo", "hello"]), "hello");
    assert_eq!(world.ok(&["images", "--format", "{{.Repository}} {{.Tag}}"]), format!("{name} <none>"));
    for word in ["feed", "no-such-image-here", &format!("{name}@sha256:{}", "0".repeat(64))] {
        let said = world.refused(&["image", "inspect", word]);
        assert!(said.contains(word), "{said}");
    }
}

#[test]
fn the_pull_policy_says_when_a_registry_is_asked() {
    let world = World::new();
    let registry = registry(&world);
    let name = pushed(&world, &registry.host());
    let run = |policy: &'static str| ["run", "--rm", "--network", "none", "--pull", policy];
    let with = |policy: &'static str| [&run(policy)[..], &[&name, "true"]].concat();
    assert!(world.refused(&with("never")).contains("there is no image"));
    let ran = world.code(&with("missing"), 0);
    assert!(
        ran.stderr.starts_with(&format!("Unable to find image '{name}:latest' locally\nlatest: Pulling from")),
        "{}",
        ran.stderr
    );
    assert_eq!(ran.stdout, "");
    let asked = registry.seen("").len();
    assert_eq!(world.code(&with("missing"), 0).stderr, "");
    world.ok(&with("never"));
    assert_eq!(registry.seen("").len(), asked, "the registry was asked");
    let ran = world.code(&with("always"), 0);
    assert!(ran.stderr.contains("Status: Image is up to date"), "{}", ran.stderr);
    assert!(registry.seen("").len() > asked);
    assert!(world.refused(&with("sometimes")).contains("sometimes"));
    assert!(world.refused(&["pull", "--platform", "linux/s390x", &name]).contains("s390x"));
}

#[test]
fn a_name_that_moves_leaves_the_image_without_one() {
    let world = World::new();
    let registry = registry(&world);
    let name = pushed(&world, &registry.host());
    world.ok(&["pull", "-q", &name]);
    let old = world.ok(&["images", "-q", &name]);
    world.ok(&["create", "--name", "user", "--network", "none", &name]);
    // Another image under the same name.
    world.ok(&["run", "--name", "other", "--network", "none", &name, "touch", "/new"]);
    world.ok(&["commit", "other", &name]);
    let rows = world.ok(&["images", "--format", "{{.ID}} {{.Tag}}"]);
    assert!(rows.lines().any(|it| it == format!("{old} <none>")), "{rows}");
    assert_eq!(rows.lines().count(), 2, "{rows}");
    assert_eq!(world.ok(&["images", "-q", "-f", "dangling=true"]), old);
    // Containers keep it; without them it goes.
    assert!(!world.ok(&["image", "prune", "-f"]).contains("deleted"));
    world.ok(&["rm", "user", "other"]);
    assert!(world.ok(&["image", "prune", "-f"]).contains("deleted: sha256:"));
    assert_eq!(world.ok(&["images", "-q", "-f", "dangling=true"]), "");
    assert_eq!(world.ok(&["images", "--format", "{{.Tag}}"]), "latest");
}

#[test]
fn images_are_removed_as_docker_removes_them() {
    let world = World::new();
    world.ok(&["tag", BUSYBOX, "app:1"]);
    world.ok(&["tag", BUSYBOX, "r.example/app:1"]);
    let id = world.ok(&["images", "-q", "app:1"]);
    assert_eq!(world.ok(&["rmi", "app:1"]), "Untagged: app:1");
    assert!(world.refused(&["rmi", &id]).contains("several repositories"));
    world.ok(&["create", "--name", "user", "--network", "none", BUSYBOX]);
    assert_eq!(world.ok(&["rmi", "r.example/app:1"]), "Untagged: r.example/app:1");
    assert!(world.refused(&["rmi", BUSYBOX]).contains("is used by container"));
    assert!(world.refused(&["rmi", &id]).contains("stopped container"));
    world.ok(&["run", "-d", "--name", "runs", "--network", "none", BUSYBOX, "sleep", "100"]);
    assert!(world.refused(&["rmi", "-f", &id]).contains("running container"));
    world.ok(&["rm", "-f", "runs"]);
    // The name alone goes; the container's image stays until its id is forced away.
    assert_eq!(world.ok(&["rmi", "-f", BUSYBOX]), format!("Untagged: {BUSYBOX}:latest"));
    assert_eq!(world.ok(&["images", "-q"]), id);
    world.ok(&["rm", "user"]);
    let gone = lines(&world.ok(&["rmi", &id]));
    assert_eq!(gone, ["Deleted: DIGEST"; 3], "the image and its two layers");
    assert_eq!(world.ok(&["images"]), "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE");
    // Each is told of, and the others go.
    let said = world.code(&["rmi", "none-1", "none-2"], 125).stderr;
    assert!(said.contains("none-1") && said.contains("none-2"), "{said}");
}

#[test]
fn archives_go_through_files_and_pipes() {
    let world = World::new();
    world.ok(&["tag", BUSYBOX, "app:1"]);
    let id = world.ok(&["images", "-q", "--no-trunc", "app:1"]);
    let file = world.dir.join("app.tar");
    world.ok(&["save", "-o", file.to_str().unwrap(), "app:1", BUSYBOX]);
    let piped = world.code(&["save", "app:1"], 0);
    world.ok(&["rmi", "app:1", BUSYBOX]);
    let mut loaded: Vec<String> =
        world.ok(&["load", "-i", file.to_str().unwrap()]).lines().map(str::to_owned).collect();
    loaded.sort();
    assert_eq!(loaded, ["Loaded image: app:1", "Loaded image: busybox:latest"]);
    world.ok(&["rmi", "app:1", BUSYBOX]);
    let ran = store::run(world.command(&["load"]), Some(&piped.bytes)).ok();
    assert_eq!(ran.stdout, "Loaded image: app:1\n");
    assert_eq!(world.ok(&["images", "-q", "--no-trunc", "app:1"]), id);
    assert_eq!(world.ok(&["run", "--rm", "--network", "none", "app:1", "echo", "hello"]), "hello");
    // What is cut off is no image.
    let ran = store::run(world.command(&["load"]), Some(&piped.bytes[..piped.bytes.len() / 2]));
    assert_eq!((ran.code, ran.stderr.lines().count()), (Some(125), 1), "{}", ran.stderr);
    assert!(world.refused(&["load", "-i", "/none/such.tar"]).contains("/none/such.tar"));
    assert!(world.refused(&["save", "-o", file.to_str().unwrap(), "none"]).contains("none"));
    assert!(file.metadata().unwrap().len() > 1000, "what was there stays");
}

#[test]
fn lists_and_histories_have_dockers_columns() {
    let world = World::new();
    let table = world.ok(&["images"]);
    let mut rows =
        table.lines().map(|it| it.split("   ").map(str::trim).filter(|it| !it.is_empty()).collect::<Vec<_>>());
    assert_eq!(rows.next().unwrap(), ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]);
    let row = rows.next().unwrap();
    assert_eq!(row[..2], [BUSYBOX, "latest"]);
    assert!(row[3].ends_with(" ago") && row[4].ends_with("MB"), "{row:?}");
    let with_digests = world.ok(&["images", "--digests"]);
    assert!(with_digests.starts_with("REPOSITORY   TAG       DIGEST    IMAGE ID"), "{with_digests}");
    let history = world.ok(&["history", BUSYBOX]);
    assert!(history.starts_with("IMAGE          CREATED"), "{history}");
    assert!(history.lines().nth(2).unwrap().starts_with("<missing>"), "{history}");
    let exact = world.ok(&["history", "-H=false", "--format", "{{.CreatedAt}} {{.Size}}", BUSYBOX]);
    let first = exact.lines().next().unwrap().split_once(' ').unwrap();
    assert!(first.0.ends_with('Z') && first.1.parse::<u64>().is_ok(), "{exact}");
    assert_eq!(world.ok(&["images", "-q", "-f", "reference=busy*"]).len(), 12);
    assert_eq!(world.ok(&["images", "-q", "other"]), "");
    let shown = world.ok(&["image", "inspect", BUSYBOX]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    for field in ["Id", "RepoTags", "Created", "Config", "Architecture", "Os", "Size", "RootFS"] {
        assert!(!shown[0][field].is_null(), "{field}: {shown}");
    }
    assert_eq!(shown[0]["RepoTags"][0], "busybox:latest");
}

#[test]
fn a_pull_that_is_interrupted_goes_on_where_it_was() {
    let world = World::new();
    let registry = registry(&world);
    let name = pushed(&world, &registry.host());
    registry.faults(|it| it.slow = Some((16 << 10, 40)));
    let mut pull = world.spawn(&["pull", &name]);
    let ingests = world.dir.join("store/content/ingests");
    wait::until("some of a layer has come", || bytes_below(&ingests) > 100_000);
    kill(Pid::from_raw(pull.id().cast_signed()), Signal::SIGINT).unwrap();
    assert!(!wait::child(&mut pull).success());
    assert_eq!(world.ok(&["images", "-q"]), "", "nothing half-made shows");
    registry.faults(|it| it.slow = None);
    world.ok(&["pull", "-q", &name]);
    let ranges: Vec<String> = registry.seen("/blobs/").into_iter().filter_map(|it| it.range).collect();
    assert!(ranges.iter().any(|it| !it.starts_with("bytes=0-")), "it began anew: {ranges:?}");
    assert_eq!(world.ok(&["run", "--rm", "--network", "none", &name, "echo", "hello"]), "hello");
}

fn bytes_below(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(it) if it.is_dir() => bytes_below(&entry.path()),
            Ok(it) => it.len(),
            Err(_) => 0,
        })
        .sum()
}

#[test]
fn a_terminal_sees_bars() {
    let world = World::new();
    let registry = registry(&world);
    let name = pushed(&world, &registry.host());
    registry.faults(|it| it.slow = Some((64 << 10, 20)));
    let tarectl = world.command(&[]).get_args().last().unwrap().to_str().unwrap().to_owned();
    let mut script = world.program(Path::new("script"));
    script.args(["-qec", &format!("stty cols 120 rows 30; {tarectl} pull {name}"), "/dev/null"]);
    let shown = store::run(script, None).ok().stdout;
    for part in ["Downloading [", "B/", "Pull complete", "\x1b[", "Status: Downloaded newer image"] {
        assert!(shown.contains(part), "{part:?} is not in {shown}");
    }
}

#[test]
fn who_logs_in_may_pull() {
    let world = World::new();
    let Some(registry) = world.inside(Debian::start_with_password) else {
        skip!("the package docker-registry is not installed")
    };
    let (host, name) = (registry.host(), format!("{}/app", registry.host()));
    world.ok(&["tag", BUSYBOX, &name]);
    assert!(world.refused(&["push", &name]).contains(&format!("tarectl login {host}")));
    let login = ["login", "-u", "me", "--password-stdin", host];
    let wrong = world.fed(&login, "wrong\n");
    assert_eq!((wrong.code, wrong.stderr.trim_end().lines().count()), (Some(125), 1), "{}", wrong.stderr);
    assert!(!world.dir.join("docker/config.json").exists());
    let right = world.fed(&login, "secret\n");
    assert_eq!((right.code, right.stdout.as_str()), (Some(0), "Login Succeeded\n"), "{}", right.stderr);
    world.ok(&["push", &name]);
    world.ok(&["rmi", &name]);
    world.ok(&["pull", "-q", &name]);
    let found = world.ok(&["search", &format!("{host}/ap")]);
    assert_eq!(found.lines().nth(1).map(|it| it.split(' ').next().unwrap()), Some(name.as_str()), "{found}");
    assert_eq!(world.ok(&["logout", host]), format!("Removing login credentials for {host}"));
    assert_eq!(world.ok(&["logout", host]), format!("Not logged in to {host}"));
    assert!(world.refused(&["pull", &name]).contains(&format!("tarectl login {host}")));
    assert!(world.refused(&["login", "--password-stdin", host]).contains("--username"));
    assert!(world.refused(&["login", host]).contains("no terminal"));
}

#[test]
fn a_registry_that_knows_searches_is_shown_as_docker_shows_its_own() {
    let world = World::empty();
    let registry = registry(&world);
    let body = r#"{"results": [{"name": "app", "description": "What it is\nand does", "star_count": 7, "is_official": true},
        {"name": "other/app", "star_count": 1}]}"#;
    let answer = || Instead { body: body.into(), ..Instead::new("GET /v1/search", 200) };
    registry.faults(|it| it.instead = [answer(), answer()].into());
    let host = registry.host();
    let found = world.ok(&["search", &format!("{host}/app")]);
    let mut rows =
        found.lines().map(|it| it.split("  ").map(str::trim).filter(|it| !it.is_empty()).collect::<Vec<_>>());
    assert_eq!(rows.next().unwrap(), ["NAME", "DESCRIPTION", "STARS", "OFFICIAL", "AUTOMATED"]);
    assert_eq!(rows.next().unwrap(), [&format!("{host}/app"), "What it is and does", "7", "[OK]"]);
    let many = world.ok(&["search", "--filter", "stars=5", "--format", "{{.Name}}", &format!("{host}/app")]);
    assert_eq!(many, format!("{host}/app"));
}

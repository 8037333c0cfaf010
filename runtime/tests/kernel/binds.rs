//! Bind mounts: places that have to be made, links, options, owners, propagation.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use serde_json::json;

use crate::Case;
use crate::world::{Node, World, bind, change, proc_mount, table};

pub(crate) const CASES: &[Case] = &[
    ("binds::missing_places_are_made", missing_places_are_made),
    ("binds::a_link_at_the_destination_stays_inside", a_link_at_the_destination_stays_inside),
    ("binds::failures_name_source_destination_and_cause", failures_name_source_destination_and_cause),
    ("binds::options_of_the_mount_and_of_the_tree", options_of_the_mount_and_of_the_tree),
    ("binds::links_are_copied_or_mounted_as_links", links_are_copied_or_mounted_as_links),
    ("binds::owners_are_mapped", owners_are_mapped),
    ("binds::by_default_the_host_is_heard_and_hears_nothing", by_default_the_host_is_heard_and_hears_nothing),
    ("binds::shared_goes_both_ways_but_for_the_root", shared_goes_both_ways_but_for_the_root),
    ("binds::private_goes_no_way", private_goes_no_way),
    ("binds::many_mounts_need_few_files", many_mounts_need_few_files),
    ("binds::the_mount_table_is_in_the_order_of_the_configuration", the_mount_table_is_in_order),
    ("binds::a_read_only_filesystem_has_no_place_to_make", a_read_only_filesystem_has_no_place_to_make),
];

fn missing_places_are_made() {
    let world = World::new();
    world.host_tree(&[("data/file", Node::File("data")), ("one", Node::File("one"))]);
    let plan = world.plan(
        json!([
            bind(world.host("data"), "/a/b/c", &[]),
            bind(world.host("one"), "/etc/deep/one", &[]),
            // Inside the first one: a later mount stands on an earlier one.
            bind(world.host("one"), "/a/b/c/file", &[]),
        ]),
        json!({}),
    );
    plan.enter().unwrap();
    assert_eq!(fs::read_to_string("/etc/deep/one").unwrap(), "one");
    assert_eq!(fs::read_to_string("/a/b/c/file").unwrap(), "one");
    assert_eq!(fs::metadata("/a/b").unwrap().mode() & 0o777, 0o755);
    assert!(fs::read_dir("/").unwrap().all(|entry| entry.unwrap().file_name() != "bundle"));
}

fn a_link_at_the_destination_stays_inside() {
    let world = World::new();
    world.host_tree(&[("one", Node::File("one")), ("outside/file", Node::File("outside"))]);
    world.tree(&[
        ("absolute", Node::Link("/etc/target")),
        ("upward", Node::Link("../../../../../../etc/target")),
        // A link that leads nowhere yet is common for /etc/resolv.conf.
        ("etc/resolv.conf", Node::Link("../run/systemd/resolve/stub-resolv.conf")),
        ("etc/target", Node::File("image's")),
    ]);
    let plan = world.plan(
        json!([
            bind(world.host("one"), "/absolute", &[]),
            bind(world.host("one"), "/upward", &[]),
            bind(world.host("one"), "/etc/resolv.conf", &[]),
        ]),
        json!({}),
    );
    plan.enter().unwrap();
    assert_eq!(fs::read_to_string("/etc/target").unwrap(), "one");
    assert_eq!(fs::read_to_string("/run/systemd/resolve/stub-resolv.conf").unwrap(), "one");
}

fn failures_name_source_destination_and_cause() {
    let world = World::new();
    let shown = |path: &str| world.host(path).display().to_string();
    world.host_tree(&[("dir/x", Node::File("")), ("one", Node::File(""))]);
    world.tree(&[("file", Node::File("")), ("dir", Node::Dir), ("loop", Node::Link("loop"))]);
    let table = [
        ("none", "/data", format!("mount {} on /data: source does not exist", shown("none"))),
        (
            "dir",
            "/file",
            format!("mount {} on /file: the source is a directory, but the destination is not", shown("dir")),
        ),
        (
            "one",
            "/dir",
            format!("mount {} on /dir: the source is not a directory, but the destination is one", shown("one")),
        ),
        (
            "one",
            "/file/x",
            format!("mount {} on /file/x: a part of the destination's path is not a directory", shown("one")),
        ),
        (
            "one",
            "/loop/x",
            format!(
                "mount {} on /loop/x: the destination leads through too many links, or one of procfs",
                shown("one")
            ),
        ),
    ];
    for (source, destination, sentence) in table {
        let plan = world.plan(json!([bind(world.host(source), destination, &[])]), json!({}));
        assert_eq!(plan.failure(), sentence);
    }
    let plan = world.plan_with(json!({"root": {"path": "nowhere"}}));
    let error = plan.open().unwrap_err().to_string();
    assert_eq!(error, format!("open the root directory {}: no such file or directory", shown("bundle/nowhere")));
    let plan = world.plan_with(json!({"root": {"path": "root/file"}}));
    assert!(plan.open().unwrap_err().to_string().ends_with("not a directory"));
}

fn options_of_the_mount_and_of_the_tree() {
    let world = World::new();
    world.host_tree(&[("tree/below", Node::Dir)]);
    mount(Some("below"), &world.host("tree/below"), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    let plan = world.plan(
        json!([
            proc_mount(),
            bind(world.host("tree"), "/one", &["ro", "nosuid", "noexec", "nosymfollow"]),
            bind(world.host("tree"), "/all", &["rro", "rnodev", "noatime"]),
            bind(world.host("tree"), "/mixed", &["rro", "rw"]),
            {"destination": "/alone", "type": "none", "source": world.host("tree"), "options": ["bind"]},
        ]),
        json!({}),
    );
    plan.enter().unwrap();
    let table = table();
    let one = &table["/one"];
    assert!(one.has("ro") && one.has("nosuid") && one.has("noexec") && one.has("nosymfollow"), "{one:?}");
    assert!(table["/one/below"].has("rw"));
    assert!(table["/all"].has("ro") && table["/all"].has("nodev") && table["/all"].has("noatime"));
    assert!(table["/all/below"].has("ro") && table["/all/below"].has("nodev") && !table["/all/below"].has("noatime"));
    // As runc: the words for the tree come after those for the mount.
    assert!(table["/mixed"].has("ro"));
    assert!(!table.contains_key("/alone/below"));
}

fn links_are_copied_or_mounted_as_links() {
    let world = World::new();
    world.host_tree(&[("link", Node::Link("target")), ("target", Node::File("target's"))]);
    world.tree(&[("there", Node::Link("elsewhere")), ("elsewhere", Node::File("elsewhere's"))]);
    let plan = world.plan(
        json!([
            bind(world.host("link"), "/copied", &["copy-symlink"]),
            bind(world.host("target"), "/file", &["copy-symlink"]),
            bind(world.host("link"), "/mounted", &["src-nofollow"]),
            bind(world.host("target"), "/there", &["dest-nofollow"]),
        ]),
        json!({}),
    );
    plan.enter().unwrap();
    assert_eq!(fs::read_link("/copied").unwrap(), Path::new("target"));
    assert_eq!(fs::read_to_string("/file").unwrap(), "target's");
    assert_eq!(fs::read_link("/mounted").unwrap(), Path::new("target"));
    assert_eq!(fs::read_to_string("/there").unwrap(), "target's");
    assert_eq!(fs::read_to_string("/elsewhere").unwrap(), "elsewhere's");
}

fn owners_are_mapped() {
    let world = World::new();
    world.host_tree(&[("data/file", Node::File(""))]);
    std::os::unix::fs::chown(world.host("data/file"), Some(5), Some(6)).unwrap();
    let mut mapped = bind(world.host("data"), "/mapped", &["idmap"]);
    mapped["uidMappings"] = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
    mapped["gidMappings"] = json!([{"containerID": 0, "hostID": 2000, "size": 10}]);
    let mut again = mapped.clone();
    again["destination"] = json!("/again");
    let plan = world.plan(json!([mapped, again, bind(world.host("data"), "/plain", &[])]), json!({}));
    let sources = match plan.open() {
        Err(error) if error.kind() == tare::error::Kind::Unsupported => crate::skip!("{error}"),
        sources => sources.unwrap(),
    };
    plan.mounted_with(sources, || Ok(Vec::new())).and_then(|root| plan.finish(root)).unwrap();
    for path in ["/mapped/file", "/again/file"] {
        let file = fs::metadata(path).unwrap();
        assert_eq!((file.uid(), file.gid()), (1005, 2006), "{path}");
    }
    assert_eq!(fs::metadata("/plain/file").unwrap().uid(), 5);
}

/// A host whose place is shared, with a directory `data`, and a mount `data/m` to come.
fn shared_world() -> World {
    let world = World::new();
    change(&world.place, MsFlags::MS_SHARED);
    world.host_tree(&[("data/host", Node::Dir), ("data/container", Node::Dir)]);
    world.tree(&[("in-root", Node::Dir), ("from-host", Node::Dir)]);
    world
}

/// Mounts in the container and sees what of it the host has; then the other way round.
fn who_hears_whom(world: &World, plan: &crate::world::Plan) -> [bool; 4] {
    let sources = plan.open().unwrap();
    let host = fs::File::open("/proc/self/ns/mnt").unwrap();
    let root = plan.mounted_with(sources, || Ok(Vec::new())).unwrap();
    plan.finish(root).unwrap();
    let container = fs::File::open("/proc/self/ns/mnt").unwrap();
    for path in ["/data/container", "/in-root"] {
        mount(Some("c"), path, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    }
    nix::sched::setns(&host, nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let on_host = table();
    let has = |path: std::path::PathBuf| on_host.contains_key(path.to_str().unwrap());
    let host_hears = has(world.host("data/container"));
    let host_hears_root = has(world.root("in-root"));
    for path in [world.host("data/host"), world.root("from-host")] {
        mount(Some("h"), &path, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    }
    nix::sched::setns(&container, nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let inside = table();
    [host_hears, host_hears_root, inside.contains_key("/data/host"), inside.contains_key("/from-host")]
}

fn by_default_the_host_is_heard_and_hears_nothing() {
    let world = shared_world();
    let plan = world.plan(json!([proc_mount(), bind(world.host("data"), "/data", &[])]), json!({}));
    assert_eq!(who_hears_whom(&world, &plan), [false, false, true, true]);
}

fn shared_goes_both_ways_but_for_the_root() {
    let world = shared_world();
    let plan = world.plan(
        json!([proc_mount(), bind(world.host("data"), "/data", &["rshared"])]),
        json!({"rootfsPropagation": "rshared"}),
    );
    assert_eq!(who_hears_whom(&world, &plan), [true, false, true, false]);
}

fn private_goes_no_way() {
    let world = shared_world();
    let plan = world.plan(
        json!([proc_mount(), bind(world.host("data"), "/data", &["rprivate"])]),
        json!({"rootfsPropagation": "rprivate"}),
    );
    assert_eq!(who_hears_whom(&world, &plan), [false, false, false, false]);
}

fn many_mounts_need_few_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let world = World::new();
    world.host_tree(&[("data", Node::Dir)]);
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let mounts: Vec<_> = (0..1500).map(|n| bind(world.host("data"), &format!("/m/{n}"), &["ro"])).collect();
    let plan = world.plan(json!(mounts), json!({}));
    // As init does it without a privileged parent.
    caps::drop(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_ADMIN).unwrap();
    let mut opening = plan.open().unwrap();
    caps::raise(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_ADMIN).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 100, hard).unwrap();
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let root = plan.set_up(&mut opening, || Ok(Vec::new())).unwrap();
    plan.finish(root).unwrap();
    assert_eq!(fs::read_dir("/m").unwrap().count(), 1500);
    assert!(fs::write("/m/1499/x", "").is_err());
}

fn a_read_only_filesystem_has_no_place_to_make() {
    let world = World::new();
    world.host_tree(&[("data", Node::Dir)]);
    let plan = world
        .plan(json!([bind(world.host("data"), "/ro", &["ro"]), bind(world.host("data"), "/ro/new", &[])]), json!({}));
    let sentence = "the destination does not exist, and cannot be made on a read-only filesystem";
    assert!(plan.failure().ends_with(sentence));
}

fn the_mount_table_is_in_order() {
    let world = World::new();
    world.host_tree(&[("data", Node::Dir)]);
    let tmpfs = |path: &str| json!({"destination": path, "type": "tmpfs"});
    let mounts = json!([
        proc_mount(),
        tmpfs("/t"),
        bind(world.host("data"), "/a", &[]),
        tmpfs("/u"),
        bind(world.host("data"), "/b", &[])
    ]);
    let plan = world.plan(mounts, json!({}));
    caps::drop(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_ADMIN).unwrap();
    let mut opening = plan.open().unwrap();
    caps::raise(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_ADMIN).unwrap();
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let root = plan.set_up(&mut opening, || Ok(Vec::new())).unwrap();
    plan.finish(root).unwrap();
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let places: Vec<&str> = text.lines().map(|line| line.split(' ').nth(4).unwrap()).collect();
    assert_eq!(places, ["/", "/proc", "/t", "/a", "/u", "/b"]);
}

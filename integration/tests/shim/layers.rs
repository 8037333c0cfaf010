//! The store's snapshots as a container's root.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use integration::shim_client::{Streams, block_on};
use integration::store::{Daemon, upper};
use integration::{build_rootfs, report_skip};
use serde_json::{Value, json};
use tare_proto::types;

use super::held::Plan;

const UIDS: (&str, u32) = ("containerd.io/snapshot/uidmapping=0:100000:65536", 100_000);
const GIDS: (&str, u32) = ("containerd.io/snapshot/gidmapping=0:200000:65536", 200_000);

/// Mounts as a request has them.
fn mounts(of: &Value) -> Vec<types::Mount> {
    let text = |it: &Value| it.as_str().unwrap().to_owned();
    let options = |it: &Value| it.as_array().unwrap().iter().map(text).collect();
    let mount = |it: &Value| types::Mount {
        type_: text(&it["type"]),
        source: text(&it["source"]),
        options: options(&it["options"]),
        ..Default::default()
    };
    of.as_array().unwrap().iter().map(mount).collect()
}

/// Whether this kernel is as new as that.
fn is_linux(major: u32, minor: u32) -> bool {
    let name = nix::sys::utsname::uname().unwrap();
    let mut numbers = name.release().to_str().unwrap().split(['.', '-']).map_while(|it| it.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(major), Some(minor))
}

/// Its root's files are whose they are in the image, and what it makes is its own: without a file of the layers being touched.
#[test]
fn a_container_of_other_users_stands_on_layers_that_stay_as_they_are() {
    block_on(async {
        let script = "s='busybox stat -c %u:%g'; [ $($s /theirs) = 7:8 ] && [ $($s /bin/busybox) = 0:0 ] && \
            echo new >/new && echo more >>/theirs && exit 5";
        let map = |host: u32| json!([{"containerID": 0, "hostID": host, "size": 65_536}]);
        let held = Plan::of(&["/bin/sh", "-c", script])
            .edit(|config| {
                config["root"]["readonly"] = json!(false);
                config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
                config["linux"]["uidMappings"] = map(UIDS.1);
                config["linux"]["gidMappings"] = map(GIDS.1);
            })
            .hold()
            .await;
        if !is_linux(5, 19) {
            report_skip("overlays take directories with mapped owners since Linux 5.19");
            return held.end().await;
        }
        let store = Daemon::start();
        let below = upper(&store.json(&["snapshot", "prepare", "one"]));
        build_rootfs(&below);
        fs::write(below.join("theirs"), "text").unwrap();
        chown(below.join("theirs"), Some(7), Some(8)).unwrap();
        // The container's root has no right to other users' files.
        fs::set_permissions(below.join("theirs"), fs::Permissions::from_mode(0o666)).unwrap();
        store.run(&["snapshot", "commit", "one", "base"]).ok();
        let prepared = store.json(&["snapshot", "prepare", "root", "base", "--label", UIDS.0, "--label", GIDS.0]);
        let options = held.launch.options.clone();
        let created =
            held.shim.create_with(&held.id, held.bundle.path(), &Streams::default(), mounts(&prepared), options).await;
        created.unwrap();
        held.shim.start(&held.id, "").await.unwrap();
        assert_eq!(held.shim.wait(&held.id, "").await.unwrap().exit_status, 5);
        held.shim.delete(&held.id, "").await.unwrap();
        let owner = |path: std::path::PathBuf| fs::metadata(path).map(|it| (it.uid(), it.gid())).unwrap();
        let above = upper(&prepared);
        assert_eq!(owner(above.join("new")), (UIDS.1, GIDS.1));
        assert_eq!(owner(above.join("theirs")), (UIDS.1 + 7, GIDS.1 + 8), "a copy is of the container's users");
        assert_eq!((owner(below.join("theirs")), owner(below.join("bin/busybox"))), ((7, 8), (0, 0)));
        store.stop();
        held.end().await;
    });
}

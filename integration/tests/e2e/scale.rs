//! Many containers, many mounts, little memory. No figure of time is judged here: that is the benchmark's, side by side.

use integration::Runtime;
use serde_json::json;

#[test]
fn a_hundred_containers_at_once() {
    let rt = Runtime::from_env();
    let bundle = rt.bundle(&["/bin/echo", "done"]);
    bundle.write();
    let start = |_| rt.spawn(&["run", "--bundle", bundle.path_str(), &rt.fresh_id()], |_| {});
    let running: Vec<_> = (0..100).map(start).collect();
    for one in running {
        assert_eq!(one.wait().ok().stdout, "done\n");
    }
}

#[test]
fn a_thousand_mounts() {
    let rt = Runtime::from_env();
    let mut bundle = rt.bundle(&["/bin/sh", "-c", "grep -c ' /mnt/' /proc/self/mountinfo"]);
    for n in 0..1000 {
        let mount = json!({
            "destination": format!("/mnt/{n}"), "type": "bind", "source": bundle.rootfs().join("etc"), "options": ["rbind", "ro"],
        });
        bundle = bundle.push("/mounts", mount);
    }
    assert_eq!(rt.run(&bundle).ok().stdout, "1000\n");
}

#[test]
fn six_mebibytes_are_enough_to_start() {
    let rt = Runtime::from_env();
    let bundle = rt.bundle(&["/bin/true"]).set("/linux/resources/memory", json!({"limit": 6 * 1024 * 1024}));
    rt.run(&bundle).ok();
}

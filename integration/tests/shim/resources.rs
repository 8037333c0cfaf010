//! What a container stands on: its root's mounts, its memory, what it has used. And that nothing of it is left.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use integration::shim_client::{Streams, block_on, refusal};
use integration::sys::core_cookie;
use integration::{Leaks, build_rootfs, report_skip};
use nix::sys::signal::{Signal, kill};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};
use nix::unistd::Pid;
use serde_json::json;
use tare_proto::ttrpc::Code;
use tare_proto::{cgroups_v1, cgroups_v2, types};

use super::held::{Held, Plan};

const MEMORY: u64 = 64 << 20;
/// A process that wants twice that.
const GREEDY: [&str; 3] = ["/bin/sh", "-c", "exec dd if=/dev/zero of=/dev/null bs=128M count=1"];

fn limited(args: &[&str]) -> Plan {
    Plan::of(args).edit(|config| config["linux"]["resources"]["memory"] = json!({"limit": MEMORY, "swap": MEMORY}))
}

fn mount(kind: &str, source: &Path, options: &[String]) -> types::Mount {
    let source = source.to_str().unwrap().to_owned();
    types::Mount { type_: kind.into(), source, options: options.to_vec(), ..Default::default() }
}

/// Layers as of an image of many, with long paths: the lowest holds the programs, each other one file of its number.
fn many_layers(held: &Held, count: usize) -> (PathBuf, types::Mount) {
    let all = held.rt.fresh_path("layers").join("l".repeat(120));
    let mut lower = Vec::new();
    for number in (1..count).rev() {
        let layer = all.join(format!("{number}-{}", "x".repeat(60)));
        fs::create_dir_all(&layer).unwrap();
        fs::write(layer.join(format!("file-{number}")), "").unwrap();
        fs::write(layer.join("who"), number.to_string()).unwrap();
        lower.push(layer);
    }
    let [programs, upper, work] = ["programs", "upper", "work"].map(|name| all.join(name));
    fs::create_dir_all(&upper).unwrap();
    fs::create_dir_all(&work).unwrap();
    build_rootfs(&programs);
    lower.push(programs);
    let lower: Vec<&str> = lower.iter().map(|layer| layer.to_str().unwrap()).collect();
    let options = [
        "index=off".to_owned(),
        format!("workdir={}", work.display()),
        format!("upperdir={}", upper.display()),
        format!("lowerdir={}", lower.join(":")),
    ];
    (upper, mount("overlay", Path::new("overlay"), &options))
}

/// Mount points and cgroups of the test; processes are looked for at its end.
fn left(held: &Held) -> Leaks {
    let Leaks { mounts, cgroups, .. } = Leaks::snapshot(&held.rt);
    Leaks { mounts, cgroups, ..Leaks::default() }
}

/// An overlay's changes cannot be written to an overlay.
fn is_on_an_overlay(held: &Held) -> bool {
    statfs(held.rt.work()).unwrap().filesystem_type() == OVERLAYFS_SUPER_MAGIC
}

#[test]
fn a_root_of_three_hundred_layers_is_mounted_and_unmounted() {
    block_on(async {
        let script = "test -e /file-1 && test -e /file-299 && cat /who > /new";
        let plan = Plan::of(&["/bin/sh", "-c", script]).edit(|config| config["root"]["readonly"] = json!(false));
        let held = plan.hold().await;
        if is_on_an_overlay(&held) {
            report_skip("the tests work on an overlay, which cannot hold the changes of another");
            return held.end().await;
        }
        let (upper, overlay) = many_layers(&held, 300);
        // The mount point is made by the shim.
        fs::remove_dir_all(held.bundle.rootfs()).unwrap();
        let before = left(&held);
        for _ in 0..2 {
            let options = held.launch.options.clone();
            let mounts = vec![overlay.clone()];
            held.shim.create_with(&held.id, held.bundle.path(), &Streams::default(), mounts, options).await.unwrap();
            held.shim.start(&held.id, "").await.unwrap();
            assert_eq!(held.shim.wait(&held.id, "").await.unwrap().exit_status, 0);
            assert_eq!(fs::read_to_string(upper.join("new")).unwrap(), "299", "the first layer is the topmost");
            held.shim.delete(&held.id, "").await.unwrap();
            assert_eq!(left(&held), before);
        }
        held.end().await;
    });
}

#[test]
fn a_create_that_fails_leaves_no_mount() {
    block_on(async {
        // What a snapshotter gives and cannot be mounted; a runtime that fails when all is mounted.
        for (source, faults) in [("/no/such/directory", ""), ("", "create after-signal 9")] {
            let held = Plan::idle().faults(faults).hold().await;
            let rootfs = held.rt.fresh_path("programs");
            build_rootfs(&rootfs);
            let bind = |source: &Path| mount("bind", source, &["rbind".into(), "ro".into()]);
            let source = if source.is_empty() { rootfs.clone() } else { source.into() };
            let before = left(&held);
            let mounts = vec![bind(&rootfs), bind(&source)];
            let options = held.launch.options.clone();
            let error = held
                .shim
                .create_with(&held.id, held.bundle.path(), &Streams::default(), mounts, options)
                .await
                .unwrap_err();
            assert_ne!(refusal(&error), Some(Code::NOT_FOUND), "to a daemon that is a container that is gone: {error}");
            assert_eq!(left(&held), before);
            held.end().await;
        }
    });
}

#[test]
fn a_deletion_ends_a_create_that_hangs_and_leaves_no_mount() {
    block_on(async {
        let held = Plan::idle().faults("create hang").hold().await;
        let rootfs = held.rt.fresh_path("programs");
        build_rootfs(&rootfs);
        let before = left(&held);
        // One of the two has the name, and hangs.
        let create = || {
            let (shim, id, bundle) = (held.shim.clone(), held.id.clone(), held.bundle.path().to_owned());
            let (mounts, options) = (vec![mount("bind", &rootfs, &["rbind".into()])], held.launch.options.clone());
            tokio::spawn(async move { shim.create_with(&id, &bundle, &Streams::default(), mounts, options).await })
        };
        let (mut one, mut other) = (create(), create());
        let (refused, hangs) = tokio::select! {
            refused = &mut one => (refused, other),
            refused = &mut other => (refused, one),
        };
        assert_eq!(refusal(&refused.unwrap().unwrap_err()), Some(Code::ALREADY_EXISTS));
        let error = held.shim.delete(&held.id, "").await.unwrap_err();
        assert_eq!(refusal(&error), Some(Code::NOT_FOUND), "{error}");
        assert_eq!(left(&held), before, "whoever is told that there is none may remove the bundle");
        let error = hangs.await.unwrap().unwrap_err();
        assert!(error.to_string().contains("it was deleted meanwhile"), "{error}");
        held.end().await;
    });
}

#[test]
fn a_root_may_be_an_image_file() {
    block_on(async {
        let held = Plan::of(&["/bin/sh", "-c", "test -d /proc && exit 5"]).hold().await;
        let (image, rootfs) = (held.rt.fresh_path("image"), held.rt.fresh_path("programs"));
        build_rootfs(&rootfs);
        fs::File::create_new(&image).unwrap().set_len(64 << 20).unwrap();
        let made = Command::new("mkfs.ext4").args(["-q", "-d"]).args([&rootfs, &image]).status();
        if !made.as_ref().is_ok_and(std::process::ExitStatus::success) {
            report_skip(&format!("mkfs.ext4: {made:?}"));
            return held.end().await;
        }
        let before = left(&held);
        let mounts = vec![mount("ext4", &image, &["loop".into(), "ro".into()])];
        let options = held.launch.options.clone();
        let created = held.shim.create_with(&held.id, held.bundle.path(), &Streams::default(), mounts, options).await;
        if let Err(error) = &created
            && (error.to_string().contains("loop device") || error.to_string().contains("no file system"))
        {
            report_skip(&error.to_string());
            return held.end().await;
        }
        created.unwrap();
        held.shim.start(&held.id, "").await.unwrap();
        assert_eq!(held.shim.wait(&held.id, "").await.unwrap().exit_status, 5);
        held.shim.delete(&held.id, "").await.unwrap();
        assert_eq!(left(&held), before);
        held.end().await;
    });
}

/// What serves such a root goes on with the helper's output open; nobody waits for that.
#[test]
fn a_root_may_be_mounted_by_a_helper() {
    block_on(async {
        let mut plan = Plan::of(&["/bin/sh", "-c", "exit 6"]);
        let (programs, helpers) = (plan.rt.fresh_path("programs"), plan.rt.fresh_path("helpers"));
        build_rootfs(&programs);
        fs::create_dir(&helpers).unwrap();
        let helper = helpers.join("mount.fuse3");
        // SOURCE TARGET -o OPTION -t TYPE
        let script = "#!/bin/sh\n[ \"$*\" = \"$1 $2 -o allow_other -t fake\" ] || { echo wrong: $*; exit 1; }\n\
            sleep 1000 &\necho $! > $0.pid\nexec mount --bind \"$1\" \"$2\"\n";
        // Written by another process: a child of a test beside this one might hold it open for writing when it is executed.
        let text = plan.rt.fresh_path("script");
        fs::write(&text, script).unwrap();
        assert!(Command::new("install").args(["-m", "755"]).args([&text, &helper]).status().unwrap().success());
        let path = format!("{}:{}", helpers.display(), std::env::var("PATH").unwrap());
        plan.environment.push(("PATH".into(), path));
        let held = plan.hold().await;
        let before = left(&held);
        let create = async |kind: &str, option: &str| {
            let mounts = vec![mount(kind, &programs, &[option.to_owned()])];
            let options = held.launch.options.clone();
            held.shim.create_with(&held.id, held.bundle.path(), &Streams::default(), mounts, options).await
        };
        let error = create("fuse3.fake", "no").await.unwrap_err();
        assert!(error.to_string().contains("wrong: ") && error.to_string().contains("-o no -t fake"), "{error}");
        assert_eq!(left(&held), before);

        create("fuse3.fake", "allow_other").await.unwrap();
        let serves: i32 = fs::read_to_string(helpers.join("mount.fuse3.pid")).unwrap().trim().parse().unwrap();
        held.shim.start(&held.id, "").await.unwrap();
        assert_eq!(held.shim.wait(&held.id, "").await.unwrap().exit_status, 6);
        held.shim.delete(&held.id, "").await.unwrap();
        assert_eq!(left(&held), before);
        kill(Pid::from_raw(serves), Signal::SIGKILL).unwrap();
        held.end().await;
    });
}

#[test]
fn a_lack_of_memory_is_told_before_the_exit_it_caused() {
    block_on(async {
        let mut held = limited(&GREEDY).hold().await;
        let id = held.id.clone();
        held.run().await;
        assert_eq!(held.shim.wait(&id, "").await.unwrap().exit_status, 137);
        held.shim.delete(&id, "").await.unwrap();
        let told = held.told("delete").await;
        let first_oom = told.iter().position(|line| line == "oom ID").unwrap_or_else(|| panic!("{told:?}"));
        let exit = told.iter().position(|line| line == "exit ID 137").unwrap();
        assert!(first_oom < exit, "{told:?}");
        held.end().await;
    });
}

#[test]
fn a_lack_of_memory_that_spares_the_first_process_is_told() {
    block_on(async {
        let mut held = limited(&["/bin/sleep", "1000"]).hold().await;
        let id = held.id.clone();
        held.run().await;
        for exec in ["one", "two"] {
            held.exec(exec, &GREEDY, &Streams::default()).await;
            assert_eq!(held.shim.wait(&id, exec).await.unwrap().exit_status, 137);
            held.told("oom ID").await;
        }
        held.kill_and_delete().await;
        held.end().await;
    });
}

#[test]
fn statistics_are_those_of_the_container() {
    block_on(async {
        let held = limited(&["/bin/sleep", "1000"]).hold().await;
        let id = held.id.clone();
        held.run().await;
        let v1 = held.shim.stats::<cgroups_v1::Metrics>(&id).await.unwrap();
        let v2 = held.shim.stats::<cgroups_v2::Metrics>(&id).await.unwrap();
        let (limit, used, time) = match (&v1, &v2) {
            (Some(it), None) => (it.memory.usage.limit, it.memory.usage.usage, it.cpu.usage.total),
            (None, Some(it)) => (it.memory.usage_limit, it.memory.usage, it.cpu.usage_usec),
            other => panic!("{other:?}"),
        };
        assert_eq!(limit, MEMORY);
        assert!(used > 0 && used <= MEMORY, "{used}");
        assert!(time > 0);
        held.kill_and_delete().await;
        assert_eq!(refusal(&held.shim.stats::<cgroups_v1::Metrics>(&id).await.unwrap_err()), Some(Code::NOT_FOUND));
        held.end().await;
    });
}

/// That nobody else runs on the cores of the shim, if the daemon wants that: SCHED_CORE.
#[test]
fn the_shim_has_its_cores_to_itself() {
    block_on(async {
        let mut plan = Plan::idle();
        plan.environment.push(("SCHED_CORE".into(), "1".into()));
        let mut held = plan.hold().await;
        held.run().await;
        let log = held.started.read_log();
        match core_cookie(0) {
            Ok(own) => {
                let cookie = core_cookie(held.pid.cast_signed()).unwrap();
                assert!(cookie != 0 && cookie != own, "{cookie}, ours is {own}: {log}");
            }
            Err(error) => {
                // It starts all the same, and says so.
                assert!(log.contains("schedule cores"), "{log}");
                report_skip(&format!("core scheduling: {error}"));
            }
        }
        held.kill_and_delete().await;
        held.end().await;
    });
}

//! buildah as root: containers that are worked on step by step, and a build file.

use integration::need;
use integration::world::{Row, User, World, assert_shown, row, run_rows};

const PROLOGUE: &str = r#"
b() {
	buildah --root /run/world/storage --runroot /run/world/run --storage-driver overlay "$@"
}
BUILDAH_ISOLATION=oci
BUILDAH_RUNTIME=/run/world/bin/tare
export BUILDAH_ISOLATION BUILDAH_RUNTIME
limits="--cgroup-parent $CG/build --ulimit nofile=1024:1024 --ulimit nproc=4096:4096"
"#;

#[test]
fn buildah() {
    need!("buildah");
    assert_shown("buildah", all());
}

fn all() -> (Vec<String>, String) {
    let world = World::start();
    world.prepare(User::Root, &format!("{PROLOGUE}{SETUP}"));
    let before = world.snapshot();
    let mut failures = run_rows(&world, User::Root, PROLOGUE, ROWS);
    world.prepare(User::Root, &format!("{PROLOGUE}b rm -a >/dev/null"));
    failures.extend(world.finish(&before, &["/run/tare", "/run/runc"], |cgroup| cgroup.starts_with("buildah-")));
    (failures, String::new())
}

const SETUP: &str = r#"
mkfifo quiet
b from $limits --network none --name work scratch
b add work rootfs.tar /
b run work true
"#;

const ROWS: &[Row] = &[
    row("run", "b run work echo hello", "hello"),
    Row { feature: "run: exit status", script: "b run work sh -c 'exit 6'", prints: "", status: 6 },
    row("run: standard input", "echo in | b run work cat", "in"),
    row(
        "run: user, directory, environment",
        "b run --user ana --workingdir /www -e A=b work sh -c 'id -un; pwd; echo $A'",
        "ana\n/www\nb",
    ),
    row(
        "run --terminal",
        "script -qec \"buildah --root /run/world/storage --runroot /run/world/run --storage-driver overlay run -t work tty\" \
            /dev/null <>quiet | tr -d '\\r'",
        "/dev/pts/0",
    ),
    row(
        "run: volumes and mounts",
        "mkdir -p vol; echo host >vol/file
         b run -v /run/world/vol:/vol:ro --mount type=tmpfs,destination=/data work sh -c 'exec 2>&1
            cat /vol/file; touch /data/x && stat -c %n /data/x; touch /vol/x || true'",
        "host\n/data/x\ntouch: /vol/x: Read-only file system",
    ),
    row(
        "run: capabilities and the seccomp profile",
        "b run --cap-drop all work grep -E 'CapEff|Seccomp:' /proc/self/status
         b run --cap-add CAP_NET_ADMIN work grep CapEff /proc/self/status",
        "CapEff:\t0000000000000000\nSeccomp:\t2\nCapEff:\t00000000800415fb",
    ),
    row("run: what one step writes the next one reads", "b run work sh -c 'echo kept >/kept'; b run work cat /kept", "kept"),
    row(
        "commit, and a container from that",
        "b config --workingdir /www --cmd 'cat index.html' work
         b commit -q work made >/dev/null
         b from $limits --network none --name second made >/dev/null
         b run second cat /kept index.html",
        "kept\nfrom the image",
    ),
    row(
        "build",
        "mkdir -p context; echo file >context/file
         printf '%s\\n' 'FROM made' 'COPY file /copied' 'RUN cat /copied; id -u' 'USER ana' 'RUN id -un' >context/Dockerfile
         b build -q $limits --network none -t built context >out; grep -vE '^[0-9a-f]{64}$' out || true
         b from $limits --network none --name third built >/dev/null; b run third id -un",
        "ana",
    ),
    Row {
        feature: "build: a failing step's status",
        script: "printf 'FROM made\\nRUN exit 5\\n' >context/Dockerfile; b build -q $limits --network none context",
        prints: "",
        status: 5,
    },
];

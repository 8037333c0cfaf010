//! Images go round: what docker, containerd, podman, buildah, skopeo and umoci make is read, and what leaves here, as an archive, as a
//! directory or by way of a registry, is read by them, and runs there.
//!
//! All of them are the machine's own, each with a state of its own, in a world that goes with the test; the registry is Debian's.

use integration::need;
use integration::store::under_test;
use integration::world::{Row, Server, User, World, assert_shown, docker, row, run_rows};

const PROLOGUE: &str = r#"
t() {
	tare-store --socket /run/world/store.run/s "$@"
}
d() {
	docker -H unix:///run/world/docker.sock "$@"
}
c() {
	ctr --address /run/world/containerd.sock "$@"
}
storage="--root /run/world/storage --runroot /run/world/storage.run --storage-driver overlay"
p() {
	podman $storage --tmpdir /run/world/podman.tmp --cgroup-manager cgroupfs --events-backend file --runtime /run/world/bin/tare "$@"
}
b() {
	BUILDAH_ISOLATION=oci BUILDAH_RUNTIME=/run/world/bin/tare buildah $storage "$@"
}
registry=127.0.0.1:5000
# This host lets nobody raise a hard limit.
limits="--cgroup-parent $CG --ulimit nofile=1024:1024 --ulimit nproc=4096:4096"
# look IMAGE SCRIPT: runs it in what the store has unpacked of an image.
look() {
	chain=$(t --json inspect "$1" | jq -r .chainId)
	mkdir -p seen
	t snapshot view seen "$chain" --target /run/world/seen | sh
	(cd seen && sh -euc "$2") || echo "status $?"
	umount seen
	t snapshot rm seen
}
# What every image of docker's has, and what ours has on it, seen from inside.
theirs='cat made-by second; [ ! -e www/index.html ] && echo gone; stat -c %h second'
ours='cat /made-by-us /second; [ ! -e /made-by ] && echo gone; cat /changed/new'
"#;

/// Two layers by docker: files, a hard link, a whiteout. On it one by us, which takes away what docker made.
const SETUP: &str = r#"
mkdir -p /etc/containers
echo '{"default":[{"type":"insecureAcceptAnything"}]}' >/etc/containers/policy.json
d import -c 'ENV PATH=/bin' rootfs.tar box
d run --name made --network none box sh -c 'echo docker >/made-by; ln /made-by /second; rm /www/index.html; mkdir /changed; echo old >/changed/old'
d commit made made:docker
d save made:docker -o docker.tar
d tag made:docker $registry/made:docker
d push -q $registry/made:docker
t import docker.tar
name=docker.io/library/made:docker
chain=$(t --json inspect $name | jq -r .chainId)
mkdir work
t snapshot prepare work $chain --target /run/world/work | sh
echo tare >work/made-by-us
rm -r work/made-by work/changed
mkdir work/changed
echo new >work/changed/new
umount work
t commit work example.org/made:tare --base $name --message 'by us'
t export example.org/made:tare -o ours.tar
t export example.org/made:tare --directory ours
t push example.org/made:tare $registry/made:tare
"#;

/// What others make.
const IN: &[Row] = &[
    row("docker save", "look docker.io/library/made:docker \"$theirs\"", "docker\ndocker\ngone\n2"),
    row(
        "docker push",
        "t --namespace pushed pull -q $registry/made:docker >/dev/null
         t --json --namespace pushed inspect $registry/made:docker | jq '.diffIds | length'
         t pull -q $registry/made:docker >/dev/null; look $registry/made:docker \"$theirs\"",
        "2\ndocker\ndocker\ngone\n2",
    ),
    row(
        "ctr images export, and push",
        "c images pull --plain-http $registry/made:docker >/dev/null
         c images tag $registry/made:docker example.org/made:ctr >/dev/null
         c images export ctr.tar example.org/made:ctr
         t import ctr.tar >/dev/null; look example.org/made:ctr \"$theirs\"
         c images push --plain-http $registry/made:ctr example.org/made:ctr >/dev/null
         t pull -q $registry/made:ctr >/dev/null; look $registry/made:ctr \"$theirs\"",
        "docker\ndocker\ngone\n2\ndocker\ndocker\ngone\n2",
    ),
    row(
        "podman save in both formats, and push",
        "p pull -q --tls-verify=false $registry/made:docker >/dev/null
         for format in docker-archive oci-archive; do
            p tag $registry/made:docker example.org/made:$format
            p save -q --format $format -o $format.tar example.org/made:$format
            t import $format.tar --name example.org/made:$format >/dev/null; look example.org/made:$format \"$theirs\"
         done
         p push -q --tls-verify=false $registry/made:docker $registry/made:podman
         t pull -q $registry/made:podman >/dev/null; look $registry/made:podman \"$theirs\"",
        "docker\ndocker\ngone\n2\ndocker\ndocker\ngone\n2\ndocker\ndocker\ngone\n2",
    ),
    row(
        "buildah commit, to a registry",
        "b from -q --tls-verify=false --name building $registry/made:docker >/dev/null
         echo buildah >by-buildah; b copy -q building by-buildah /by-buildah >/dev/null
         b commit -q --tls-verify=false building docker://$registry/made:buildah 2>/dev/null >/dev/null
         t pull -q $registry/made:buildah >/dev/null; look $registry/made:buildah \"$theirs; cat by-buildah\"",
        "docker\ndocker\ngone\n2\nbuildah",
    ),
    row(
        "skopeo copy, as OCI, with zstd layers, into a layout and an archive",
        "skopeo copy -q --src-tls-verify=false --dest-compress-format zstd --format oci docker://$registry/made:docker oci:skopeo:zstd
         skopeo copy -q oci:skopeo:zstd oci-archive:skopeo.tar:zstd
         t import skopeo.tar --name example.org/made >/dev/null; look example.org/made:zstd \"$theirs\"
         t import skopeo --name example.org/dir >/dev/null; look example.org/dir:zstd \"$theirs\"",
        "docker\ndocker\ngone\n2\ndocker\ndocker\ngone\n2",
    ),
    row(
        "umoci repack",
        "umoci unpack --image skopeo:zstd tree >/dev/null 2>&1 || {
            skopeo copy -q --src-tls-verify=false docker://$registry/made:docker oci:skopeo:gzip
            umoci unpack --image skopeo:gzip tree >/dev/null
         }
         echo umoci >tree/rootfs/by-umoci; umoci repack --image skopeo:umoci tree >/dev/null
         t import skopeo --name example.org/repacked >/dev/null
         look example.org/repacked:umoci \"$theirs; cat by-umoci\"",
        "docker\ndocker\ngone\n2\numoci",
    ),
];

/// What leaves here.
const OUT: &[Row] = &[
    row(
        "docker load",
        "d load -q -i ours.tar; d run --rm --network none example.org/made:tare sh -c \"$ours\"",
        "Loaded image: example.org/made:tare\ntare\ndocker\ngone\nnew",
    ),
    row(
        "docker pull",
        "d pull -q $registry/made:tare; d run --rm --network none $registry/made:tare sh -c \"$ours\"
         d history --format '{{.Comment}}' $registry/made:tare | head -n 1",
        "127.0.0.1:5000/made:tare\ntare\ndocker\ngone\nnew\nby us",
    ),
    row(
        "ctr images import",
        "c images import ours.tar >/dev/null
         c run --rm --runc-binary tare --cgroup $CG/imported example.org/made:tare imported sh -c \"$ours\"",
        "tare\ndocker\ngone\nnew",
    ),
    row(
        "ctr images pull",
        "c images pull --plain-http $registry/made:tare >/dev/null
         c run --rm --runc-binary tare --cgroup $CG/pulled $registry/made:tare pulled sh -c \"$ours\"",
        "tare\ndocker\ngone\nnew",
    ),
    row(
        "podman load, and pull",
        "p load -q -i ours.tar; p run --rm $limits --network none example.org/made:tare sh -c \"$ours\"
         p pull -q --tls-verify=false $registry/made:tare >/dev/null
         p run --rm $limits --network none $registry/made:tare sh -c \"$ours\"",
        "Loaded image: example.org/made:tare\ntare\ndocker\ngone\nnew\ntare\ndocker\ngone\nnew",
    ),
    row(
        "buildah from",
        "b from -q --tls-verify=false --cgroup-parent $CG/build --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 --network none --name ours $registry/made:tare
         b run ours sh -c \"$ours\"",
        "ours\ntare\ndocker\ngone\nnew",
    ),
    row(
        "skopeo reads them all",
        "digest=$(t --json inspect example.org/made:tare | jq -r .target.digest)
         for from in docker://$registry/made:tare oci-archive:ours.tar oci:ours; do
            [ $(skopeo inspect --tls-verify=false $from 2>/dev/null | jq -r .Digest) = $digest ] && echo same
         done
         skopeo copy -q docker-archive:ours.tar oci:copied:a && echo copied",
        "same\nsame\nsame\ncopied",
    ),
    row(
        "umoci unpack",
        "umoci unpack --image ours:tare bundle >/dev/null; cd bundle
         jq --arg ours \"$ours\" '.process.terminal = false | .process.args = [\"/bin/sh\", \"-c\", $ours]
            | .process.rlimits = [] | .linux.cgroupsPath = \"'$CG'/umoci\"' config.json >new && mv new config.json
         tare run unpacked",
        "tare\ndocker\ngone\nnew",
    ),
];

#[test]
fn images_go_round() {
    need!(
        "dockerd",
        "docker",
        "containerd",
        "ctr",
        "podman",
        "conmon",
        "buildah",
        "skopeo",
        "umoci",
        "docker-registry"
    );
    assert_shown("the store among others", attempt());
}

fn attempt() -> (Vec<String>, String) {
    let world = World::start();
    world.add_program(&under_test());
    let containerd = [
        "containerd",
        "--root=/run/world/containerd",
        "--state=/run/world/containerd.state",
        "--address=/run/world/containerd.sock",
    ];
    let config = "version: 0.1\nstorage: {filesystem: {rootdirectory: /run/world/registry}}\nhttp: {addr: '127.0.0.1:5000'}\n\
                  log: {accesslog: {disabled: true}}\n";
    world.prepare(User::Root, &format!("cat >registry.yml <<'END'\n{config}END\n"));
    let store = [
        "tare-store",
        "--socket=/run/world/store.run/s",
        "serve",
        "--root=/run/world/store",
        "--hosts-dir=/none",
        "--docker-config=",
    ];
    let servers = [
        docker::start(&world, &["--bridge=none", "--iptables=false"]),
        Server::start(&world, &containerd, "containerd successfully booted"),
        Server::start(&world, &["docker-registry", "serve", "/run/world/registry.yml"], "listening on"),
        Server::start(&world, &store, "serving"),
    ];
    world.prepare(User::Root, &format!("{PROLOGUE}{SETUP}"));
    let mut failures = run_rows(&world, User::Root, PROLOGUE, IN);
    failures.extend(run_rows(&world, User::Root, PROLOGUE, OUT));
    let sound = world.sh(User::Root, &format!("{PROLOGUE}t fsck"));
    if sound.status != Some(0) {
        failures.push(format!("--- the store is not sound:\n{}{}", sound.stdout, sound.stderr));
    }
    // The store first: what it says at its end is of interest, what the others say is not.
    let log: Vec<String> = servers.into_iter().rev().map(|it| it.stop(&world)).collect();
    (failures, log[0].clone())
}

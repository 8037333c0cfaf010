//! An ordinary user: `tare` by hand, with a user namespace of one and of several ranges, and podman.
//!
//! The user exists in the world's own /etc only. Where a row does not name the cgroup delegated to it, it has none.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use integration::world::{Row, User, World, assert_shown, row, run_rows};
use integration::{need, sys, wait};

const SETUP: &str = r#"
useradd --uid 2001 --home-dir /run/world/home --create-home --shell /bin/sh ordinary
sed -i '/^ordinary:/d' /etc/subuid /etc/subgid
echo ordinary:100000:65536 >>/etc/subuid
echo ordinary:100000:65536 >>/etc/subgid
install -d -m 700 -o ordinary -g ordinary /run/user/2001
cp -R rootfs home/rootfs
mkfifo home/quiet home/up
# A cgroup of the user's own, in every hierarchy, as a manager would delegate it.
for hierarchy in $(awk '$3 ~ /^cgroup/ {print $2}' /proc/mounts); do
	mkdir -p "$hierarchy$CG/mine"
	# A cpuset of version 1 begins empty.
	for file in "$CG/cpuset.cpus" "$CG/cpuset.mems" "$CG/mine/cpuset.cpus" "$CG/mine/cpuset.mems"; do
		[ ! -e "$hierarchy$file" ] || [ ! -e "$hierarchy/${file##*/}" ] || cat "$hierarchy/${file##*/}" >"$hierarchy$file"
	done
	chown -R ordinary:ordinary "$hierarchy$CG/mine"
done
# In version 2 only what the kernel names is the user's, and the callers are in it: limits above it stay the manager's.
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
	given=/sys/fs/cgroup$CG
	sed 's/^\| / +/g' /sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control
	sed 's/^\| / +/g' "$given/cgroup.controllers" >"$given/cgroup.subtree_control"
	chown root:root "$given/mine/"*
	for file in $(cat /sys/kernel/cgroup/delegate); do
		[ ! -e "$given/mine/$file" ] || chown ordinary:ordinary "$given/mine/$file"
	done
	setpriv --reuid=2001 --regid=2001 --init-groups mkdir "$given/mine/session"
fi
chown -hR ordinary:ordinary home
"#;

const STATES: &[&str] = &["/run/user/2001/tare", "/run/user/2001/runc"];

#[test]
fn rootless_tare() {
    need!("newuidmap", "useradd");
    assert_shown("rootless tare", all_of_tare());
}

fn all_of_tare() -> (Vec<String>, String) {
    let world = World::start();
    world.prepare(User::Root, SETUP);
    let before = world.snapshot();
    let mut failures = run_rows(&world, User::Ordinary, TARE_PROLOGUE, TARE_ROWS);
    failures.extend(run_rows(&world, User::Delegated, TARE_PROLOGUE, DELEGATED_ROWS));
    failures.extend(world.finish(&before, STATES, not_the_callers));
    (failures, String::new())
}

/// The cgroups that are the callers' own, and not containers'.
fn not_the_callers(cgroup: &str) -> bool {
    !matches!(cgroup, "mine" | "session")
}

#[test]
fn rootless_podman() {
    need!("newuidmap", "useradd", "podman", "conmon");
    assert_shown("rootless podman", all_of_podman());
}

fn all_of_podman() -> (Vec<String>, String) {
    let world = World::start();
    world.prepare(User::Root, SETUP);
    let before = world.snapshot();
    world.prepare(User::Ordinary, &format!("{PODMAN_PROLOGUE}{PODMAN_SETUP}"));
    let mut failures = run_rows(&world, User::Ordinary, PODMAN_PROLOGUE, PODMAN_ROWS);
    world.prepare(User::Ordinary, &format!("{PODMAN_PROLOGUE}{PODMAN_TEARDOWN}"));
    failures.extend(world.finish(&before, STATES, not_the_callers));
    (failures, String::new())
}

/// Without privileges the runtime fetches the listener from a process of another user than its own, in a user namespace that
/// it owns.
#[test]
fn rootless_seccomp_agent() {
    need!("newuidmap", "useradd");
    assert_shown("rootless tare with a seccomp agent", all_of_the_agent());
}

fn all_of_the_agent() -> (Vec<String>, String) {
    let world = World::start();
    world.prepare(User::Root, SETUP);
    let before = world.snapshot();
    let path = world.root().join("run/world/home/agent");
    let agent = UnixListener::bind(&path).expect("bind the agent's socket");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("let the user connect");
    std::thread::spawn(move || answer(&agent));
    let mut failures = run_rows(&world, User::Ordinary, TARE_PROLOGUE, AGENT_ROWS);
    failures.extend(world.finish(&before, STATES, not_the_callers));
    (failures, String::new())
}

/// The agent: answers each container's calls with EXDEV, which no mkdir says by itself, until the container has ended.
fn answer(agent: &UnixListener) {
    const EXDEV: i32 = 18;
    for stream in agent.incoming() {
        let (fds, _) = sys::receive_fds(stream.expect("accept")).expect("receive the listener");
        let Some(listener) = fds.into_iter().next() else { continue };
        std::thread::spawn(move || {
            while wait::readable(listener.as_fd(), wait::deadline()) && sys::refuse_notified(&listener, EXDEV).is_ok() {
            }
        });
    }
}

const AGENT_ROWS: &[Row] = &[
    row(
        "seccomp agent: for each user, with and without noNewPrivileges",
        "for uid in 0 1000; do
            for nnp in true false; do
                bundle \"$ranges | .process.user = {uid: $uid, gid: $uid} | .process.noNewPrivileges = $nnp | .linux.seccomp = $ask\" mkdir /tmp/x
                tare run one 2>&1 || echo $uid $nnp $?
            done
         done",
        "mkdir: can't create directory '/tmp/x': Invalid cross-device link\n0 true 1
mkdir: can't create directory '/tmp/x': Invalid cross-device link\n0 false 1
mkdir: can't create directory '/tmp/x': Invalid cross-device link\n1000 true 1
mkdir: can't create directory '/tmp/x': Invalid cross-device link\n1000 false 1",
    ),
    row(
        "seccomp agent: exec",
        "bundle \"$ranges | .mounts += [{destination: \\\"/up\\\", source: \\\"$HOME/up\\\", options: [\\\"bind\\\"]}] | .linux.seccomp = $ask\" \
            sh -c 'echo >/up; exec sleep 1000'
         tare run -d one >out 2>&1 </dev/null
         read -r nothing <~/up
         tare exec --user 1000:1000 one mkdir /tmp/x 2>&1 || echo $?
         pid=$(tare state one | jq -r .pid); echo $pid >pid
         tare kill one KILL; timeout 10 pidwait -F pid || true
         tare delete one",
        "mkdir: can't create directory '/tmp/x': Invalid cross-device link\n1",
    ),
];

const TARE_PROLOGUE: &str = r#"
# bundle FILTER COMMAND...: makes a bundle in the home directory, from tare's own rootless one.
bundle() {
	filter=$1
	shift
	cd ~
	rm -rf bundle
	mkdir bundle
	cd bundle
	tare spec --rootless
	jq ".process.args = \$ARGS.positional | .process.terminal = false | .root = {path: \"$HOME/rootfs\"} | $filter" \
		config.json --args -- "$@" >new.json
	mv new.json config.json
}
ranges='.linux.uidMappings = [{containerID: 0, hostID: 2001, size: 1}, {containerID: 1, hostID: 100000, size: 65536}]
	| .linux.gidMappings = .linux.uidMappings'
ask='{defaultAction: "SCMP_ACT_ALLOW", listenerPath: "/run/world/home/agent",
	syscalls: [{names: ["mkdir", "mkdirat"], action: "SCMP_ACT_NOTIFY"}]}'
"#;

const TARE_ROWS: &[Row] = &[
    row(
        "run: one id",
        "bundle . sh -c 'echo $(cat /proc/self/uid_map); id -u; touch /mine; stat -c %u:%g /mine; cat /proc/self/setgroups'
         tare run one; stat -c %u:%g ~/rootfs/mine",
        "0 2001 1\n0\n0:0\ndeny\n2001:2001",
    ),
    row(
        "run: several ranges, by newuidmap and newgidmap",
        "bundle \"$ranges | .process.capabilities[] += [\\\"CAP_CHOWN\\\"]\" sh -c 'cat /proc/self/uid_map /proc/self/gid_map; chown 1000:2000 /mine'
         tare run one | sed 's/  */ /g'; stat -c %u:%g ~/rootfs/mine",
        " 0 2001 1\n 1 100000 65536\n 0 2001 1\n 1 100000 65536\n100999:101999",
    ),
    row(
        "run: another user and groups of a range",
        "bundle \"$ranges | .process.user = {uid: 1000, gid: 1000, additionalGids: [2000]}\" sh -c 'id -u; id -G'
         tare run one",
        "1000\n1000 2000",
    ),
    Row { feature: "run: exit status", script: "bundle . sh -c 'exit 7'; tare run one", prints: "", status: 7 },
    row(
        "run: a range the user does not have",
        "bundle '.linux.uidMappings[0] = {containerID: 0, hostID: 5000, size: 10}' true
         tare run one 2>&1 | grep -c newuidmap",
        "1",
    ),
    row(
        "run: namespaces of its own",
        "bundle '.linux.namespaces += [{type: \"network\"}] | .hostname = \"given\"' sh -c 'wc -l </proc/net/route; hostname; echo $$'
         tare run one",
        "1\ngiven\n1",
    ),
    row(
        "run -d, list, state, exec, kill, delete",
        "bundle \"$ranges | .mounts += [{destination: \\\"/up\\\", source: \\\"$HOME/up\\\", options: [\\\"bind\\\"]}]\" \
            sh -c 'echo mine >/tmp/mark; echo >/up; exec sleep 1000'
         tare run -d one >out 2>&1 </dev/null
         read -r nothing <~/up
         tare list -q; tare state one | jq -r .status
         tare exec one sh -c 'cat /tmp/mark; id -u'
         tare exec --user 1000:1000 --cwd /www --env A=b one sh -c 'id -u; id -g; pwd; echo $A'
         tare exec one sh -c 'exit 9' || echo status $?
         script -qec 'tare exec -t one tty' /dev/null <>~/quiet | tr -d '\\r'
         pid=$(tare state one | jq -r .pid); echo $pid >pid
         tare kill one KILL; timeout 10 pidwait -F pid || true
         tare state one | jq -r .status; tare delete one; tare list -q",
        "one\nrunning\nmine\n0\n1000\n1000\n/www\nb\nstatus 9\n/dev/pts/0\nstopped",
    ),
    row(
        "run: a limit without a cgroup of its own is refused with the remedy",
        "bundle '.linux.resources = {pids: {limit: 30}}' true
         tare run one 2>&1 | grep -c 'delegate'",
        "1",
    ),
    row(
        "run: a terminal",
        "bundle \"$ranges | .process.terminal = true\" tty
         script -qec 'tare run one' /dev/null <>~/quiet | tr -d '\\r'",
        "/dev/pts/0",
    ),
];

const DELEGATED_ROWS: &[Row] = &[row(
    "run: a delegated cgroup",
    "bundle \".linux.resources = {pids: {limit: 30}, memory: {limit: 33554432}} | .linux.cgroupsPath = \\\"$CG/mine/one\\\"
        | .mounts += [{destination: \\\"/sys/fs/cgroup\\\", type: \\\"cgroup\\\", source: \\\"cgroup\\\", options: [\\\"ro\\\"]}]\" \
        sh -c 'cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max
        cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max'
     tare run one",
    "30\n33554432",
), row(
    "update, exec, pause, resume, stats and delete: a delegated cgroup",
    "bundle \".linux.resources = {pids: {limit: 30}} | .linux.cgroupsPath = \\\"$CG/mine/two\\\"
        | .mounts += [{destination: \\\"/up\\\", source: \\\"$HOME/up\\\", options: [\\\"bind\\\"]}]\" sh -c 'echo >/up; exec sleep 1000'
     tare run -d two >out 2>&1 </dev/null
     read -r nothing <~/up
     tare update --pids-limit 44 two; tare events --stats two | jq .data.pids.limit
     tare exec -d --pid-file inside two sleep 1000
     grep -q mine/two /proc/$(cat inside)/cgroup && echo inside
     tare pause two; tare state two | jq -r .status; tare resume two
     tare state two | jq -r .pid >pid
     tare delete --force two; timeout 10 pidwait -F pid || true
     find /sys/fs/cgroup -path \"*$CG/mine/two\" 2>/dev/null | wc -l",
    "44\ninside\npaused\n0",
)];

const PODMAN_PROLOGUE: &str = r#"
cd ~
P="podman --storage-driver vfs --cgroup-manager cgroupfs --events-backend file --runtime /run/world/bin/tare"
p() {
	$P "$@"
}
offline="--log-driver k8s-file --network none"
"#;

const PODMAN_SETUP: &str = r#"
p import -q /run/world/rootfs.tar box >/dev/null
"#;

/// The last is the process that keeps the user's namespace for the next podman.
const PODMAN_TEARDOWN: &str = r#"
p pod rm -af -t 0
p rm -af -t 0
kill $(cat $XDG_RUNTIME_DIR/libpod/tmp/pause.pid)
"#;

const PODMAN_ROWS: &[Row] = &[
    row(
        "run",
        "p run --rm $offline box sh -c 'cat /proc/self/uid_map; touch /mine; stat -c %u /mine' | sed 's/  */ /g'",
        " 0 2001 1\n 1 100000 65536\n0",
    ),
    Row { feature: "run: exit status", script: "p run --rm $offline box sh -c 'exit 7'", prints: "", status: 7 },
    Row { feature: "run: no such command is 127", script: "p run --rm $offline box nothing", prints: "", status: 127 },
    row(
        "run: the host's network, another user, no capabilities",
        "p run --rm --network host --log-driver k8s-file --user ana --cap-drop all box sh -c 'id -u; grep CapBnd /proc/self/status'",
        "1000\nCapBnd:\t0000000000000000",
    ),
    row("run -it", "script -qec \"stty rows 33 cols 77; $P run --rm -it $offline box sh -c 'tty; until stty size 2>/dev/null | grep .; do :; done'\" /dev/null <>quiet |
            tr -d '\\r'", "/dev/pts/0\n33 77"),
    row(
        "volumes, read-only, seccomp",
        "mkdir -p vol; echo host >vol/file
         p run --rm $offline --read-only -v ./vol:/vol box sh -c '
            cat /vol/file; echo more >/vol/new; touch /x 2>&1; grep -w Seccomp /proc/self/status'
         stat -c %u vol/new",
        "host\ntouch: /x: Read-only file system\nSeccomp:\t2\n2001",
    ),
    row("--userns keep-id", "p run --rm $offline --userns keep-id box id -u", "2001"),
    row(
        "exec, stop",
        "p run -d --name one $offline -v ./up:/up box sh -c 'echo mine >/tmp/mark; echo >/up; exec sleep 1000' >/dev/null
         read -r nothing <up
         p exec one sh -c 'cat /tmp/mark; id -u'
         p exec --user ana one id -un
         p exec one sh -c 'exit 9' || echo status $?
         script -qec \"$P exec -it one tty\" /dev/null <>quiet | tr -d '\\r'
         p stop -t 0 one >/dev/null; p inspect one --format '{{.State.ExitCode}}'",
        "mine\n0\nana\nstatus 9\n/dev/pts/0\n137",
    ),
    row(
        "a pod",
        "p pod create --name pod --hostname podded --share net,ipc,uts,pid --infra-image box --infra-command 'sleep 1000' \
            --network none >/dev/null
         p run --rm --pod pod --log-driver k8s-file box sh -c 'hostname; cat /proc/1/comm'
         p pod stop -t 0 pod >/dev/null; p pod rm pod >/dev/null",
        "podded\nsleep",
    ),
    row(
        "build",
        "mkdir -p context
         printf '%s\\n' 'FROM box' 'RUN id -u >/ran' 'USER ana' 'RUN id -un >/tmp/user' 'CMD [\"cat\", \"/ran\", \"/tmp/user\"]' \
            >context/Dockerfile
         p build -q --isolation oci --network none -t built context >/dev/null
         p run --rm $offline built",
        "0\nana",
    ),
    row(
        "the kernel's own overlay as storage",
        "o=\"podman --root $HOME/overlay --runroot $XDG_RUNTIME_DIR/overlay --tmpdir $XDG_RUNTIME_DIR/tmp --storage-driver overlay
            --cgroup-manager cgroupfs --events-backend file --runtime /run/world/bin/tare\"
         $o import -q /run/world/rootfs.tar box >/dev/null
         $o run --rm $offline box sh -c 'echo kept >/file; cat /file; grep -c \" / overlay\" /proc/mounts'",
        "kept\n1",
    ),
];

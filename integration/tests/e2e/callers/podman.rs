//! podman as root, with a storage, a configuration and a network of its own; conmon between it and the runtime.

use integration::world::{Row, User, World, assert_shown, row, run_rows};
use integration::{need, report_skip};

/// `p` is podman, `new` the flags of every new container. This host lets nobody raise a hard limit, hence the ulimits.
const PROLOGUE: &str = r#"
P=$(echo podman --root /run/world/storage --runroot /run/world/run --tmpdir /run/world/tmp --storage-driver overlay \
	--cgroup-manager cgroupfs --events-backend file --runtime /run/world/bin/tare)
p() {
	$P "$@"
}
new="--cgroup-parent $CG --log-driver k8s-file --ulimit nofile=1024:1024 --ulimit nproc=4096:4096"
offline="$new --network none"
# podman 4 gives a pod's cgroup of version 2 an empty list of devices, which denies them all, so that no runtime can make a
# container there (runc says so of /dev/null; with systemd there is no such list). The containers then have theirs beside it.
pods=
[ ! -e /sys/fs/cgroup/cgroup.controllers ] || pods=--share-parent=false
# In a terminal of 33 rows and 77 columns, on which nobody types. The size is set when the program already runs.
terminal() {
	script -qec "stty rows 33 cols 77; $P $*" /dev/null <>quiet | tr -d '\r'
}
# A container with $up says that it is up by `echo >/up`, which `is_up` waits for.
up="-v /run/world/up:/up"
is_up() {
	heard >/dev/null
}
# The next line that a container writes to /up.
heard() {
	# An end of file is of a writer before, which was still about to close it.
	until read -r line <up; do :; done
	echo "$line"
}
"#;

#[test]
fn podman() {
    need!("podman", "conmon");
    assert_shown("podman", all());
}

fn all() -> (Vec<String>, String) {
    let world = World::start();
    world.prepare(User::Root, &format!("{PROLOGUE}{SETUP}"));
    let before = world.snapshot();
    let mut failures = run_rows(&world, User::Root, PROLOGUE, ROWS);
    match world.lacks_criu() {
        None => failures.extend(run_rows(&world, User::Root, PROLOGUE, CHECKPOINT_ROWS)),
        Some(reason) => report_skip(&format!("checkpoint by podman: {reason}")),
    }
    world.prepare(User::Root, &format!("{PROLOGUE}{TEARDOWN}"));
    failures.extend(world.finish(&before, &["/run/tare", "/run/runc"], |cgroup| cgroup.starts_with("libpod-")));
    (failures, String::new())
}

/// One container first, so that what podman keeps for itself (its storage's mount, its network directory) is not taken for
/// something the runtime left.
const SETUP: &str = r#"
mkfifo quiet up
p import rootfs.tar box
p run --rm $new box true
echo '{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"syscalls":[
	{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":122}]}' >no-mkdir.json
"#;

const TEARDOWN: &str = r#"
p pod rm -af -t 0
p rm -af -t 0
"#;

const ROWS: &[Row] = &[
    row("run prints", "p run --rm $offline box echo hello", "hello"),
    row(
        "run: the default network",
        "p run --rm $new box ip -o addr show eth0 | grep -c 'inet 10[.]'",
        "1",
    ),
    Row {
        feature: "run: exit status",
        script: "p run --rm $offline box sh -c 'exit 7'",
        prints: "",
        status: 7,
    },
    Row {
        feature: "run: no such command is 127",
        script: "p run --rm $offline box no-such-command",
        prints: "",
        status: 127,
    },
    Row {
        feature: "run: no such path is 127",
        script: "p run --rm $offline box /no/such",
        prints: "",
        status: 127,
    },
    Row {
        feature: "run: not executable is 126",
        script: "p run --rm $offline box /etc/passwd",
        prints: "",
        status: 126,
    },
    row(
        "run: standard input and both outputs",
        "echo in | p run -i --rm $offline box sh -c 'cat; echo err >&2' 2>err; cat err",
        "in\nerr",
    ),
    row(
        "run: user, groups, directory, environment, umask",
        "p run --rm $offline --user ana --group-add 3000 --workdir /www -e A=b --umask 0027 box \
            sh -c 'id -u; id -G; pwd; echo $A; umask'",
        "1000\n1000 2000 3000\n/www\nb\n0027",
    ),
    row(
        "run: host name, /etc/hosts, sysctl, shared memory's size",
        "p run --rm $offline --hostname tare.example --add-host other:10.1.2.3 --sysctl net.ipv4.ip_forward=1 --shm-size 1m \
            box sh -c 'hostname; grep -c other /etc/hosts; cat /proc/sys/net/ipv4/ip_forward; df -k /dev/shm | tail -1' |
            awk '{print $1, $2}'",
        "tare.example \n1 \n1 \nshm 1024",
    ),
    row(
        "run -it",
        "terminal run --rm -it $offline box sh -c '\"tty; until stty size 2>/dev/null | grep .; do :; done; test -t 2 && echo all\"'",
        "/dev/pts/0\n33 77\nall",
    ),
    row(
        "exec",
        "p run -d --name exec $offline $up box sh -c 'echo mine >/tmp/mark; echo >/up; exec sleep 1000' >/dev/null
         is_up
         p exec exec sh -c 'echo in; cat /tmp/mark'
         p exec --user 1000:2000 --workdir /www -e A=b exec sh -c 'id -u; id -g; pwd; echo $A'
         echo input | p exec -i exec cat
         terminal exec -it exec sh -c '\"tty; until stty size 2>/dev/null | grep .; do :; done\"'",
        "in\nmine\n1000\n2000\n/www\nb\ninput\n/dev/pts/0\n33 77",
    ),
    Row {
        feature: "exec: exit status",
        script: "p exec exec sh -c 'exit 9'",
        prints: "",
        status: 9,
    },
    Row {
        feature: "exec: no such command is 127",
        script: "p exec exec no-such-command",
        prints: "",
        status: 127,
    },
    Row {
        feature: "exec: not executable is 126",
        script: "p exec exec /etc/passwd",
        prints: "",
        status: 126,
    },
    row(
        "exec -d, top, and inspect of a running container",
        "p exec -d exec sh -c 'echo done >/tmp/out; exec sleep 1001' >/dev/null
         p exec exec sh -c 'until [ -s /tmp/out ]; do :; done; cat /tmp/out'
         p top exec args | grep -c '^sleep 1000'
         p inspect exec --format '{{.State.Status}} {{.OCIRuntime}}'",
        "done\n1\nrunning /run/world/bin/tare",
    ),
    row(
        "--memory",
        "p run --rm $offline --memory 32m box sh -c '
            cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max'",
        "33554432",
    ),
    row(
        "--memory: a container that wants more is killed",
        "p run --rm $offline --memory 16m --memory-swap 16m box tail /dev/zero || echo status $?",
        "status 137",
    ),
    row(
        "--pids-limit",
        "p run --rm $offline --pids-limit 20 box sh -c 'exec 2>&1
            cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max
            for i in $(seq 30); do sleep 1000 & done' | sed 's/.*fork:/fork:/'",
        "20\nfork: Resource temporarily unavailable",
    ),
    row(
        "--cpus, --cpu-shares, --cpuset-cpus",
        "p run --rm $offline --cpus 0.5 --cpuset-cpus 0 box sh -c '
            cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d\" \" -f1 /sys/fs/cgroup/cpu.max
            grep Cpus_allowed_list /proc/self/status | cut -f2'",
        "50000\n0",
    ),
    row(
        "--cap-drop, --cap-add",
        "p run --rm $offline --cap-drop all box grep CapEff /proc/self/status
         p run --rm $offline --cap-drop all --cap-add net_admin box grep -E 'Cap(Eff|Bnd|Inh)' /proc/self/status
         p run --rm $offline --user 1000 box grep -E 'Cap(Prm|Eff|Inh|Amb)' /proc/self/status",
        "CapEff:\t0000000000000000\n\
         CapInh:\t0000000000000000\nCapEff:\t0000000000001000\nCapBnd:\t0000000000001000\n\
         CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapAmb:\t0000000000000000",
    ),
    row(
        "--security-opt seccomp=FILE",
        "p run --rm $offline --security-opt seccomp=no-mkdir.json box sh -c 'exec 2>&1; grep -w Seccomp /proc/self/status; mkdir /x' ||
            true",
        "Seccomp:\t2\nmkdir: can't create directory '/x': Disk quota exceeded",
    ),
    row(
        "--security-opt seccomp=unconfined and no-new-privileges",
        "p run --rm $offline --security-opt seccomp=unconfined --security-opt no-new-privileges box \
            grep -wE 'Seccomp|NoNewPrivs' /proc/self/status",
        "NoNewPrivs:\t1\nSeccomp:\t0",
    ),
    row(
        "the default seccomp profile and masked paths",
        "p run --rm $offline box sh -c 'exec 2>&1
            grep -w Seccomp /proc/self/status
            wc -c </proc/keys; ls -A /sys/firmware; echo x >/proc/sys/kernel/panic; unshare -m true || true'",
        "Seccomp:\t2\n0\nsh: can't create /proc/sys/kernel/panic: Read-only file system\n\
         unshare: unshare(0x20000): Operation not permitted",
    ),
    row(
        "--read-only",
        "p run --rm $offline --read-only --tmpfs /data:size=1m box sh -c 'exec 2>&1
            touch /x; touch /data/x /tmp/x /dev/shm/x && echo writable'",
        "touch: /x: Read-only file system\nwritable",
    ),
    row(
        "volumes: a directory, one file, a named one",
        "mkdir -p vol; echo host >vol/file
         p run --rm $offline -v ./vol:/vol -v ./vol/file:/one:ro -v named:/named box sh -c 'exec 2>&1
            cat /vol/file; echo more >/vol/new; echo kept >/named/file; echo x >/one' || true
         cat vol/new
         p run --rm $offline -v named:/named:ro box cat /named/file",
        "host\nsh: can't create /one: Read-only file system\nmore\nkept",
    ),
    row(
        "volumes: propagation into the container",
        "mkdir -p prop; mount -t tmpfs prop prop; mount --make-shared prop
         p run -d --name prop $offline -v ./prop:/prop:rslave box sleep 1000 >/dev/null
         mkdir prop/late; mount -t tmpfs late prop/late; echo seen >prop/late/file
         p exec prop cat /prop/late/file
         p rm -f -t 0 prop >/dev/null; umount prop/late prop",
        "seen",
    ),
    row(
        "volumes: a tmpfs begins with what the image has there",
        "p run --rm $offline --tmpfs /www:size=1m box sh -c 'cat /www/index.html; grep -c \" /www tmpfs\" /proc/mounts'",
        "from the image\n1",
    ),
    row(
        "--rootfs, --annotation, --oom-score-adj, --ulimit, --timezone",
        "p run --rm $offline --annotation a.b=c --oom-score-adj 500 --ulimit core=0:0 --tz UTC --rootfs /run/world/rootfs sh -c '
            cat /www/index.html /proc/self/oom_score_adj; ulimit -c'",
        "from the image\n500\n0",
    ),
    row(
        "--hooks-dir: hooks with the state of their moment",
        "mkdir -p hooks; rm -f hooked; printf '#!/bin/sh\\necho $1 $(jq -r .status) >>/run/world/hooked\\n' >hook; chmod +x hook
         for stage in prestart createRuntime poststart poststop; do
            echo '{\"version\": \"1.0.0\", \"hook\": {\"path\": \"/run/world/hook\", \"args\": [\"hook\", \"'$stage'\"],
                \"env\": [\"PATH=/usr/bin:/bin\"]}, \"when\": {\"always\": true}, \"stages\": [\"'$stage'\"]}' >hooks/$stage.json
         done
         $P --hooks-dir /run/world/hooks run --rm $offline box true; sort hooked",
        "createRuntime creating\npoststart running\npoststop stopped\nprestart creating",
    ),
    row(
        "--preserve-fds",
        "exec 3<rootfs/www/index.html; p run --rm --preserve-fds 1 $offline box sh -c 'cat <&3'",
        "from the image",
    ),
    row(
        "--cgroupns: the container's cgroups are the root, or the host's; --systemd: one it may write",
        "p run --rm $offline --cgroupns private box sh -c 'grep -c \":/$\" /proc/self/cgroup >/dev/null && echo root'
         p run --rm $offline --cgroupns host box grep -c $CG /proc/self/cgroup >/dev/null && echo host
         p run --rm $offline --systemd always box sh -c 'mkdir /sys/fs/cgroup/systemd/sub || mkdir /sys/fs/cgroup/sub; touch /run/x &&
            rmdir /sys/fs/cgroup/systemd/sub /sys/fs/cgroup/sub; echo writable' 2>/dev/null",
        "root\nhost\nwritable",
    ),
    row(
        "--health-cmd",
        "p run -d --name healthy $offline --health-cmd 'cat /www/index.html' --health-interval disable box sleep 1000 >/dev/null
         p healthcheck run healthy && p inspect healthy --format '{{(index .State.Health.Log 0).ExitCode}}'",
        "0",
    ),
    row(
        "--device, --privileged",
        "p run --rm $offline --device /dev/fuse:/dev/mine box sh -c 'stat -c %t:%T /dev/mine; ls /dev | grep -c loop; exec 3<>/dev/mine'
         p run --rm --privileged $offline box sh -c 'mount -t tmpfs t /mnt 2>/dev/null || mount -t tmpfs t /tmp && echo mounted'",
        "a:e5\n0\nmounted",
    ),
    row(
        "--init, --pid host, --ipc host, --uts host",
        "p run --rm --init --init-path $(command -v docker-init) $offline box sh -c 'cat /proc/1/comm'
         p run --rm --pid host --ipc host --uts host $offline box stat -L -c %i /proc/self/ns/pid /proc/self/ns/ipc /proc/self/ns/uts >in
         stat -L -c %i /proc/self/ns/pid /proc/self/ns/ipc /proc/self/ns/uts | cmp - in && echo same",
        "podman-init\nsame",
    ),
    row(
        "a user namespace: --uidmap",
        "p run --rm --uidmap 0:100000:65536 --gidmap 0:200000:65536 $offline box sh -c '
            awk \"{print \\$1, \\$2, \\$3}\" /proc/self/uid_map /proc/self/gid_map; id -u; touch /mine && stat -c %u /mine'",
        "0 100000 65536\n0 200000 65536\n0\n0",
    ),
    row(
        "a pod shares network, ipc, host name and pids",
        "p pod create --name pod --hostname podded --share net,ipc,uts,pid --infra-image box --infra-command 'sleep 1000' \
            --cgroup-parent $CG $pods >/dev/null
         p run -d --pod pod --name server $new $up box sh -c 'httpd -h /www; echo >/up; exec sleep 1000' >/dev/null
         is_up
         p run --rm --pod pod $new box sh -c 'wget -qO- http://127.0.0.1/; hostname; cat /proc/1/comm'
         p exec server stat -L -c %i /proc/self/ns/net /proc/self/ns/ipc /proc/self/ns/pid /proc/self/ns/uts >one
         p run --rm --pod pod $new box stat -L -c %i /proc/self/ns/net /proc/self/ns/ipc /proc/self/ns/pid /proc/self/ns/uts >two
         cmp one two && echo shared
         p pod stop -t 0 pod >/dev/null; p pod rm pod >/dev/null",
        "from the image\npodded\nsleep\nshared",
    ),
    row(
        "pause and unpause",
        "p run -d --name pause $offline box sleep 1000 >/dev/null
         p pause pause >/dev/null
         p inspect pause --format '{{.State.Status}}'
         p exec pause true 2>/dev/null || echo refused
         p unpause pause >/dev/null
         p exec pause echo again",
        "paused\nrefused\nagain",
    ),
    row(
        "stop: the signal is heard, and those who do not hear are killed",
        "p run -d --name polite $offline $up box sh -c 'trap \"exit 3\" TERM; echo >/up; while :; do sleep 1000 & wait; done' >/dev/null
         is_up
         p stop -t 20 polite >/dev/null; p inspect polite --format '{{.State.ExitCode}}'
         p run -d --name deaf $offline $up box sh -c 'trap \"\" TERM; echo >/up; while :; do sleep 1000 & wait; done' >/dev/null
         is_up
         p stop -t 0 deaf >/dev/null; p inspect deaf --format '{{.State.ExitCode}}'",
        "3\n137",
    ),
    row(
        "kill, wait, start again, logs",
        "p run -d --name again $offline $up box sh -c 'trap \"echo hup; exit 4\" HUP; echo up; echo >/up; while :; do sleep 1000 & wait; done' >/dev/null
         is_up
         p kill -s HUP again >/dev/null; p wait again
         p start again >/dev/null; is_up; p kill again >/dev/null; p wait again
         p logs again | sort | uniq -c | awk '{print $1, $2}'",
        "4\n137\n1 hup\n2 up",
    ),
    row(
        "attach",
        "p create -i --name attach $offline box cat >/dev/null
         echo through | p start -ai attach",
        "through",
    ),
    row(
        "stats and update",
        "p run -d --name stats $offline --memory 64m box sleep 1000 >/dev/null
         p stats --no-stream --format '{{.MemLimit}} {{.PIDs}}' stats
         p update --memory 32m --memory-swap 32m stats >/dev/null
         p exec stats sh -c 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max'",
        "67108864 1\n33554432",
    ),
    row(
        "cp and commit",
        "echo copied >local
         p run -d --name cp $offline box sleep 1000 >/dev/null
         p cp local cp:/tmp/there; p exec cp cat /tmp/there
         p cp cp:/www/index.html back; cat back
         p commit -q cp committed >/dev/null; p run --rm $offline committed cat /tmp/there",
        "copied\nfrom the image\ncopied",
    ),
    row(
        "-p: a published port",
        "p run -d --name web -p 127.0.0.1:8088:80 $new $up box sh -c 'httpd -h /www; echo >/up; exec sleep 1000' >/dev/null
         is_up
         busybox wget -qO- http://127.0.0.1:8088/",
        "from the image",
    ),
    row(
        "build",
        "mkdir -p context; echo file >context/file
         printf '%s\\n' 'FROM box' 'COPY file /copied' 'WORKDIR /made' 'RUN id -u >ran && cat /copied >>ran' 'USER ana' \
            'RUN id -un >/tmp/user' 'CMD [\"cat\", \"/made/ran\", \"/tmp/user\"]' >context/Dockerfile
         p build -q --isolation oci --network none --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 \
            --cgroup-parent $CG/build -t built context >/dev/null
         p run --rm $offline built",
        "0\nfile\nana",
    ),
    Row {
        feature: "build: a failing command's status",
        script: "printf 'FROM box\\nRUN exit 5\\n' >context/Dockerfile
         p build -q --isolation oci --network none --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 \
            --cgroup-parent $CG/build context",
        prints: "",
        status: 5,
    },
    row(
        "twenty at once",
        "for i in $(seq 20); do p run --rm $offline box echo $i & done | sort -n | tr '\\n' ' '; wait",
        "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20",
    ),
];

/// The container counts, and says how far it is when it is sent USR1.
const CHECKPOINT_ROWS: &[Row] = &[row(
    "checkpoint and restore",
    "p run -d --name counter $offline $up box \
        sh -c 'trap \"echo \\$n >/up\" USR1; n=0; echo >/up; while :; do n=$((n+1)); done' >/dev/null
     is_up
     p kill -s USR1 counter >/dev/null; before=$(heard)
     p container checkpoint counter >/dev/null; p inspect counter --format '{{.State.Status}}'
     p container restore counter >/dev/null; p inspect counter --format '{{.State.Status}}'
     p kill -s USR1 counter >/dev/null; after=$(heard)
     [ \"$after\" -ge \"$before\" ] && echo counted on
     p rm -f -t 0 counter >/dev/null",
    "exited\nrunning\ncounted on",
)];

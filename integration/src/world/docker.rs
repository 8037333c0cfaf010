//! What docker is shown to do, whichever runtime or shim its daemon runs.

use super::{Row, Server, User, World, row};

/// Starts a daemon that keeps everything inside the world, and its cgroups below the world's. Its containerd is started before
/// it, as Debian's units do: one that it starts itself has 15 seconds, which are too few on an emulated host.
pub fn start(world: &World, flags: &[&str]) -> Server {
    world.prepare(User::Root, "echo 'disabled_plugins = [\"io.containerd.grpc.v1.cri\"]' >docker.containerd.toml");
    let containerd = [
        "containerd",
        "--config=/run/world/docker.containerd.toml",
        "--root=/run/world/docker/containerd/daemon",
        "--state=/run/world/docker.exec/containerd/daemon",
        "--address=/run/world/docker.exec/containerd/containerd.sock",
    ];
    let containerd = Server::start(world, &containerd, "containerd successfully booted");
    let parent = format!("--cgroup-parent={}", world.cgroup_parent());
    let mut arguments = vec![
        "dockerd",
        "--data-root=/run/world/docker",
        "--exec-root=/run/world/docker.exec",
        "--containerd=/run/world/docker.exec/containerd/containerd.sock",
        "--host=unix:///run/world/docker.sock",
        "--pidfile=/run/world/docker.pid",
        "--group=root",
        "--storage-driver=overlay2",
        &parent,
    ];
    arguments.extend(flags);
    Server::start(world, &arguments, "API listen on").upon(containerd)
}

/// `$R` chooses the runtime where it is not the daemon's default.
pub const PROLOGUE: &str = r#"
D="docker -H unix:///run/world/docker.sock"
d() {
	$D "$@"
}
offline="$R --network none"
# A container with $up says that it is up by `echo >/up`, which `is_up` waits for.
up="-v /run/world/up:/up"
is_up() {
	# An end of file is of a writer before, which was still about to close it.
	until read -r nothing <up; do :; done
}
# In a terminal of 33 rows and 77 columns, on which nobody types. docker sets the size when the program already runs.
terminal() {
	script -qec "stty rows 33 cols 77; $*" /dev/null <>quiet | tr -d '\r'
}
"#;

/// Imports the image.
pub const SETUP: &str = r#"
mkfifo -m 666 quiet up
d import -c 'ENV PATH=/bin' rootfs.tar box
d run --rm $R --userns host --network host box true
"#;

/// Containers and what is done with them.
pub const ROWS: &[Row] = &[
    row("run", "d run --rm $offline box echo hello", "hello"),
    Row { feature: "run: exit status", script: "d run --rm $offline box sh -c 'exit 7'", prints: "", status: 7 },
    Row {
        feature: "run: no such command is 127",
        script: "d run --rm $offline box no-such-command",
        prints: "",
        status: 127,
    },
    Row { feature: "run: no such path is 127", script: "d run --rm $offline box /no/such", prints: "", status: 127 },
    Row { feature: "run: not executable is 126", script: "d run --rm $offline box /etc/passwd", prints: "", status: 126 },
    Row { feature: "run: a directory is 126", script: "d run --rm $offline box /etc", prints: "", status: 126 },
    row(
        "run: standard input and both outputs",
        "echo in | d run -i --rm $offline box sh -c 'cat; echo err >&2' 2>err; cat err",
        "in\nerr",
    ),
    row(
        "run: user, groups, directory, environment, host name, sysctl",
        "d run --rm $offline --user ana --group-add 3000 --workdir /made/here -e A=b --hostname tare.example \
            --sysctl net.ipv4.ip_forward=1 box sh -c 'id -u; id -G; pwd; echo $A; hostname; cat /proc/sys/net/ipv4/ip_forward'",
        "1000\n1000 2000 3000\n/made/here\nb\ntare.example\n1",
    ),
    row("run -it", "terminal $D run --rm -it $offline box sh -c '\"tty; until stty size 2>/dev/null | grep .; do :; done\"'", "/dev/pts/0\n33 77"),
    row(
        "run: capabilities, seccomp, no-new-privileges, privileged",
        "d run --rm $offline --cap-drop all --cap-add net_admin box grep -E 'CapEff|Seccomp:' /proc/self/status
         d run --rm $offline box unshare -m true 2>&1 || true
         d run --rm $offline --security-opt seccomp=unconfined --security-opt no-new-privileges box \
            grep -E 'NoNewPrivs|Seccomp:' /proc/self/status
         d run --rm $offline --privileged box sh -c 'mount -t tmpfs t /tmp && echo mounted'",
        "CapEff:\t0000000000001000\nSeccomp:\t2\nunshare: unshare(0x20000): Operation not permitted\n\
         NoNewPrivs:\t1\nSeccomp:\t0\nmounted",
    ),
    row(
        "run: read-only, volumes, tmpfs, devices, limits",
        "mkdir -p vol; echo host >vol/file
         d run --rm $offline --read-only --tmpfs /data -v /run/world/vol:/vol:ro -v named:/named --device /dev/fuse \
            --pids-limit 50 --cpus 0.5 --cpuset-cpus 0 --ulimit nofile=512:512 --shm-size 1m --init box sh -c '
            touch /x 2>&1; touch /vol/x 2>&1; cat /vol/file; touch /data/x /named/x && echo writable
            stat -c %t:%T /dev/fuse
            cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max
            ulimit -n; grep Cpus_allowed_list /proc/self/status | cut -f2; cat /proc/1/comm'",
        "touch: /x: Read-only file system\ntouch: /vol/x: Read-only file system\nhost\nwritable\na:e5\n50\n512\n0\ndocker-init",
    ),
    row(
        "run -d, logs, stats, top, inspect",
        "d run -d --name one $R $up --memory 64m box sh -c 'echo mine >/tmp/mark; echo out; echo err >&2; echo >/up; exec sleep 1000' >/dev/null
         is_up
         until [ $(d logs one 2>&1 | wc -l) = 2 ]; do :; done
         d logs one 2>err; cat err
         d stats --no-stream --format '{{.MemUsage}} {{.PIDs}}' one | awk '{print $3, ($4 > 0)}'
         d top one -o pid,args | grep -o 'sleep 1000'
         d inspect one --format '{{.State.Status}} {{.HostConfig.Runtime}}' | sed 's/io.containerd.\\(.*\\).v2/\\1/'",
        "out\nerr\n64MiB 1\nsleep 1000\nrunning tare",
    ),
    row(
        "exec and exec -it",
        "d exec one cat /tmp/mark
         d exec -u 1000:2000 -w /www -e A=b one sh -c 'id -u; id -g; pwd; echo $A'
         echo input | d exec -i one cat
         d exec one sh -c 'exit 9' || echo status $?
         d exec one no-such-command >/dev/null 2>&1 || echo status $?
         d exec one /etc/passwd >/dev/null 2>&1 || echo status $?
         d exec --privileged one grep CapEff /proc/self/status | awk '/CapEff/ {print ($2 != \"00000000a80425fb\")}'
         terminal $D exec -it one sh -c '\"tty; until stty size 2>/dev/null | grep .; do :; done\"'",
        "mine\n1000\n2000\n/www\nb\ninput\nstatus 9\nstatus 126\nstatus 126\n1\n/dev/pts/0\n33 77",
    ),
    row(
        "update --memory",
        "d update --memory 32m --memory-swap 32m one >/dev/null
         d exec one sh -c 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max'",
        "33554432",
    ),
    row(
        "pause and unpause",
        "d pause one >/dev/null; d inspect one --format '{{.State.Status}}'
         d unpause one >/dev/null; d exec one echo again",
        "paused\nagain",
    ),
    row(
        "cp both ways, commit",
        "echo copied >local; d cp local one:/tmp/there 2>/dev/null; d exec one cat /tmp/there
         d cp one:/www/index.html back 2>/dev/null; cat back
         d commit one committed >/dev/null; d run --rm $offline committed cat /tmp/there",
        "copied\nfrom the image\ncopied",
    ),
    row(
        "stop: the signal is heard, and those who do not hear are killed",
        "d run -d --name polite $offline $up box sh -c 'trap \"exit 3\" TERM; echo >/up; while :; do sleep 1000 & wait; done' >/dev/null
         is_up; d stop -t 20 polite >/dev/null; d inspect polite --format '{{.State.ExitCode}}'
         d run -d --name deaf $offline $up box sh -c 'trap \"\" TERM; echo >/up; while :; do sleep 1000 & wait; done' >/dev/null
         is_up; d stop -t 0 deaf >/dev/null; d inspect deaf --format '{{.State.ExitCode}}'",
        "3\n137",
    ),
    row(
        "kill, wait, restart",
        "d run -d --name again $offline $up box sh -c 'trap \"exit 4\" HUP; echo up; echo >/up; while :; do sleep 1000 & wait; done' >/dev/null
         is_up; d kill -s HUP again >/dev/null; d wait again
         d start again >/dev/null; is_up; d kill again >/dev/null; d wait again; d logs again",
        "4\n137\nup\nup",
    ),
    row(
        "a container that wants more memory is killed, and it is seen",
        "d run --name oom $offline --memory 16m --memory-swap 16m box tail /dev/zero || echo status $?
         d inspect oom --format '{{.State.OOMKilled}}'",
        "status 137\ntrue",
    ),
    row(
        "-p and --link",
        "d run -d --name web $R $up -p 127.0.0.1:8088:80 box sh -c 'httpd -h /www; echo >/up; exec sleep 1000' >/dev/null
         is_up; busybox wget -qO- http://127.0.0.1:8088/
         d run --rm $R --link web:linked box sh -c 'wget -qO- http://linked/; echo $LINKED_PORT' | sed 's/tcp:.*/tcp/'",
        "from the image\nfrom the image\ntcp",
    ),
    row(
        "namespaces of another container and of the host",
        "d run --rm $R --network container:web --pid container:web --ipc host box sh -c 'wget -qO- http://127.0.0.1/; cat /proc/1/comm'
         d run --rm $R --network host --pid host --uts host box stat -L -c %i /proc/self/ns/net /proc/self/ns/pid >out
         stat -L -c %i /proc/self/ns/net /proc/self/ns/pid | cmp - out && echo same",
        "from the image\nsleep\nsame",
    ),
    row(
        "build",
        "mkdir -p context; echo file >context/file
         printf '%s\\n' 'FROM box' 'COPY file /copied' 'WORKDIR /made' 'RUN id -u >ran && cat /copied >>ran' 'USER ana' \
            'RUN id -un >/tmp/user' 'CMD [\"cat\", \"/made/ran\", \"/tmp/user\"]' >context/Dockerfile
         DOCKER_BUILDKIT=0 d build -q -t built context >/dev/null; d run --rm $offline built",
        "0\nfile\nana",
    ),
    row(
        "--restart: a container that fails begins again",
        "d run -d --name restart $offline --restart on-failure:2 -v /run/world/up:/up box sh -c 'echo >/up; exit 3' >/dev/null
         is_up; is_up; is_up; d wait restart; d inspect restart --format '{{.RestartCount}}'",
        "3\n2",
    ),
    row(
        "--health-cmd",
        "d run -d --name healthy $offline --health-cmd 'cat /www/index.html' --health-interval 100ms box sleep 1000 >/dev/null
         until [ $(d inspect healthy --format '{{.State.Health.Status}}') = healthy ]; do :; done
         d inspect healthy --format '{{(index .State.Health.Log 0).Output}}'",
        "from the image",
    ),
    row(
        "attach, export, diff",
        "d create -i --name attach $offline box sh -c 'read line; echo $line >/got; cat /got' >/dev/null
         echo through | d start -ai attach; d diff attach; d export attach | tar -xOf - got",
        "through\nA /got\nthrough",
    ),
    row(
        "ten at once",
        "for i in $(seq 10); do d run --rm $offline box echo $i & done | sort -n | tr '\\n' ' '",
        "1 2 3 4 5 6 7 8 9 10",
    ),
];

/// With a daemon whose containers each have a user namespace.
pub const REMAPPED_ROWS: &[Row] = &[
    row(
        "run: root in the container is nobody outside",
        "d run --rm $offline box sh -c 'id -u; touch /mine; stat -c %u /mine; mknod /x b 8 0 2>/dev/null || echo refused
            awk \"{print \\$1, (\\$2 > 0)}\" /proc/self/uid_map'",
        "0\n0\nrefused\n0 1",
    ),
    row(
        "run: devices, /proc, /sys, limits, capabilities, the default network",
        "d run --rm --pids-limit 50 box sh -c 'exec 2>&1
            echo x >/dev/null && head -c 1 /dev/zero | wc -c; ls /dev/pts/ptmx; stat -c %a /dev/shm
            cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max
            grep CapEff /proc/self/status; ip -o addr show eth0 | grep -c inet'",
        "1\n/dev/pts/ptmx\n1777\n50\nCapEff:\t00000000a80425fb\n1",
    ),
    row(
        "run -it, exec, exec -it",
        "terminal $D run --rm -it $offline box tty
         d run -d --name one $offline $up box sh -c 'echo mine >/tmp/mark; echo >/up; exec sleep 1000' >/dev/null
         is_up
         d exec one sh -c 'cat /tmp/mark; id -u'; d exec -u ana one id -u
         terminal $D exec -it one tty",
        "/dev/pts/0\nmine\n0\n1000\n/dev/pts/0",
    ),
    row(
        "update, pause, cp, stop",
        "d update --memory 32m --memory-swap 32m one >/dev/null
         d exec one sh -c 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max'
         d pause one >/dev/null; d inspect one --format '{{.State.Status}}'; d unpause one >/dev/null
         echo copied >local; d cp local one:/tmp/there 2>/dev/null; d exec one cat /tmp/there
         d stop -t 0 one >/dev/null; d inspect one --format '{{.State.ExitCode}}'",
        "33554432\npaused\ncopied\n137",
    ),
    row(
        "build",
        "mkdir -p context
         printf '%s\\n' 'FROM box' 'RUN id -u >/ran' 'USER ana' 'CMD [\"cat\", \"/ran\"]' >context/Dockerfile
         DOCKER_BUILDKIT=0 d build -q -t built context >/dev/null; d run --rm $offline built",
        "0",
    ),
];

/// Besides [`ROWS`], after them: a command line since 23.0 needs a plug-in for it.
pub const BUILDKIT_ROWS: &[Row] = &[row(
    "build with buildkit, which finds the runtime by the name runc",
    "DOCKER_BUILDKIT=1 d build -q -t kit context >/dev/null; d run --rm $offline kit",
    "0\nfile\nana",
)];

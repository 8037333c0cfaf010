//! What ctr is shown to do, whichever shim containerd starts. `$R` in a script chooses it.

use super::{Row, row};

/// What every script can use.
pub const PROLOGUE: &str = r#"
C="ctr --address /run/world/containerd.sock"
c() {
	$C "$@"
}
# A container's cgroup, below the world's or in its slice.
cgroup() {
	case $CG in
	/*) echo "$CG/$1" ;;
	*) echo "$CG:ctr:$1" ;;
	esac
}
# run ID FLAG... box COMMAND...; every container has a cgroup of its own. An ID of - is one that never was: a new container
# would meet the end of its namesake's shim.
run() {
	id=$1 flags=
	[ "$id" != - ] || id=c$(cut -c1-8 /proc/sys/kernel/random/uuid)
	shift
	while [ "$1" != box ]; do
		flags="$flags $1"
		shift
	done
	shift
	c run $R --cgroup "$(cgroup "$id")" $flags box:latest "$id" "$@"
}
# A container with $up says that it is up by `echo >/up`, which `is_up` waits for.
up="--mount type=bind,src=/run/world/up,dst=/up,options=rbind:rw"
is_up() {
	heard >/dev/null
}
# The next line that a container writes to /up.
heard() {
	# An end of file is of a writer before, which was still about to close it.
	until read -r line <up; do :; done
	echo "$line"
}
# In a terminal of 33 rows and 77 columns, on which nobody types. ctr sets the size when the program already runs.
terminal() {
	script -qec "stty rows 33 cols 77; $*" /dev/null <>quiet | tr -d '\r'
}
# Ends the task that the shell's job $2 is in front of, and says with which status.
finish() {
	c tasks kill -s KILL "$1"
	wait "$2" || echo "status $?"
}
"#;

/// Imports the image.
pub const SETUP: &str = r#"
mkfifo quiet up
umoci init --layout image
umoci new --image image:latest
umoci insert --image image:latest rootfs /
umoci config --image image:latest --config.env PATH=/bin --config.cmd /bin/sh
tar -C image -cf image.tar .
c images import --base-name box image.tar
"#;

/// Containers, their execs, signals and streams.
pub const ROWS: &[Row] = &[
    row("run", "run - --rm box echo hello", "hello"),
    Row { feature: "run: exit status", script: "run - --rm box sh -c 'exit 7'", prints: "", status: 7 },
    row(
        "run: standard input and both outputs",
        // ctr misses an end of input that comes before the task.
        "(echo in; is_up) | run - $up --rm box sh -c 'read line; echo $line; echo >/up; cat; echo err >&2' 2>err; cat err",
        "in\nerr",
    ),
    row(
        "run: what cannot be executed is said with the runtime's words",
        "run - --rm box no-such-command 2>&1 | grep -c 'executable file not found in'
         run - --rm box /no/such 2>&1 | grep -c 'no such file or directory'
         run - --rm box /etc/passwd 2>&1 | grep -c 'permission denied'",
        "1\n1\n1",
    ),
    row(
        "run: directory, environment, capabilities, read-only",
        "run - --rm --cwd /www --env A=b --read-only --cap-add CAP_NET_ADMIN --cap-drop CAP_CHOWN box sh -c '
            pwd; echo $A; touch /x 2>&1; grep CapEff /proc/self/status'",
        "/www\nb\ntouch: /x: Read-only file system\nCapEff:\t00000000a80435fa",
    ),
    row(
        "run: limits",
        "cgroup='--mount type=cgroup,src=cgroup,dst=/sys/fs/cgroup,options=ro'
         run - --rm $cgroup --memory-limit 33554432 --cpu-quota 50000 --cpu-period 100000 box sh -c '
            own=/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)
            cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat $own/memory.max
            cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d\" \" -f1 $own/cpu.max'",
        "33554432\n50000",
    ),
    row(
        "run: seccomp, privileged, devices",
        "run - --rm --seccomp box sh -c 'grep -w Seccomp /proc/self/status; unshare -m true 2>&1 || true'
         run - --rm --privileged box sh -c 'mount -t tmpfs t /tmp && echo mounted'
         run - --rm --device /dev/fuse box stat -c %t:%T /dev/fuse",
        "Seccomp:\t2\nunshare: unshare(0x20000): Operation not permitted\nmounted\na:e5",
    ),
    row(
        "run: a user namespace",
        "run - --rm --uidmap 0:100000:65536 --gidmap 0:100000:65536 box sh -c '
            awk \"{print \\$1, \\$2, \\$3}\" /proc/self/uid_map; id -u'",
        "0 100000 65536\n0",
    ),
    row(
        "run: a mount, the host's network, a namespace joined by path",
        "echo host >file; run - --rm --net-host --mount type=bind,src=/run/world/file,dst=/mnt/file,options=rbind:ro box \
            sh -c 'cat /mnt/file; stat -L -c %i /proc/self/ns/net' >out
         stat -L -c %i /proc/self/ns/net >>out; uniq out | sed 's/^[0-9]*$/net/'
         run - --rm --with-ns ipc:/proc/self/ns/ipc box true && echo joined",
        "host\nnet\njoined",
    ),
    row(
        "run: a configuration file",
        "mkdir -p spec && cd spec && rm -f config.json && tare spec
         jq '.process.args = [\"hostname\"] | .process.terminal = false | .hostname = \"given\" | .root.path = \"/run/world/rootfs\"
            | .linux.cgroupsPath = \"'$(cgroup configured)'\"' config.json >given.json
         c run --rm $R --cgroup $(cgroup configured) --config /run/world/spec/given.json configured",
        "given",
    ),
    row("run: a terminal", "terminal $C run -t --rm $R --cgroup $(cgroup terminal) box:latest terminal \
            sh -c '\"tty; until stty size 2>/dev/null | grep .; do :; done\"'", "/dev/pts/0\n33 77"),
    row(
        "exec",
        "run exec $up --rm box sh -c 'echo mine >/tmp/mark; echo >/up; exec sleep 1000' & job=$!
         is_up
         c tasks exec --exec-id a exec sh -c 'echo in; cat /tmp/mark'
         c tasks exec --exec-id b --user 1000:2000 --cwd /www exec sh -c 'id -u; id -g; pwd'
         (echo input; is_up) | c tasks exec --exec-id c exec sh -c 'read line; echo $line; echo >/up; cat'
         c tasks exec --exec-id d exec sh -c 'exit 9' || echo status $?
         c tasks exec --exec-id e exec no-such-command 2>&1 | grep -c 'executable file not found in'
         terminal $C tasks exec -t --exec-id f exec sh -c '\"tty; until stty size 2>/dev/null | grep .; do :; done\"'
         finish exec $job",
        "in\nmine\n1000\n2000\n/www\ninput\nstatus 9\n1\n/dev/pts/0\n33 77\nstatus 137",
    ),
    row(
        "run -d, list, processes, metrics, kill, delete",
        "run detached -d $up --pid-file /run/world/pid box sh -c 'echo >/up; exec sleep 1000'
         is_up
         pid=$(cat pid); until tr '\\0' ' ' </proc/$pid/cmdline | grep -o '^sleep 1000'; do :; done
         c tasks ls | awk -v pid=$pid '$2 == pid {print $1, $3}'
         c tasks ps detached | awk -v pid=$pid '$1 == pid' | wc -l
         c tasks metrics detached | grep -c '^pids.current'
         c tasks delete detached 2>/dev/null || echo refused
         c tasks delete -f detached || true
         c containers delete detached
         c tasks ls -q",
        "sleep 1000\ndetached RUNNING\n1\n1\nrefused",
    ),
    row(
        "pause and resume",
        "run pause $up --rm box sh -c 'echo >/up; exec sleep 1000' & job=$!
         is_up
         c tasks pause pause; c tasks ls | awk '$1 == \"pause\" {print $3}'
         c tasks exec --exec-id a pause true 2>/dev/null || echo refused
         c tasks resume pause; c tasks ls | awk '$1 == \"pause\" {print $3}'
         finish pause $job",
        "PAUSED\nrefused\nRUNNING\nstatus 137",
    ),
    row(
        "kill: a signal that is heard, and one for all processes",
        "run polite $up --rm box sh -c 'trap \"exit 3\" TERM; echo >/up; while :; do sleep 1000 & wait; done' & job=$!
         is_up
         c tasks kill polite; wait $job || echo status $?
         run whole $up --rm box sh -c 'sleep 1000 & echo >/up; wait' & job=$!
         is_up
         c tasks kill -a -s KILL whole; wait $job || echo status $?",
        "status 3\nstatus 137",
    ),
    row(
        "ten at once",
        "for i in $(seq 10); do run many$i --rm box echo $i & done | sort -n | tr '\\n' ' '",
        "1 2 3 4 5 6 7 8 9 10",
    ),
];

/// Checkpoints into a directory, for which ctr of containerd 1.x cannot ask a runtime whose name does not begin with
/// io.containerd.runc. They need criu. The container counts.
pub const CHECKPOINT_PATH_ROWS: &[Row] = &[row(
    "checkpoint: a running container goes on, or ends",
    "run going -d --null-io $up box sh -c 'trap \"echo \\$n >/up\" USR1; n=0; echo >/up; while :; do n=$((n+1)); done'
         is_up
         c tasks checkpoint --image-path /run/world/image.1 --work-path /run/world/work.1 going >/dev/null
         ls image.1/inventory.img; c tasks ls | awk '$1 == \"going\" {print $3}'
         c tasks checkpoint --exit --image-path /run/world/image.2 --work-path /run/world/work.2 going >/dev/null
         ls image.2/inventory.img; c tasks ls | awk '$1 == \"going\" {print $3}'
         c tasks delete going 2>/dev/null || true; c containers delete going",
    "image.1/inventory.img\nRUNNING\nimage.2/inventory.img\nSTOPPED",
)];

/// Checkpoints; they need criu. The container counts, and says how far it is when it is sent USR1.
pub const CHECKPOINT_ROWS: &[Row] = &[row(
    "checkpoint into an image, and restore from it",
    "run two -d --null-io $up box sh -c 'trap \"echo \\$n >/up\" USR1; n=0; echo >/up; while :; do n=$((n+1)); done'
         is_up
         c tasks kill -s USR1 two; before=$(heard)
         c containers checkpoint --rw --task --image two saved:1
         c tasks delete -f two 2>/dev/null || true; c containers delete two
         c containers restore --live --rw three saved:1
         c tasks kill -s USR1 three; after=$(heard)
         [ \"$after\" -ge \"$before\" ] && echo counted on
         c tasks delete -f three 2>/dev/null || true; c containers delete three",
    "counted on",
)];

/// With systemd's cgroups, after its own prologue: what containerd, its shim and the runtime tell systemd.
pub const SYSTEMD_ROWS: &[Row] = &[
    row(
        "a scope in the slice, with limits that it and the cgroup have",
        "run one -d --null-io $up --memory-limit 67108864 --cpu-quota 50000 --cpu-period 100000 box \
            sh -c 'echo >/up; exec sleep 1000'
         is_up
         show ctr-one.scope Slice ActiveState MemoryMax CPUQuotaPerSecUSec | sed s/$CG/slice/
         cd /sys/fs/cgroup/$CG/ctr-one.scope; cat memory.max cpu.max
         systemctl daemon-reload; cat memory.max cpu.max",
        "slice\nactive\n67108864\n500ms\n67108864\n50000 100000\n67108864\n50000 100000",
    ),
    row(
        "exec: beside the container",
        "c tasks exec -d --exec-id c --fifo-dir /run/world/fifos one sleep 2000
         for pid in $(c tasks ps one | tail -n +2 | cut -d' ' -f1); do grep -c '/ctr-one.scope$' /proc/$pid/cgroup; done | uniq -c | tr -s ' '",
        " 2 1",
    ),
    row(
        "metrics of version 2",
        "c tasks metrics one | awk '$1 == \"pids.current\" || $1 == \"memory.usage_limit\" {print $1, $2}
            $1 == \"cpu.usage_usec\" || $1 == \"memory.usage\" {print $1, ($2 > 0)}' | sort",
        "cpu.usage_usec 1\nmemory.usage 1\nmemory.usage_limit 67108864\npids.current 2",
    ),
    row(
        "pause, resume, kill, delete: no unit is left",
        "c tasks pause one; c tasks ls | awk '$1 == \"one\" {print $3}'; show ctr-one.scope ActiveState
         c tasks resume one; c tasks ls | awk '$1 == \"one\" {print $3}'
         c tasks kill -s KILL one
         until c tasks ls | grep -q 'one.*STOPPED'; do :; done
         c tasks delete one 2>/dev/null || true; c containers delete one; gone ctr-one.scope",
        "PAUSED\nactive\nRUNNING\ngone",
    ),
    row(
        "a container that wants more memory is killed, and no unit is left",
        "run oom --rm --memory-limit 16777216 box tail /dev/zero || echo status $?; gone ctr-oom.scope",
        "status 137\ngone",
    ),
    row(
        "a path of the other form is refused with the runtime's words",
        "c run --rm $R --cgroup /a/b box:latest refused true 2>&1 | grep -c 'is not of the form slice:prefix:name'
         c containers delete refused 2>/dev/null || true; c tasks ls -q | wc -l",
        "1\n0",
    ),
];

# Prints the seccomp profile that dockerd gives to an ordinary container, as it stands in config.json (linux.seccomp).
#
# dockerd runs in mount, network and pid namespaces of its own whose writable places are tmpfs, and goes with them. The
# runtime it is given keeps the configuration and fails. Needs root, dockerd, docker, containerd, jq, tar.
set -eu
exec 3>&1 >&2
for place in /run /var/lib /tmp; do mount -t tmpfs -o mode=1777 private $place; done
cd /run
mkdir root
tar -C root -cf root.tar .
cat >keep <<'END'
#!/bin/sh
while [ $# -gt 0 ]; do
	[ "$1" != --bundle ] || cp "$2/config.json" /run/kept
	shift
done
exit 1
END
chmod +x keep
mkfifo said
dockerd --data-root /run/data --exec-root /run/exec --host unix:///run/docker.sock --pidfile /run/pid --group root \
	--storage-driver vfs --iptables=false --ip6tables=false --bridge none --add-runtime keep=/run/keep >said 2>&1 &
# Its words are read to the end, or it would wait for a reader.
while read -r line; do
	case $line in *'API listen on'*)
		cat >/dev/null &
		break ;;
	*) echo "$line" ;;
	esac
done <said
docker -H unix:///run/docker.sock import root.tar image
docker -H unix:///run/docker.sock run --runtime keep --network none image true || true
jq .linux.seccomp kept >&3

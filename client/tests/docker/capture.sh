# Reads lines `name flags…`, and prints for each what dockerd writes into config.json for `docker run flags…`: a line of JSON, {"name": …, "spec": …}.
#
# dockerd runs in mount, network and pid namespaces of its own whose writable places are tmpfs, and goes with them. The runtime it is
# given keeps the configuration and fails. Needs root, dockerd, docker, containerd, jq, tar.
set -eu
exec 3>&1 >&2
for place in /run /var/lib; do mount -t tmpfs -o mode=1777 private $place; done
cd /run
cat >rows
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
mkdir -p root/etc host
printf 'root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/var/www:/bin/sh\n' >root/etc/passwd
printf 'root:x:0:\nwww:x:34:\naudio:x:29:web\nvideo:x:44:root,web\n' >root/etc/group
tar -C root -cf root.tar .
docker -H unix:///run/docker.sock import -c 'ENV A=image' -c 'ENV PATH=/x:/bin' -c 'WORKDIR /app' -c 'ENTRYPOINT ["/ep"]' -c 'CMD ["c1"]' root.tar image
while read -r name flags; do
	rm -f kept
	eval "docker -H unix:///run/docker.sock run --runtime keep --network none $flags" </dev/null || true
	jq -c --arg name "$name" '{name: $name, spec: .}' kept >&3
done <rows

# Turns the fresh mount, network and pid namespace this runs in, as its process 1, into a machine of its own: what a caller
# of the runtime writes outside its flags' reach (/run, /tmp, /var/lib, /etc, shared memory) lies on tmpfs and goes with the
# namespace. When all is ready it prints its
# process id as the host sees it and that of its helper as the world sees it. It ends with its input, and the world with it.
#
# KEEP: what of /run stays the host's. With any the host's process numbers stay too: there is no pid namespace.
set -eu
read -r pid rest </proc/self/stat
mount -t tmpfs -o mode=755 world /tmp
for place in $KEEP; do
	[ ! -d "/run/$place" ] || { mkdir "/tmp/$place" && mount --rbind "/run/$place" "/tmp/$place"; }
done
# Without a record in /run, which it replaces.
mount -n --move /tmp /run
mkdir -p /run/world/bin /run/criu /run/lock /run/user /run/etc.upper /run/etc.work
cp "$TARE" /run/world/bin/tare
# Callers that look for "runc" by name find the runtime under test too.
ln -s tare /run/world/bin/runc
[ -n "$KEEP" ] || mount -t proc proc /proc
[ -z "$CRIU" ] || mount --bind "$CRIU" /run/criu
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc.upper,workdir=/run/etc.work etc /etc
mount -t tmpfs -o mode=755 world /var/lib
mount -t tmpfs -o mode=1777 world /tmp
mount -t tmpfs -o mode=1777 world /var/tmp
mount -t tmpfs -o mode=1777 world /dev/shm
# criu's own directory may be one of those just covered, and it looks for its libraries there.
if [ -n "$CRIU" ]; then
	mkdir -p "$CRIU"
	mount --move /run/criu "$CRIU"
fi
# Shared, as systemd makes it on most hosts: a mount that a runtime lets out would come back in the host's table.
mount --make-rshared /
ip link set lo up

# The image every caller imports: a static busybox and the few files that callers look for.
cd /run/world
mkdir -p rootfs/bin rootfs/dev rootfs/etc rootfs/proc rootfs/root rootfs/sys rootfs/var rootfs/www
mkdir -m 1777 rootfs/tmp
cp "$(command -v busybox)" rootfs/bin/busybox
for applet in $(busybox --list); do
	[ "$applet" = busybox ] || ln -s busybox "rootfs/bin/$applet"
done
echo 'from the image' >rootfs/www/index.html
printf 'root:x:0:0:root:/root:/bin/sh\nana:x:1000:1000::/tmp:/bin/sh\n' >rootfs/etc/passwd
printf 'root:x:0:\nana:x:1000:\nteam:x:2000:ana\n' >rootfs/etc/group
tar -C rootfs -cf rootfs.tar .

# As process 1 this shell reaps what is orphaned while it waits.
exec 3<&0
cat <&3 >/dev/null &
echo "$pid $!"
wait $!

# Makes the layers of an image that has in it what layers can hold: layer1.tar and so on, in the current directory.
# Names and times are odd on purpose.
set -eu
umask 022
long=$(printf '%0200d' 7)
longest=$long/$long/$long

# What a tree can hold.
mkdir -p a/etc a/usr/bin a/usr/lib a/tmp a/home/private a/dev a/gone/below a/opaque/below a/was-directory/x a/stays "a/$longest"
chmod 1777 a/tmp && chmod 700 a/home/private && chmod 2775 a/usr/lib
echo text >a/etc/file
: >a/etc/empty
: >a/etc/no-mode && chmod 000 a/etc/no-mode
echo program >a/usr/bin/setuid && chown 12:34 a/usr/bin/setuid && chmod 6755 a/usr/bin/setuid
echo far >a/etc/far && chown 3000000:4000000 a/etc/far
echo capable >a/usr/bin/capable && chmod 755 a/usr/bin/capable
setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 a/usr/bin/capable
echo noted >a/etc/noted && setfattr -n user.note -v 'a note' a/etc/noted && setfattr -n user.binary -v 0x00ff00 a/etc/noted
setfattr -n user.of -v directory a/usr/lib
setfattr -n trusted.note -v trusted a/etc/noted
ln -s file a/etc/link && ln -s /no/where a/etc/dangling && ln -s "../$longest" a/etc/long-link && ln -s usr/lib a/lib
chown -h 77:88 a/etc/link
ln a/etc/file a/usr/lib/hard && ln a/etc/link a/usr/lib/hard-link
mkfifo a/dev/fifo && mknod a/dev/null c 1 3 && chmod 666 a/dev/null && mknod a/dev/loop b 7 200
# A device that a whiteout looks like, but for its numbers.
mknod a/dev/zero-one c 0 1
echo deep >"a/$longest/file"
printf 'x' >"a/etc/$(printf 'not-utf8-\377\376')" && echo 'odd' >'a/etc/sp ace	tab'
truncate -s 3M a/etc/holes && printf end >>a/etc/holes && printf middle | dd of=a/etc/holes bs=1 seek=1000000 conv=notrunc status=none
head -c 300000 /dev/zero | tr '\0' 'z' >a/etc/long
touch -d '1970-01-01 00:00:00 UTC' a/etc/empty
touch -d '2105-06-07 08:09:10.123456789 UTC' a/etc/far
touch -h -d '2001-02-03 04:05:06.5 UTC' a/etc/link
echo gone >a/gone/below/file && echo gone >a/etc/gone && echo hidden >a/opaque/below/file && echo x >a/was-directory/x/y
echo file >a/was-file && ln -s stays a/was-link && echo stays >a/stays/file && echo shared >a/stays/shared
touch -d '2010-01-01 00:00:00 UTC' a/home a/home/private a/stays a/usr a/usr/bin a/usr/lib a/etc a/opaque
tar -C a --format=pax --sparse --xattrs --xattrs-include='*' --numeric-owner --sort=name -cf layer1.tar .

# What it changes: whiteouts, opaque directories, other kinds. In GNU's format; the marker of opaqueness behind what it is about.
mkdir -p b/etc b/gone b/opaque/new b/was-file b/was-link b/usr/lib b/stays
: >b/.wh.gone && rm -r b/gone && : >b/etc/.wh.gone && echo new >b/opaque/new/file && : >b/opaque/.wh..wh..opq
echo now >b/was-directory && echo below >b/was-file/file && echo no-link >b/was-link/file
echo other >b/etc/long && chmod 2770 b/usr/lib && chown 5:6 b/usr/lib
touch -d '2011-01-01 00:00:00 UTC' b/etc b/usr b/usr/lib b/opaque b/stays
mkdir -p b/stays && echo again >b/stays/file
(cd b && find . -mindepth 1 ! -name '.wh..wh..opq' | LC_ALL=C sort) >names
tar -C b --format=gnu --numeric-owner --no-recursion -T names -cf layer2.tar ./opaque/.wh..wh..opq

# What is gone comes back, a directory that the layer does not list, and a way through a link of a lower layer.
mkdir -p c/gone c/usr/share/new c/stays c/lib
echo back >c/gone/file && echo back >c/etc-gone && echo deep >c/usr/share/new/file
# /lib is usr/lib.
echo through >c/lib/through
touch -d '2012-01-01 00:00:00 UTC' c/gone c/usr/share/new
printf '%s\n' ./gone ./gone/file ./etc-gone ./usr/share/new/file ./lib/through |
    tar -C c --format=ustar --numeric-owner --no-recursion -T - -cf layer3.tar

# A hard link to what a lower layer has: the layer has the link, and not what it is a link to.
mkdir -p d/stays
echo shared >d/stays/shared && ln d/stays/shared d/stays/second
printf '%s\n' ./stays/shared ./stays/second | tar -C d --format=ustar --numeric-owner --no-recursion -T - -cf layer4.tar
tar --delete -f layer4.tar ./stays/shared

/*
 * The kernel's floor: what the default bundle (that of `runc spec`, without a terminal) costs a program that does exactly
 * the system calls it implies and nothing else. No parsing, no checks of paths, no state, no safety: not a runtime.
 *
 *     floor ROOTFS PROGRAM [NAME:DIRECTORY]...
 *
 * NAME:DIRECTORY is a cgroup to make, join, show under /sys/fs/cgroup/NAME and remove; an empty NAME is not shown (the
 * unified hierarchy of a hybrid host), the name "2" is cgroup v2 mounted as a whole. The benchmark passes this host's.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static void check(int result, const char *what)
{
	if (result < 0) {
		fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
		_exit(125);
	}
}

static void put(int dir, const char *file, const char *text)
{
	int fd = openat(dir, file, O_WRONLY | O_CLOEXEC);
	check(fd, file);
	check(write(fd, text, strlen(text)), file);
	close(fd);
}

static void inherit(int dir, const char *file)
{
	char path[32] = "../", text[256];
	int fd = openat(dir, strcat(path, file), O_RDONLY | O_CLOEXEC);
	check(fd, path);
	ssize_t size = read(fd, text, sizeof text - 1);
	close(fd);
	if (size <= 1)
		return;
	text[size] = 0;
	put(dir, file, text);
}

static void bind_over(const char *from, const char *to, unsigned long flags)
{
	check(mount(from, to, NULL, MS_BIND | MS_REC, NULL), to);
	check(mount(NULL, to, NULL, MS_BIND | MS_REMOUNT | flags, NULL), to);
}

static void node(const char *path, mode_t mode, int major, int minor)
{
	check(mknod(path, S_IFCHR | mode, makedev(major, minor)), path);
}

static void enter(const char *root, int count, char **cgroups)
{
	static const char *masked[] = { "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi" };
	static const char *readonly[] = { "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger" };
	const unsigned long strict = MS_NOSUID | MS_NODEV | MS_NOEXEC;

	check(mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL), "/");
	check(mount(root, root, NULL, MS_BIND | MS_REC, NULL), root);
	check(chdir(root), root);
	check(mount("proc", "proc", "proc", 0, NULL), "proc");
	check(mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"), "dev");
	mkdir("dev/pts", 0755);
	check(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"), "dev/pts");
	mkdir("dev/shm", 0755);
	check(mount("shm", "dev/shm", "tmpfs", strict, "mode=1777,size=65536k"), "dev/shm");
	mkdir("dev/mqueue", 0755);
	check(mount("mqueue", "dev/mqueue", "mqueue", strict, NULL), "dev/mqueue");
	check(mount("sysfs", "sys", "sysfs", strict | MS_RDONLY, NULL), "sys");
	if (count > 0 && strncmp(cgroups[0], "2:", 2) == 0) {
		check(mount("cgroup", "sys/fs/cgroup", "cgroup2", strict | MS_RELATIME | MS_RDONLY, NULL), "cgroup");
	} else if (count > 0) {
		check(mount("cgroup", "sys/fs/cgroup", "tmpfs", strict, "mode=755"), "cgroup");
		for (int i = 0; i < count; i++) {
			char *colon = strchr(cgroups[i], ':'), to[128];
			if (colon == cgroups[i])
				continue;
			snprintf(to, sizeof to, "sys/fs/cgroup/%.*s", (int)(colon - cgroups[i]), cgroups[i]);
			check(mkdir(to, 0755), to);
			bind_over(colon + 1, to, strict | MS_RELATIME | MS_RDONLY);
		}
		check(mount(NULL, "sys/fs/cgroup", NULL, MS_REMOUNT | MS_BIND | strict | MS_RDONLY, NULL), "cgroup");
	}
	mode_t mask = umask(0);
	node("dev/null", 0666, 1, 3);
	node("dev/zero", 0666, 1, 5);
	node("dev/full", 0666, 1, 7);
	node("dev/random", 0666, 1, 8);
	node("dev/urandom", 0666, 1, 9);
	node("dev/tty", 0666, 5, 0);
	umask(mask);
	symlink("pts/ptmx", "dev/ptmx");
	symlink("/proc/self/fd", "dev/fd");
	symlink("/proc/self/fd/0", "dev/stdin");
	symlink("/proc/self/fd/1", "dev/stdout");
	symlink("/proc/self/fd/2", "dev/stderr");

	check(syscall(SYS_pivot_root, ".", "."), "pivot_root");
	check(umount2(".", MNT_DETACH), "the old root");
	check(mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL), "/");
	check(sethostname("floor", 5), "sethostname");
	for (size_t i = 0; i < sizeof readonly / sizeof *readonly; i++)
		if (mount(readonly[i], readonly[i], NULL, MS_BIND | MS_REC, NULL) == 0)
			check(mount(NULL, readonly[i], NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | strict, NULL), readonly[i]);
	for (size_t i = 0; i < sizeof masked / sizeof *masked; i++)
		if (mount("/dev/null", masked[i], NULL, MS_BIND, NULL) < 0 && errno == ENOTDIR)
			check(mount("tmpfs", masked[i], "tmpfs", MS_RDONLY, NULL), masked[i]);
}

int main(int argc, char **argv)
{
	static const char *rules[] = { "b *:* m", "c *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm",
		"c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm", "c 10:200 rwm", "c 136:* rwm" };
	int go[2], status, dirs[32], count = argc - 3;
	char **cgroups = argv + 3, byte = 0, pid_text[16];

	if (argc < 3 || count > 32) {
		fprintf(stderr, "floor ROOTFS PROGRAM [NAME:DIRECTORY]...\n");
		return 125;
	}
	for (int i = 0; i < count; i++) {
		char *colon = strchr(cgroups[i], ':');
		size_t length = colon - cgroups[i];
		check(mkdir(colon + 1, 0755), colon + 1);
		check(dirs[i] = open(colon + 1, O_PATH | O_DIRECTORY | O_CLOEXEC), colon + 1);
		if (length == 6 && memcmp(cgroups[i], "cpuset", 6) == 0) {
			inherit(dirs[i], "cpuset.cpus");
			inherit(dirs[i], "cpuset.mems");
		}
		if (length == 7 && memcmp(cgroups[i], "devices", 7) == 0) {
			put(dirs[i], "devices.deny", "a");
			for (size_t n = 0; n < sizeof rules / sizeof *rules; n++)
				put(dirs[i], "devices.allow", rules[n]);
		}
	}
	check(pipe2(go, O_CLOEXEC), "pipe");
	long child = syscall(SYS_clone, CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS | SIGCHLD, 0, 0, 0, 0);
	check(child, "clone");
	if (child == 0) {
		read(go[0], &byte, 1);
		enter(argv[1], count, cgroups);
		execl(argv[2], argv[2], NULL);
		check(-1, argv[2]);
	}
	snprintf(pid_text, sizeof pid_text, "%ld", child);
	for (int i = 0; i < count; i++)
		put(dirs[i], "cgroup.procs", pid_text);
	write(go[1], &byte, 1);
	check(waitpid(child, &status, 0), "waitpid");
	for (int i = 0; i < count; i++) {
		/* A v1 cgroup stays busy until its last task has been freed, a moment after it can be waited for. */
		while (rmdir(strchr(cgroups[i], ':') + 1) < 0 && errno == EBUSY)
			sched_yield();
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 125;
}

//! A store of somebody who is not the host's root: of an ordinary user, and of the root of a user namespace, be it one in which everybody is
//! himself. Marks of overlayfs that he may set, and what he may not make is passed over.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use integration::registry::Registry;
use integration::store::{Daemon, Ran, run, serve_on, tempdir, under_test, upper};
use integration::{need, skip};

use crate::harness::publish;

/// An ordinary user, of whom the host need not know.
const UID: u32 = 2001;
/// Root of the user namespace, as the host counts.
const MAPPED: u32 = 100_000;

/// What is not everybody's to make, and directories that keep their own owner out.
const BASE: &str = "
    mkdir -p etc dev closed/inner d/below old
    echo one >etc/one; chown 7:8 etc/one; setfattr -n trusted.note -v x etc/one
    echo root >etc/setuid; chmod 4755 etc/setuid
    mknod dev/null c 1 3; mkfifo dev/pipe
    echo closed >closed/file; setfattr -n user.note -v kept closed/file; chmod 444 closed/file
    echo gone >closed/gone; echo inner >closed/inner/file; chmod 555 closed/inner closed
    echo below >d/below/file; echo old >old/file
    for mode in 0 111 300 444; do
        mkdir -p shut/$mode/in; echo $mode >shut/$mode/in/file; echo gone >shut/$mode/gone; chmod $mode shut/$mode/in shut/$mode
    done
    chmod 0 shut; chmod 555 .";

/// A file that its own owner may not read.
const SECRET: &str = "mkdir etc; echo secret >etc/secret; chmod 0 etc/secret";

/// Over it: whiteouts, opaque directories, a file in a directory's place, a hard link to a file below.
const UPPER: &str = "
    mkdir -p closed/inner d shut/0 shut/300/in shut/111
    touch shut/0/.wh.gone shut/300/in/.wh.file shut/300/.wh.gone shut/111/.wh..wh..opq
    chmod 0 shut/0 shut; chmod 300 shut/300/in shut/300; chmod 111 shut/111
    touch closed/file; ln closed/file closed/linked; below=./closed/file
    touch closed/.wh.gone closed/inner/.wh..wh..opq d/.wh..wh..opq
    echo more >closed/more; echo new >d/new; echo file >old
    chmod 555 closed/inner closed .";

/// What is seen of both.
const SEEN: &str = "
    cat etc/one closed/file closed/linked closed/more d/new old
    ls closed closed/inner d | tr '\\n' ' '; echo
    stat -c %a . closed closed/inner closed/file closed/linked etc/setuid | tr '\\n' ' '; echo
    find shut/* | sort | xargs stat -c '%n %a'
    getfattr --only-values -n user.note closed/file; [ -p dev/pipe ] && echo; ls dev";

const AS_MADE: &str = "one\nclosed\nclosed\nmore\nnew\nfile\n\
    closed: file inner linked more  closed/inner:  d: new \n555 555 555 444 444 4755 \n\
    shut/0 0\nshut/0/in 0\nshut/0/in/file 644\nshut/111 111\nshut/300 300\nshut/300/in 300\n\
    shut/444 444\nshut/444/gone 644\nshut/444/in 444\nshut/444/in/file 644\nkept\n";

/// In a container on it.
const CHANGES: &str = "
    rm closed/file; rm -r d; mkdir d; echo again >d/again; echo changed >etc/one; mkdir new; chmod 500 new
    rm shut/0/in/file; echo new >shut/444/in/new; mkdir shut/new; echo hidden >shut/new/file; chmod 0 shut/new/file shut/new; chmod 444 shut";

const CHANGED: &str = "changed\nagain\nhidden\nagain\nfile\nnew\n500 444 0 0 0 0";
const LOOK: &str = "
    cat etc/one d/again shut/new/file; ls d shut/444/in shut/0/in | grep -v : | grep .; [ ! -e closed/file ]
    echo $(stat -c %a new shut shut/0 shut/0/in shut/new shut/new/file)";

/// A layer of what a script makes in its directory, without the entry that it calls `below`: links to it are to what lies below.
fn made(script: &str) -> Vec<u8> {
    let (directory, layer) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
    let words = "tar --sort=name --numeric-owner --mtime=@1700000000 --xattrs '--xattrs-include=*' -cf \"$0\" .
        [ -z \"${below:-}\" ] || tar --delete -f \"$0\" \"$below\"";
    let script = format!("umask 022; set -e; {script}\n{words}");
    let output =
        Command::new("sh").args(["-c", &script]).arg(layer.path()).current_dir(directory.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(layer.path()).unwrap()
}

/// A store, and how its owner runs a program.
struct Owned {
    daemon: Daemon,
    program: PathBuf,
    /// Words before those of a command.
    before: Vec<String>,
}

/// `program` and its words in place of a command's own, which follow.
fn behind(words: &[String], program: &Path, command: &Command) -> Command {
    let mut wrapped = Command::new(&words[0]);
    wrapped.args(&words[1..]).arg(program).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    wrapped
}

fn words(of: &[&str]) -> Vec<String> {
    of.iter().map(|it| (*it).to_owned()).collect()
}

/// A directory of this user, with the program, which may lie where he cannot look.
fn directory_of(uid: u32) -> (PathBuf, PathBuf) {
    let dir = tempdir();
    let program = dir.join("tare-store");
    // By another process: whatever this one starts meanwhile would have the file open for writing, and it could not be run.
    assert!(Command::new("cp").args([&under_test(), &program]).status().unwrap().success());
    std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::create_dir(dir.join("seen")).unwrap();
    for path in [dir.clone(), dir.join("seen")] {
        chown(path, Some(uid), Some(uid)).unwrap();
    }
    (dir, program)
}

/// The daemon says to a socket of the test's that it is ready.
fn for_everybody(dir: &Path) {
    std::fs::set_permissions(dir.join("ready"), PermissionsExt::from_mode(0o777)).unwrap();
}

impl Owned {
    fn by_a_user() -> Self {
        let (dir, program) = directory_of(UID);
        let before = words(&["setpriv", &format!("--reuid={UID}"), &format!("--regid={UID}"), "--clear-groups", "--"]);
        let daemon = Daemon::spawn(&dir, &[], |command| {
            for_everybody(&dir);
            let log = std::fs::OpenOptions::new().append(true).open(dir.join("log")).unwrap();
            *command = behind(&before, &program, command);
            command.stdin(std::process::Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        });
        Self { daemon, program, before }
    }

    /// Who has many users, but not the host's.
    fn by_the_root_of_a_namespace(first: u32, count: u32) -> Self {
        let (dir, program) = directory_of(first);
        // Who is in a new namespace waits for its maps, which only somebody outside may write.
        let enter = format!(
            "mkfifo {0}/made {0}/mapped
             (read _ <{0}/made; for map in uid gid; do echo 0 {first} {count} >/proc/$$/${{map}}_map; done; echo >{0}/mapped) &
             exec unshare --user --keep-caps sh -c 'echo >{0}/made; read _ <{0}/mapped; exec setpriv --reuid=0 --regid=0 --clear-groups -- \"$@\"' sh \"$@\"",
            dir.display()
        );
        let daemon = Daemon::spawn(&dir, &[], |command| {
            for_everybody(&dir);
            let log = std::fs::OpenOptions::new().append(true).open(dir.join("log")).unwrap();
            *command = behind(&words(&["sh", "-c", &enter, "sh"]), &program, command);
            command.stdin(std::process::Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        });
        let before = words(&["nsenter", "--user", "--target", &daemon.pid().to_string(), "--"]);
        Self { daemon, program, before }
    }

    fn run(&self, args: &[&str]) -> Ran {
        run(behind(&self.before, &self.program, &self.daemon.command(args)), None)
    }

    /// What a script prints in a mount of a snapshot, which goes with it. The owner of the store is root there.
    fn within(&self, kind: &str, key: &str, parent: &str, script: &str) -> String {
        let seen = self.daemon.dir.join("seen");
        let mount = self.run(&["snapshot", kind, key, parent, "--target", seen.to_str().unwrap()]).ok().stdout;
        assert!(mount.contains("userxattr"), "{mount}");
        let script = format!("set -eu; {mount}\ncd {}\n{script}", seen.display());
        self.as_root(&script)
    }

    /// What a script prints in a mount namespace, for the root of a user namespace that has the store's owner.
    fn as_root(&self, script: &str) -> String {
        let mut command = Command::new(&self.before[0]);
        command.args(&self.before[1..]).args([
            "unshare",
            if self.is_a_user() { "-rm" } else { "-m" },
            "sh",
            "-c",
            script,
        ]);
        run(command, None).ok().stdout
    }

    fn is_a_user(&self) -> bool {
        self.before[0] == "setpriv"
    }

    fn chain(&self, image: &str) -> String {
        let inspected: serde_json::Value =
            serde_json::from_str(&self.run(&["--json", "inspect", image]).ok().stdout).unwrap();
        inspected["chainId"].as_str().unwrap().to_owned()
    }
}

/// From a registry to a container's changes, and what comes of them at root's store.
fn goes_round(store: Owned) {
    let registry = Registry::start();
    let image = publish(&registry, "app", "1", &[made(BASE), made(UPPER)]);
    store.run(&["pull", &image]).ok();
    let chain = store.chain(&image);
    assert_eq!(store.within("view", "seen", &chain, SEEN), AS_MADE.to_owned() + "pipe\n");
    let secret = publish(&registry, "secret", "1", &[made(&format!("{SECRET}\n{BASE}")), made(UPPER)]);
    store.run(&["pull", &secret]).ok();
    assert_eq!(
        store.within("view", "secret", &store.chain(&secret), "stat -c %a etc/secret; cat etc/secret"),
        "0\nsecret\n"
    );
    store.run(&["snapshot", "rm", "secret"]).ok();
    // The same without overlayfs: whole copies, for which everything must be read.
    store.run(&["unpack", "--snapshotter", "native", &secret]).ok();
    let words = ["--json", "snapshot", "prepare", "--snapshotter", "native", "copy", &store.chain(&secret)];
    let copied: serde_json::Value = serde_json::from_str(&store.run(&words).ok().stdout).unwrap();
    assert_eq!(store.as_root(&format!("cd {}\n{SEEN}", upper(&copied).display())), AS_MADE.to_owned() + "pipe\n");
    store.run(&["snapshot", "rm", "--snapshotter", "native", "copy"]).ok();
    store.within("prepare", "work", &chain, CHANGES);
    store.run(&["commit", "work", "example.org/made", "--base", &image]).ok();
    assert_eq!(store.within("view", "made", &store.chain("example.org/made"), LOOK).trim(), CHANGED);
    let pushed = image.replace("app:1", "made:1");
    store.run(&["push", "example.org/made", &pushed]).ok();
    assert_eq!(store.run(&["fsck"]).ok().stdout, "0 problems, 0 repaired\n");

    // The same layers, where marks are root's.
    let roots = Daemon::start();
    roots.run(&["pull", &pushed]).ok();
    let chain = roots.json(&["inspect", &pushed])["chainId"].as_str().unwrap().to_owned();
    let seen = roots.dir.join("seen");
    std::fs::create_dir(&seen).unwrap();
    let mount = roots.run(&["snapshot", "view", "made", &chain, "--target", seen.to_str().unwrap()]).ok().stdout;
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &format!("set -eu; {mount}\ncd {}\n{LOOK}; [ -c dev/null ]", seen.display())]);
    assert_eq!(run(command, None).ok().stdout.trim(), CHANGED);
    roots.stop();

    // And nothing is left behind, whatever its permissions are.
    for key in ["seen", "work", "made"] {
        store.run(&["snapshot", "rm", key]).ok();
    }
    store.run(&["rmi", &image, &secret, "example.org/made"]).ok();
    store.run(&["gc"]).ok();
    let left = std::fs::read_dir(store.daemon.dir.join("root/snapshots")).unwrap().count();
    assert_eq!(left, 0);
    let dir = store.daemon.dir.clone();
    store.daemon.stop();
    std::fs::remove_dir_all(dir).unwrap();
}

/// Whether who these words make of us may make a user namespace and mount an overlay there.
fn mounts_overlays(before: &[&str]) -> bool {
    let script = "mount -t tmpfs none /mnt && mkdir /mnt/a /mnt/b && mount -t overlay overlay -o lowerdir=/mnt/a:/mnt/b,userxattr /mnt/a";
    let mut command = Command::new(before[0]);
    command.args(&before[1..]).args(["unshare", "-rm", "sh", "-c", script]);
    run(command, None).code == Some(0)
}

#[test]
fn an_ordinary_user_has_a_store() {
    need!("setpriv", "unshare", "setfattr");
    if !mounts_overlays(&["setpriv", &format!("--reuid={UID}"), &format!("--regid={UID}"), "--clear-groups", "--"]) {
        skip!("no ordinary user makes a user namespace here and mounts overlays in it (Linux 5.11)");
    }
    goes_round(Owned::by_a_user());
}

#[test]
fn the_root_of_a_user_namespace_has_a_store() {
    need!("setpriv", "unshare", "nsenter", "setfattr");
    if !mounts_overlays(&["env"]) {
        skip!("this kernel mounts no overlays in user namespaces (Linux 5.11)");
    }
    goes_round(Owned::by_the_root_of_a_namespace(MAPPED, 65536));
}

/// Every id is his own and the host's, and yet he makes no devices and none of root's marks.
#[test]
fn the_root_of_a_user_namespace_of_all_users_has_a_store() {
    need!("setpriv", "unshare", "nsenter", "setfattr");
    if !mounts_overlays(&["env"]) {
        skip!("this kernel mounts no overlays in user namespaces (Linux 5.11)");
    }
    goes_round(Owned::by_the_root_of_a_namespace(0, u32::MAX));
}

/// Who may not write to a root is told what was tried on what, and who may not speak to a daemon too.
#[test]
fn who_may_not_is_told_so() {
    need!("setpriv");
    let owned = Owned::by_a_user();
    let others = directory_of(0).0;
    std::fs::create_dir_all(others.join("root/metadata.db")).unwrap();
    std::fs::set_permissions(others.join("root"), PermissionsExt::from_mode(0o700)).unwrap();
    for (root, named, why) in [
        (others.join("root"), "root", "belongs to user 0"),
        (others.join("root/below"), "root/below", "Permission denied"),
        (others.join("new"), "new", "Permission denied"),
    ] {
        let command = serve_on(&owned.daemon.dir.join("other/s"), &root, &[]);
        let ran = run(behind(&owned.before, &owned.program, &command), None).fails();
        assert!(ran.stderr.contains(why) && ran.stderr.contains(named), "{}", ran.stderr);
    }
    // A socket of another user's, even where its directory would let one in.
    let roots = Daemon::start();
    let ran = run(behind(&owned.before, &owned.program, &roots.command(&["images"])), None).fails();
    let told = format!("tare-store: {} belongs to another user: run this as that user\n", roots.socket().display());
    assert_eq!(ran.stderr, told);
    roots.stop();
    let dir = owned.daemon.dir.clone();
    owned.daemon.stop();
    for dir in [dir, others] {
        std::fs::remove_dir_all(dir).unwrap();
    }
}

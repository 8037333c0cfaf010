//! A logger's descriptors arrive at their numbers. Alone in its program, so that the lowest numbers are free for it.

use std::ffi::CString;
use std::fs::{File, read_link, read_to_string};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use tare_shim::sys::spawn::with_descriptors;

#[test]
fn descriptors_arrive_where_others_of_them_were() {
    let directory = tempfile::tempdir().unwrap();
    let [one, two, three] = ["one", "two", "three"].map(|name| directory.path().join(name));
    let open = |path: &PathBuf| File::options().write(true).create_new(true).open(path).unwrap();
    // 3, 4 and 5, if nothing else is open; each shall be where another is.
    let files = [open(&one), open(&two), open(&three)];
    let out = directory.path().join("out");
    let script = format!("for n in 3 4 5; do readlink /proc/$$/fd/$n; done >{}", out.display());
    let arguments = ["sh", "-c", &script].map(|word| CString::new(word).unwrap());
    let path = CString::new(std::env::var_os("PATH").unwrap().into_vec()).unwrap();
    let environment = [CString::new([b"PATH=", path.as_bytes()].concat()).unwrap()];
    let given = [files[1].as_fd(), files[2].as_fd(), files[0].as_fd()];
    let pid = with_descriptors(&CString::new("/bin/sh").unwrap(), &arguments, &environment, &given).unwrap();
    let pid = Pid::from_raw(pid.try_into().unwrap());
    assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 0));
    let expected = [two, three, one].map(|path| format!("{}\n", path.display())).concat();
    assert_eq!(read_to_string(out).unwrap(), expected);
    for number in [0, 1, 2] {
        // Ours are untouched.
        assert!(!read_link(format!("/proc/self/fd/{number}")).unwrap().starts_with(directory.path()));
    }
}

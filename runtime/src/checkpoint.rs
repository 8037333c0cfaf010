//! `checkpoint`: saves a running container with criu, and, unless it is to run on, deletes it.
//!
//! The image directory, as runc fills it too, so that either restores what the other has saved:
//!
//! ```text
//!   *.img, stats-dump      criu's
//!   descriptors.json       what init's standard descriptors were: ["/dev/null","pipe:[4711]","pipe:[4712]"]
//!   parent                 a link to the image of an earlier pre-dump (--parent-path)
//!   dump.log               criu's log, unless --work-path names another directory for it
//! ```

mod below;
pub mod descriptors;
pub mod external;
pub mod options;

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use crate::bundle;
use crate::cgroup::{Cgroup, Layout};
use crate::checkpoint::external::CgroupPlaces;
use crate::checkpoint::options::Directories;
use crate::cli::{CheckpointArgs, Global};
use crate::criu::rpc::{Features, Options, PageServer, Request, RequestType, Response};
use crate::criu::{Conversation, Notification, Stdio};
use crate::error::{Context, Error, Kind, Result};
use crate::plan::{devices, mounts, namespaces};
use crate::state::{self, ContainerDir, Init, State, Status};
use crate::sys::fds::take_writable;
use crate::{delete, notify};

/// Runs the command.
pub fn run(global: &Global, args: &CheckpointArgs) -> Result<()> {
    let page_server = args.page_server.as_deref().map(address).transpose()?;
    let status_fd = status_fd(args)?;
    let root = global.root();
    let dir = ContainerDir::open(&root, &args.id)?;
    let state = dir.load()?.ok_or_else(|| state::does_not_exist(&args.id))?;
    let init = running(&state, state.status(&root)?)?;
    let directories = Directories::make(&args.criu)?;
    check_parent(args, &directories)?;
    let opened = directories.open(Path::new("/"))?;
    let mut options = options::common(&args.criu, &directories, &opened, &state.annotations);
    ask_for_dump(&mut options, args, page_server);
    describe(&mut options, &dir, &state, init)?;
    if !args.pre_dump {
        descriptors::write(&directories.images, init.pid, &Cgroup::open(&state.cgroup)?.pids()?)?;
    }
    let response = dump(options, args, status_fd)?;
    directories.outcome(response)?;
    if args.leave_running || args.pre_dump {
        return Ok(());
    }
    // criu has sent SIGKILL to all of them, but does not wait.
    delete::end(&state)?;
    delete::destroy(dir, &state)
}

/// Only what runs, or is paused, can be saved.
fn running(state: &State, status: Status) -> Result<Init> {
    match (status, state.init) {
        (Status::Running | Status::Paused, Some(init)) => Ok(init),
        (status, _) => Err(Error::new(
            Kind::State,
            format!("cannot checkpoint container {:?} in the state {}", state.id, status.word()),
        )),
    }
}

/// ADDRESS:PORT; an IPv6 address stands in brackets.
fn address(text: &str) -> Result<PageServer> {
    let wrong = || Error::invalid(format!("--page-server {text:?} is not ADDRESS:PORT"));
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.strip_prefix('[').map_or(Some(host), |inner| inner.strip_suffix(']')).ok_or_else(wrong)?;
    if host.is_empty() {
        return Err(wrong());
    }
    let port: u16 =
        port.parse().map_err(|_| Error::invalid(format!("--page-server {text:?}: {port:?} is no port number")))?;
    Ok(PageServer { address: Some(host.to_owned()), port: Some(port.into()) })
}

/// The descriptor to be told when the page server is ready: ours from here on, so that its end is seen when we close it.
fn status_fd(args: &CheckpointArgs) -> Result<Option<OwnedFd>> {
    match args.status_fd {
        -1 => Ok(None),
        number => take_writable(number)
            .map(Some)
            .map_err(|errno| Error::sys(format!("--status-fd {number} is not open for writing"), errno)),
    }
}

/// criu takes the parent as a path from the image directory on, and an image without its parent would be of no use.
fn check_parent(args: &CheckpointArgs, directories: &Directories) -> Result<()> {
    let Some(parent) = &args.parent_path else { return Ok(()) };
    if parent.is_absolute() {
        return Err(Error::invalid(format!("--parent-path {} must be relative to the image path", parent.display())));
    }
    let path = directories.images.join(parent);
    match fs::metadata(&path).on("find the --parent-path", path.display())?.is_dir() {
        true => Ok(()),
        false => Err(Error::invalid(format!("--parent-path {} is not a directory", path.display()))),
    }
}

/// What the flags of `checkpoint` alone ask for.
fn ask_for_dump(options: &mut Options, args: &CheckpointArgs, page_server: Option<PageServer>) {
    options.leave_running = Some(args.leave_running);
    options.tcp_skip_in_flight = Some(args.tcp_skip_in_flight);
    options.link_remap = Some(args.link_remap);
    options.ps = page_server;
    if let Some(parent) = &args.parent_path {
        options.parent_img = Some(parent.to_string_lossy().into_owned());
        options.track_mem = Some(true);
    }
}

/// What criu cannot know of the container: which process, which cgroup to freeze, what comes from outside.
fn describe(options: &mut Options, dir: &ContainerDir, state: &State, init: Init) -> Result<()> {
    let mut spec = bundle::parse_spec(&dir.config()?)?;
    notify::extend_if_made(&mut spec, dir.path())?;
    let namespaces = namespaces::lower(&spec)?;
    let mounts = mounts::lower(&spec, &state.bundle, &namespaces)?;
    external::refuse_idmapped(&mounts)?;
    let layout = Layout::detect()?;
    let places = CgroupPlaces::of(&layout, &state.cgroup, &namespaces);
    let view = external::View::of_process(init.pid)?;
    options.pid = Some(init.pid);
    options.root = Some(options::text(&state.rootfs)?);
    options.freeze_cgroup = Cgroup::open(&state.cgroup)?.directory("freezer").map(options::text).transpose()?;
    options.cgroup_dump_controller = external::own_hierarchies(&layout, &state.cgroup);
    options.external = external::joined_namespaces(&namespaces, init.pid)?;
    let masks = mounts::lower_masks(&spec, &namespaces)?;
    let devices = devices::lower(&spec, &mounts)?;
    options.ext_mnt = external::to_dump(&view, &mounts, &places, &masks, &devices.nodes)?;
    Ok(())
}

fn dump(options: Options, args: &CheckpointArgs, status_fd: Option<OwnedFd>) -> Result<Response> {
    let mut criu = Conversation::open(Stdio::Null, &[], 0, || Ok(()))?;
    let needed = Features { mem_track: Some(args.pre_dump), lazy_pages: Some(args.criu.lazy_pages) };
    options::require(&mut criu, needed)?;
    let kind = if args.pre_dump { RequestType::PreDump } else { RequestType::Dump };
    let request = Request { r#type: kind as i32, opts: Some(Box::new(options)), ..Request::default() };
    let mut status_fd = status_fd;
    let response = criu.ask(&request, &mut |notification: Notification| {
        if notification.script == "status-ready"
            && let Some(fd) = status_fd.take()
        {
            // Nobody may be listening any more: the dump is none the worse for it.
            let _ = nix::unistd::write(&fd, &[0]);
        }
        Ok(())
    })?;
    // A single pre-dump is the first of a series to criu, which so ends with a complaint. Its answer is what counts.
    criu.close()?;
    Ok(response)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use clap::Parser;

    use crate::cli::CriuArgs;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: CheckpointArgs,
    }

    /// What criu is asked for by this command line.
    fn asked(flags: &[&str]) -> Options {
        let Line { args } = Line::parse_from(["checkpoint"].iter().chain(flags).chain(&["id"]));
        let directories = Directories::find(&CriuArgs { image_path: Some("/".into()), ..args.criu.clone() }).unwrap();
        let opened = directories.open(Path::new("/")).unwrap();
        let mut options = options::common(&args.criu, &directories, &opened, &HashMap::new());
        ask_for_dump(&mut options, &args, None);
        options
    }

    #[test]
    fn each_flag_reaches_criu_and_none_else() {
        type Field = fn(&Options) -> Option<bool>;
        let table: [(&str, Field); 10] = [
            ("--shell-job", |it| it.shell_job),
            ("--ext-unix-sk", |it| it.ext_unix_sk),
            ("--tcp-established", |it| it.tcp_established),
            ("--tcp-close", |it| it.tcp_close),
            ("--tcp-skip-in-flight", |it| it.tcp_skip_in_flight),
            ("--file-locks", |it| it.file_locks),
            ("--auto-dedup", |it| it.auto_dedup),
            ("--lazy-pages", |it| it.lazy_pages),
            ("--link-remap", |it| it.link_remap),
            ("--leave-running", |it| it.leave_running),
        ];
        for (flag, _) in table {
            let options = asked(&[flag]);
            for (other, field) in table {
                assert_eq!(field(&options), Some(other == flag), "{other} by {flag}");
            }
        }
    }

    #[test]
    fn the_page_server_is_an_address_and_a_port() {
        let server = |host: &str, port| PageServer { address: Some(host.into()), port: Some(port) };
        assert_eq!(address("10.0.0.1:27"), Ok(server("10.0.0.1", 27)));
        assert_eq!(address("[::1]:65535"), Ok(server("::1", 65_535)));
        assert_eq!(address("host:1"), Ok(server("host", 1)));
        for wrong in ["", "host", ":1", "[::1:1", "host:", "host:x", "host:65536", "host:-1"] {
            assert_eq!(address(wrong).unwrap_err().kind(), Kind::Invalid, "{wrong}");
        }
    }
}

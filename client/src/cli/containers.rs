//! The life of containers: flags to the requests of the modules that do it.

use std::io::Write;

use super::args::{Attach, Containers, Create, Exec, Kill, Logs, Prune, Rename, Rm, Run, Start, Stop};
use super::filter::{self, Filters};
use super::flags;
use super::images::{confirmed, reclaimed};
use super::output;
use super::request::{self, View};
use crate::client::Client;
use crate::error::{Error, Kind, Result};
use crate::image::pull;
use crate::record::{Container, Status};
use crate::terminal::{self, DetachKeys};
use crate::time::Time;
use crate::{attach, create, exec, kill, logs, pause, records, rename, restart, rm, run, start, stop, truth, wait};

/// `run`.
pub(super) async fn run(client: &Client, args: Run) -> Result<u8> {
    let view = if args.detach { View::Detached } else { View::Attached };
    let record = request::record(&args.container, &args.words, view)?;
    if record.config.tty && record.config.attach_stdin && !terminal::is_input() {
        return Err(Error::usage("standard input is no terminal, which -t needs with -i: leave -t out"));
    }
    let options = run::Options {
        detach: args.detach,
        sig_proxy: args.sig_proxy,
        detach_keys: detach_keys(args.detach_keys.as_deref())?,
    };
    let ran = run::run(client, request(&args.container, record)?, &options).await?;
    if args.detach {
        output::line(&ran.id)?;
    }
    Ok(ran.code)
}

/// `create`.
pub(super) async fn create(client: &Client, args: Create) -> Result<u8> {
    let record = request::record(&args.container, &args.words, View::Later)?;
    let made = create::create(client, request(&args.container, record)?).await?;
    output::line(&made.id).map(|()| 0)
}

fn request(flags: &flags::Container, mut record: Container) -> Result<create::Request> {
    let name = Some(std::mem::take(&mut record.name)).filter(|it| !it.is_empty());
    let platform = flags.platform.clone().unwrap_or_default();
    let fetch = pull::Options { platform, quiet: flags.quiet, ..pull::Options::default() };
    Ok(create::Request { record, pull: flags.pull.parse()?, fetch, name })
}

fn detach_keys(given: Option<&str>) -> Result<DetachKeys> {
    given.map(DetachKeys::parse).transpose().map(Option::unwrap_or_default)
}

/// `start`.
pub(super) async fn start(client: &Client, args: Start) -> Result<u8> {
    if args.attach || args.interactive {
        let [name] = &args.containers[..] else {
            return Err(Error::usage(
                "only one container can be looked on at a time: give one, or leave -a and -i out",
            ));
        };
        let how = attach::Options {
            no_stdin: !args.interactive,
            sig_proxy: true,
            detach_keys: detach_keys(args.detach_keys.as_deref())?,
            ..attach::Options::default()
        };
        return start::start(client, name, &start::Options { attach: Some(how) }).await;
    }
    let begin = async |name: &str| {
        start::start(client, name, &start::Options::default()).await?;
        output::line(name)
    };
    output::each(&args.containers, begin).await
}

/// `attach`.
pub(super) async fn attach(client: &Client, args: Attach) -> Result<u8> {
    let options = attach::Options {
        no_stdin: args.no_stdin,
        sig_proxy: args.sig_proxy,
        detach_keys: detach_keys(args.detach_keys.as_deref())?,
        ..attach::Options::default()
    };
    attach::attach(client, &args.container, &options).await
}

/// `exec`.
pub(super) async fn exec(client: &Client, args: Exec) -> Result<u8> {
    let (container, command) = args.words.split();
    if command.is_empty() {
        return Err(Error::usage(
            "tarectl exec needs a command: call it as tarectl exec [OPTIONS] CONTAINER COMMAND [ARG...]",
        ));
    }
    if args.tty && args.interactive && !args.detach && !terminal::is_input() {
        return Err(Error::usage("standard input is no terminal, which -t needs with -i: leave -t out"));
    }
    let request = exec::Request {
        container: container.to_owned(),
        command: command.to_vec(),
        env: request::variables(&args.env_file, &args.env)?,
        user: args.user.unwrap_or_default(),
        working_dir: args.workdir.unwrap_or_default(),
        tty: args.tty,
        interactive: args.interactive && !args.detach,
        detach: args.detach,
        detach_keys: detach_keys(args.detach_keys.as_deref())?,
        privileged: args.privileged,
    };
    exec::exec(client, &request).await
}

/// `stop`: all at once, so that it lasts as long as the slowest.
pub(super) async fn stop(client: &Client, args: Stop) -> Result<u8> {
    if let Some(signal) = &args.signal {
        kill::signal(signal)?;
    }
    let (mut ids, mut work) = (Vec::new(), Vec::new());
    for name in &args.containers {
        // Two names of one container are one work.
        let id = records::find_id(client, name).ok();
        if id.is_none() || !ids.contains(&id) {
            ids.push(id);
            work.push(stop::stop(client, name, args.time, args.signal.as_deref()));
        }
    }
    let mut results = futures::future::join_all(work).await.into_iter();
    let mut code = 0;
    for name in &args.containers {
        match results.next() {
            Some(Err(error)) => {
                code = error.exit_code();
                output::complain(&error);
            }
            _ => output::line(name)?,
        }
    }
    Ok(code)
}

/// `restart`.
pub(super) async fn restart(client: &Client, args: Stop) -> Result<u8> {
    let (time, signal) = (args.time, args.signal.as_deref());
    let again = async |name: &str| {
        restart::restart(client, name, time, signal).await?;
        output::line(name)
    };
    output::each(&args.containers, again).await
}

/// `kill`.
pub(super) async fn kill(client: &Client, args: Kill) -> Result<u8> {
    let signal = &args.signal;
    kill::signal(signal)?;
    let send = async |name: &str| {
        kill::kill(client, name, signal).await?;
        output::line(name)
    };
    output::each(&args.containers, send).await
}

/// `pause`.
pub(super) async fn pause(client: &Client, args: Containers) -> Result<u8> {
    let freeze = async |name: &str| {
        pause::pause(client, name).await?;
        output::line(name)
    };
    output::each(&args.containers, freeze).await
}

/// `unpause`.
pub(super) async fn unpause(client: &Client, args: Containers) -> Result<u8> {
    let thaw = async |name: &str| {
        pause::unpause(client, name).await?;
        output::line(name)
    };
    output::each(&args.containers, thaw).await
}

/// `wait`.
pub(super) async fn wait(client: &Client, args: Containers) -> Result<u8> {
    let ended = async |name: &str| {
        let code = wait::wait(client, name).await?;
        output::line(&code.to_string())
    };
    output::each(&args.containers, ended).await
}

/// `rm`.
pub(super) async fn rm(client: &Client, args: Rm) -> Result<u8> {
    if args.link {
        return Err(Error::usage("tarectl's links go with their containers: leave --link out"));
    }
    let options = rm::Options { force: args.force, volumes: args.volumes };
    let remove = async |name: &str| match rm::rm(client, name, &options).await {
        Ok(()) => output::line(name),
        // Who insists does not mind that it is gone.
        Err(error) if options.force && error.kind == Kind::NotFound => {
            output::complain(&error);
            Ok(())
        }
        Err(error) => Err(error),
    };
    output::each(&args.containers, remove).await
}

/// `rename`.
pub(super) async fn rename(client: &Client, args: Rename) -> Result<u8> {
    rename::rename(client, &args.container, &args.name).await.map(|()| 0)
}

/// `logs`.
pub(super) async fn logs(client: &Client, args: Logs) -> Result<u8> {
    let time = |given: &Option<String>| given.as_deref().map(Time::parse).transpose();
    let options = logs::Options {
        follow: args.follow,
        tail: tail(&args.tail)?,
        since: time(&args.since)?,
        until: time(&args.until)?,
        timestamps: args.timestamps,
        details: args.details,
    };
    let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
    logs::logs(client, &args.container, &options, &mut out, &mut err).await?;
    // What is left of it is nobody's loss.
    let _ = out.flush();
    Ok(0)
}

/// As docker: what is no number of lines means all of them.
fn tail(text: &str) -> Result<Option<usize>> {
    match text {
        "all" => Ok(None),
        _ => match text.parse::<i64>() {
            Ok(lines) => Ok(usize::try_from(lines).ok()),
            Err(_) => Err(Error::usage(format!("--tail {text:?} is no number of lines, nor all"))),
        },
    }
}

/// `container prune`.
pub(super) async fn prune(client: &Client, args: Prune) -> Result<u8> {
    let filters = Filters::parse(&args.filter, &filter::PRUNE)?;
    if !args.force && !confirmed(&["all containers that do not run"])? {
        return Ok(0);
    }
    let Pruned { removed, bytes, damaged } = pruned(client, &filters).await?;
    let code = output::lacking(&damaged);
    if !removed.is_empty() {
        output::text(&format!("Deleted Containers:\n{}\n\n", removed.join("\n")))?;
    }
    reclaimed(bytes).map(|_| code)
}

/// What a prune of containers did.
pub(super) struct Pruned {
    /// The ids of those that are gone.
    pub(super) removed: Vec<String>,
    /// That are free now.
    pub(super) bytes: u64,
    /// Those that stay, since nobody knows whether they run.
    pub(super) damaged: Vec<(String, Error)>,
}

/// Removes those that do not run.
pub(super) async fn pruned(client: &Client, filters: &Filters) -> Result<Pruned> {
    let until = filters.values("until").last().map(|it| Time::parse(it)).transpose()?;
    let (mut removed, mut bytes) = (Vec::new(), 0);
    let records::Listed { records, damaged } = truth::list(client).await?;
    for record in records {
        let ends = matches!(record.state.status, Status::Created | Status::Exited | Status::Dead);
        if !ends || until.is_some_and(|it| record.created >= it) || !filters.labels(&record.config.labels) {
            continue;
        }
        let size = super::size::usage(client, &record.snapshot).await?;
        match rm::rm(client, &record.id, &rm::Options::default()).await {
            Ok(()) => {
                removed.push(record.id);
                bytes += size;
            }
            // Somebody else was quicker, or has started it.
            Err(error) if matches!(error.kind, Kind::NotFound | Kind::Conflict) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Pruned { removed, bytes, damaged })
}

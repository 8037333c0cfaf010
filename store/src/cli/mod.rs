//! The command line: the daemon, and a client of its socket for each of its calls.
//!
//! ```text
//! args       the words                       client    the connection, and what a failed call means
//! output     tables, JSON, failures          watch     progress: bars, lines, JSON
//! serve      the daemon                      whole images: transfer archive images upkeep credentials
//!                                            their parts:  content snapshots leases diff
//! ```
//!
//! A command reads its words, makes one call or a few, and prints. Results go to standard output, progress and errors to standard
//! error. The exit status is 0 when it was done, 1 when it failed, 2 when it was called wrongly.

mod archive;
pub mod args;
pub mod args_parts;
mod client;
mod content;
mod credentials;
mod diff;
mod images;
mod leases;
mod output;
mod serve;
mod snapshots;
mod transfer;
mod upkeep;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use self::args::{Cli, Command};
use self::client::Client;
use self::output::{Done, Failure};
use self::watch::Watch;
use crate::config;

/// What every command is given besides its words.
struct Session {
    client: Client,
    json: bool,
    quiet: bool,
}

impl Session {
    fn watch(&self) -> Watch {
        Watch::new(self.json, self.quiet)
    }
}

/// Runs the program.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version end with 0, everything else with 2. That nobody reads it changes nothing.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(text)) => {
            eprintln!("tare-store: {text}");
            ExitCode::from(2)
        }
        Err(Failure::Failed(error)) => {
            eprintln!("tare-store: {}", watch::printable(&error.message));
            ExitCode::FAILURE
        }
        Err(Failure::Found | Failure::Closed) => ExitCode::FAILURE,
    }
}

fn run(cli: Cli) -> Done {
    let socket = config::socket(cli.socket, &config::environment);
    let command = match cli.command {
        Command::Serve(args) => return serve::serve(args, socket),
        Command::Logout(args) => return credentials::logout(&args),
        other => other,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| crate::error::Error::internal(format!("make an event loop: {error}")))?;
    let namespace =
        cli.namespace.or_else(|| variable("TARE_STORE_NAMESPACE")).or_else(|| variable("CONTAINERD_NAMESPACE"));
    let done = runtime.block_on(async {
        let client = Client::connect(&socket, namespace.unwrap_or_else(|| "default".to_owned())).await?;
        let session = Session { client, json: cli.json, quiet: cli.quiet };
        dispatch(&session, command).await
    });
    // A thread may still wait for a terminal or a pipe.
    runtime.shutdown_background();
    done
}

fn variable(name: &str) -> Option<String> {
    config::environment(name)?.into_string().ok()
}

async fn dispatch(session: &Session, command: Command) -> Done {
    match command {
        Command::Pull(args) => transfer::pull(session, args).await,
        Command::Push(args) => transfer::push(session, args).await,
        Command::Images(args) => images::list(session, args).await,
        Command::Rmi(args) => images::remove(session, args).await,
        Command::Tag(args) => images::tag(session, args).await,
        Command::Inspect(args) => images::inspect(session, args).await,
        Command::Import(args) => archive::import(session, args).await,
        Command::Export(args) => archive::export(session, args).await,
        Command::Commit(args) => transfer::commit(session, args).await,
        Command::Unpack(args) => transfer::unpack(session, args).await,
        Command::Content(command) => content::run(session, command).await,
        Command::Snapshot(command) => snapshots::run(session, command).await,
        Command::Lease(command) => leases::run(session, command).await,
        Command::Diff(command) => diff::run(session, command).await,
        Command::Namespace(command) => leases::namespaces(session, command).await,
        Command::Gc(args) => upkeep::collect(session, args).await,
        Command::Df(args) => upkeep::usage(session, args).await,
        Command::Fsck(args) => upkeep::check(session, args).await,
        Command::Referrers(args) => images::referrers(session, args).await,
        Command::Tags(args) => images::tags(session, args).await,
        Command::Search(args) => images::search(session, args).await,
        Command::Login(args) => credentials::login(session, args).await,
        Command::Info => upkeep::info(session).await,
        // Done before there is a connection.
        Command::Serve(_) | Command::Logout(_) => Ok(()),
    }
}

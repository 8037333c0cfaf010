//! What other programs call: shims at events, the init system after a boot, tarectl itself for later.

use super::args::{None as Nothing, One, Publish};
use super::output;
use crate::client::Client;
use crate::error::Result;
use crate::{boot, health, policy, publish};

/// `boot`.
pub(super) async fn boot(client: &Client, _: Nothing) -> Result<u8> {
    let mut code = 0;
    for (name, started) in boot::boot(client).await? {
        match started {
            Ok(()) => output::line(&name)?,
            Err(error) => {
                code = error.exit_code();
                output::complain(&error.within(format!("start {name}")));
            }
        }
    }
    Ok(code)
}

/// `publish`.
pub(super) async fn publish(client: &Client, args: Publish) -> Result<u8> {
    publish::publish(client, &args.topic).await.map(|()| 0)
}

/// `revive`.
pub(super) async fn revive(client: &Client, args: One) -> Result<u8> {
    policy::revive(client, &args.container).await.map(|()| 0)
}

/// `watch-health`.
pub(super) async fn watch_health(client: &Client, args: One) -> Result<u8> {
    health::watch(client, &args.container).await.map(|()| 0)
}

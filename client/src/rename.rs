//! `rename`: a container gets another name.

use crate::client::Client;
use crate::error::{Error, Result};
use crate::{events, names, network, records, truth};

/// Gives a container another name.
///
/// # Errors
/// There is no such container, the name is none, or is taken.
pub async fn rename(client: &Client, name: &str, new: &str) -> Result<()> {
    let new = new.strip_prefix('/').unwrap_or(new);
    names::check("container", new)?;
    let (lock, mut record) = truth::hold(client, name).await?;
    if record.name == new {
        return Err(Error::usage(format!("container {} is called so already: give another name", record.name)));
    }
    let old = records::rename(client, &lock, &mut record, new)?;
    network::renamed(client, &record)?;
    events::container(&client.paths, "rename", &record, &[("oldName", &format!("/{old}"))]);
    Ok(())
}

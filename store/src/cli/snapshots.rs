//! Snapshots.

use serde_json::{Value, json};
use tare_proto::MessageField;
use tare_proto::snapshots::*;
use tare_proto::types::Mount;

use super::Session;
use super::args_parts as args;
use super::output::{self, Done, ago, json_time, label_paths, labels, size, table};

pub(super) async fn run(session: &Session, command: args::Snapshot) -> Done {
    use args::Snapshot;
    match command {
        Snapshot::Ls { filters, of } => list(session, filters, of).await,
        Snapshot::Prepare(new) => {
            let mut request = PrepareSnapshotRequest::new();
            request.snapshotter = new.of.snapshotter.unwrap_or_default();
            (request.key, request.parent) = (new.key, new.parent.unwrap_or_default());
            request.labels = labels(&new.label)?;
            let client = session.client.with_lease(new.lease);
            let response = client.snapshots().prepare(client.context(), &request).await;
            print_mounts(session, &response.map_err(|error| client.failed(error))?.mounts, new.target.as_deref())
        }
        Snapshot::View(new) => {
            let mut request = ViewSnapshotRequest::new();
            request.snapshotter = new.of.snapshotter.unwrap_or_default();
            (request.key, request.parent) = (new.key, new.parent.unwrap_or_default());
            request.labels = labels(&new.label)?;
            let client = session.client.with_lease(new.lease);
            let response = client.snapshots().view(client.context(), &request).await;
            print_mounts(session, &response.map_err(|error| client.failed(error))?.mounts, new.target.as_deref())
        }
        Snapshot::Mounts { key, target, of } => {
            let mounts = mounts(session, &key, &of).await?;
            print_mounts(session, &mounts, target.as_deref())
        }
        Snapshot::Commit { key, name, label, of } => {
            let mut request = CommitSnapshotRequest::new();
            request.snapshotter = of.snapshotter.unwrap_or_default();
            (request.key, request.name, request.labels) = (key, name, labels(&label)?);
            let response = session.client.snapshots().commit(session.client.context(), &request).await;
            response.map(drop).map_err(|error| session.client.failed(error).into())
        }
        Snapshot::Rm { keys, of } => {
            for key in keys {
                let mut request = RemoveSnapshotRequest::new();
                (request.snapshotter, request.key) = (of.snapshotter.clone().unwrap_or_default(), key);
                let response = session.client.snapshots().remove(session.client.context(), &request).await;
                response.map_err(|error| session.client.failed(error))?;
            }
            Ok(())
        }
        Snapshot::Info { key, of } => {
            let mut request = StatSnapshotRequest::new();
            (request.snapshotter, request.key) = (of.snapshotter.unwrap_or_default(), key);
            let response = session.client.snapshots().stat(session.client.context(), &request).await;
            show(session, &response.map_err(|error| session.client.failed(error))?.info.unwrap_or_default())
        }
        Snapshot::Usage { key, of } => usage(session, key, of).await,
        Snapshot::Label { key, labels: given, of } => {
            let mut new = Info::new();
            (new.name, new.labels) = (key, labels(&given)?);
            let mut request = UpdateSnapshotRequest::new();
            request.snapshotter = of.snapshotter.unwrap_or_default();
            request.update_mask = label_paths(&new.labels);
            request.info = MessageField::some(new);
            let response = session.client.snapshots().update(session.client.context(), &request).await;
            show(session, &response.map_err(|error| session.client.failed(error))?.info.unwrap_or_default())
        }
        Snapshot::Cleanup { of } => {
            let mut request = CleanupRequest::new();
            request.snapshotter = of.snapshotter.unwrap_or_default();
            let response = session.client.snapshots().cleanup(session.client.context(), &request).await;
            response.map(drop).map_err(|error| session.client.failed(error).into())
        }
    }
}

async fn list(session: &Session, filters: Vec<String>, of: args::Snapshotter) -> Done {
    let mut request = ListSnapshotsRequest::new();
    (request.snapshotter, request.filters) = (of.snapshotter.unwrap_or_default(), filters);
    let stream = session.client.snapshots().list(session.client.context(), &request).await;
    let mut stream = stream.map_err(|error| session.client.failed(error))?;
    let mut all = Vec::new();
    while let Some(batch) = session.client.next(&mut stream).await? {
        all.extend(batch.info);
    }
    if session.json {
        return output::document(&all.iter().map(as_json).collect());
    }
    let row = |it: &Info| [it.name.clone(), kind(it).to_owned(), it.parent.clone(), ago(&it.created_at)];
    table(["NAME", "KIND", "PARENT", "CREATED"], &all.iter().map(row).collect::<Vec<_>>())
}

fn kind(it: &Info) -> &'static str {
    match it.kind.enum_value_or_default() {
        Kind::UNKNOWN => "unknown",
        Kind::VIEW => "view",
        Kind::ACTIVE => "active",
        Kind::COMMITTED => "committed",
    }
}

fn as_json(it: &Info) -> Value {
    json!({
        "name": it.name,
        "parent": it.parent,
        "kind": kind(it),
        "labels": it.labels,
        "createdAt": json_time(&it.created_at),
        "updatedAt": json_time(&it.updated_at),
    })
}

fn show(session: &Session, it: &Info) -> Done {
    if session.json {
        return output::document(&as_json(it));
    }
    output::line(&format!("name     {}", it.name))?;
    output::line(&format!("kind     {}", kind(it)))?;
    output::line(&format!("parent   {}", it.parent))?;
    output::line(&format!("created  {}", ago(&it.created_at)))?;
    output::line(&format!("updated  {}", ago(&it.updated_at)))?;
    let mut labels: Vec<_> = it.labels.iter().collect();
    labels.sort();
    labels.iter().try_for_each(|(key, value)| output::line(&format!("label    {key}={value}")))
}

/// How to mount one.
pub(super) async fn mounts(session: &Session, key: &str, of: &args::Snapshotter) -> crate::error::Result<Vec<Mount>> {
    let mut request = MountsRequest::new();
    (request.snapshotter, request.key) = (of.snapshotter.clone().unwrap_or_default(), key.to_owned());
    let response = session.client.snapshots().mounts(session.client.context(), &request).await;
    Ok(response.map_err(|error| session.client.failed(error))?.mounts)
}

fn print_mounts(session: &Session, mounts: &[Mount], target: Option<&std::path::Path>) -> Done {
    if session.json {
        let one =
            |it: &Mount| json!({ "type": it.type_, "source": it.source, "target": it.target, "options": it.options });
        return output::document(&mounts.iter().map(one).collect());
    }
    for mount in mounts {
        let options = mount.options.join(",");
        output::line(&match target {
            Some(target) => {
                let at = match mount.target.trim_start_matches('/') {
                    "" => target.to_owned(),
                    below => target.join(below),
                };
                let words = [mount.type_.as_str(), &mount.source, &at.to_string_lossy(), &options].map(quoted);
                format!("mount -t {} {} {} -o {}", words[0], words[1], words[2], words[3])
            }
            None => format!("{} {} {options}", mount.type_, mount.source),
        })?;
    }
    Ok(())
}

/// As a shell takes it for one word.
fn quoted(word: &str) -> String {
    let plain = |it: char| it.is_ascii_alphanumeric() || "-_./:=,@+".contains(it);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

async fn usage(session: &Session, key: String, of: args::Snapshotter) -> Done {
    let mut request = UsageRequest::new();
    (request.snapshotter, request.key) = (of.snapshotter.unwrap_or_default(), key);
    let response = session.client.snapshots().usage(session.client.context(), &request).await;
    let usage = response.map_err(|error| session.client.failed(error))?;
    if session.json {
        return output::document(&json!({ "size": usage.size, "inodes": usage.inodes }));
    }
    output::line(&format!("{}, {} inodes", size(usage.size), usage.inodes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_each_for_one_word() {
        assert_eq!(quoted("lowerdir=/a:/b,upperdir=/c"), "lowerdir=/a:/b,upperdir=/c");
        assert_eq!(quoted("/a b"), "'/a b'");
        assert_eq!(quoted("it's $x"), r"'it'\''s $x'");
        assert_eq!(quoted(""), "''");
    }
}

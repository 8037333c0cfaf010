//! Answers of the store that come piece by piece.

use tare_proto::store::{Progress, Result as Ended};
use tare_proto::ttrpc::asynchronous::ClientStreamReceiver;

use super::progress::Show;
use crate::client::Client;
use crate::error::{Error, Result};

/// Shows a stream to its end, and gives how it ended. `what` was asked for; `before` sees each message before it is shown.
pub(super) async fn follow(
    client: &Client,
    what: &str,
    mut stream: ClientStreamReceiver<Progress>,
    show: &mut Show,
    mut before: impl FnMut(&mut Show, &Progress),
) -> Result<Ended> {
    let mut ended = None;
    let result = loop {
        match client.store.next(&mut stream).await {
            Ok(Some(progress)) => {
                before(show, &progress);
                show.progress(&progress);
                ended = progress.result.into_option().or(ended);
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    show.end();
    result?;
    ended.ok_or_else(|| without_result(what))
}

/// An end that is none.
pub(super) fn without_result(what: &str) -> Error {
    Error::failed(format!("{what}: the store ended the call without a result; its log says more"))
}

//! Groups whose members take turns: a commit is sent when its time has come, and not again and again until then.

use concordat_proto::{
    gateway::v1::{SubmitRequest, SubscribeRequest, submit_response::Outcome, subscribe_response::Event},
    log::v1::{Reason, content::Content},
};
use futures::StreamExt;
use group_log::{GroupId, StateId};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{Client, counters::Tally};
use crate::{error::Error, transport::CallError, wire};

fn is_others_turn(error: &CallError) -> bool {
    error.reason == Some(Reason::NotYourTurn)
}

impl Client {
    /// Submits the commit that leads to `state` until it has an answer. In another member's turn it is kept here until its own has come,
    /// or until the log says that it will not, for as long as the client's patience lasts. Nothing if whoever follows the log has seen
    /// meanwhile what became of it.
    pub(super) async fn submit_in_turn(
        &self,
        group: &GroupId,
        state: StateId,
        request: &SubmitRequest,
    ) -> Result<Option<Result<Outcome, CallError>>, Error> {
        let deadline = Instant::now() + self.options().patience;
        loop {
            let submit = || self.transport().submit(request.clone());
            match self.persist_unless(submit, is_others_turn).await {
                Err(error) if is_others_turn(&error) && Instant::now() < deadline => {
                    Tally::count(&self.tally().retried);
                    let own = Instant::now() + error.retry_after.unwrap_or(self.options().first_pause);
                    self.wait_for_turn(group, own.min(deadline)).await?;
                }
                answer => return Ok(Some(answer)),
            }
            let pending = self.record(group)?.pending;
            if pending.is_none_or(|pending| pending.state_id() != state) {
                return Ok(None);
            }
        }
    }

    /// Until `own`, or until a commit or another policy is in the log: then turns are other ones, and this commit may have lost.
    async fn wait_for_turn(&self, group: &GroupId, own: Instant) -> Result<(), Error> {
        let cursor = Some(wire::cursor(&self.record(group)?));
        let request =
            SubscribeRequest { group_id: group.to_bytes(), cursor, known_branch_entries: Vec::new() };
        let watch = async {
            let mut log = self.transport().subscribe(request).await?;
            while let Some(response) = log.next().await {
                if let Some(Event::Entry(entry)) = response?.event
                    && let Some(Content::Commit(_) | Content::PolicyChange(_)) =
                        entry.content.and_then(|c| c.content)
                {
                    return Ok(());
                }
            }
            Err(CallError::lost("the gateway ended the stream"))
        };
        if let Ok(Err(error)) = timeout_at(own, watch).await {
            // The clock is enough, if nobody commits before.
            tracing::debug!(%error, "the log is not watched while a commit waits for its turn");
            sleep_until(own).await;
        }
        Ok(())
    }
}

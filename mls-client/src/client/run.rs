//! A running client: follows its groups, takes in Welcomes, and goes on with what is unfinished, until it is stopped.

use std::{collections::HashMap, time::Duration};

use concordat_proto::{
    gateway::v1::{Mode, SubscribeRequest, SubscribeResponse, subscribe_response},
    log::v1::Reason,
};
use futures::{FutureExt, StreamExt};
use group_log::{ChainError, GroupId};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{Change, Client, counters::Tally, retry::Backoff};
use crate::{
    error::Error,
    event::{Event, EventKind},
    limits::{FOLLOW_BATCH_ENTRIES, PROPOSAL_COMMIT_DELAY},
    store::Status,
    transport::{CallError, CallStream},
    wire,
};

/// A client at work. Dropping it stops the work; what is stored stays, and is gone on with next time.
#[derive(Debug)]
pub struct Running {
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Running {
    /// Stops, and returns when nothing works any more.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            // A panic in there was reported by the runtime.
            let _ = task.await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Client {
    /// Starts working in the background: uploads KeyPackages, takes in Welcomes, follows every group that this client is in or gets
    /// into, and reconnects whenever that is needed.
    pub fn start(&self) -> Running {
        let stop = CancellationToken::new();
        let (client, stopped) = (self.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let mut tasks = JoinSet::new();
            tokio::select! {
                () = client.run(&mut tasks) => {}
                () = stopped.cancelled() => {}
            }
            // Whoever is at work at this moment ends at its next pause, and that is waited for: the runtime may end after this.
            tasks.shutdown().await;
        });
        Running { stop, task: Some(task) }
    }

    /// The work itself, in `tasks`; never returns.
    async fn run(&self, tasks: &mut JoinSet<()>) {
        let inbox = self.clone();
        tasks.spawn(async move { inbox.run_inbox().await });
        let mut followers: HashMap<GroupId, tokio::task::AbortHandle> = HashMap::new();
        loop {
            let changed = self.inner.changed.notified();
            let groups = self.with_store(|store| store.group_ids()).unwrap_or_default();
            for group in groups {
                let finished = followers.get(&group).is_none_or(tokio::task::AbortHandle::is_finished);
                if finished && self.follows(&group) {
                    let (client, followed) = (self.clone(), group.clone());
                    let task = tasks.spawn(async move { client.run_group(&followed).await });
                    followers.insert(group, task);
                }
            }
            while tasks.try_join_next().is_some() {}
            changed.await;
        }
    }

    fn follows(&self, group: &GroupId) -> bool {
        self.record(group)
            .is_ok_and(|record| matches!(record.status, Status::Active | Status::Joining | Status::Waiting))
    }

    async fn run_inbox(&self) {
        let mut backoff = self.backoff();
        loop {
            if let Err(error) = self.receive_welcomes(&mut backoff).await {
                tracing::debug!(%error, "the inbox is not watched now; trying again");
            }
            Tally::count(&self.tally().reconnects);
            self.pause(&mut backoff, None).await;
        }
    }

    async fn receive_welcomes(&self, backoff: &mut Backoff) -> Result<(), Error> {
        self.publish_key_packages().await?;
        let mut welcomes = self.watch_welcomes().await?;
        while let Some(welcome) = welcomes.next().await {
            self.take_in(welcome?).await?;
            backoff.reset();
            self.publish_key_packages().await?;
        }
        Ok(())
    }

    /// Follows one group until this client is no longer in it, and does what it owes beside.
    async fn run_group(&self, group: &GroupId) {
        tokio::select! {
            () = self.follow(group) => {}
            () = self.do_chores(group) => {}
        }
    }

    async fn follow(&self, group: &GroupId) {
        let mut backoff = self.backoff();
        while self.follows(group) {
            let followed = match self.has_branches(group) {
                true => self.follow_branches_once(group, &mut backoff).await,
                false => self.follow_once(group, &mut backoff).await,
            };
            let error = match followed {
                Ok(()) => CallError::lost("the gateway ended the stream"),
                Err(Error::Call(error)) => error,
                // Read again from the cursor.
                Err(Error::Log(ChainError::Seq { .. })) => CallError::lost("the stream has a gap"),
                Err(error) => {
                    tracing::warn!(%error, "a group is not followed any further");
                    return;
                }
            };
            if error.reason == Some(Reason::CursorMismatch) {
                return self.reject_log(group, &error.message);
            }
            if error.reason == Some(Reason::Pruned) {
                match self.come_back(group).await {
                    Ok(()) => backoff.reset(),
                    Err(Error::Call(error)) if error.is_temporary() => {
                        self.pause(&mut backoff, error.retry_after).await;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a group whose log has moved on can not be followed any further");
                        return;
                    }
                }
                continue;
            }
            if !self.follows(group) {
                return;
            }
            Tally::count(&self.tally().reconnects);
            self.pause(&mut backoff, error.retry_after).await;
        }
    }

    async fn follow_once(&self, group: &GroupId, backoff: &mut Backoff) -> Result<(), Error> {
        let cursor = Some(wire::cursor(&self.record(group)?));
        let request =
            SubscribeRequest { group_id: group.to_bytes(), cursor, known_branch_entries: Vec::new() };
        let mut stream = self.transport().subscribe(request).await?;
        while let Some(first) = stream.next().await {
            self.take_batch(group, first, &mut stream)?;
            backoff.reset();
            if !self.follows(group) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Applies what has arrived, so that a burst costs one transaction.
    fn take_batch(
        &self,
        group: &GroupId,
        first: Result<SubscribeResponse, CallError>,
        stream: &mut CallStream<SubscribeResponse>,
    ) -> Result<(), Error> {
        let (mut next, mut entries) = (Some(first), Vec::new());
        let mut failed = None;
        while let Some(item) = next.take() {
            match item.map(|response| response.event) {
                Ok(Some(subscribe_response::Event::Entry(entry))) => entries.push(wire::entry(entry)?),
                Ok(Some(subscribe_response::Event::ModeChange(change))) => {
                    self.tell_mode(group, change.mode())
                }
                Ok(
                    Some(
                        subscribe_response::Event::CaughtUp(_)
                        | subscribe_response::Event::BranchEntry(_)
                        // The error that follows says the same.
                        | subscribe_response::Event::Pruned(_),
                    )
                    | None,
                ) => {}
                Err(error) => failed = Some(error),
            }
            if failed.is_none() && entries.len() < FOLLOW_BATCH_ENTRIES {
                next = stream.next().now_or_never().flatten();
            }
        }
        if !entries.is_empty() {
            self.deliver(group, entries)?;
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    pub(super) fn tell_mode(&self, group: &GroupId, mode: Mode) {
        if matches!(mode, Mode::Ordered | Mode::Forked) {
            self.decided();
        }
        self.publish(vec![Event { group: group.clone(), kind: EventKind::ModeChanged { mode } }]);
    }

    /// Goes on with what is unfinished: a pending commit, the outbox, proposals of others that nobody has committed.
    async fn do_chores(&self, group: &GroupId) {
        let (mut backoff, mut decisions) = (self.backoff(), self.decisions());
        loop {
            let changed = self.inner.changed.notified();
            decisions.borrow_and_update();
            match self.do_chore(group).await {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    tracing::debug!(%error, "something is left to do in a group; trying again");
                    self.pause_unless_decided(&mut backoff, None, &mut decisions).await;
                    continue;
                }
            }
            changed.await;
        }
    }

    async fn do_chore(&self, group: &GroupId) -> Result<(), Error> {
        let record = self.record(group)?;
        if record.pending.is_some() {
            self.resume(group).await?;
        }
        if self.record(group)?.status != Status::Active {
            return Ok(());
        }
        if self.has_branches(group) {
            self.repair(group).await?;
        }
        if self.with_store(|store| store.outbox_len(group))? > 0 {
            self.flush(group).await?;
        }
        if self.options().commit_proposals && self.owes_commit(group)? {
            // Everybody saw the proposal; whoever drew the shortest pause commits it.
            let pause = self.rng().below(PROPOSAL_COMMIT_DELAY.as_millis() as u64);
            sleep(Duration::from_millis(pause)).await;
            if self.owes_commit(group)? {
                self.commit(group, Change::new()).await?;
            }
        }
        Ok(())
    }

    fn owes_commit(&self, group: &GroupId) -> Result<bool, Error> {
        let record = self.record(group)?;
        Ok(record.status == Status::Active && record.proposals_pending && !record.leaving)
    }
}

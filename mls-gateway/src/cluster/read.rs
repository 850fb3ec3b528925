//! Reads: from the node that answered last, and from the others if it does not.

use std::{collections::BTreeSet, future::Future, sync::Arc};

use bytes::Bytes;
use concordat_proto::{
    log::v1::{BranchEntry, CanonicalCursor, Head, InboxCursor, PendingWelcome},
    ordering::v1 as pb,
};
use futures::future::BoxFuture;
use group_log::{ClientId, EntryId, GroupId, fork};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Response, Status};

use super::pool::{NodeClient, Pool};
use crate::{
    error::{GatewayError, final_answer},
    limits::{
        BRANCH_IDS_MAX, NAMED_ENTRIES_PATIENCE, NAMED_ENTRIES_PAUSE, READ_DEADLINE, READ_TIMEOUT,
        RETRY_PAUSE_MAX,
    },
};

/// A group's head, and its newest GroupInfo if it was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadAnswer {
    /// The newest position.
    pub head: Head,
    /// MLSMessage with the newest GroupInfo, or empty.
    pub group_info: Bytes,
    /// The epoch that it describes.
    pub group_info_epoch: u64,
}

/// What validation needs to read of a log.
pub trait LogReader: Send + Sync + 'static {
    /// A group's head, with its newest GroupInfo on request.
    fn head<'a>(
        &'a self,
        group_id: &'a GroupId,
        linearizable: bool,
        with_group_info: bool,
    ) -> BoxFuture<'a, Result<HeadAnswer, GatewayError>>;

    /// The entries after `after`, at most `max`, possibly fewer.
    fn entries<'a>(
        &'a self,
        group_id: &'a GroupId,
        after: u64,
        max: u32,
        linearizable: bool,
    ) -> BoxFuture<'a, Result<Vec<concordat_proto::log::v1::Entry>, GatewayError>>;
}

/// Reads from the cluster.
pub struct Reader {
    pool: Arc<Pool>,
}

impl Reader {
    /// Reads over `pool`.
    pub fn new(pool: Arc<Pool>) -> Self {
        Self { pool }
    }

    /// One page of a group's log.
    pub async fn page(
        &self,
        group_id: &GroupId,
        cursor: CanonicalCursor,
        max_entries: u32,
        linearizable: bool,
    ) -> Result<pb::ReadEntriesResponse, GatewayError> {
        let request = pb::ReadEntriesRequest {
            group_id: group_id.to_bytes(),
            cursor: Some(cursor),
            max_entries,
            linearizable,
        };
        self.ask(request, |mut client, request| async move { client.read_entries(request).await }).await
    }

    /// Payloads of branch entries that the log names, all of them, in any order.
    pub async fn branch_entries(
        &self,
        group_id: &GroupId,
        ids: &[EntryId],
    ) -> Result<Vec<BranchEntry>, GatewayError> {
        let mut wanted: BTreeSet<EntryId> = ids.iter().copied().collect();
        let mut found = Vec::new();
        let deadline = Instant::now() + NAMED_ENTRIES_PATIENCE;
        while !wanted.is_empty() {
            let next = wanted.iter().take(BRANCH_IDS_MAX).map(EntryId::to_bytes).collect();
            let request = pb::ReadBranchEntriesRequest { group_id: group_id.to_bytes(), ids: next };
            let call =
                |mut client: NodeClient, request| async move { client.read_branch_entries(request).await };
            let before = wanted.len();
            for entry in self.ask(request, call).await?.entries {
                let id = fork::BranchEntry::try_from(entry.clone()).map_err(GatewayError::bad_wire)?.id();
                if wanted.remove(&id) {
                    found.push(entry);
                }
            }
            if wanted.len() == before {
                // The node asked lags behind the one that named them, or lies: then the log will be asked for again.
                if Instant::now() >= deadline {
                    return Err(GatewayError::Unreachable("entries of a branch are missing".into()));
                }
                sleep(NAMED_ENTRIES_PAUSE).await;
            }
        }
        Ok(found)
    }

    /// The shard that a group lives in, if it exists.
    pub async fn locate(&self, group_id: &GroupId, linearizable: bool) -> Result<Option<u32>, GatewayError> {
        let request = pb::LocateRequest { group_id: group_id.to_bytes(), linearizable };
        let answer =
            self.ask(request, |mut client, request| async move { client.locate(request).await }).await?;
        Ok(answer.found.then_some(answer.shard))
    }

    /// One page of a client's waiting Welcomes.
    pub async fn inbox(
        &self,
        client_id: &ClientId,
        cursor: Option<InboxCursor>,
        max_welcomes: u32,
        linearizable: bool,
    ) -> Result<Vec<PendingWelcome>, GatewayError> {
        let request =
            pb::ReadInboxRequest { client_id: client_id.to_bytes(), cursor, max_welcomes, linearizable };
        let answer =
            self.ask(request, |mut client, request| async move { client.read_inbox(request).await }).await?;
        Ok(answer.welcomes)
    }

    /// How many KeyPackages of a client are left, as of now.
    pub async fn key_package_status(
        &self,
        client_id: &ClientId,
    ) -> Result<pb::GetKeyPackageStatusResponse, GatewayError> {
        let request = pb::GetKeyPackageStatusRequest { client_id: client_id.to_bytes(), linearizable: true };
        self.ask(request, |mut client, request| async move { client.get_key_package_status(request).await })
            .await
    }

    /// Asks one node after the other until one knows the answer, for [`READ_DEADLINE`] at most.
    async fn ask<Q, A, F>(&self, request: Q, call: impl Fn(NodeClient, Q) -> F) -> Result<A, GatewayError>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let deadline = Instant::now() + READ_DEADLINE;
        let mut last = "none is known".to_owned();
        // Round after round: an election may be going on, or a connection being made again.
        while Instant::now() < deadline {
            for node in self.pool.by_preference() {
                let limit = READ_TIMEOUT.min(deadline.saturating_duration_since(Instant::now()));
                let status = match timeout(limit, call(node.client.clone(), request.clone())).await {
                    Ok(Ok(response)) => {
                        self.pool.prefer(&node.address);
                        return Ok(response.into_inner());
                    }
                    Ok(Err(status)) => status,
                    Err(_) => Status::deadline_exceeded("no answer in time"),
                };
                if let Some(answer) = final_answer(&status) {
                    return Err(answer);
                }
                last = format!("the last one said {:?}: {}", status.code(), status.message());
            }
            sleep(RETRY_PAUSE_MAX).await;
        }
        Err(GatewayError::Unreachable(last))
    }
}

impl LogReader for Reader {
    fn head<'a>(
        &'a self,
        group_id: &'a GroupId,
        linearizable: bool,
        include_group_info: bool,
    ) -> BoxFuture<'a, Result<HeadAnswer, GatewayError>> {
        Box::pin(async move {
            let request =
                pb::GetHeadRequest { group_id: group_id.to_bytes(), linearizable, include_group_info };
            let call = |mut client: NodeClient, request| async move { client.get_head(request).await };
            let answer: pb::GetHeadResponse = self.ask(request, call).await?;
            Ok(HeadAnswer {
                head: answer.head.ok_or(GatewayError::Protocol("a head is missing"))?,
                group_info: answer.group_info,
                group_info_epoch: answer.group_info_epoch,
            })
        })
    }

    fn entries<'a>(
        &'a self,
        group_id: &'a GroupId,
        after: u64,
        max: u32,
        linearizable: bool,
    ) -> BoxFuture<'a, Result<Vec<concordat_proto::log::v1::Entry>, GatewayError>> {
        let cursor = CanonicalCursor { seq: after, chain_hash: Bytes::new() };
        Box::pin(async move { Ok(self.page(group_id, cursor, max, linearizable).await?.entries) })
    }
}

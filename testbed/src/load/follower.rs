//! A subscriber at one node: follows all groups over one stream, and resumes where it was whenever the stream ends.

use std::{collections::BTreeMap, sync::Arc};

use concordat_proto::{
    log::v1::CanonicalCursor,
    ordering::v1::{FollowGroup, SubscribeRequest, subscribe_request, subscribe_response::Response},
};
use group_log::{ChainHash, GroupId};
use parking_lot::Mutex;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tokio::{sync::mpsc, task::JoinHandle, time::sleep};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::Node,
    history::{Delivered, History, Subscription},
    limits::{READY_DEADLINE, RETRY_PAUSE},
    ordering::OrderingClient,
    seed,
    wait::{Timeout, until},
};

/// Of so many batches, one makes the subscriber hang up and resume from its cursor.
const HANG_UP_ONE_IN: u32 = 200;

#[derive(Debug)]
pub(super) struct Follower {
    pub(super) address: String,
    seen: Seen,
    stop: CancellationToken,
    task: JoinHandle<()>,
    history: Arc<History>,
}

type Seen = Arc<Mutex<Vec<Subscription>>>;

impl Follower {
    pub(super) fn start(
        client: &OrderingClient,
        node: &Node,
        groups: &[GroupId],
        history: &Arc<History>,
        run_seed: u64,
    ) -> Self {
        let subscriptions = groups
            .iter()
            .map(|group| Subscription {
                reader: format!("the subscriber of node {}", node.id()),
                group: group.clone(),
                after_seq: 0,
                delivered: Vec::new(),
            })
            .collect();
        let seen: Seen = Arc::new(Mutex::new(subscriptions));
        let stop = CancellationToken::new();
        let address = node.address().to_owned();
        let following = Following {
            client: client.clone(),
            address: address.clone(),
            seen: Arc::clone(&seen),
            history: Arc::clone(history),
            rng: seed::rng(run_seed, u64::MAX - node.id()),
        };
        let task = tokio::spawn(following.run(stop.clone()));
        Self { address, seen, stop, task, history: Arc::clone(history) }
    }

    /// Waits until everything up to `ends` (numbers by group) was delivered.
    pub(super) async fn wait_until(&self, ends: &BTreeMap<GroupId, u64>) -> Result<(), Timeout> {
        until(format!("the subscriber at {} to have everything", self.address), READY_DEADLINE, || {
            let seen = self.seen.lock();
            let complete =
                seen.iter().all(|s| s.delivered.len() as u64 >= ends.get(&s.group).copied().unwrap_or(0));
            complete.then_some(())
        })
        .await
    }

    /// Ends the subscriptions and records them.
    pub(super) async fn finish(self) {
        self.stop.cancel();
        // A panic in the task is a finding of its own.
        if let Err(error) = self.task.await
            && let Ok(panic) = error.try_into_panic()
        {
            std::panic::resume_unwind(panic);
        }
        for subscription in self.seen.lock().drain(..) {
            self.history.subscription(subscription);
        }
    }
}

struct Following {
    client: OrderingClient,
    address: String,
    seen: Seen,
    history: Arc<History>,
    rng: ChaCha8Rng,
}

impl Following {
    async fn run(mut self, stop: CancellationToken) {
        let followed = async {
            loop {
                self.follow_once().await;
                sleep(RETRY_PAUSE).await;
            }
        };
        tokio::select! {
            () = followed => {}
            () = stop.cancelled() => {}
        }
    }

    async fn follow_once(&mut self) {
        let requests = self.requests();
        let (sender, receiver) = mpsc::channel(requests.len().max(1));
        for request in requests {
            // The channel has room for all of them.
            let _ = sender.send(request).await;
        }
        let opened = self.client.wire(&self.address).subscribe(ReceiverStream::new(receiver)).await;
        let Ok(mut stream) = opened.map(tonic::Response::into_inner) else { return };
        while let Ok(Some(message)) = stream.message().await {
            let index = message.id as usize;
            match message.response {
                Some(Response::Entries(entries)) => {
                    let at = self.history.moment();
                    let mut seen = self.seen.lock();
                    for entry in entries.entries {
                        let chain =
                            ChainHash::from_slice(&entry.chain_hash).expect("a chain hash has 32 bytes");
                        seen[index].delivered.push(Delivered { seq: entry.seq, chain, at });
                    }
                    drop(seen);
                    if self.rng.random_ratio(1, HANG_UP_ONE_IN) {
                        return;
                    }
                }
                // The group does not exist yet on this node: ask again.
                Some(Response::Refused(_)) => return,
                _ => {}
            }
        }
    }

    fn requests(&self) -> Vec<SubscribeRequest> {
        let seen = self.seen.lock();
        let follow = |(id, subscription): (usize, &Subscription)| {
            let cursor = subscription
                .delivered
                .last()
                .map(|last| CanonicalCursor { seq: last.seq, chain_hash: last.chain.to_bytes() });
            let follow = FollowGroup { id: id as u64, group_id: subscription.group.to_bytes(), cursor };
            SubscribeRequest { request: Some(subscribe_request::Request::Follow(follow)) }
        };
        seen.iter().enumerate().map(follow).collect()
    }
}

//! Linearizable reads of heads, at random nodes.

use std::sync::Arc;

use group_log::{ChainHash, GroupId};
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    history::{HeadRead, History},
    limits::POLL_INTERVAL,
    ordering::OrderingClient,
};

pub(super) async fn run(
    client: OrderingClient,
    history: Arc<History>,
    addresses: Vec<String>,
    groups: Vec<GroupId>,
    mut rng: ChaCha8Rng,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        let (Some(address), Some(group)) = (addresses.choose(&mut rng), groups.choose(&mut rng)) else {
            return;
        };
        let start = history.moment();
        // A node that is down, or that has no quorum now, gives no answer: that promises nothing.
        if let Ok(answer) = client.head(address, group, true).await
            && let Some(head) = answer.head
        {
            let end = history.moment();
            let chain = ChainHash::from_slice(&head.chain_hash).expect("a head's chain hash has 32 bytes");
            history.read(HeadRead { group: group.clone(), start, end, seq: head.seq, chain });
        }
        sleep(POLL_INTERVAL).await;
    }
}

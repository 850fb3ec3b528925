//! Nodes that become members without an operator: how they ask, and how they are answered.
//!
//! A node asks after every start. The answer does nothing if it is a voter everywhere already, so a restart costs one request. A disk
//! that was lost comes back as another node (its number was lost as well) at the same address, and takes the place of the former one.

use std::{sync::Arc, time::Duration};

use concordat_proto::{
    ordering::v1::{AddLearnerRequest, NodeAddress},
    raft::v1::{AdmitRequest, Voters, administer_request::Change},
};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{bad, check_address, in_every_shard, learner::add_learner};
use crate::{
    api::linearize::linearize,
    config::Join,
    error::ApiError,
    limits,
    node::Node,
    raft::peer::{Complaints, channel, client},
};

/// Makes the node that asks a voter of every shard.
///
/// # Errors
/// The cluster is not formed, or a change of its membership is refused; the same request again carries on.
pub async fn admit(node: &Node, request: AdmitRequest) -> Result<(), ApiError> {
    let AdmitRequest { node_id, peer_address, address, site } = request;
    let asking = NodeAddress { node_id, peer_address, address, site };
    check_address(&asking)?;
    let _one_at_a_time = node.changing.lock().await;
    let shards = node.shards()?;
    if node_id == node.identity.node_id {
        return Err(bad("node_id", "another node than the one that is asked", node_id));
    }
    // While a cluster is being formed its first members are only named.
    if !shards.iter().all(|shard| shard.membership().voter_ids().next().is_some()) {
        return Err(ApiError::NoCluster);
    }
    // What this node believes may be old: it could have been removed itself.
    for shard in shards.iter() {
        linearize(node, shard).await?;
    }
    if shards.iter().all(|shard| shard.membership().voter_ids().any(|id| id == node_id)) {
        return Ok(());
    }
    let lost = shards
        .nodes()
        .into_iter()
        .find(|(id, known)| *id != node_id && known.peer_address == asking.peer_address);
    if let Some((lost, _)) = lost {
        tracing::warn!(
            lost,
            by = node_id,
            "another node has a member's peer address: the member is taken for lost"
        );
        in_every_shard(node, Change::Remove(lost)).await?;
    }
    add_learner(node, AddLearnerRequest { node: Some(asking), max_lag: 0 }).await?;
    in_every_shard(node, Change::Promote(Voters { node_ids: vec![node_id] })).await?;
    tracing::info!(node = node_id, "admitted a voter");
    Ok(())
}

/// Asks one seed after another, until this node is a voter.
pub async fn ask(node: Arc<Node>, join: Join, end: CancellationToken) {
    let complaints = Complaints::default();
    let asking = async {
        loop {
            for seed in &join.seeds {
                match ask_one(&node, &join, seed).await {
                    Ok(()) => {
                        tracing::info!(%seed, "this node is a voter of its cluster");
                        return;
                    }
                    Err(message) => complaints.complain(&message, || {
                        tracing::info!(%seed, "not admitted to a cluster yet, trying again: {message}");
                    }),
                }
            }
            sleep(limits::ADMIT_RETRY).await;
        }
    };
    tokio::select! {
        () = end.cancelled() => {}
        () = asking => {}
    }
}

async fn ask_one(node: &Node, join: &Join, seed: &str) -> Result<(), String> {
    let channel = channel(seed, node.peers.network()).ok_or_else(|| format!("{seed} is not host:port"))?;
    let request = AdmitRequest {
        node_id: node.identity.node_id,
        peer_address: join.peer_address.clone(),
        address: join.address.clone(),
        site: join.site.clone(),
    };
    // The seed answers when everything was copied.
    let limit = limits::LEARNER_TIMEOUT + Duration::from_secs(30);
    match timeout(limit, client(channel).admit(request)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(status)) => Err(status.message().to_owned()),
        Err(_) => Err(format!("no answer within {limit:?}")),
    }
}

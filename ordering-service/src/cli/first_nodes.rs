//! Looking at the nodes that a cluster is to be formed of, before it is.

use anyhow::bail;
use concordat_proto::ordering::v1::{GetStatusRequest, GetStatusResponse, NodeAddress};
use service_kit::net::SharedNetwork;
use tokio::time::{Duration, Instant, sleep};

use super::admin::{connect, told};

/// Between two attempts to reach a node that does not answer yet.
const RETRY: Duration = Duration::from_secs(1);

/// What the nodes said.
pub(super) struct Found {
    /// The cluster that one of them belongs to, if all its shards have voters.
    pub(super) formed: Option<String>,
}

/// Asks every node who it is, for `wait` at most, and fills in the numbers that are missing.
pub(super) async fn find(
    network: &SharedNetwork,
    nodes: &mut [NodeAddress],
    wait: Duration,
) -> anyhow::Result<Found> {
    let deadline = Instant::now() + wait;
    let mut found = Found { formed: None };
    for node in nodes {
        let status = loop {
            match status(network, &node.address).await {
                Ok(status) => break status,
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => sleep(RETRY).await,
            }
        };
        match node.node_id {
            0 => node.node_id = status.node_id,
            id if id != status.node_id => {
                bail!(
                    "node {} answers at {}, expected node {id}: check the addresses",
                    status.node_id,
                    node.address
                )
            }
            _ => {}
        }
        if !status.shards.is_empty() && status.shards.iter().all(|shard| !shard.voters.is_empty()) {
            found.formed = Some(status.cluster_id);
        }
    }
    Ok(found)
}

async fn status(network: &SharedNetwork, address: &str) -> anyhow::Result<GetStatusResponse> {
    let mut client = connect(network, address).await?;
    Ok(client.get_status(GetStatusRequest {}).await.map_err(told)?.into_inner())
}

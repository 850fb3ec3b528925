//! `ordering-service admin`.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use clap::{Args, Subcommand};
use concordat_proto::ordering::v1::{
    AddLearnerRequest, BootstrapRequest, EvictGatewayRequest, GetStatusRequest, ListGatewaysRequest,
    NodeAddress, PromoteRequest, RemoveRequest, TransferLeaderRequest, admin_client::AdminClient,
};
use group_log::fork::GatewayId;
use service_kit::{
    net::{Connector, SharedNetwork, tcp_network},
    tls::{ClientProof, RoleKind, Security, TlsArgs, TlsNetwork},
};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use super::{
    backup, first_nodes, shrink,
    table::{self, hex},
};

/// An operator's call to a running node.
#[derive(Debug, Args)]
pub(super) struct Admin {
    /// host:port of any node's API (its --listen address).
    #[arg(long, env = "CONCORDAT_SERVER", value_name = "HOST:PORT", default_value = "127.0.0.1:7100")]
    server: String,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(subcommand)]
    call: Call,
}

#[derive(Debug, Subcommand)]
enum Call {
    /// Form a cluster out of empty nodes, once. Name every node, the one that is called among them. If the call breaks off, repeat
    /// it with the same arguments.
    Bootstrap {
        /// A first voter, such as 1=host:7200,host:7100 or 1=host:7200,host:7100,site-a. Without ID= the node is asked for its
        /// number. Repeat for each node.
        #[arg(long = "node", required = true, value_name = "[ID=]PEER_ADDR,API_ADDR[,SITE]", value_parser = parse_first_node)]
        nodes: Vec<NodeAddress>,
        /// Wait so many seconds for the nodes to answer.
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        wait: u64,
        /// Succeed without changing anything if one of the nodes belongs to a formed cluster already.
        #[arg(long)]
        unless_formed: bool,
        /// Raft groups that the MLS groups are spread over. Can not be changed later.
        #[arg(long, default_value_t = 2)]
        data_shards: u32,
    },
    /// Copy everything that was accepted so far to a folder on this machine, synced, while the cluster goes on.
    Backup {
        /// The folder; it must not exist yet.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
    /// Show a node's view of the cluster.
    Status,
    /// Add an empty node that learns every shard, but does not vote yet. Returns when it has caught up.
    AddLearner {
        /// The node, such as 4=host:7200,host:7100.
        #[arg(long = "node", value_name = "ID=PEER_ADDR,API_ADDR[,SITE]", value_parser = parse_node)]
        node: NodeAddress,
        /// Entries that it may still lack when the call returns.
        #[arg(long, default_value_t = 1000)]
        max_lag: u64,
    },
    /// Let learners vote, in every shard.
    Promote {
        /// Their numbers.
        #[arg(required = true, value_name = "ID")]
        node_ids: Vec<u64>,
    },
    /// Take a node out of every shard. Refused if the rest could not form a quorum.
    Remove {
        /// Its number. It must never be used again.
        #[arg(value_name = "ID")]
        node_id: u64,
    },
    /// Take every node of a site out of the cluster but the named ones, one after another. Refused where the rest could not form a
    /// quorum.
    Shrink {
        /// The peer address of a node that stays. Repeat for each.
        #[arg(long = "keep", required = true, value_name = "PEER_ADDR")]
        keep: Vec<String>,
        /// Nodes of other sites stay, too.
        #[arg(long, value_name = "NAME", default_value = "")]
        site: String,
    },
    /// List the gateways that are registered for DeMLS groups, and in how many groups each keeps states from being deleted.
    Gateways,
    /// Stop waiting for a gateway that does not come back. Says what it costs, and does it only with --yes.
    Evict {
        /// Its id, as `gateways` shows it.
        #[arg(value_name = "GATEWAY", value_parser = parse_gateway)]
        gateway: GatewayId,
        /// Do it.
        #[arg(long)]
        yes: bool,
    },
    /// Hand the leadership of a shard to another voter that is caught up.
    TransferLeader {
        /// The shard; 0 is the directory.
        #[arg(long)]
        shard: u32,
        /// The voter.
        #[arg(long, value_name = "ID")]
        to: u64,
    },
}

impl Admin {
    fn network(&self) -> anyhow::Result<SharedNetwork> {
        Ok(match self.tls.security("operator/NAME", |role| role.kind() == RoleKind::Operator)? {
            Security::InsecureDev => tcp_network(),
            Security::Tls(credentials, _) => {
                TlsNetwork::over(tcp_network(), credentials, RoleKind::Node, ClientProof::Certificate)
            }
        })
    }
}

/// Connects to the node at `server` (host:port).
pub(super) async fn connect(network: &SharedNetwork, server: &str) -> anyhow::Result<AdminClient<Channel>> {
    let endpoint = Endpoint::from_shared(format!("http://{server}"))
        .with_context(|| format!("--server must be host:port, got {server:?}"))?
        .connect_timeout(Duration::from_secs(5));
    let channel =
        endpoint.connect_with_connector(Connector::new(network.clone())).await.with_context(|| {
            format!("nobody answers at {server}: is the node running, and is this its --listen address?")
        })?;
    Ok(AdminClient::new(channel))
}

pub(super) async fn run(mut admin: Admin) -> anyhow::Result<()> {
    let network = admin.network()?;
    if let Call::Bootstrap { nodes, wait, unless_formed, .. } = &mut admin.call {
        let found = first_nodes::find(&network, nodes, Duration::from_secs(*wait)).await?;
        if let Some(cluster) = found.formed.filter(|_| *unless_formed) {
            println!("cluster {cluster} is formed already: nothing to do");
            return Ok(());
        }
    }
    let mut client = connect(&network, &admin.server).await?;
    match admin.call {
        Call::Bootstrap { nodes, data_shards, .. } => {
            let count = nodes.len();
            let answer = client.bootstrap(BootstrapRequest { nodes, data_shards }).await.map_err(told)?;
            println!(
                "cluster {} formed: {count} nodes, {data_shards} data shards",
                answer.into_inner().cluster_id
            );
        }
        Call::Backup { to } => backup::run(&mut client, &to).await?,
        Call::Status => {
            let status = client.get_status(GetStatusRequest {}).await.map_err(told)?;
            print!("{}", table::status(&status.into_inner()));
        }
        Call::AddLearner { node, max_lag } => {
            let node_id = node.node_id;
            client.add_learner(AddLearnerRequest { node: Some(node), max_lag }).await.map_err(told)?;
            println!("node {node_id} learns every shard; let it vote with: admin promote {node_id}");
        }
        Call::Promote { node_ids } => {
            client.promote(PromoteRequest { node_ids }).await.map_err(told)?;
            println!("promoted");
        }
        Call::Remove { node_id } => {
            client.remove(RemoveRequest { node_id }).await.map_err(told)?;
            println!("node {node_id} is removed; stop it, and never use its number again");
        }
        Call::Shrink { keep, site } => shrink::run(&mut client, &keep, &site).await?,
        Call::Gateways => {
            let listed = client.list_gateways(ListGatewaysRequest {}).await.map_err(told)?;
            print!("{}", table::gateways(&listed.into_inner().gateways));
        }
        Call::Evict { gateway, yes } => evict(&mut client, gateway, yes).await?,
        Call::TransferLeader { shard, to } => {
            client.transfer_leader(TransferLeaderRequest { shard, to_node_id: to }).await.map_err(told)?;
            println!("node {to} leads shard {shard}");
        }
    }
    Ok(())
}

async fn evict(client: &mut AdminClient<Channel>, gateway: GatewayId, yes: bool) -> anyhow::Result<()> {
    let gateway_id = Bytes::copy_from_slice(&gateway.0);
    let listed = client.list_gateways(ListGatewaysRequest {}).await.map_err(told)?.into_inner();
    let found = listed.gateways.into_iter().find(|listed| listed.gateway_id == gateway_id);
    let found = found.with_context(|| {
        format!("no group knows gateway {}: list those that are known with: admin gateways", hex(&gateway.0))
    })?;
    println!("{}", table::cost_of_eviction(&found));
    if !yes {
        anyhow::bail!("nothing was done: say --yes to evict it");
    }
    let evicted = client.evict_gateway(EvictGatewayRequest { gateway_id }).await.map_err(told)?;
    println!("evicted from {} groups", evicted.into_inner().groups);
    Ok(())
}

fn parse_gateway(text: &str) -> Result<GatewayId, String> {
    let digits = |at: usize| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(digits).collect();
    let id = bytes.and_then(|bytes| bytes.try_into().ok()).map(GatewayId);
    id.ok_or_else(|| format!("expected 32 hexadecimal digits, got {text:?}"))
}

pub(super) fn told(status: Status) -> anyhow::Error {
    match service_kit::status::reason(&status) {
        Some(reason) => anyhow::anyhow!("{} ({reason})", status.message()),
        None => anyhow::anyhow!("{} ({:?})", status.message(), status.code()),
    }
}

/// A node whose number may be missing: 0 then.
fn parse_first_node(text: &str) -> Result<NodeAddress, String> {
    let numbered = if text.contains('=') { text.to_owned() } else { format!("1={text}") };
    let node = parse_node(&numbered)?;
    Ok(if text.contains('=') { node } else { NodeAddress { node_id: 0, ..node } })
}

fn parse_node(text: &str) -> Result<NodeAddress, String> {
    let expected = || format!("expected ID=PEER_ADDR,API_ADDR[,SITE], got {text:?}");
    let (id, addresses) = text.split_once('=').ok_or_else(expected)?;
    let node_id = id.parse().ok().filter(|id| *id > 0).ok_or_else(expected)?;
    let parts: Vec<&str> = addresses.split(',').collect();
    let (peer, address, site) = match parts[..] {
        [peer, address] => (peer, address, ""),
        [peer, address, site] => (peer, address, site),
        _ => return Err(expected()),
    };
    Ok(NodeAddress { node_id, peer_address: peer.into(), address: address.into(), site: site.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_read_as_documented() {
        let node = parse_node("3=10.0.0.3:7200,10.0.0.3:7100,athens").expect("valid");
        assert_eq!((node.node_id, node.site.as_str()), (3, "athens"));
        assert_eq!(node.peer_address, "10.0.0.3:7200");
        assert!(parse_node("1=a:1,b:2").is_ok());
        assert_eq!(parse_first_node("a:1,b:2,s").map(|n| (n.node_id, n.site)), Ok((0, "s".into())));
        assert_eq!(parse_first_node("3=a:1,b:2").map(|n| n.node_id), Ok(3));
        assert!(parse_first_node("0=a:1,b:2").is_err() && parse_first_node("a:1").is_err());
        for bad in ["", "1", "0=a:1,b:2", "x=a:1,b:2", "1=a:1", "1=a,b,c,d"] {
            assert!(parse_node(bad).is_err(), "{bad}");
        }
    }
}

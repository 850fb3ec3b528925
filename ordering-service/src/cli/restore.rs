//! `ordering-service restore`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use service_kit::{rng::Randomness, settings::check_address};

use crate::{backup::restore, raft::types::NodeInfo};

/// From where to where, and how the node is to be reached.
#[derive(Debug, Args)]
pub(super) struct Restore {
    /// The backup.
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// The data directory of the new node: empty, or not there.
    #[arg(long, env = "CONCORDAT_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,
    /// The new node's number.
    #[arg(long, env = "CONCORDAT_NODE_ID", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    node_id: u64,
    /// Where gateways and operators will reach it.
    #[arg(long, env = "CONCORDAT_ADVERTISE", value_name = "HOST:PORT")]
    advertise: String,
    /// Where the other nodes will reach it.
    #[arg(long, env = "CONCORDAT_ADVERTISE_PEER", value_name = "HOST:PORT")]
    advertise_peer: String,
    /// The place with its own network that it stands in.
    #[arg(long, env = "CONCORDAT_SITE", value_name = "NAME", default_value = "")]
    site: String,
}

pub(super) async fn run(args: Restore) -> anyhow::Result<()> {
    check_address("advertise", &args.advertise)?;
    check_address("advertise_peer", &args.advertise_peer)?;
    let info = NodeInfo {
        peer_address: args.advertise_peer,
        address: args.advertise,
        site: args.site,
        ..NodeInfo::default()
    };
    let restored = restore(&args.from, &args.data_dir, args.node_id, info, &Randomness::from_os())
        .await
        .with_context(|| format!("nothing was restored to {}", args.data_dir.display()))?;
    println!(
        "{} holds node {} of the new cluster {}: start it, then start others with empty data directories and --join",
        args.data_dir.display(),
        restored.node_id,
        restored.cluster_id
    );
    Ok(())
}

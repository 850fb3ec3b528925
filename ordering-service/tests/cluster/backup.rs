//! A cluster is saved while it works, and another one is made of what was saved.

use std::{fs, path::Path};

use concordat_proto::{
    log::v1::Entry,
    ordering::v1::{BackupRequest, GetStatusRequest},
};
use ordering_service::{
    backup::{BackupError, Manifest, restore, save},
    config::Join,
    dev::{local_config, start_node},
    raft::types::NodeInfo,
    server::Seams,
};
use service_kit::rng::Randomness;

use crate::support::{Cluster, until};

async fn back_up(cluster: &Cluster, through: u64, to: &Path) -> Result<Manifest, BackupError> {
    let parts = cluster.admin(through).await.backup(BackupRequest {}).await.unwrap().into_inner();
    save(parts, to).await
}

/// Addresses on which a node of the new cluster can be started.
async fn free_addresses(dir: &Path, node_id: u64) -> (String, String) {
    let mut config = local_config(dir, node_id).unwrap();
    config.data_dir = dir.join("ports-only").join(node_id.to_string());
    let node = start_node(dir, config, Seams::system()).await.unwrap();
    let (peers, api) = (node.addresses().peers.to_string(), node.addresses().api.to_string());
    node.stop().await;
    (peers, api)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_cluster_holds_what_was_saved_and_goes_on_from_there() {
    let source = Cluster::start(3).await;
    let (groups, commits) = (["first", "second", "third"], 40);
    for name in groups {
        source.group_with(name, commits).await;
    }
    let backups = tempfile::tempdir().unwrap();
    let folder = backups.path().join("backup");
    let (saved, ()) = tokio::join!(back_up(&source, 2, &folder), source.group_with("meanwhile", 40));
    let manifest = saved.unwrap();
    assert_eq!(manifest.shards.len(), 2);
    let mut expected: Vec<Vec<Entry>> = Vec::new();
    for name in groups {
        expected.push(source.entries(1, name, commits + 1).await);
    }
    let old_cluster =
        source.admin(1).await.get_status(GetStatusRequest {}).await.unwrap().into_inner().cluster_id;
    source.stop().await;

    // The first node out of the backup, on a disk and with a number of its own.
    let mut target = Cluster::empty(0).await;
    let (peer_address, address) = free_addresses(target.path(), 1).await;
    let info = NodeInfo { peer_address: peer_address.clone(), address, ..NodeInfo::default() };
    let data_dir = target.path().join("node-1");
    let restored = restore(&folder, &data_dir, 1, info.clone(), &Randomness::from_os()).await.unwrap();
    assert_ne!(restored.cluster_id, old_cluster);
    target.start_node(1).await;
    for (name, expected) in groups.iter().zip(&expected) {
        assert_eq!(&target.entries(1, name, commits + 1).await, expected, "{name}");
    }
    let again = restore(&folder, &data_dir, 1, info, &Randomness::from_os()).await.unwrap_err();
    assert!(matches!(again, BackupError::Exists(_)), "{again}");

    // It orders; the same submission as before the backup has the same answer; others join it and hold the same.
    target.group_with("afterwards", 5).await;
    target.group_with(groups[0], commits).await;
    for node_id in [2, 3] {
        let (peer_address, address) = free_addresses(target.path(), node_id).await;
        let mut config = local_config(target.path(), node_id).unwrap();
        let seeds = vec![target.node(1).addresses().peers.to_string()];
        config.join = Some(Join { seeds, peer_address, address, site: String::new() });
        let node = start_node(target.path(), config, Seams::system()).await.unwrap();
        target.nodes.push(Some(node));
    }
    until("all three vote", async || {
        let status = target.admin(3).await.get_status(GetStatusRequest {}).await.unwrap().into_inner();
        !status.shards.is_empty() && status.shards.iter().all(|shard| shard.voters.len() == 3)
    })
    .await;
    for (name, expected) in groups.iter().zip(&expected) {
        assert_eq!(&target.entries(3, name, commits + 1).await, expected, "{name}");
    }
    target.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_backup_is_refused_before_anything_is_written() {
    let source = Cluster::start(1).await;
    source.group_with("group", 10).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let folder = elsewhere.path().join("backup");
    back_up(&source, 1, &folder).await.unwrap();
    let exists = back_up(&source, 1, &folder).await.unwrap_err();
    assert!(matches!(exists, BackupError::Exists(_)), "{exists}");
    source.stop().await;

    let data_dir = elsewhere.path().join("data");
    let refused = async || {
        let restored = restore(&folder, &data_dir, 1, NodeInfo::default(), &Randomness::from_os()).await;
        let error = restored.unwrap_err();
        assert!(!data_dir.exists(), "{error}");
        error.to_string()
    };
    let shard = folder.join("shard-1.snapshot");
    let good = fs::read(&shard).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    fs::write(&shard, flipped).unwrap();
    assert!(refused().await.contains("checksum"));
    fs::write(&shard, &good[..good.len() - 1]).unwrap();
    assert!(refused().await.contains("checksum"));
    fs::remove_file(&shard).unwrap();
    assert!(refused().await.contains("shard-1.snapshot"));
    fs::write(&shard, &good).unwrap();
    let manifest = fs::read_to_string(folder.join("manifest.toml")).unwrap();
    fs::write(folder.join("manifest.toml"), manifest.replace("data_shards = 1", "data_shards = 2")).unwrap();
    assert!(refused().await.contains("shards 0 to 2"));
}

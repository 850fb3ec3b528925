//! The first node of a new cluster, out of a backup.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use bytes::Bytes;
use service_kit::rng::Randomness;

use super::{
    BackupError, Manifest, ShardFile,
    save::{beside, parent},
    sync_folder,
};
use crate::{
    cluster::bootstrap::new_cluster_id,
    limits::RESTORE_CHUNK_BYTES,
    raft::types::{Membership, NodeId, NodeInfo, ShardId},
    storage::{Storage, StorageError, StorageOptions},
};

/// What came of a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The new cluster.
    pub cluster_id: String,
    /// Its only voter so far.
    pub node_id: NodeId,
}

/// Fills `data_dir`, which must be empty or not exist, with the data of a node that is the only voter of a new cluster. The cluster has
/// another id than the one that was backed up, so that their nodes do not mix. The address and the site of the node are `info`'s.
///
/// # Errors
/// The backup is damaged, or the folder is in use. Nothing is in `data_dir` then.
pub async fn restore(
    backup: &Path,
    data_dir: &Path,
    node_id: NodeId,
    info: NodeInfo,
    randomness: &Randomness,
) -> Result<Restored, BackupError> {
    let manifest = Manifest::verified(backup)?;
    if fs::read_dir(data_dir).is_ok_and(|mut files| files.next().is_some()) {
        return Err(BackupError::Exists(format!("data in {}", data_dir.display())));
    }
    let unfinished = beside(data_dir, "restoring");
    if unfinished.exists() {
        // What an attempt left that was cut short.
        fs::remove_dir_all(&unfinished).map_err(BackupError::io("removing", &unfinished))?;
    }
    let cluster_id = new_cluster_id(randomness);
    {
        let storage = Storage::open(&unfinished, StorageOptions::new(node_id, randomness.bytes()))?;
        storage.set_cluster(&cluster_id, manifest.data_shards)?;
        let info = NodeInfo { disk_id: storage.marker().disk_id, ..info };
        let members = Membership::new(vec![[node_id].into()], BTreeMap::from([(node_id, info)]))
            .map_err(|error| StorageError::Invalid(error.to_string()))?;
        for file in &manifest.shards {
            storage.restore(file.shard, chunks(backup, file.shard)?, members.clone()).await?;
        }
    }
    if data_dir.exists() {
        fs::remove_dir(data_dir).map_err(BackupError::io("replacing", data_dir))?;
    }
    fs::rename(&unfinished, data_dir).map_err(BackupError::io("finishing", data_dir))?;
    sync_folder(parent(data_dir))?;
    Ok(Restored { cluster_id, node_id })
}

fn chunks(
    backup: &Path,
    shard: ShardId,
) -> Result<impl Iterator<Item = Result<Bytes, StorageError>>, BackupError> {
    let path = backup.join(ShardFile::name(shard));
    let mut file = File::open(&path).map_err(BackupError::io("reading", &path))?;
    Ok(std::iter::from_fn(move || {
        let mut chunk = vec![0; RESTORE_CHUNK_BYTES];
        match read(&mut file, &mut chunk) {
            Ok(0) => None,
            Ok(length) => {
                chunk.truncate(length);
                Some(Ok(chunk.into()))
            }
            Err(error) => Some(Err(StorageError::Io {
                what: format!("reading {}", path.display()),
                detail: error.to_string(),
            })),
        }
    }))
}

fn read(file: &mut File, chunk: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

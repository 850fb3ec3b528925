//! What belongs to a backup.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::BackupError;
use crate::{
    limits::{MANIFEST_BYTES, RESTORE_CHUNK_BYTES},
    raft::types::ShardId,
};

const FILE: &str = "manifest.toml";
/// The only version that there is.
const VERSION: u32 = 1;

/// The content of `manifest.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the layout.
    pub version: u32,
    /// The cluster that was backed up.
    pub cluster_id: String,
    /// The node that was asked.
    pub node_id: u64,
    /// Data shards beside the directory.
    pub data_shards: u32,
    /// One file for each shard.
    pub shards: Vec<ShardFile>,
}

/// One shard's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardFile {
    /// The shard.
    pub shard: ShardId,
    /// Length of the file.
    pub bytes: u64,
    /// CRC-32 of the file.
    pub crc32: u32,
}

impl Manifest {
    /// The manifest of a backup that has no shards yet.
    pub(super) fn new(cluster_id: String, node_id: u64, data_shards: u32) -> Self {
        Self { version: VERSION, cluster_id, node_id, data_shards, shards: Vec::new() }
    }

    /// Every shard is there, once.
    fn check(&self) -> Result<(), BackupError> {
        let mut shards: Vec<ShardId> = self.shards.iter().map(|file| file.shard).collect();
        shards.sort_unstable();
        match self.version == VERSION && shards.iter().copied().eq(0..=self.data_shards) {
            true => Ok(()),
            false => Err(BackupError::Damaged(format!(
                "expected version {VERSION} and the shards 0 to {}, got version {} and the shards {shards:?}",
                self.data_shards, self.version
            ))),
        }
    }

    /// Reads the manifest of a backup, and every file that it names.
    ///
    /// # Errors
    /// Something is missing, or differs from what was saved.
    pub fn verified(folder: &Path) -> Result<Self, BackupError> {
        let path = folder.join(FILE);
        let mut text = String::new();
        let read = File::open(&path).and_then(|file| file.take(MANIFEST_BYTES).read_to_string(&mut text));
        read.map_err(BackupError::io("reading", &path))?;
        let manifest: Self =
            toml::from_str(&text).map_err(|error| BackupError::Damaged(format!("{FILE}: {error}")))?;
        manifest.check()?;
        for file in &manifest.shards {
            file.verify(folder)?;
        }
        Ok(manifest)
    }

    /// Writes the manifest, synced.
    pub(super) fn write(&self, folder: &Path) -> Result<(), BackupError> {
        self.check()?;
        let path = folder.join(FILE);
        let text = toml::to_string(self).map_err(|error| BackupError::Damaged(error.to_string()))?;
        let write = || {
            let mut file = File::create(&path)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        write().map_err(BackupError::io("writing", &path))
    }
}

impl ShardFile {
    /// The name of a shard's file.
    pub(super) fn name(shard: ShardId) -> String {
        format!("shard-{shard}.snapshot")
    }

    fn verify(&self, folder: &Path) -> Result<(), BackupError> {
        let path = folder.join(Self::name(self.shard));
        let bytes = fs::metadata(&path).map_err(BackupError::io("reading", &path))?.len();
        let mut crc32 = crc32fast::Hasher::new();
        let mut file = File::open(&path).map_err(BackupError::io("reading", &path))?;
        let mut chunk = vec![0; RESTORE_CHUNK_BYTES];
        loop {
            match file.read(&mut chunk).map_err(BackupError::io("reading", &path))? {
                0 => break,
                read => crc32.update(&chunk[..read]),
            }
        }
        let crc32 = crc32.finalize();
        match (bytes, crc32) == (self.bytes, self.crc32) {
            true => Ok(()),
            false => Err(BackupError::Damaged(format!(
                "{} has {bytes} bytes with the checksum {crc32:08x}, expected {} with {:08x}",
                path.display(),
                self.bytes,
                self.crc32
            ))),
        }
    }
}

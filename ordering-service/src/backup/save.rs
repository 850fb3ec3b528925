//! The operator's side of a backup: what a node streams becomes files.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use concordat_proto::ordering::v1::{BackupResponse, backup_response::Part};
use futures::{Stream, StreamExt};
use tonic::Status;

use super::{BackupError, Manifest, ShardFile, sync_folder};
use crate::raft::types::ShardId;

/// Writes a backup to `folder`, which must not exist. It is complete and synced when this returns, and not there under this name
/// before.
///
/// # Errors
/// The node ends the stream early, or the disk refuses.
pub async fn save(
    mut parts: impl Stream<Item = Result<BackupResponse, Status>> + Unpin,
    folder: &Path,
) -> Result<Manifest, BackupError> {
    if folder.exists() {
        return Err(BackupError::Exists(folder.display().to_string()));
    }
    let partial = beside(folder, "partial");
    fs::create_dir_all(&partial).map_err(BackupError::io("creating", &partial))?;
    let mut saving: Option<Manifest> = None;
    let mut open: Option<OpenFile> = None;
    let manifest = loop {
        let part = parts.next().await.transpose()?.and_then(|response| response.part);
        match (part, &mut saving) {
            (Some(Part::Head(head)), None) => {
                saving = Some(Manifest::new(head.cluster_id, head.node_id, head.data_shards));
            }
            (Some(Part::Shard(shard)), Some(manifest)) => {
                manifest.shards.extend(open.take().map(OpenFile::close).transpose()?);
                open = Some(OpenFile::create(&partial, shard.shard)?);
            }
            (Some(Part::Bytes(bytes)), Some(_)) => match &mut open {
                Some(file) => file.write(&bytes)?,
                None => return Err(BackupError::Damaged("it has bytes that belong to no shard".into())),
            },
            (Some(Part::End(_)), Some(_)) => {
                let Some(mut manifest) = saving.take() else { continue };
                manifest.shards.extend(open.take().map(OpenFile::close).transpose()?);
                break manifest;
            }
            (None, _) => return Err(BackupError::Damaged("the node stopped sending before its end".into())),
            (Some(_), _) => return Err(BackupError::Damaged("its parts come in another order".into())),
        }
    };
    manifest.write(&partial)?;
    sync_folder(&partial)?;
    fs::rename(&partial, folder).map_err(BackupError::io("finishing", folder))?;
    sync_folder(parent(folder))?;
    Ok(manifest)
}

/// `folder` with something after its name.
pub(super) fn beside(folder: &Path, suffix: &str) -> PathBuf {
    let mut name = folder.as_os_str().to_owned();
    name.push(format!(".{suffix}"));
    PathBuf::from(name)
}

/// The folder that a folder is in.
pub(super) fn parent(folder: &Path) -> &Path {
    folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

struct OpenFile {
    path: PathBuf,
    file: File,
    shard: ShardId,
    bytes: u64,
    crc32: crc32fast::Hasher,
}

impl OpenFile {
    fn create(folder: &Path, shard: ShardId) -> Result<Self, BackupError> {
        let path = folder.join(ShardFile::name(shard));
        let file = File::create(&path).map_err(BackupError::io("creating", &path))?;
        Ok(Self { path, file, shard, bytes: 0, crc32: crc32fast::Hasher::new() })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        self.file.write_all(bytes).map_err(BackupError::io("writing", &self.path))?;
        self.crc32.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn close(self) -> Result<ShardFile, BackupError> {
        self.file.sync_all().map_err(BackupError::io("syncing", &self.path))?;
        Ok(ShardFile { shard: self.shard, bytes: self.bytes, crc32: self.crc32.finalize() })
    }
}

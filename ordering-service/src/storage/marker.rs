//! Whose data this is. The marker is a small file beside the database, written before anything else, and checked first.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;

use super::{
    error::StorageError,
    wire::{DecodeError, Fields, Put},
};
use crate::raft::types::NodeId;

/// The storage format that this version reads and writes.
/// Up to 2 the log lay in RocksDB, since 3 it lies in files of its own.
pub const FORMAT: u32 = 3;

const FILE: &str = "marker";
const MAGIC: &[u8; 8] = b"concorda";

/// Whose data a directory holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// The node that the data belongs to.
    pub node_id: NodeId,
    /// Drawn when the storage was created. A wiped disk gets another one.
    pub disk_id: [u8; 16],
    /// The cluster, once the node belongs to one.
    pub cluster: Option<ClusterMark>,
}

/// The cluster that a node belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterMark {
    /// Drawn when the cluster was formed.
    pub cluster_id: String,
    /// Data shards beside the directory. Fixed when the cluster was formed.
    pub data_shards: u32,
}

impl Marker {
    /// Reads the marker of a data directory. `None` if there is none.
    pub(crate) fn read(directory: &Path) -> Result<Option<Marker>, StorageError> {
        let path = directory.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StorageError::file("reading", &path, &error)),
        };
        decode(bytes.into(), directory).map(Some)
    }

    /// Replaces the marker, synced: after a crash there is the old one or the new one, whole.
    pub(crate) fn write(&self, directory: &Path) -> Result<(), StorageError> {
        replace_file(directory, FILE, &self.encode())
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.put_int32(FORMAT);
        bytes.put_int(self.node_id);
        bytes.extend_from_slice(&self.disk_id);
        bytes.put_byte(self.cluster.is_some().into());
        if let Some(cluster) = &self.cluster {
            bytes.put_string(cluster.cluster_id.as_bytes());
            bytes.put_int32(cluster.data_shards);
        }
        let checksum = crc32fast::hash(&bytes);
        bytes.put_int32(checksum);
        bytes
    }
}

fn decode(bytes: Bytes, directory: &Path) -> Result<Marker, StorageError> {
    let path = directory.join(FILE);
    let corrupt = |detail: String| StorageError::Corrupt { what: path.display().to_string(), detail };
    let fields = |bytes: Bytes| -> Result<(u32, Marker), DecodeError> {
        let mut fields = Fields::new(bytes);
        fields.array::<8>("magic")?;
        let format = fields.int32("format")?;
        let marker = Marker {
            node_id: fields.int("node id")?,
            disk_id: fields.array("disk id")?,
            cluster: match fields.flag("cluster")? {
                false => None,
                true => Some(ClusterMark {
                    cluster_id: fields.text("cluster id")?,
                    data_shards: fields.int32("data shards")?,
                }),
            },
        };
        fields.end()?;
        Ok((format, marker))
    };
    if bytes.len() < 16 || !bytes.starts_with(MAGIC) {
        return Err(corrupt("it does not begin like a marker".into()));
    }
    let (body, checksum) = (bytes.slice(..bytes.len() - 4), &bytes[bytes.len() - 4..]);
    if crc32fast::hash(&body).to_be_bytes() != checksum {
        return Err(corrupt("its checksum does not match".into()));
    }
    // Another format may lay out its fields in another way, so it is told apart before they are read.
    let found = u32::from_be_bytes([body[8], body[9], body[10], body[11]]);
    if found != FORMAT {
        return Err(StorageError::Format { path: directory.display().to_string(), found, supported: FORMAT });
    }
    let (_, marker) = fields(body).map_err(|error| corrupt(error.to_string()))?;
    Ok(marker)
}

/// Writes a file whole and synced under a temporary name, then puts it in its place.
pub(crate) fn replace_file(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
    let path = directory.join(name);
    let temporary: PathBuf = directory.join(format!("{name}.new"));
    let write = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(|error| StorageError::file("writing", &path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker() -> Marker {
        Marker {
            node_id: 7,
            disk_id: [9; 16],
            cluster: Some(ClusterMark { cluster_id: "c1".into(), data_shards: 2 }),
        }
    }

    #[test]
    fn a_marker_comes_back_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Marker::read(directory.path()).unwrap(), None);
        for marker in [Marker { cluster: None, ..marker() }, marker()] {
            marker.write(directory.path()).unwrap();
            assert_eq!(Marker::read(directory.path()).unwrap(), Some(marker));
        }
    }

    #[test]
    fn every_damaged_byte_of_a_marker_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let good = marker().encode();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(directory.path().join(FILE), bad).unwrap();
            assert!(matches!(Marker::read(directory.path()), Err(StorageError::Corrupt { .. })), "byte {at}");
        }
        for len in 0..good.len() {
            fs::write(directory.path().join(FILE), &good[..len]).unwrap();
            assert!(
                matches!(Marker::read(directory.path()), Err(StorageError::Corrupt { .. })),
                "length {len}"
            );
        }
    }

    #[test]
    fn another_format_is_refused_with_its_number() {
        let directory = tempfile::tempdir().unwrap();
        let mut bytes = marker().encode();
        bytes.truncate(bytes.len() - 4);
        bytes[11] = 9;
        let checksum = crc32fast::hash(&bytes);
        bytes.put_int32(checksum);
        fs::write(directory.path().join(FILE), bytes).unwrap();
        assert!(matches!(Marker::read(directory.path()), Err(StorageError::Format { found: 9, .. })));
    }
}

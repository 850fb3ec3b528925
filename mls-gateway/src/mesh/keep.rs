//! What keeps streams in any gateway, with a cluster or without: the storage, and the links to other gateways.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use service_kit::{net::SharedNetwork, rng::Randomness};
use tokio_util::task::AbortOnDropHandle;

use super::{
    limits::{DROPPED_PATIENCE, PEERS_MAX, STREAM_BYTES_MAX, TOTAL_BYTES_MAX},
    link::Link,
    store::{Bounds, MeshStore, StoreError},
};

/// Why streams can not be kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The folder cannot be made.
    #[error("cannot keep data in {path}: {source}; choose another folder with --data-dir")]
    Folder {
        /// Which folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The storage.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another gateway's address.
    #[error("the address of a gateway, `{0}`, is not usable; expected host:port")]
    Peer(String),
    /// Too many other gateways.
    #[error("{got} other gateways are named, the limit is {PEERS_MAX}; a mesh need not be complete")]
    TooManyPeers {
        /// How many.
        got: usize,
    },
}

/// Where streams are kept, how much of them, and from whom others come.
#[derive(Debug, Clone)]
pub struct DimlsParts {
    /// Where streams are kept.
    pub data_dir: PathBuf,
    /// How much is kept.
    pub bounds: Bounds,
    /// host:port of other gateways that this one pulls from.
    pub peers: Vec<String>,
    /// How long items that one gateway has dropped are waited for, in case another one still has them.
    pub dropped_patience: Duration,
}

impl DimlsParts {
    /// Streams in `data_dir`, the default bounds, no other gateways.
    pub fn new(data_dir: PathBuf) -> Self {
        Self {
            data_dir,
            bounds: Bounds { stream_bytes: STREAM_BYTES_MAX, total_bytes: TOTAL_BYTES_MAX },
            peers: Vec::new(),
            dropped_patience: DROPPED_PATIENCE,
        }
    }

    /// Opens the storage, and begins to pull.
    pub(crate) fn keep(
        self,
        network: &SharedNetwork,
        rng: &Randomness,
        tasks: &mut Vec<AbortOnDropHandle<()>>,
    ) -> Result<Arc<MeshStore>, KeepError> {
        if self.peers.len() > PEERS_MAX {
            return Err(KeepError::TooManyPeers { got: self.peers.len() });
        }
        let path = self.data_dir;
        std::fs::create_dir_all(&path).map_err(|source| KeepError::Folder { path: path.clone(), source })?;
        let store = MeshStore::open(&path, self.bounds, rng.bytes())?;
        for peer in self.peers {
            let (store, network) = (Arc::clone(&store), Arc::clone(network));
            let link = Link::new(store, peer.clone(), network, rng.fork(), self.dropped_patience)
                .map_err(|_| KeepError::Peer(peer))?;
            tasks.push(AbortOnDropHandle::new(tokio::spawn(link.run())));
        }
        Ok(store)
    }
}

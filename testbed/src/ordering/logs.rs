//! Reading whole logs back.

use std::collections::BTreeMap;

use concordat_proto::{convert::WireError, log::v1 as wire, ordering::v1::ReadEntriesRequest};
use group_log::{Entry, GroupId, fork::LogEntry};
use tonic::Status;

use super::OrderingClient;
use crate::{check::FinalLogs, cluster::Cluster, limits::READ_PAGE_ENTRIES};

/// A log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The node refused.
    #[error("cannot read a log at {address}: {status}")]
    Status {
        /// The node.
        address: String,
        /// Its answer.
        status: Box<Status>,
    },
    /// The node sent something that is no entry.
    #[error("{address} sent an entry that is none: {source}")]
    Entry {
        /// The node.
        address: String,
        /// What is wrong with it.
        source: WireError,
    },
}

/// Each group's log as every running node holds it, by the node's name, with what the cluster itself wrote.
pub type WholeLogs = BTreeMap<GroupId, BTreeMap<String, Vec<LogEntry>>>;

impl OrderingClient {
    /// The whole log of `group`, of a kind without branches, as the node at `address` holds it, after everything accepted before the call. Empty if the group does
    /// not exist.
    pub async fn read_log(&self, address: &str, group: &GroupId) -> Result<Vec<Entry>, ReadError> {
        self.read(address, group).await
    }

    async fn read<T>(&self, address: &str, group: &GroupId) -> Result<Vec<T>, ReadError>
    where
        T: TryFrom<wire::Entry, Error = WireError>,
    {
        let mut log = Vec::new();
        let mut cursor = None;
        loop {
            let request = ReadEntriesRequest {
                group_id: group.to_bytes(),
                cursor: cursor.clone(),
                max_entries: READ_PAGE_ENTRIES,
                linearizable: true,
            };
            let page = match self.wire(address).read_entries(request).await {
                Ok(page) => page.into_inner(),
                Err(status) if service_kit::status::reason(&status).as_deref() == Some("GROUP_NOT_FOUND") => {
                    return Ok(log);
                }
                Err(status) => {
                    return Err(ReadError::Status { address: address.to_owned(), status: Box::new(status) });
                }
            };
            if page.entries.is_empty() {
                return Ok(log);
            }
            for entry in page.entries {
                let (seq, chain_hash) = (entry.seq, entry.chain_hash.clone());
                cursor = Some(wire::CanonicalCursor { seq, chain_hash });
                let entry = T::try_from(entry)
                    .map_err(|source| ReadError::Entry { address: address.to_owned(), source })?;
                log.push(entry);
            }
        }
    }

    /// The logs of all `groups`, of a kind without branches, as every running node of `cluster` holds them.
    pub async fn read_all(&self, cluster: &Cluster, groups: &[GroupId]) -> Result<FinalLogs, ReadError> {
        self.read_copies(cluster, groups).await
    }

    /// The logs of all `groups`, of any kind, as every running node of `cluster` holds them.
    pub async fn read_whole(&self, cluster: &Cluster, groups: &[GroupId]) -> Result<WholeLogs, ReadError> {
        self.read_copies(cluster, groups).await
    }

    async fn read_copies<T>(
        &self,
        cluster: &Cluster,
        groups: &[GroupId],
    ) -> Result<BTreeMap<GroupId, BTreeMap<String, Vec<T>>>, ReadError>
    where
        T: TryFrom<wire::Entry, Error = WireError>,
    {
        let mut logs = BTreeMap::new();
        for group in groups {
            let mut copies = BTreeMap::new();
            for node in cluster.nodes().iter().filter(|node| node.service().is_running()) {
                copies.insert(node.service().name(), self.read(node.address(), group).await?);
            }
            if copies.values().any(|log| !log.is_empty()) {
                logs.insert(group.clone(), copies);
            }
        }
        Ok(logs)
    }
}

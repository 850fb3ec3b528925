//! Reading whole logs back.

use std::collections::BTreeMap;

use concordat_proto::{convert::WireError, ordering::v1::ReadEntriesRequest};
use group_log::{Entry, GroupId};
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

impl OrderingClient {
    /// The whole log of `group` as the node at `address` holds it, after everything accepted before the call. Empty if the group does
    /// not exist.
    pub async fn read_log(&self, address: &str, group: &GroupId) -> Result<Vec<Entry>, ReadError> {
        let mut log: Vec<Entry> = Vec::new();
        loop {
            let request = ReadEntriesRequest {
                group_id: group.to_bytes(),
                cursor: log.last().map(|last| concordat_proto::log::v1::CanonicalCursor {
                    seq: last.seq,
                    chain_hash: last.chain.to_bytes(),
                }),
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
                let entry = Entry::try_from(entry)
                    .map_err(|source| ReadError::Entry { address: address.to_owned(), source })?;
                log.push(entry);
            }
        }
    }

    /// The logs of all `groups` as every running node of `cluster` holds them.
    pub async fn read_all(&self, cluster: &Cluster, groups: &[GroupId]) -> Result<FinalLogs, ReadError> {
        let mut logs = FinalLogs::new();
        for group in groups {
            let mut copies = BTreeMap::new();
            for node in cluster.nodes().iter().filter(|node| node.service().is_running()) {
                copies.insert(node.service().name(), self.read_log(node.address(), group).await?);
            }
            if copies.values().any(|log| !log.is_empty()) {
                logs.insert(group.clone(), copies);
            }
        }
        Ok(logs)
    }
}

//! Who this node is, and the check of everybody who speaks to it.

use concordat_proto::raft::v1::Hello;
use parking_lot::RwLock;

use super::types::{NodeId, NodeInfo};

/// The cluster that a node belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Drawn at random when the cluster was formed.
    pub id: String,
    /// Data shards beside the directory.
    pub data_shards: u32,
}

/// What a node's storage marker says.
#[derive(Debug)]
pub struct Identity {
    /// This node's number.
    pub node_id: NodeId,
    /// Drawn at random when the storage was created.
    pub disk_id: [u8; 16],
    cluster: RwLock<Option<Cluster>>,
}

/// Why a peer is not spoken to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stranger {
    /// The message names nobody.
    #[error("the message does not say who sent it: both nodes must run the same version of ordering-service")]
    NoHello,
    /// The receiver has no data.
    #[error(
        "node {node_id} belongs to no cluster, but node {from} expects it in cluster {cluster_id}: its disk was wiped or replaced. \
         Remove node {node_id} from the cluster, then add the machine again under a node id that was never used"
    )]
    NotInCluster {
        /// The receiver.
        node_id: NodeId,
        /// The sender.
        from: NodeId,
        /// The sender's cluster.
        cluster_id: String,
    },
    /// The two belong to different clusters.
    #[error(
        "node {node_id} belongs to cluster {expected}, but node {from} speaks for cluster {got}: check the peer addresses"
    )]
    ForeignCluster {
        /// The receiver.
        node_id: NodeId,
        /// The sender.
        from: NodeId,
        /// The receiver's cluster.
        expected: String,
        /// The sender's cluster.
        got: String,
    },
    /// The message was meant for somebody else.
    #[error("this is node {expected}, but the message is meant for node {got}: check the peer addresses")]
    WrongNode {
        /// The receiver.
        expected: NodeId,
        /// Whom the sender meant.
        got: NodeId,
    },
    /// The sender's certificate is another node's.
    #[error(
        "the message is of node {expected}, but the sender's certificate is for node {got}: give each node its own"
    )]
    WrongCertificate {
        /// Who sent it, as the message says.
        expected: NodeId,
        /// Whom the certificate stands for.
        got: NodeId,
    },
    /// A node is there, but its data is not what the membership knows.
    #[error(
        "node {node_id} stands on another disk than the cluster's membership names: its data was wiped or replaced, so its votes \
         can not be trusted. Remove node {node_id}, then add the machine again under a node id that was never used"
    )]
    OtherDisk {
        /// Whose disk it is about.
        node_id: NodeId,
    },
}

impl Identity {
    /// As the marker says.
    pub fn new(node_id: NodeId, disk_id: [u8; 16], cluster: Option<Cluster>) -> Self {
        Self { node_id, disk_id, cluster: RwLock::new(cluster) }
    }

    /// The cluster, once the node belongs to one.
    pub fn cluster(&self) -> Option<Cluster> {
        self.cluster.read().clone()
    }

    /// The node joined a cluster; the marker says so already.
    pub fn joined(&self, cluster: Cluster) {
        *self.cluster.write() = Some(cluster);
    }

    /// What this node says to `to`.
    pub fn hello(&self, to: NodeId, to_disk: [u8; 16]) -> Hello {
        Hello {
            cluster_id: self.cluster.read().as_ref().map(|c| c.id.clone()).unwrap_or_default(),
            node_id: self.node_id,
            disk_id: self.disk_id.to_vec().into(),
            to_node_id: to,
            to_disk_id: if to_disk == [0; 16] { Vec::new().into() } else { to_disk.to_vec().into() },
        }
    }

    /// Checks a message of a peer. `known` is what the membership says about the sender, if it says anything.
    ///
    /// # Errors
    /// The sender must not be listened to; the error names the remedy.
    pub fn check(&self, hello: Option<&Hello>, known: Option<&NodeInfo>) -> Result<(), Stranger> {
        let hello = hello.ok_or(Stranger::NoHello)?;
        if hello.to_node_id != self.node_id {
            return Err(Stranger::WrongNode { expected: self.node_id, got: hello.to_node_id });
        }
        let cluster = self.cluster.read();
        let Some(cluster) = cluster.as_ref() else {
            return Err(Stranger::NotInCluster {
                node_id: self.node_id,
                from: hello.node_id,
                cluster_id: hello.cluster_id.clone(),
            });
        };
        if cluster.id != hello.cluster_id {
            return Err(Stranger::ForeignCluster {
                node_id: self.node_id,
                from: hello.node_id,
                expected: cluster.id.clone(),
                got: hello.cluster_id.clone(),
            });
        }
        if !hello.to_disk_id.is_empty() && hello.to_disk_id != self.disk_id[..] {
            return Err(Stranger::OtherDisk { node_id: self.node_id });
        }
        // A node that is not in the membership that this node knows may have been added since.
        if known.is_some_and(|known| hello.disk_id != known.disk_id[..]) {
            return Err(Stranger::OtherDisk { node_id: hello.node_id });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(node_id: NodeId, cluster: Option<&str>) -> Identity {
        let disk = u8::try_from(node_id).expect("small");
        Identity::new(node_id, [disk; 16], cluster.map(|id| Cluster { id: id.into(), data_shards: 2 }))
    }

    fn info(disk: u8) -> NodeInfo {
        NodeInfo { disk_id: [disk; 16], ..NodeInfo::default() }
    }

    #[test]
    fn a_known_peer_is_heard() {
        let hello = node(1, Some("c")).hello(2, [2; 16]);
        assert_eq!(node(2, Some("c")).check(Some(&hello), Some(&info(1))), Ok(()));
        assert_eq!(node(2, Some("c")).check(Some(&hello), None), Ok(()));
    }

    #[test]
    fn strangers_are_refused_with_the_reason() {
        let me = node(2, Some("c"));
        assert_eq!(me.check(None, None), Err(Stranger::NoHello));
        let foreign = node(1, Some("other")).hello(2, [2; 16]);
        assert!(matches!(me.check(Some(&foreign), None), Err(Stranger::ForeignCluster { .. })));
        let misdirected = node(1, Some("c")).hello(3, [3; 16]);
        assert_eq!(me.check(Some(&misdirected), None), Err(Stranger::WrongNode { expected: 2, got: 3 }));
        let hello = node(1, Some("c")).hello(2, [2; 16]);
        assert!(matches!(node(2, None).check(Some(&hello), None), Err(Stranger::NotInCluster { .. })));
    }

    #[test]
    fn a_wiped_disk_is_refused_from_both_ends() {
        let me = node(2, Some("c"));
        let to_the_disk_before = node(1, Some("c")).hello(2, [9; 16]);
        assert_eq!(me.check(Some(&to_the_disk_before), None), Err(Stranger::OtherDisk { node_id: 2 }));
        let hello = node(1, Some("c")).hello(2, [2; 16]);
        assert_eq!(me.check(Some(&hello), Some(&info(9))), Err(Stranger::OtherDisk { node_id: 1 }));
    }
}

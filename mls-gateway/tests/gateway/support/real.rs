//! A real cluster of three nodes in this process, on real sockets and a real disk.

use ordering_service::{dev::DevCluster, server::Running};
use tempfile::TempDir;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Clusters that run at the same time: more would only make each other's elections slow.
static ROOM: Semaphore = Semaphore::const_new(2);

pub struct RealCluster {
    pub cluster: DevCluster,
    guard: Guard,
}

/// Keeps the cluster's disk.
pub struct Guard {
    dir: TempDir,
    _permit: SemaphorePermit<'static>,
}

impl Guard {
    /// Where the nodes keep their data.
    pub fn path(&self) -> &std::path::Path {
        self.dir.path()
    }
}

impl RealCluster {
    pub async fn start() -> Self {
        let permit = ROOM.acquire().await.unwrap();
        let dir = TempDir::new().unwrap();
        let cluster = super::soon("the cluster", DevCluster::start(dir.path(), 3, 2)).await.unwrap();
        Self { cluster, guard: Guard { dir, _permit: permit } }
    }

    pub fn addresses(&self) -> Vec<String> {
        self.cluster.api_addresses()
    }

    /// The nodes one by one, and what keeps their disk.
    pub fn into_nodes(self) -> (Vec<Running>, Guard) {
        (self.cluster.into_nodes(), self.guard)
    }
}

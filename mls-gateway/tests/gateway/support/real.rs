//! A real cluster of three nodes in this process, on real sockets and a real disk.

use ordering_service::dev::DevCluster;
use tempfile::TempDir;

pub struct RealCluster {
    pub cluster: DevCluster,
    _dir: TempDir,
}

impl RealCluster {
    pub async fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let cluster = super::soon("the cluster", DevCluster::start(dir.path(), 3, 2)).await.unwrap();
        Self { cluster, _dir: dir }
    }

    pub fn addresses(&self) -> Vec<String> {
        self.cluster.api_addresses()
    }
}

//! `ordering-service admin backup`.

use std::path::Path;

use concordat_proto::ordering::v1::{BackupRequest, admin_client::AdminClient};
use tonic::transport::Channel;

use super::admin::told;
use crate::backup::save;

pub(super) async fn run(client: &mut AdminClient<Channel>, to: &Path) -> anyhow::Result<()> {
    let parts = client.backup(BackupRequest {}).await.map_err(told)?.into_inner();
    let manifest = save(parts, to).await?;
    let bytes: u64 = manifest.shards.iter().map(|file| file.bytes).sum();
    println!(
        "cluster {} is saved in {}: {} shards, {bytes} bytes",
        manifest.cluster_id,
        to.display(),
        manifest.shards.len()
    );
    Ok(())
}

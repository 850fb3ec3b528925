//! Data shards of a cluster on this machine: more shards mean smaller batches for each sync.

use bytes::Bytes;

use super::{options::Plan, point::Point};
use crate::{
    measure::closed_loop,
    progress::Progress,
    systems::{Running, Setup, System},
};

const IN_FLIGHT: usize = 256;

/// Measures the curve.
pub(super) async fn run(plan: &Plan, progress: &Progress) -> anyhow::Result<Vec<Point>> {
    let payload = Bytes::from(vec![7; 1024]);
    let mut points = Vec::new();
    for data_shards in &plan.shards {
        progress.now(format!("{data_shards} data shards"));
        let dir = plan.scratch()?;
        let setup =
            Setup { data: dir.path().to_owned(), etcd: None, nats_server: None, data_shards: *data_shards };
        let system = Running::start(System::Concordat, &setup).await?;
        let slots = system.slots(IN_FLIGHT).await?;
        let measured = closed_loop(slots, &payload, plan.window, &system.processes()).await?;
        let cpu = measured.server_cpu.as_secs_f64() * 1e6 / measured.accepted as f64;
        for (measure, value, expected) in [
            ("commits/s with 256 in flight", measured.per_second(), "falls slowly: smaller batches"),
            ("commit p50 ms with 256 in flight", measured.quantile_ms(0.5), "grows slowly"),
            ("server CPU us a commit", cpu, "grows slowly"),
        ] {
            points.push(Point { of: "data shards", size: u64::from(*data_shards), measure, value, expected });
        }
        progress.done(&format!("{data_shards} data shards: {:.0}/s", measured.per_second()));
    }
    Ok(points)
}

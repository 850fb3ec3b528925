//! Entries of one group: whether a commit to a long log costs more than one to a short log.

use anyhow::Context;
use bytes::Bytes;
use futures::future::try_join_all;
use testbed::ClusterOptions;

use super::{options::Plan, point::Point};
use crate::{
    limits::GROWN_AT_ONCE,
    measure::closed_loop,
    progress::Progress,
    systems::{Append, Concordat, Slot},
};

/// Measures the curve.
pub(super) async fn run(plan: &Plan, progress: &Progress) -> anyhow::Result<Vec<Point>> {
    let dir = plan.scratch()?;
    let options = ClusterOptions { dir: Some(dir.path().to_owned()), ..ClusterOptions::default() };
    let system = Concordat::start_as(options).await?;
    let payload = Bytes::from(vec![7; 1024]);
    let mut points = Vec::new();
    for length in &plan.log_lengths {
        progress.now(format!("a log of {length} entries"));
        let slot = system.ordering_slots(1).await?.pop().context("no slot")?;
        // The log grows by application messages, which need not wait for one another.
        let senders = (0..GROWN_AT_ONCE as u64).map(|sender| {
            let (mut slot, message) = (slot.again(), payload.clone());
            async move {
                // The create is the first entry.
                for number in (1 + sender..*length).step_by(GROWN_AT_ONCE) {
                    let mut unique = message.to_vec();
                    unique[..8].copy_from_slice(&number.to_be_bytes());
                    while slot.send(unique.clone().into()).await? == Append::Refused {
                        tokio::time::sleep(crate::limits::RETRY_PAUSE).await;
                    }
                }
                anyhow::Ok(())
            }
        });
        try_join_all(senders).await?;
        let slots = vec![Slot::Ordering(slot.again())];
        let measured = closed_loop(slots, &payload, plan.window, &system.processes()).await?;
        let cpu = measured.server_cpu.as_secs_f64() * 1e6 / measured.accepted as f64;
        for (measure, value) in [
            ("commit p50 ms, one in flight", measured.quantile_ms(0.5)),
            ("commit p99 ms, one in flight", measured.quantile_ms(0.99)),
            ("server CPU us a commit", cpu),
        ] {
            points.push(Point {
                of: "entries of a log",
                size: *length,
                measure,
                value,
                expected: "constant",
            });
        }
        progress.done(&format!("a log of {length} entries: p50 {:.2} ms", measured.quantile_ms(0.5)));
    }
    Ok(points)
}

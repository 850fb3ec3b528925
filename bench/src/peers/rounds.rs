//! The rounds themselves.

use bytes::Bytes;
use rand::{RngCore, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::options::Plan;
use crate::{
    measure::{Measured, closed_loop},
    progress::Progress,
    systems::{Running, Setup, System},
};

/// One system at one level in one round.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) system: System,
    pub(crate) durable: bool,
    pub(crate) in_flight: usize,
    pub(crate) round: u32,
    pub(crate) accepted: u64,
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
    /// Correct appends that were refused and tried again.
    pub(crate) refused: u64,
    /// Processor time of all servers for one append.
    pub(crate) server_cpu_us: f64,
    /// Processor time of this process for one append.
    pub(crate) client_cpu_us: f64,
}

impl Row {
    fn new(system: System, in_flight: usize, round: u32, measured: &Measured) -> Self {
        let each = |time: std::time::Duration| time.as_secs_f64() * 1e6 / measured.accepted as f64;
        Self {
            system,
            durable: system.is_durable(),
            in_flight,
            round,
            accepted: measured.accepted,
            per_second: measured.per_second(),
            p50_ms: measured.quantile_ms(0.5),
            p90_ms: measured.quantile_ms(0.9),
            p99_ms: measured.quantile_ms(0.99),
            p999_ms: measured.quantile_ms(0.999),
            max_ms: measured.quantile_ms(1.0),
            refused: measured.refused,
            server_cpu_us: each(measured.server_cpu),
            client_cpu_us: each(measured.client_cpu),
        }
    }
}

/// Carries out all rounds.
pub(super) async fn run(plan: &Plan) -> anyhow::Result<Vec<Row>> {
    let mut rng = ChaCha8Rng::seed_from_u64(plan.seed);
    let mut payload = vec![0; plan.bytes];
    rng.fill_bytes(&mut payload);
    let payload = Bytes::from(payload);
    let progress = Progress::new(plan.rounds as usize * plan.systems.len() * plan.levels.len());
    let mut rows = Vec::new();
    for round in 1..=plan.rounds {
        let mut order = plan.systems.clone();
        order.shuffle(&mut rng);
        for system in order {
            progress.now(format!("round {round}: starting {system}"));
            let dir = tempfile::Builder::new().prefix("peers-").tempdir_in(&plan.data)?;
            let setup = Setup {
                data: dir.path().to_owned(),
                etcd: plan.etcd.clone(),
                nats_server: plan.nats_server.clone(),
                data_shards: plan.data_shards,
            };
            let running = Running::start(system, &setup).await?;
            let processes = running.processes();
            for level in &plan.levels {
                progress.now(format!("round {round}: {system}, {level} in flight"));
                let slots = running.slots(*level).await?;
                let measured = closed_loop(slots, &payload, plan.window, &processes).await?;
                let row = Row::new(system, *level, round, &measured);
                progress.done(&format!(
                    "round {round}: {system}, {level} in flight: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms",
                    row.per_second, row.p50_ms, row.p99_ms
                ));
                rows.push(row);
            }
        }
    }
    progress.finish();
    Ok(rows)
}

//! Members of one group: how long a commit is, and how long it takes through a gateway.

use std::time::Instant;

use anyhow::{Context, ensure};
use testbed::{Cluster, ClusterOptions};

use super::{options::Plan, point::Point};
use crate::{
    limits::{ANSWER_DEADLINE, MEMBERS_COMMITS},
    measure::histogram,
    progress::Progress,
    topology::{Answer, Chains, Client},
};

/// Measures the curve.
pub(super) async fn run(plan: &Plan, progress: &Progress) -> anyhow::Result<Vec<Point>> {
    let dir = plan.scratch()?;
    let options =
        ClusterOptions { gateways: 1, dir: Some(dir.path().to_owned()), ..ClusterOptions::default() };
    let cluster = Cluster::start(options).await?;
    let gateway = cluster.gateway_addresses().remove(0);
    let client = Client::new("here", &gateway)?;
    let (chains, mut points) = (Chains::default(), Vec::new());
    for size in &plan.members {
        progress.now(format!("a group of {size} members"));
        let members = usize::try_from(*size)?;
        let chains = chains.get("members", members, 1, MEMBERS_COMMITS + 1).await?;
        let chain = chains.first().context("no chain was built")?;
        client.create(chain).await?;
        let mut latencies = histogram()?;
        for (number, commit) in chain.commits.iter().enumerate() {
            let begun = Instant::now();
            let answer = client.commit(commit, ANSWER_DEADLINE, ANSWER_DEADLINE).await?;
            ensure!(answer == Some(Answer::Accepted), "a commit without a rival got {answer:?}");
            // The first adds everybody.
            if number > 0 {
                latencies.saturating_record(u64::try_from(begun.elapsed().as_nanos())?);
            }
        }
        let mut point = |measure, value, expected| {
            points.push(Point { of: "members of a group", size: *size, measure, value, expected });
        };
        point("bytes of a commit", chain.commit_bytes() as f64, "linear: only one member ever commits");
        let ms = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e6;
        point("commit p50 ms through a gateway", ms(0.5), "constant, then linear in the bytes");
        point("commit p99 ms through a gateway", ms(0.99), "constant, then linear in the bytes");
        progress.done(&format!(
            "a group of {size} members: {} bytes, p50 {:.2} ms",
            chain.commit_bytes(),
            ms(0.5)
        ));
    }
    Ok(points)
}

//! Subscribers of one group at one gateway: what a commit costs, and how long until the last of them has it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use anyhow::Context;
use bytes::Bytes;
use concordat_proto::gateway::v1::{
    SubscribeRequest, gateway_client::GatewayClient, subscribe_response::Event,
};
use testbed::ClusterOptions;
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, timeout},
};
use tonic::transport::Channel;

use super::{options::Plan, point::Point};
use crate::{
    limits::{APPEND_DEADLINE, SUBSCRIBERS_PER_CONNECTION},
    measure::{append, histogram},
    process::memory,
    progress::Progress,
    systems::{Concordat, GatewaySlot, Slot, Submissions, named},
};

/// Commits at each size.
const SAMPLES: u64 = 100;

/// Measures the curve.
pub(super) async fn run(plan: &Plan, progress: &Progress) -> anyhow::Result<Vec<Point>> {
    let dir = plan.scratch()?;
    let options =
        ClusterOptions { gateways: 1, dir: Some(dir.path().to_owned()), ..ClusterOptions::default() };
    let system = Concordat::start_as(options).await?;
    let gateway = system.cluster.gateways().first().cloned().context("no gateway")?;
    let process = gateway.service().id().context("the gateway does not run")?;
    let payload = Bytes::from(vec![7; 1024]);
    let mut points = Vec::new();
    for size in &plan.subscribers {
        progress.now(format!("{size} subscribers"));
        let submissions = Submissions::open(gateway.address()).await?;
        let slot = GatewaySlot::create(submissions, system.group_id()).await?;
        let before = memory(process)?;
        let audience = Audience::gather(gateway.address(), slot.group(), *size).await?;
        let with = memory(process)?;
        let mut slot = Slot::Gateway(slot);
        let (mut accepted, mut delivered) = (histogram()?, histogram()?);
        for commit in 1..=SAMPLES {
            let begun = Instant::now();
            append(&mut slot, &payload).await?;
            accepted.saturating_record(u64::try_from(begun.elapsed().as_nanos())?);
            audience.received(commit * size).await?;
            delivered.saturating_record(u64::try_from(begun.elapsed().as_nanos())?);
        }
        let p50 = |latencies: &hdrhistogram::Histogram<u64>| latencies.value_at_quantile(0.5) as f64 / 1e6;
        let each = (with.resident as f64 - before.resident as f64) / *size as f64 / 1024.0;
        for (measure, value, expected) in [
            ("commit p50 ms, one in flight", p50(&accepted), "constant"),
            ("p50 ms until the last subscriber has it", p50(&delivered), "linear"),
            ("gateway memory KiB a subscriber", each, "constant"),
        ] {
            points.push(Point { of: "subscribers", size: *size, measure, value, expected });
        }
        progress.done(&format!("{size} subscribers: the last one has it after {:.2} ms", p50(&delivered)));
    }
    Ok(points)
}

/// Subscribers that count what they receive.
struct Audience {
    received: Arc<AtomicU64>,
    more: Arc<Notify>,
    /// Ends with this.
    _readers: JoinSet<()>,
}

impl Audience {
    /// Subscribes so many times, and returns when each is live.
    async fn gather(address: &str, group: &str, size: u64) -> anyhow::Result<Self> {
        let (received, more) = (Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
        let mut readers = JoinSet::new();
        let mut client: Option<GatewayClient<Channel>> = None;
        for number in 0..size {
            if number % SUBSCRIBERS_PER_CONNECTION == 0 {
                client = Some(GatewayClient::connect(format!("http://{address}")).await?);
            }
            let client = client.as_mut().context("not connected")?;
            let request =
                SubscribeRequest { group_id: group.to_owned().into(), ..SubscribeRequest::default() };
            let mut events = client.subscribe(named(request)).await?.into_inner();
            while !matches!(
                events.message().await?.context("a subscription ended")?.event,
                Some(Event::CaughtUp(_))
            ) {}
            let (received, more) = (received.clone(), more.clone());
            readers.spawn(async move {
                // An error shows as a deadline that passes.
                while let Ok(Some(response)) = events.message().await {
                    if matches!(response.event, Some(Event::Entry(_))) {
                        received.fetch_add(1, Ordering::AcqRel);
                        more.notify_one();
                    }
                }
            });
        }
        Ok(Self { received, more, _readers: readers })
    }

    /// Waits until all of them together have received this many entries.
    async fn received(&self, count: u64) -> anyhow::Result<()> {
        let all = async {
            while self.received.load(Ordering::Acquire) < count {
                self.more.notified().await;
            }
        };
        timeout(APPEND_DEADLINE, all).await.context("a subscriber did not receive a commit")
    }
}

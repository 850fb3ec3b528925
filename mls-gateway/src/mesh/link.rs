//! One link to another gateway: what it has is watched, and what is lacking here is fetched. A link that breaks is tried again for ever;
//! it goes on where it was, so hours apart cost nothing but the time.

use std::{sync::Arc, time::Duration};

use concordat_proto::{
    convert,
    mesh::v1::{FetchRequest, Range, WatchRequest, WatchResponse, mesh_client::MeshClient},
};
use group_log::dimls::DgroupId;
use parking_lot::Mutex;
use service_kit::{channel::Channel, net::SharedNetwork, rng::Randomness};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Status, transport::Endpoint};

use super::{
    limits::{FETCH_SILENCE, LINK_PAUSE, RANGES_MAX, STORE_BATCH_BYTES, STORE_BATCH_ITEMS},
    pull::{PullError, Puller, Told, Wanted},
    store::MeshStore,
    stream::Stream,
};
use crate::{
    error::GatewayError,
    limits::{CLUSTER_MESSAGE_BYTES_MAX, CONNECT_TIMEOUT, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT},
    metrics,
};

/// How long a link with nothing to wait for sleeps at most. It is woken by whatever the other gateway tells.
const IDLE: Duration = Duration::from_secs(3600);

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
enum LinkEnd {
    #[error("{0}")]
    Status(#[from] Status),
    #[error("{0}")]
    Pull(#[from] PullError),
    #[error("the other gateway gave nothing for {FETCH_SILENCE:?}")]
    Silence,
}

impl From<GatewayError> for LinkEnd {
    fn from(error: GatewayError) -> Self {
        PullError::from(error).into()
    }
}

/// A link to one gateway.
pub(crate) struct Link {
    puller: Arc<Mutex<Puller>>,
    peer: String,
    client: MeshClient<Channel>,
    rng: Randomness,
    /// When it was made: the puller's times count from here.
    since: Instant,
}

impl Link {
    /// A link to the gateway at `peer` (host:port). Does not connect yet.
    pub(crate) fn new(
        store: Arc<MeshStore>,
        peer: String,
        network: SharedNetwork,
        rng: Randomness,
        patience: Duration,
    ) -> Result<Self, tonic::transport::Error> {
        // The network encrypts, if it does, so to tonic it is a plain connection.
        let endpoint = Endpoint::from_shared(format!("http://{peer}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        let client = MeshClient::new(Channel::lazy(&endpoint, network))
            .max_decoding_message_size(CLUSTER_MESSAGE_BYTES_MAX);
        let puller = Arc::new(Mutex::new(Puller::new(store, patience)));
        Ok(Link { puller, peer, client, rng, since: Instant::now() })
    }

    /// Keeps the link up, for ever.
    pub(crate) async fn run(mut self) {
        let (shortest, longest) = (*LINK_PAUSE.start(), *LINK_PAUSE.end());
        let mut pause = shortest;
        loop {
            let before = self.puller.lock().known().1;
            if let Err(end) = self.pull().await {
                tracing::debug!(peer = %self.peer, %end, "a link between gateways ended");
            }
            // A link that brought something is tried again soon.
            let brought = self.puller.lock().known().1 > before;
            pause = if brought { shortest } else { (pause * 2).min(longest) };
            let jitter = self.rng.below(pause.as_millis() as u64 / 2 + 1);
            sleep(pause / 2 + Duration::from_millis(jitter)).await;
        }
    }

    /// Works on the storage where that holds nobody up.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Puller) -> Result<T, PullError> + Send + 'static,
    ) -> Result<T, LinkEnd> {
        let puller = Arc::clone(&self.puller);
        match tokio::task::spawn_blocking(move || work(&mut puller.lock())).await {
            Ok(result) => Ok(result?),
            Err(error) => Err(GatewayError::Storage(error.to_string()).into()),
        }
    }

    async fn pull(&mut self) -> Result<(), LinkEnd> {
        let (storage_id, after) = self.puller.lock().known();
        let request = WatchRequest { storage_id, after };
        let mut news = self.client.watch(request).await?.into_inner();
        let _up = metrics::mesh_link();
        loop {
            let due = self.puller.lock().due();
            let wait = due.map_or(IDLE, |due| due.saturating_sub(self.since.elapsed()));
            let answer = tokio::select! {
                answer = news.message() => answer?,
                () = sleep(wait) => {
                    let now = self.since.elapsed();
                    let wanted = self.work(move |puller| puller.overdue(now)).await?;
                    self.fetch(wanted).await?;
                    continue;
                }
            };
            let Some(answer) = answer else { return Ok(()) };
            let (told, now) = (told(answer)?, self.since.elapsed());
            let (told, wanted) =
                self.work(move |puller| puller.news(&told, now).map(|wanted| (told, wanted))).await?;
            self.fetch(wanted).await?;
            self.puller.lock().taken_in(told);
        }
    }

    async fn fetch(&mut self, wanted: Vec<Wanted>) -> Result<(), LinkEnd> {
        for some in wanted.chunks(RANGES_MAX) {
            self.fetch_some(some.iter().map(range).collect()).await?;
        }
        Ok(())
    }

    async fn fetch_some(&mut self, ranges: Vec<Range>) -> Result<(), LinkEnd> {
        let mut items = self.client.fetch(FetchRequest { ranges }).await?.into_inner();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        loop {
            let answer = timeout(FETCH_SILENCE, items.message()).await.map_err(|_| LinkEnd::Silence)??;
            let is_last = answer.is_none();
            if let Some(answer) = answer {
                let item = answer.item.unwrap_or_default();
                bytes += item.message.len() + item.welcome.len();
                batch.push((dgroup(&answer.dgroup_id)?, item));
            }
            if is_last || batch.len() >= STORE_BATCH_ITEMS || bytes >= STORE_BATCH_BYTES {
                let came = std::mem::take(&mut batch);
                bytes = 0;
                self.work(move |puller| {
                    let checked = came
                        .into_iter()
                        .map(|(id, item)| puller.check(id, item))
                        .collect::<Result<Vec<_>, _>>()?;
                    puller.keep(&checked)
                })
                .await?;
            }
            if is_last {
                return Ok(());
            }
        }
    }
}

fn range(wanted: &Wanted) -> Range {
    let Wanted { dgroup, owner, from, to } = wanted;
    Range { dgroup_id: dgroup.to_bytes(), owner: owner.to_bytes(), from: *from, to: *to }
}

fn dgroup(id: &[u8]) -> Result<DgroupId, PullError> {
    DgroupId::from_slice(id).ok_or(PullError::Nonsense("an id of another length"))
}

/// Reads an answer.
fn told(answer: WatchResponse) -> Result<Told, LinkEnd> {
    let mut told =
        Told { storage_id: answer.storage_id, mark: answer.mark, setups: answer.setups, ..Told::default() };
    for state in answer.streams {
        let owner = convert::client_id("owner", state.owner).map_err(GatewayError::bad_wire)?;
        let stream = Stream { first: state.first, last: state.last };
        told.streams.push((dgroup(&state.dgroup_id)?, owner, stream));
    }
    for item in answer.items {
        told.items.push((dgroup(&item.dgroup_id)?, item.item.unwrap_or_default()));
    }
    Ok(told)
}

//! One link to another gateway: what it has is watched, and what is lacking here is fetched. A link that breaks is tried again for ever;
//! it goes on where it was, so hours apart cost nothing but the time.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use concordat_proto::{
    convert,
    mesh::v1::{FetchRequest, Range, WatchRequest, WatchResponse, mesh_client::MeshClient},
};
use group_log::{
    ClientId,
    dimls::{DgroupId, Setup},
};
use service_kit::{
    net::{Connector, SharedNetwork},
    rng::Randomness,
};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use super::{
    api::on_disk,
    check::{Item, check},
    limits::{FETCH_SILENCE, LINK_PAUSE, RANGES_MAX, SETUP_BYTES_MAX, STORE_BATCH_BYTES, STORE_BATCH_ITEMS},
    store::{MeshStore, StoreError, Stored},
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
    Gateway(#[from] GatewayError),
    #[error("the other gateway gave nothing for {FETCH_SILENCE:?}")]
    Silence,
    #[error("the other gateway said something that cannot be: {0}")]
    Nonsense(&'static str),
}

/// A link to one gateway.
pub(crate) struct Link {
    store: Arc<MeshStore>,
    peer: String,
    client: MeshClient<Channel>,
    rng: Randomness,
    /// The other's storage, and the mark up to which everything was taken in.
    known: (Bytes, u64),
    /// Streams of which the other has dropped what is lacking here: until when a third gateway may bring it, and what the other has.
    behind: HashMap<(DgroupId, ClientId), (Instant, Stream)>,
    /// How long that is.
    patience: Duration,
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
        let channel = Endpoint::from_shared(format!("http://{peer}"))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect_with_connector_lazy(Connector::new(network));
        let client = MeshClient::new(channel).max_decoding_message_size(CLUSTER_MESSAGE_BYTES_MAX);
        Ok(Link { store, peer, client, rng, known: (Bytes::new(), 0), behind: HashMap::new(), patience })
    }

    /// Keeps the link up, for ever.
    pub(crate) async fn run(mut self) {
        let (shortest, longest) = (*LINK_PAUSE.start(), *LINK_PAUSE.end());
        let mut pause = shortest;
        loop {
            let before = self.known.1;
            if let Err(end) = self.pull().await {
                tracing::debug!(peer = %self.peer, %end, "a link between gateways ended");
            }
            // A link that brought something is tried again soon.
            pause = if self.known.1 > before { shortest } else { (pause * 2).min(longest) };
            let jitter = self.rng.below(pause.as_millis() as u64 / 2 + 1);
            tokio::time::sleep(pause / 2 + Duration::from_millis(jitter)).await;
        }
    }

    async fn pull(&mut self) -> Result<(), LinkEnd> {
        let (storage_id, after) = self.known.clone();
        let request = WatchRequest { storage_id, after };
        let mut told = self.client.watch(request).await?.into_inner();
        let _up = metrics::mesh_link();
        loop {
            let due = self.behind.values().map(|(until, _)| *until).min();
            let due = due.unwrap_or_else(|| Instant::now() + IDLE);
            let news = tokio::select! {
                news = told.message() => news?,
                () = sleep_until(due) => {
                    self.give_up().await?;
                    continue;
                }
            };
            let Some(changes) = news else { return Ok(()) };
            self.take_in(changes).await?;
        }
    }

    /// Goes on without what no gateway has brought in time.
    async fn give_up(&mut self) -> Result<(), LinkEnd> {
        let now = Instant::now();
        let over: Vec<_> =
            self.behind.iter().filter(|(_, (until, _))| *until <= now).map(|(key, _)| key.clone()).collect();
        let (mut setups, mut ranges) = (HashMap::new(), Vec::new());
        for (id, owner) in over {
            let Some((_, theirs)) = self.behind.get(&(id, owner.clone())).copied() else { continue };
            if let Some(range) = self.lacking(id, owner, theirs, &mut setups).await? {
                ranges.push(range);
            }
        }
        for some in ranges.chunks(RANGES_MAX) {
            self.fetch(some.to_vec(), &setups).await?;
        }
        Ok(())
    }

    async fn take_in(&mut self, changes: WatchResponse) -> Result<(), LinkEnd> {
        for setup in changes.setups {
            if setup.len() > SETUP_BYTES_MAX {
                return Err(LinkEnd::Nonsense("a setup that is too long"));
            }
            let setup =
                Setup::decode(&setup).map_err(|_| LinkEnd::Nonsense("a setup that does not decode"))?;
            let full = on_disk(&self.store, move |store| match store.create(&setup) {
                Err(StoreError::Full) => Ok(true),
                other => other.map(|_| false),
            });
            if full.await? {
                tracing::warn!(peer = %self.peer, "this gateway keeps as many DiMLS groups as it may, and takes no more from others");
            }
        }
        let mut setups = HashMap::new();
        let mut ranges = Vec::new();
        for state in &changes.streams {
            let id =
                DgroupId::from_slice(&state.dgroup_id).ok_or(LinkEnd::Nonsense("an id of another length"))?;
            let owner = convert::client_id("owner", state.owner.clone()).map_err(GatewayError::bad_wire)?;
            let theirs = Stream { first: state.first, last: state.last };
            if theirs.first == 0
                || theirs.last.saturating_add(1) < theirs.first
                || theirs.last > group_log::limits::MAX_SEQ
            {
                return Err(LinkEnd::Nonsense("a stream that ends before it begins"));
            }
            if let Some(range) = self.lacking(id, owner, theirs, &mut setups).await? {
                ranges.push(range);
            }
        }
        for some in ranges.chunks(RANGES_MAX) {
            self.fetch(some.to_vec(), &setups).await?;
        }
        self.known = (changes.storage_id, changes.mark);
        Ok(())
    }

    /// What the other has of a stream that is lacking here.
    async fn lacking(
        &mut self,
        id: DgroupId,
        owner: ClientId,
        theirs: Stream,
        setups: &mut HashMap<DgroupId, Setup>,
    ) -> Result<Option<Range>, LinkEnd> {
        if let Entry::Vacant(entry) = setups.entry(id) {
            let setup = on_disk(&self.store, move |store| store.setup(&id)).await?;
            // One that there was no room for.
            let Some(setup) = setup else { return Ok(None) };
            entry.insert(setup);
        }
        if setups.get(&id).is_some_and(|setup| setup.number(&owner).is_none()) {
            return Err(LinkEnd::Nonsense("a stream of somebody who is no member"));
        }
        let who = owner.clone();
        let mut ours = on_disk(&self.store, move |store| store.stream(&id, &who)).await?;
        let key = (id, owner.clone());
        if ours.is_behind(&theirs) {
            let now = Instant::now();
            let (until, known) = self.behind.entry(key.clone()).or_insert((now + self.patience, theirs));
            *known = theirs;
            if *until > now && ours != Stream::EMPTY {
                // Another gateway may still have it.
                return Ok(None);
            }
            // Nobody has brought it for so long, or this gateway has just begun: the stream goes on without it.
            let who = owner.clone();
            on_disk(&self.store, move |store| store.skip_to(&id, &who, theirs.first)).await?;
            metrics::mesh_skipped();
            let who = owner.clone();
            ours = on_disk(&self.store, move |store| store.stream(&id, &who)).await?;
        }
        self.behind.remove(&key);
        let range = |(from, to)| Range { dgroup_id: id.to_bytes(), owner: owner.to_bytes(), from, to };
        Ok(ours.lacks(&theirs).map(range))
    }

    async fn fetch(&mut self, ranges: Vec<Range>, setups: &HashMap<DgroupId, Setup>) -> Result<(), LinkEnd> {
        let mut items = self.client.fetch(FetchRequest { ranges }).await?.into_inner();
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(answer) =
            timeout(FETCH_SILENCE, items.message()).await.map_err(|_| LinkEnd::Silence)??
        {
            let id = DgroupId::from_slice(&answer.dgroup_id);
            let setup = id
                .and_then(|id| setups.get(&id))
                .ok_or(LinkEnd::Nonsense("items that were not asked for"))?;
            let item = check(&setup.id(), setup, answer.item.unwrap_or_default())?;
            bytes += item.bytes();
            batch.push((setup.id(), item));
            if batch.len() >= STORE_BATCH_ITEMS || bytes >= STORE_BATCH_BYTES {
                self.keep(std::mem::take(&mut batch)).await?;
                bytes = 0;
            }
        }
        self.keep(batch).await
    }

    async fn keep(&self, batch: Vec<(DgroupId, Item)>) -> Result<(), LinkEnd> {
        if batch.is_empty() {
            return Ok(());
        }
        let count = batch.len();
        let stored = on_disk(&self.store, move |store| store.insert(&batch)).await?;
        metrics::mesh_items("gateway", count);
        let conflicts = stored.iter().filter(|stored| **stored == Stored::Conflict).count();
        if conflicts > 0 {
            // An owner that numbers two items alike harms its own Send Group only: some members have the one, some the other.
            tracing::warn!(peer = %self.peer, conflicts, "an owner gave one number to two items; the first stays");
        }
        Ok(())
    }
}

//! Welcomes: those that wait for a client, then those that come.

use std::{collections::BTreeMap, sync::Arc};

use concordat_proto::{
    gateway::v1::{AckWelcomesRequest, AckWelcomesResponse, WatchWelcomesRequest, WatchWelcomesResponse},
    log::v1::{GroupKind, InboxCursor, PendingWelcome, ShardPosition},
    ordering::v1::{AckWelcomes, Command, command},
};
use group_log::{ClientId, GroupId};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Answers, Api};
use crate::{
    cluster::{Final, InboxSink, Verdict},
    error::GatewayError,
    limits::{INBOX_BATCHES_MAX, SHARDS_MAX, SUBSCRIBER_EVENTS_MAX},
    metrics,
};

/// A place in an inbox: how far each shard was read.
type Places = BTreeMap<u32, u64>;

impl Api {
    pub(super) fn watch(
        &self,
        client: ClientId,
        request: WatchWelcomesRequest,
    ) -> Result<Answers<WatchWelcomesResponse>, GatewayError> {
        let places = places(request.cursor.unwrap_or_default())?;
        let (events, told) = mpsc::channel(SUBSCRIBER_EVENTS_MAX);
        tokio::spawn(self.clone().run_inbox(client, places, events));
        Ok(Box::pin(ReceiverStream::new(told)))
    }

    async fn run_inbox(
        self,
        client: ClientId,
        mut places: Places,
        events: mpsc::Sender<Result<WatchWelcomesResponse, Status>>,
    ) {
        let _counted = Counted::new();
        loop {
            let (batches, mut arriving) = mpsc::channel(INBOX_BATCHES_MAX);
            let inbox = Inbox { client_id: client.clone(), places: Mutex::new(places.clone()), batches };
            let _following = self.cluster.follower.inbox(Arc::new(inbox));
            // Ends when this client was so slow that its queue was full: it is followed anew from where it is.
            loop {
                let batch: Vec<PendingWelcome> = tokio::select! {
                    batch = arriving.recv() => match batch {
                        Some(batch) => batch,
                        None => break,
                    },
                    () = self.drain.begun() => {
                        let _ = events.send(Err(GatewayError::Stopping.into())).await;
                        return;
                    }
                    () = events.closed() => return,
                };
                for welcome in batch {
                    if !advance(&mut places, welcome.cursor.as_ref()) {
                        continue;
                    }
                    self.is_invited(&welcome);
                    if events.send(Ok(WatchWelcomesResponse { welcome: Some(welcome) })).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Whoever joins a DeMLS group needs a gateway that may go on with it.
    fn is_invited(&self, welcome: &PendingWelcome) {
        if welcome.kind() == GroupKind::Demls
            && let Some(registry) = &self.demls
            && let Ok(id) = GroupId::new(welcome.group_id.clone())
        {
            registry.invited(&id);
        }
    }

    pub(super) async fn ack(
        &self,
        client: ClientId,
        request: AckWelcomesRequest,
    ) -> Result<AckWelcomesResponse, GatewayError> {
        let cursor =
            request.cursor.ok_or_else(|| GatewayError::bad_field("cursor", "a cursor", "nothing"))?;
        let places = places(cursor)?;
        let shards = self.cluster.board.shards();
        if let Some(unknown) = places.keys().find(|shard| !shards.is_empty() && !shards.contains(shard)) {
            return Err(GatewayError::bad_field("cursor.positions", "shards of this cluster", unknown));
        }
        self.meter.client(&client, 0)?;
        let mut left = 0_u32;
        for (shard, position) in places {
            let ack = AckWelcomes { client_id: client.to_bytes(), position };
            let command = Command { command: Some(command::Command::AckWelcomes(ack)) };
            match self.bring(shard, &command).await? {
                Final::WelcomesAcked(acked) => left = left.saturating_add(acked.left),
                Final::Refused(refused) => return Err(GatewayError::Refused(refused)),
                _ => return Err(GatewayError::Protocol("an outcome that does not belong to the command")),
            }
        }
        Ok(AckWelcomesResponse { left })
    }
}

fn places(cursor: InboxCursor) -> Result<Places, GatewayError> {
    const FIELD: &str = "cursor.positions";
    let got = cursor.positions.len();
    let mut places = Places::new();
    for ShardPosition { shard, position } in cursor.positions {
        if !(1..SHARDS_MAX).contains(&shard) {
            return Err(GatewayError::bad_field(
                FIELD,
                format!("data shards (1 to {})", SHARDS_MAX - 1),
                shard,
            ));
        }
        places.insert(shard, position);
    }
    if places.len() != got {
        return Err(GatewayError::bad_field(FIELD, "each shard once", format!("{got} positions")));
    }
    Ok(places)
}

/// Goes on to a Welcome's place. False if it was passed already.
fn advance(places: &mut Places, cursor: Option<&InboxCursor>) -> bool {
    let mut is_new = false;
    for at in cursor.into_iter().flat_map(|c| &c.positions) {
        let place = places.entry(at.shard).or_insert(0);
        is_new |= at.position > *place;
        *place = at.position.max(*place);
    }
    is_new
}

struct Inbox {
    client_id: ClientId,
    places: Mutex<Places>,
    batches: mpsc::Sender<Vec<PendingWelcome>>,
}

impl InboxSink for Inbox {
    fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    fn cursor(&self) -> InboxCursor {
        let places = self.places.lock();
        InboxCursor {
            positions: places.iter().map(|(&shard, &position)| ShardPosition { shard, position }).collect(),
        }
    }

    fn welcomes(&self, welcomes: Vec<PendingWelcome>) -> Verdict {
        let mut places = self.places.lock();
        let mut after = places.clone();
        for welcome in &welcomes {
            advance(&mut after, welcome.cursor.as_ref());
        }
        match self.batches.try_send(welcomes) {
            Ok(()) => {
                *places = after;
                Verdict::Continue
            }
            Err(_) => Verdict::Stop,
        }
    }
}

/// One open inbox in the metrics.
struct Counted;

impl Counted {
    fn new() -> Self {
        metrics::subscriptions("inbox", 1.0);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::subscriptions("inbox", -1.0);
    }
}

//! A session at work through a gateway: sends what is in the outbox, takes in what comes, and does what the policy asks for.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use concordat_proto::log::v1::Reason;
use futures::{StreamExt, stream::BoxStream};
use service_kit::clock::SharedClock;
use tokio::{
    sync::{Notify, mpsc},
    time::sleep,
};
use tonic::Code;

use super::{
    error::DimlsError,
    records::Records,
    remote::{Delivery, Remote},
    session::{Event, Session},
};
use crate::{
    limits::{BACKOFF_MAX, BACKOFF_MIN},
    transport::CallError,
};

/// A session that several tasks use.
pub struct Shared<R> {
    session: Mutex<Session<R>>,
    /// There may be something to send.
    changed: Notify,
}

impl<R: Records> Shared<R> {
    /// Shares a session.
    pub fn new(session: Session<R>) -> Arc<Self> {
        Arc::new(Shared { session: Mutex::new(session), changed: Notify::new() })
    }

    /// Does something with the session. What it puts into the outbox is sent.
    pub fn with<T>(&self, work: impl FnOnce(&mut Session<R>) -> T) -> T {
        let result = work(&mut self.lock());
        self.changed.notify_one();
        result
    }

    /// The session, for one's own use again.
    pub fn into_session(self) -> Session<R> {
        self.session.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Session<R>> {
        // A panic in the middle of an operation leaves the session poisoned by its own mark.
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why following ended.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The session cannot be used any more.
    #[error(transparent)]
    Session(#[from] DimlsError),
    /// The gateway would refuse the same again.
    #[error("the gateway refuses this client: {0}")]
    Refused(CallError),
}

/// Whether asking again cannot help. Items that are missing at a gateway are on their way to it.
fn is_final(error: &CallError) -> bool {
    let refused = matches!(
        error.code,
        Code::PermissionDenied
            | Code::Unauthenticated
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::Unimplemented
    );
    refused && error.reason != Some(Reason::EpochAhead)
}

/// Follows the DGroup until the session cannot be used any more, the gateway refuses this client, or the future is dropped. A gateway that is
/// away is tried again for ever. `pulse` is how often the policy is asked. What happens is told to `events`; whoever does not read them misses nothing that is
/// not stored.
pub async fn follow<R: Records>(
    shared: Arc<Shared<R>>,
    remote: Remote,
    clock: SharedClock,
    pulse: Duration,
    events: mpsc::Sender<Event>,
) -> Result<(), FollowError> {
    let mut pause = BACKOFF_MIN;
    loop {
        match round(&shared, &remote, &clock, pulse, &events).await {
            Ok(()) => pause = BACKOFF_MIN,
            Err(End::Session(error)) => return Err(error.into()),
            Err(End::Call(error)) if is_final(&error) => return Err(FollowError::Refused(error)),
            Err(End::Call(error)) => {
                tracing::debug!(%error, "the gateway is away");
                sleep(pause).await;
                pause = (pause * 2).min(BACKOFF_MAX);
            }
        }
    }
}

enum End {
    Session(DimlsError),
    Call(CallError),
}

impl From<DimlsError> for End {
    fn from(error: DimlsError) -> Self {
        End::Session(error)
    }
}

impl From<CallError> for End {
    fn from(error: CallError) -> Self {
        End::Call(error)
    }
}

/// As long as one subscription holds.
async fn round<R: Records>(
    shared: &Shared<R>,
    remote: &Remote,
    clock: &SharedClock,
    pulse: Duration,
    events: &mpsc::Sender<Event>,
) -> Result<(), End> {
    let (setup, id, cursor) = {
        let session = shared.lock();
        // What this client made itself is not needed again. What another may have made in its name is told.
        let own = (session.client_id().clone(), session.made());
        let cursor = session.cursor().into_iter().chain([own]).collect::<Vec<_>>();
        (session.setup().clone(), session.id(), cursor)
    };
    remote.create(&setup).await?;
    let mut told: BoxStream<'static, _> = remote.subscribe(&id, &cursor).await?;
    let mut beat = tokio::time::interval(pulse);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // Whoever was away first learns what happened, and then asks what is to be done about it.
    let mut caught_up = false;
    loop {
        send(shared, remote).await?;
        let news = tokio::select! {
            delivery = told.next() => match delivery {
                None => return Ok(()),
                Some(Err(error)) => return Err(error.into()),
                Some(Ok(Delivery::Item(item))) => shared.lock().receive(item, clock.now_ms())?,
                Some(Ok(Delivery::Dropped { owner, to })) => shared.lock().skip(&owner, to, clock.now_ms())?,
                Some(Ok(Delivery::CaughtUp)) => {
                    caught_up = true;
                    Vec::new()
                }
            },
            _ = beat.tick(), if caught_up => shared.lock().tick(clock.now_ms())?,
            () = shared.changed.notified() => Vec::new(),
        };
        for event in news {
            // Whoever listens no more does not hold anything up.
            let _ = events.try_send(event);
        }
    }
}

/// Sends the outbox, in order.
async fn send<R: Records>(shared: &Shared<R>, remote: &Remote) -> Result<(), End> {
    loop {
        let next = {
            let session = shared.lock();
            session.outbox().next().cloned().map(|item| (session.id(), item))
        };
        let Some((id, item)) = next else { return Ok(()) };
        remote.submit(&id, &item).await?;
        shared.lock().confirmed(item.seq)?;
    }
}

//! What stands for the members at one site: a connection to the site's gateway.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use concordat_proto::{
    gateway::v1::{
        CreateGroupRequest, SetPolicyRequest, SubmitRequest, SubscribeRequest, gateway_client::GatewayClient,
        submit_response, subscribe_response,
    },
    log::v1::{GroupKind, Policy, Turns, content::Content},
};
use parking_lot::Mutex;
use service_kit::status::StatusFacts;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;
use tonic::{
    Code, Request, Status,
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};

use super::{
    chain::Chain,
    limits::{MESSAGE_BYTES_MAX, RETRY_PAUSE, SETUP_ATTEMPT, SETUP_PATIENCE},
};

/// What became of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is in the log.
    Accepted,
    /// Another one is.
    Superseded,
}

/// The members of one site.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) site: String,
    wire: GatewayClient<Channel>,
}

impl Client {
    /// Connects when it is first used.
    pub(crate) fn new(site: &str, gateway: &str) -> anyhow::Result<Self> {
        let channel = Endpoint::from_shared(format!("http://{gateway}"))?.tcp_nodelay(true).connect_lazy();
        let wire = GatewayClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Self { site: site.to_owned(), wire })
    }

    /// Creates a group.
    pub(crate) async fn create(&self, chain: &Chain) -> anyhow::Result<()> {
        let request = CreateGroupRequest {
            group_info: chain.group_info.clone(),
            kind: GroupKind::Mls.into(),
            policy: None,
        };
        let call = || {
            let (mut wire, request) = (self.wire.clone(), self.named(request.clone(), SETUP_ATTEMPT));
            async move { wire.create_group(request).await }
        };
        self.persist("creating a group", call).await
    }

    /// From now on these members of a group commit in turn.
    pub(crate) async fn take_turns(
        &self,
        chain: &Chain,
        epoch: u64,
        order: Vec<String>,
        turn: Duration,
    ) -> anyhow::Result<()> {
        let turn_ms = u32::try_from(turn.as_millis())?;
        let turns = Turns { turn_ms, order: order.into_iter().map(Bytes::from).collect() };
        let policy = Some(Policy { turns: Some(turns), ..Policy::default() });
        let request = SetPolicyRequest { group_id: chain.id.clone().into(), epoch, policy };
        let call = || {
            let (mut wire, request) = (self.wire.clone(), self.named(request.clone(), SETUP_ATTEMPT));
            async move { wire.set_policy(request).await }
        };
        self.persist("setting turns", call).await
    }

    /// Makes a call, and the same again while its outcome is not known: a leader may just have lost its quorum, where links come and go.
    async fn persist<T, F>(&self, what: &str, call: impl Fn() -> F) -> anyhow::Result<()>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let begun = Instant::now();
        loop {
            match call().await {
                Ok(_) => return Ok(()),
                Err(status) if is_temporary(&status) && begun.elapsed() < SETUP_PATIENCE => {
                    sleep(RETRY_PAUSE).await;
                }
                Err(status) => anyhow::bail!("{what} at `{}`: {status}", self.site),
            }
        }
    }

    /// Submits a commit, and the same bytes again until it is decided, or `patience` has passed (then: nothing).
    pub(crate) async fn commit(
        &self,
        message: &Bytes,
        attempt: Duration,
        patience: Duration,
    ) -> anyhow::Result<Option<Answer>> {
        self.commit_as(NAME, message, attempt, patience).await
    }

    /// The same as one of the members of this site. In another member's turn it waits.
    pub(crate) async fn commit_as(
        &self,
        member: &str,
        message: &Bytes,
        attempt: Duration,
        patience: Duration,
    ) -> anyhow::Result<Option<Answer>> {
        let begun = Instant::now();
        loop {
            let request = SubmitRequest { message: message.clone(), ..SubmitRequest::default() };
            let mut request = Request::new(request);
            name_as(&mut request, member);
            request.set_timeout(attempt);
            match self.wire.clone().submit(request).await {
                Ok(response) => match response.into_inner().outcome {
                    Some(submit_response::Outcome::Accepted(_)) => return Ok(Some(Answer::Accepted)),
                    Some(submit_response::Outcome::Superseded(_)) => return Ok(Some(Answer::Superseded)),
                    other => anyhow::bail!("a commit to a group of kind mls was answered with {other:?}"),
                },
                Err(status) if is_temporary(&status) => {
                    if begun.elapsed() >= patience {
                        return Ok(None);
                    }
                    sleep(RETRY_PAUSE).await;
                }
                Err(status) => match others_turn(&status) {
                    Some(_) if begun.elapsed() >= patience => return Ok(None),
                    Some(wait) => sleep(wait).await,
                    None => anyhow::bail!("a commit at `{}` was refused: {status}", self.site),
                },
            }
        }
    }

    /// Follows a group, and notes when each of its commits arrives; connects again whenever it has to.
    pub(crate) fn follow(&self, group: &[u8], arrivals: &Arc<Arrivals>) -> AbortOnDropHandle<()> {
        let (client, group, arrivals) = (self.clone(), group.to_vec(), Arc::clone(arrivals));
        AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                // From the beginning each time: what is known already is not noted again.
                let _ = client.follow_once(&group, &arrivals).await;
                sleep(RETRY_PAUSE).await;
            }
        }))
    }

    async fn follow_once(&self, group: &[u8], arrivals: &Arrivals) -> Result<(), Status> {
        let request = SubscribeRequest { group_id: group.to_vec().into(), ..SubscribeRequest::default() };
        let mut request = Request::new(request);
        name(&mut request);
        let mut stream = self.wire.clone().subscribe(request).await?.into_inner();
        while let Some(response) = stream.message().await? {
            let now = Instant::now();
            if let Some(subscribe_response::Event::Entry(entry)) = response.event
                && let Some(Content::Commit(_)) = entry.content.and_then(|content| content.content)
            {
                arrivals.note(group, entry.epoch, &self.site, now);
            }
        }
        Ok(())
    }

    fn named<T>(&self, message: T, deadline: Duration) -> Request<T> {
        let mut request = Request::new(message);
        name(&mut request);
        request.set_timeout(deadline);
        request
    }
}

const NAME: &str = "bench";

fn name<T>(request: &mut Request<T>) {
    name_as(request, NAME);
}

fn name_as<T>(request: &mut Request<T>, member: &str) {
    let value = MetadataValue::from_bytes(member.as_bytes());
    request.metadata_mut().insert_bin("concordat-client-bin", value);
}

/// How long to wait if it is another member's turn to commit.
fn others_turn(status: &Status) -> Option<Duration> {
    let facts = StatusFacts::of(status);
    (facts.reason.as_deref() == Some("NOT_YOUR_TURN")).then(|| facts.retry_after.unwrap_or(RETRY_PAUSE))
}

fn is_temporary(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unknown
            | Code::ResourceExhausted
            | Code::Aborted
    )
}

/// A group, and one of its epochs.
type Epoch = (Vec<u8>, u64);

/// When it arrived at each site first.
type FirstAt = HashMap<String, Instant>;

/// When which commit arrived at which site first.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    seen: Mutex<HashMap<Epoch, FirstAt>>,
}

impl Arrivals {
    fn note(&self, group: &[u8], epoch: u64, site: &str, at: Instant) {
        self.seen.lock().entry((group.to_vec(), epoch)).or_default().entry(site.to_owned()).or_insert(at);
    }

    /// Whether it arrived at this site.
    pub(crate) fn is_at(&self, group: &[u8], epoch: u64, site: &str) -> bool {
        let seen = self.seen.lock();
        seen.get(&(group.to_vec(), epoch)).is_some_and(|arrived| arrived.contains_key(site))
    }

    /// When the last of `sites` had it; nothing while one lacks it.
    pub(crate) fn last(&self, group: &[u8], epoch: u64, sites: usize) -> Option<Instant> {
        let seen = self.seen.lock();
        let arrived = seen.get(&(group.to_vec(), epoch))?;
        if arrived.len() < sites { None } else { arrived.values().max().copied() }
    }
}

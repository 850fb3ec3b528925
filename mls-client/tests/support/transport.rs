//! A client's way to the gateway in memory: loses requests, loses answers, ends streams, and lets the client "crash" in a call.

use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU64, Ordering::SeqCst},
};

use bytes::Bytes;
use concordat_proto::{
    gateway::v1::{
        AckWelcomesRequest, ClaimKeyPackageRequest, ClaimKeyPackageResponse, CloseGroupRequest,
        CreateGroupRequest, GetGroupInfoResponse, GetHeadRequest, GetKeyPackageStatusResponse,
        OfferBranchEntriesRequest, OfferBranchEntriesResponse, ReadBranchEntriesRequest,
        ReadBranchEntriesResponse, ReadEntriesRequest, ReadEntriesResponse, SetPolicyRequest, SubmitRequest,
        SubscribeRequest, SubscribeResponse, UploadBranchEntriesRequest, UploadBranchEntriesResponse,
        UploadKeyPackagesRequest, UploadKeyPackagesResponse, WatchWelcomesRequest, submit_response,
        subscribe_response,
    },
    log::v1::{Accepted, Cursor, Head, PendingWelcome, Reason},
};
use futures::{FutureExt, StreamExt, future::pending, stream};
use group_log::{ClientId, Content};
use mls_client::{
    CallError, Randomness, Transport,
    transport::{Call, CallStream},
};
use tokio::{sync::Notify, task::yield_now};
use tonic::Code;

use super::FakeGateway;

pub(crate) struct FakeTransport {
    gateway: FakeGateway,
    client: ClientId,
    rng: Randomness,
    /// How many of a hundred calls go wrong, half of them after they had their effect.
    pub(crate) faults: AtomicU64,
    /// Calls until the client crashes; negative: never.
    pub(crate) crash_in: AtomicI64,
    /// The client has crashed: its call never returns.
    pub(crate) crashed: Arc<Notify>,
}

impl FakeTransport {
    pub(crate) fn new(gateway: FakeGateway, client: ClientId, rng: Randomness) -> Self {
        FakeTransport {
            gateway,
            client,
            rng,
            faults: AtomicU64::new(0),
            crash_in: AtomicI64::new(-1),
            crashed: Arc::default(),
        }
    }

    /// Lets other tasks overtake, then makes the call; or fails, before or after it.
    fn call<T: Send + 'static>(
        &self,
        make: impl FnOnce(&FakeGateway, &ClientId) -> Result<T, CallError> + Send + 'static,
    ) -> Call<'static, T> {
        let (gateway, client) = (self.gateway.clone(), self.client.clone());
        let (delay, faulty, after) =
            (self.rng.below(4), self.rng.below(100) < self.faults.load(SeqCst), self.rng.below(2) == 1);
        let crashes = self.crash_in.fetch_sub(1, SeqCst) == 0;
        let crashed = Arc::clone(&self.crashed);
        async move {
            for _ in 0..delay {
                yield_now().await;
            }
            if (faulty || crashes) && !after {
                if crashes {
                    crashed.notify_one();
                    pending::<()>().await;
                }
                return Err(CallError::lost("the request was lost"));
            }
            let answer = make(&gateway, &client);
            for _ in 0..delay {
                yield_now().await;
            }
            if crashes {
                crashed.notify_one();
                pending::<()>().await;
            }
            match (faulty, answer) {
                (false, answer) => answer,
                (true, Ok(_)) => {
                    Err(CallError::refused(Code::Unavailable, Reason::OutcomeUnknown, "the answer was lost"))
                }
                (true, Err(_)) => Err(CallError::lost("the answer was lost")),
            }
        }
        .boxed()
    }
}

impl Transport for FakeTransport {
    fn create_group(&self, request: CreateGroupRequest) -> Call<'_, Accepted> {
        self.call(move |gateway, client| gateway.create(client, request))
    }

    fn submit(&self, request: SubmitRequest) -> Call<'_, submit_response::Outcome> {
        self.call(move |gateway, client| gateway.submit(client, request))
    }

    fn subscribe(&self, request: SubscribeRequest) -> Call<'_, CallStream<SubscribeResponse>> {
        let faults = self.faults.load(SeqCst);
        let rng = self.rng.fork();
        self.call(move |gateway, _| {
            let read = page(&request.group_id, request.cursor.clone());
            // A group that is not there, or a cursor that does not fit, fails the call.
            gateway.read(&read)?;
            Ok(follow(gateway.clone(), read, rng, faults))
        })
    }

    fn read_entries(&self, request: ReadEntriesRequest) -> Call<'_, ReadEntriesResponse> {
        self.call(move |gateway, _| gateway.read(&request))
    }

    fn read_branch_entries(&self, _: ReadBranchEntriesRequest) -> Call<'_, ReadBranchEntriesResponse> {
        self.call(|_, _| Err(wrong_kind()))
    }

    fn offer_branch_entries(&self, _: OfferBranchEntriesRequest) -> Call<'_, OfferBranchEntriesResponse> {
        self.call(|_, _| Err(wrong_kind()))
    }

    fn upload_branch_entries(&self, _: UploadBranchEntriesRequest) -> Call<'_, UploadBranchEntriesResponse> {
        self.call(|_, _| Err(wrong_kind()))
    }

    fn get_head(&self, request: GetHeadRequest) -> Call<'_, Head> {
        self.call(move |gateway, _| Ok(gateway.read(&page(&request.group_id, None))?.head.unwrap()))
    }

    fn get_group_info(&self, group_id: Bytes) -> Call<'_, GetGroupInfoResponse> {
        self.call(move |gateway, _| gateway.group_info(&group_id))
    }

    fn close_group(&self, request: CloseGroupRequest) -> Call<'_, Accepted> {
        self.call(move |gateway, client| {
            gateway.control(client, &request.group_id, request.epoch, Content::Close)
        })
    }

    fn set_policy(&self, request: SetPolicyRequest) -> Call<'_, Accepted> {
        let policy = request.policy.unwrap_or_default();
        let turns = policy.turns.clone().map(|turns| turns.try_into().unwrap());
        let content = Content::PolicyChange { policy: policy.into(), turns };
        self.call(move |gateway, client| gateway.control(client, &request.group_id, request.epoch, content))
    }

    fn upload_key_packages(&self, request: UploadKeyPackagesRequest) -> Call<'_, UploadKeyPackagesResponse> {
        self.call(move |gateway, client| gateway.upload(client, request.key_packages))
    }

    fn claim_key_package(&self, request: ClaimKeyPackageRequest) -> Call<'_, ClaimKeyPackageResponse> {
        self.call(move |gateway, _| gateway.claim(&request.client_id, request.claim_id))
    }

    fn key_package_status(&self) -> Call<'_, GetKeyPackageStatusResponse> {
        self.call(|gateway, client| Ok(gateway.key_package_status(client)))
    }

    fn watch_welcomes(&self, _: WatchWelcomesRequest) -> Call<'_, CallStream<PendingWelcome>> {
        self.call(|gateway, client| {
            let (gateway, client) = (gateway.clone(), client.clone());
            let seen = 0;
            let welcomes = stream::unfold((gateway, client, seen), |(gateway, client, seen)| async move {
                loop {
                    let changed = gateway.changed.notified();
                    let place = |w: &PendingWelcome| w.cursor.as_ref().unwrap().positions[0].position;
                    if let Some(next) = gateway.waiting(&client).into_iter().find(|w| place(w) > seen) {
                        let seen = place(&next);
                        return Some((Ok(next), (gateway.clone(), client, seen)));
                    }
                    changed.await;
                }
            });
            Ok(welcomes.boxed())
        })
    }

    fn ack_welcomes(&self, request: AckWelcomesRequest) -> Call<'_, u32> {
        self.call(move |gateway, client| Ok(gateway.ack(client, &request.cursor.unwrap())))
    }
}

/// This gateway knows groups without branches only.
fn wrong_kind() -> CallError {
    CallError::refused(Code::FailedPrecondition, Reason::WrongKind, "refused by the gateway in memory")
}

fn page(group_id: &Bytes, cursor: Option<Cursor>) -> ReadEntriesRequest {
    ReadEntriesRequest { group_id: group_id.clone(), cursor, max_entries: 1000, linearizable: true }
}

/// Entries as they come; with faults, some come twice and the stream ends now and then.
fn follow(
    gateway: FakeGateway,
    read: ReadEntriesRequest,
    rng: Randomness,
    faults: u64,
) -> CallStream<SubscribeResponse> {
    stream::unfold((gateway, read, false), move |(gateway, mut read, ended)| {
        let rng = rng.clone();
        async move {
            if ended {
                return None;
            }
            loop {
                let changed = gateway.changed.notified();
                let page = gateway.read(&read).unwrap();
                let mut answers: Vec<_> = page
                    .entries
                    .into_iter()
                    .map(|entry| {
                        Ok(SubscribeResponse { event: Some(subscribe_response::Event::Entry(entry)) })
                    })
                    .collect();
                if let Some(Ok(SubscribeResponse { event: Some(subscribe_response::Event::Entry(last)) })) =
                    answers.last()
                {
                    let place = group_log::Cursor::Canonical { seq: last.seq, chain: None };
                    read.cursor = Some(place.into());
                    let mut ended = false;
                    if rng.below(100) < faults {
                        answers.push(answers[0].clone());
                    }
                    if rng.below(100) < faults {
                        answers.push(Err(CallError::lost("the stream was lost")));
                        ended = true;
                    }
                    return Some((stream::iter(answers), (gateway.clone(), read, ended)));
                }
                changed.await;
            }
        }
    })
    .flatten()
    .boxed()
}

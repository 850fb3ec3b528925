//! A client's way to one of the gateways: loses requests, loses answers, and lets the client "crash" in a call.

use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::SeqCst},
};

use bytes::Bytes;
use concordat_proto::{
    gateway::v1::{
        AckWelcomesRequest, ClaimKeyPackageRequest, ClaimKeyPackageResponse, CloseGroupRequest,
        CreateGroupRequest, GetGroupInfoResponse, GetHeadRequest, GetKeyPackageStatusResponse, ModeChange,
        OfferBranchEntriesRequest, OfferBranchEntriesResponse, ReadBranchEntriesRequest,
        ReadBranchEntriesResponse, ReadEntriesRequest, ReadEntriesResponse, SetPolicyRequest, SubmitRequest,
        SubscribeRequest, SubscribeResponse, UploadBranchEntriesRequest, UploadBranchEntriesResponse,
        UploadKeyPackagesRequest, UploadKeyPackagesResponse, WatchWelcomesRequest, submit_response,
        subscribe_response::Event,
    },
    log::v1::{Accepted, Cursor, Head, PendingWelcome, Reason},
};
use futures::{FutureExt, StreamExt, future::pending, stream};
use group_log::{ClientId, EntryId};
use mls_client::{
    CallError, Randomness, Transport,
    transport::{Call, CallStream},
};
use tokio::{sync::Notify, task::yield_now};
use tonic::Code;

use super::{Net, World, serve::refusal};
use crate::support::gateway::{key_package_status, store_key_packages};

pub(crate) struct NetTransport {
    net: Net,
    client: ClientId,
    rng: Randomness,
    /// The gateway that the client is connected to.
    pub(crate) site: AtomicUsize,
    /// How many of a hundred calls go wrong, half of them after they had their effect.
    pub(crate) faults: AtomicU64,
    /// The answers of the next calls are lost, so many.
    pub(crate) lose_answers: AtomicI64,
    /// Calls until the client crashes; negative: never.
    pub(crate) crash_in: AtomicI64,
    /// The client has crashed: its call never returns.
    pub(crate) crashed: Arc<Notify>,
}

impl NetTransport {
    pub(crate) fn new(net: &Net, site: usize, client: ClientId) -> Self {
        NetTransport {
            net: net.clone(),
            client,
            rng: net.rng.fork(),
            site: AtomicUsize::new(site),
            faults: AtomicU64::new(0),
            lose_answers: AtomicI64::new(0),
            crash_in: AtomicI64::new(-1),
            crashed: Arc::default(),
        }
    }

    fn call<T: Send + 'static>(
        &self,
        make: impl FnOnce(&mut World, usize, &ClientId) -> Result<T, CallError> + Send + 'static,
    ) -> Call<'static, T> {
        let (net, client, site) = (self.net.clone(), self.client.clone(), self.site.load(SeqCst));
        let (delay, faulty, after) =
            (self.rng.below(3), self.rng.below(100) < self.faults.load(SeqCst), self.rng.below(2) == 1);
        let forced = self.lose_answers.fetch_sub(1, SeqCst) > 0;
        let (faulty, after) = (faulty || forced, after || forced);
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
            let answer = net.change(|world| make(world, site, &client));
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

fn page(group_id: &Bytes, cursor: Option<Cursor>, linearizable: bool) -> ReadEntriesRequest {
    ReadEntriesRequest { group_id: group_id.clone(), cursor, max_entries: 1000, linearizable }
}

impl Transport for NetTransport {
    fn create_group(&self, request: CreateGroupRequest) -> Call<'_, Accepted> {
        self.call(move |world, site, client| world.create(site, client, request))
    }

    fn submit(&self, request: SubmitRequest) -> Call<'_, submit_response::Outcome> {
        let net = self.net.clone();
        let answer = self.call(move |world, site, client| world.submit(site, client, request));
        let told = answer.inspect(move |answer| {
            if let Ok(submit_response::Outcome::AcceptedProvisional(accepted)) = answer {
                let id = EntryId::from_slice(&accepted.entry_id).unwrap();
                net.change(|world| {
                    for group in world.groups.values_mut().filter(|group| group.accepted.contains_key(&id)) {
                        group.answered.insert(id);
                    }
                });
            }
        });
        told.boxed()
    }

    fn subscribe(&self, request: SubscribeRequest) -> Call<'_, CallStream<SubscribeResponse>> {
        let net = self.net.clone();
        self.call(move |world, site, _| {
            let read = page(&request.group_id, request.cursor.clone(), false);
            let head = world.read(site, &read)?.head;
            Ok(follow(net, site, request, head))
        })
    }

    fn read_entries(&self, request: ReadEntriesRequest) -> Call<'_, ReadEntriesResponse> {
        self.call(move |world, site, _| world.read(site, &request))
    }

    fn read_branch_entries(&self, request: ReadBranchEntriesRequest) -> Call<'_, ReadBranchEntriesResponse> {
        self.call(move |world, site, _| world.read_branch(site, &request))
    }

    fn offer_branch_entries(
        &self,
        request: OfferBranchEntriesRequest,
    ) -> Call<'_, OfferBranchEntriesResponse> {
        self.call(move |world, site, _| world.offer(site, &request))
    }

    fn upload_branch_entries(
        &self,
        request: UploadBranchEntriesRequest,
    ) -> Call<'_, UploadBranchEntriesResponse> {
        self.call(move |world, site, _| world.upload_branch(site, request))
    }

    fn get_head(&self, request: GetHeadRequest) -> Call<'_, Head> {
        self.call(move |world, site, _| {
            let read = page(&request.group_id, None, request.linearizable);
            Ok(world.read(site, &read)?.head.unwrap())
        })
    }

    fn get_group_info(&self, group_id: Bytes) -> Call<'_, GetGroupInfoResponse> {
        self.call(move |world, site, _| world.group_info(site, &group_id))
    }

    fn close_group(&self, _: CloseGroupRequest) -> Call<'_, Accepted> {
        self.call(|_, _, _| Err(refusal(Reason::PermissionDenied)))
    }

    fn set_policy(&self, _: SetPolicyRequest) -> Call<'_, Accepted> {
        self.call(|_, _, _| Err(refusal(Reason::PermissionDenied)))
    }

    fn upload_key_packages(&self, request: UploadKeyPackagesRequest) -> Call<'_, UploadKeyPackagesResponse> {
        self.call(move |world, site, client| {
            world.up(site)?;
            let stored = world.key_packages.entry(client.clone()).or_default();
            store_key_packages(stored, request.key_packages)
        })
    }

    fn claim_key_package(&self, request: ClaimKeyPackageRequest) -> Call<'_, ClaimKeyPackageResponse> {
        self.call(move |world, site, _| {
            world.up(site)?;
            world.claim(&request.client_id, request.claim_id)
        })
    }

    fn key_package_status(&self) -> Call<'_, GetKeyPackageStatusResponse> {
        self.call(|world, site, client| {
            world.up(site)?;
            Ok(key_package_status(world.key_packages.entry(client.clone()).or_default()))
        })
    }

    fn watch_welcomes(&self, _: WatchWelcomesRequest) -> Call<'_, CallStream<PendingWelcome>> {
        let net = self.net.clone();
        self.call(move |world, site, client| {
            world.up(site)?;
            let place = |w: &PendingWelcome| w.cursor.as_ref().unwrap().positions[0].position;
            let client = client.clone();
            let welcomes = stream::unfold((net, client, 0), move |(net, client, seen)| async move {
                loop {
                    let changed = net.changed.notified();
                    let waiting = net.lock().inboxes.get(&client).cloned().unwrap_or_default();
                    if let Some(next) = waiting.into_iter().find(|w| place(w) > seen) {
                        let seen = place(&next);
                        return Some((Ok(next), (net.clone(), client, seen)));
                    }
                    changed.await;
                }
            });
            Ok(welcomes.boxed())
        })
    }

    fn ack_welcomes(&self, request: AckWelcomesRequest) -> Call<'_, u32> {
        self.call(move |world, _, client| {
            let inbox = world.inboxes.entry(client.clone()).or_default();
            let up_to = request.cursor.unwrap().positions[0].position;
            inbox.retain(|welcome| welcome.cursor.as_ref().unwrap().positions[0].position > up_to);
            Ok(inbox.len() as u32)
        })
    }
}

struct Following {
    net: Net,
    site: usize,
    group: Bytes,
    seq: u64,
    known: Vec<EntryId>,
    mode: i32,
    caught_up: Option<Head>,
    gone: bool,
}

/// The log and the branches as they come.
fn follow(
    net: Net,
    site: usize,
    request: SubscribeRequest,
    head: Option<Head>,
) -> CallStream<SubscribeResponse> {
    let seq = match request.cursor.map(|cursor| group_log::Cursor::try_from(cursor).unwrap()) {
        Some(group_log::Cursor::Canonical { seq, .. }) => seq,
        _ => 0,
    };
    let known = request.known_branch_entries.iter().map(|id| EntryId::from_slice(id).unwrap()).collect();
    let group = request.group_id;
    let following = Following { net, site, group, seq, known, mode: 0, caught_up: head, gone: false };
    stream::unfold(following, |mut at| async move {
        loop {
            if at.gone {
                return None;
            }
            let net = at.net.clone();
            let changed = net.changed.notified();
            let (news, mode) = {
                let world = net.lock();
                (world.news(at.site, &at.group, at.seq, &at.known), world.mode(at.site, &at.group))
            };
            let mut answers = Vec::new();
            match news {
                Ok(news) => {
                    if at.mode != mode as i32 {
                        at.mode = mode.into();
                        answers.push(Event::ModeChange(ModeChange { mode: mode.into() }));
                    }
                    for event in news {
                        match &event {
                            Event::Entry(entry) => at.seq = entry.seq,
                            Event::BranchEntry(branch) => {
                                at.known.push(EntryId::from_slice(&branch.entry_id).unwrap());
                            }
                            _ => {}
                        }
                        answers.push(event);
                    }
                    answers.extend(at.caught_up.take().map(Event::CaughtUp));
                }
                Err(error) => {
                    at.gone = true;
                    return Some((stream::iter(vec![Err(error)]), at));
                }
            }
            if !answers.is_empty() {
                let answers: Vec<_> =
                    answers.into_iter().map(|event| Ok(SubscribeResponse { event: Some(event) })).collect();
                return Some((stream::iter(answers), at));
            }
            changed.await;
        }
    })
    .flatten()
    .boxed()
}

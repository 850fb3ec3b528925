//! The gateway's own state: one log per group, KeyPackages, inboxes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use concordat_proto::{
    gateway::v1::{
        ClaimKeyPackageResponse, CreateGroupRequest, GetGroupInfoResponse, GetKeyPackageStatusResponse,
        ReadEntriesRequest, ReadEntriesResponse, SubmitRequest, UploadKeyPackagesResponse,
        submit_response::Outcome,
    },
    log::v1::{self as pb, Reason},
};
use group_log::{
    ClientId, Commit, Content, Create, Cursor, Decision, Entry, GroupId, MemoryLog, Offer, Submission,
    WelcomeRecipient,
};
use mls_client::CallError;
use openmls::prelude::{
    ContentType, KeyPackageIn, MlsMessageBodyIn, MlsMessageIn, OpenMlsCrypto, ProtocolVersion,
    tls_codec::Deserialize,
};
use openmls_rust_crypto::RustCrypto;
use tokio::sync::Notify;
use tonic::Code;

type Answer<T> = Result<T, CallError>;

/// A gateway and everything behind it. Clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct FakeGateway {
    state: Arc<Mutex<State>>,
    pub(crate) changed: Arc<Notify>,
}

#[derive(Default)]
struct State {
    groups: BTreeMap<GroupId, MemoryLog>,
    key_packages: HashMap<ClientId, Vec<pb::KeyPackage>>,
    claims: HashMap<(ClientId, Bytes), pb::KeyPackage>,
    inboxes: HashMap<ClientId, Vec<pb::PendingWelcome>>,
    positions: u64,
    now_ms: u64,
}

fn refused(refused: pb::Refused) -> CallError {
    CallError::refused(Code::FailedPrecondition, refused.reason(), refused.message)
}

fn refusal(reason: Reason) -> CallError {
    CallError::refused(Code::FailedPrecondition, reason, "refused by the gateway in memory")
}

fn parse(message: &[u8]) -> Answer<MlsMessageBodyIn> {
    MlsMessageIn::tls_deserialize_exact(message)
        .map(MlsMessageIn::extract)
        .map_err(|_| refusal(Reason::Malformed))
}

impl FakeGateway {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The whole log of a group.
    pub(crate) fn log(&self, group: &GroupId) -> Vec<Entry> {
        self.lock().groups.get(group).map(|log| log.entries(1, usize::MAX).collect()).unwrap_or_default()
    }

    /// Time passes, for groups that take turns.
    pub(crate) fn wait(&self, ms: u64) {
        self.lock().now_ms += ms;
    }

    /// Puts an entry into a group's log that no honest client would make.
    pub(crate) fn force(&self, group: &GroupId, author: &ClientId, content: Content) -> Decision {
        let mut state = self.lock();
        let log = state.groups.get_mut(group).unwrap();
        let epoch = log.current().unwrap().epoch;
        let decision = log.apply(&Submission {
            group_id: group.clone(),
            author: author.clone(),
            epoch,
            parent_state_id: None,
            content,
        });
        drop(state);
        self.changed.notify_waiters();
        decision
    }

    pub(crate) fn create(&self, author: &ClientId, request: CreateGroupRequest) -> Answer<pb::Accepted> {
        let MlsMessageBodyIn::GroupInfo(info) = parse(&request.group_info)? else {
            return Err(refusal(Reason::WrongMessageType));
        };
        let content = Content::Create(Create {
            kind: request.kind().try_into().map_err(|_| refusal(Reason::Malformed))?,
            policy: request.policy.unwrap_or_default().into(),
            group_info: request.group_info.clone(),
        });
        let group_id = GroupId::new(info.group_id().as_slice().to_vec()).unwrap();
        let (epoch, author) = (info.epoch().as_u64(), author.clone());
        let submission =
            Submission { group_id: group_id.clone(), author, epoch, parent_state_id: None, content };
        match self.apply(&submission)? {
            Outcome::Accepted(accepted) => Ok(accepted),
            Outcome::Superseded(_) => unreachable!("a create is never superseded"),
            other => panic!("a group of kind mls got {other:?}"),
        }
    }

    pub(crate) fn submit(&self, author: &ClientId, request: SubmitRequest) -> Answer<Outcome> {
        let message = MlsMessageIn::tls_deserialize_exact(&request.message)
            .ok()
            .and_then(|m| m.try_into_protocol_message().ok())
            .ok_or_else(|| refusal(Reason::Malformed))?;
        let content = match message.content_type() {
            ContentType::Commit => Content::Commit(Commit {
                message: request.message.clone(),
                welcome: request.welcome,
                group_info: request.group_info,
                recipients: request
                    .recipients
                    .into_iter()
                    .map(WelcomeRecipient::try_from)
                    .collect::<Result<_, _>>()
                    .unwrap(),
            }),
            ContentType::Proposal => Content::Proposal { message: request.message },
            ContentType::Application => Content::Application { message: request.message },
        };
        let parent = &request.parent_state_id;
        let submission = Submission {
            group_id: GroupId::new(message.group_id().as_slice().to_vec()).unwrap(),
            author: author.clone(),
            epoch: message.epoch().as_u64(),
            parent_state_id: (!parent.is_empty()).then(|| group_log::StateId::from_slice(parent).unwrap()),
            content,
        };
        self.apply_as(&submission, request.members_only)
    }

    /// Close and policy changes.
    pub(crate) fn control(
        &self,
        author: &ClientId,
        group: &[u8],
        epoch: u64,
        content: Content,
    ) -> Answer<pb::Accepted> {
        let group_id = GroupId::new(group.to_vec()).unwrap();
        let (author, parent_state_id) = (author.clone(), None);
        match self.apply(&Submission { group_id, author, epoch, parent_state_id, content })? {
            Outcome::Accepted(accepted) => Ok(accepted),
            Outcome::Superseded(_) => unreachable!("only commits are superseded"),
            other => panic!("a group of kind mls got {other:?}"),
        }
    }

    fn apply(&self, submission: &Submission) -> Answer<Outcome> {
        self.apply_as(submission, false)
    }

    fn apply_as(&self, submission: &Submission, members_only: bool) -> Answer<Outcome> {
        let mut state = self.lock();
        let State { groups, inboxes, positions, now_ms, .. } = &mut *state;
        let log = groups.entry(submission.group_id.clone()).or_default();
        let before = log.current().map_or(0, |head| head.seq);
        let decision = log.apply_offer(submission, Offer { at_ms: *now_ms, members_only });
        let outcome = match decision {
            Decision::Accepted(accepted) => Outcome::Accepted(accepted.into()),
            Decision::Superseded { winner_seq } => {
                Outcome::Superseded(pb::Superseded::by(log.entry(winner_seq).unwrap()).unwrap())
            }
            Decision::Refused(reason) => return Err(refused((&reason).into())),
        };
        let entry = log.entry(before + 1);
        if let (Some(entry), Content::Commit(commit)) = (entry, &submission.content) {
            let kind = pb::GroupKind::from(log.current().unwrap().kind).into();
            for recipient in &commit.recipients {
                *positions += 1;
                let place = pb::ShardPosition { shard: 1, position: *positions };
                inboxes.entry(recipient.client_id.clone()).or_default().push(pb::PendingWelcome {
                    cursor: Some(pb::InboxCursor { positions: vec![place] }),
                    group_id: submission.group_id.to_bytes(),
                    seq: entry.seq,
                    chain_hash: entry.chain.to_bytes(),
                    state_id: entry.state_id.to_bytes(),
                    epoch: entry.epoch + 1,
                    kind,
                    welcome: commit.welcome.clone(),
                    key_package_refs: vec![recipient.key_package_ref.to_bytes()],
                });
            }
        }
        drop(state);
        self.changed.notify_waiters();
        Ok(outcome)
    }

    pub(crate) fn read(&self, request: &ReadEntriesRequest) -> Answer<ReadEntriesResponse> {
        let state = self.lock();
        let group = GroupId::new(request.group_id.clone()).unwrap();
        let log = state.groups.get(&group).ok_or_else(|| refusal(Reason::GroupNotFound))?;
        let head = log.current().ok_or_else(|| refusal(Reason::GroupNotFound))?;
        let cursor: Cursor =
            request.cursor.clone().map_or(Cursor::START, |cursor| cursor.try_into().unwrap());
        let entries = log
            .read(&cursor, request.max_entries.max(1) as usize)
            .map_err(|error| refused((&error).into()))?;
        let entries = entries.into_iter().map(Into::into).collect();
        Ok(ReadEntriesResponse { entries, head: Some(head.into()) })
    }

    pub(crate) fn group_info(&self, group: &[u8]) -> Answer<GetGroupInfoResponse> {
        let state = self.lock();
        let group = GroupId::new(group.to_vec()).unwrap();
        let log = state.groups.get(&group).ok_or_else(|| refusal(Reason::GroupNotFound))?;
        let head = log.current().ok_or_else(|| refusal(Reason::GroupNotFound))?;
        let newest = log.entries(1, usize::MAX).filter_map(|entry| match entry.content {
            Content::Create(create) => Some(create.group_info),
            Content::Commit(commit) => Some(commit.group_info),
            _ => None,
        });
        Ok(GetGroupInfoResponse { group_info: newest.last().unwrap(), head: Some(head.into()) })
    }

    pub(crate) fn upload(
        &self,
        client: &ClientId,
        key_packages: Vec<Bytes>,
    ) -> Answer<UploadKeyPackagesResponse> {
        let mut state = self.lock();
        store_key_packages(state.key_packages.entry(client.clone()).or_default(), key_packages)
    }

    pub(crate) fn claim(&self, client: &[u8], claim_id: Bytes) -> Answer<ClaimKeyPackageResponse> {
        let client = ClientId::new(client.to_vec()).unwrap();
        let mut state = self.lock();
        let State { key_packages, claims, .. } = &mut *state;
        let stored = key_packages.entry(client.clone()).or_default();
        let claimed = match claims.get(&(client.clone(), claim_id.clone())) {
            Some(claimed) => claimed.clone(),
            None => match stored.iter().position(|kp| !kp.last_resort) {
                Some(one_time) => stored.remove(one_time),
                None => stored.first().cloned().ok_or_else(|| refusal(Reason::KeyPackagesExhausted))?,
            },
        };
        let one_time_left = key_package_status(stored).one_time_left;
        claims.insert((client, claim_id), claimed.clone());
        Ok(ClaimKeyPackageResponse { key_package: Some(claimed), one_time_left })
    }

    pub(crate) fn key_package_status(&self, client: &ClientId) -> GetKeyPackageStatusResponse {
        key_package_status(self.lock().key_packages.entry(client.clone()).or_default())
    }

    pub(crate) fn waiting(&self, client: &ClientId) -> Vec<pb::PendingWelcome> {
        self.lock().inboxes.get(client).cloned().unwrap_or_default()
    }

    /// The acknowledgement of this Welcome was lost.
    pub(crate) fn deliver_again(&self, client: &ClientId, welcome: pb::PendingWelcome) {
        self.lock().inboxes.entry(client.clone()).or_default().push(welcome);
    }

    pub(crate) fn ack(&self, client: &ClientId, cursor: &pb::InboxCursor) -> u32 {
        let mut state = self.lock();
        let inbox = state.inboxes.entry(client.clone()).or_default();
        let up_to = cursor.positions[0].position;
        inbox.retain(|welcome| welcome.cursor.as_ref().unwrap().positions[0].position > up_to);
        inbox.len() as u32
    }
}

fn describe(crypto: &impl OpenMlsCrypto, key_package: KeyPackageIn) -> Answer<(Bytes, bool)> {
    let valid =
        key_package.validate(crypto, ProtocolVersion::Mls10).map_err(|_| refusal(Reason::Malformed))?;
    Ok((valid.hash_ref(crypto).unwrap().as_slice().to_vec().into(), valid.last_resort()))
}

pub(crate) fn store_key_packages(
    stored: &mut Vec<pb::KeyPackage>,
    key_packages: Vec<Bytes>,
) -> Answer<UploadKeyPackagesResponse> {
    for key_package in key_packages {
        let MlsMessageBodyIn::KeyPackage(parsed) = parse(&key_package)? else {
            return Err(refusal(Reason::WrongMessageType));
        };
        let (reference, last_resort) = describe(&RustCrypto::default(), parsed)?;
        if stored.iter().any(|kp| kp.key_package_ref == reference) {
            continue;
        }
        if last_resort {
            stored.retain(|kp| !kp.last_resort);
        }
        stored.push(pb::KeyPackage { key_package_ref: reference, key_package, last_resort });
    }
    let GetKeyPackageStatusResponse { one_time_left, has_last_resort } = key_package_status(stored);
    Ok(UploadKeyPackagesResponse { one_time_left, has_last_resort })
}

pub(crate) fn key_package_status(stored: &[pb::KeyPackage]) -> GetKeyPackageStatusResponse {
    GetKeyPackageStatusResponse {
        one_time_left: stored.iter().filter(|kp| !kp.last_resort).count() as u32,
        has_last_resort: stored.iter().any(|kp| kp.last_resort),
    }
}

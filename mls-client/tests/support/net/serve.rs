//! What a gateway answers its clients.

use bytes::Bytes;
use concordat_proto::{
    gateway::v1::{
        self as gw, AcceptedProvisional, BranchEvent, ClaimKeyPackageResponse, CreateGroupRequest,
        GetGroupInfoResponse, ReadEntriesRequest, ReadEntriesResponse, SubmitRequest,
        submit_response::Outcome, subscribe_response::Event,
    },
    log::v1::{self as pb, Reason},
    ordering::v1::outcome::Outcome as Decided,
    relay::v1::sequence_response,
};
use group_log::{
    ChainHash, ClientId, Commit, Content, Create, Cursor, EntryId, GroupId, StateId, Submission,
    WelcomeRecipient, check_cursor,
    fork::{BranchEntry, BranchRefusal, Command, CommitFacts, Item, Mark, Mode},
    hash,
};
use mls_client::{CallError, demls::DmlsMessage};
use openmls::prelude::{ContentType, MlsMessageBodyIn, MlsMessageIn, tls_codec::Deserialize};
use std::time::Duration;
use tonic::Code;

use super::{Group, World, facts::Facts, sites::Site};

pub(super) type Answer<T> = Result<T, CallError>;

pub(super) fn refusal(reason: Reason) -> CallError {
    CallError::refused(Code::FailedPrecondition, reason, "refused by the gateway in memory")
}

pub(super) fn not_now(reason: Reason) -> CallError {
    let mut error = CallError::refused(Code::Unavailable, reason, "not now");
    error.retry_after = Some(Duration::ZERO);
    error
}

fn refused(refused: pb::Refused) -> CallError {
    CallError::refused(Code::FailedPrecondition, refused.reason(), refused.message)
}

impl World {
    pub(super) fn up(&self, site: usize) -> Answer<()> {
        if self.lost.contains(&site) { Err(CallError::lost("the gateway is gone")) } else { Ok(()) }
    }

    pub(super) fn group(&self, id: &[u8]) -> Answer<&Group> {
        let id = GroupId::new(id.to_vec()).unwrap();
        self.groups.get(&id).ok_or_else(|| refusal(Reason::GroupNotFound))
    }

    /// Works on one group, taken out of the world.
    fn with<T>(&mut self, id: &GroupId, work: impl FnOnce(&mut World, &mut Group) -> Answer<T>) -> Answer<T> {
        let mut group = self.groups.remove(id).ok_or_else(|| refusal(Reason::GroupNotFound))?;
        let result = work(self, &mut group);
        self.groups.insert(id.clone(), group);
        result
    }

    pub(super) fn create(
        &mut self,
        site: usize,
        author: &ClientId,
        request: CreateGroupRequest,
    ) -> Answer<pb::Accepted> {
        self.up(site)?;
        if !self.reaches_quorum(site) {
            return Err(not_now(Reason::NoQuorum));
        }
        let MlsMessageBodyIn::GroupInfo(info) =
            MlsMessageIn::tls_deserialize_exact(&request.group_info).unwrap().extract()
        else {
            return Err(refusal(Reason::WrongMessageType));
        };
        let id = GroupId::new(info.group_id().as_slice().to_vec()).unwrap();
        let epoch = info.epoch().as_u64();
        let content = Content::Create(Create {
            kind: request.kind().try_into().unwrap(),
            policy: request.policy.unwrap_or_default().into(),
            group_info: request.group_info.clone(),
        });
        let mut group = self.groups.remove(&id).unwrap_or_else(|| Group {
            cluster: Default::default(),
            facts: Facts::default(),
            sites: (0..self.component.len()).map(|_| Site::new(self.now_ms)).collect(),
            accepted: Default::default(),
            answered: Default::default(),
        });
        let state = hash::create_state_id(&id, epoch, &request.group_info);
        let facts = group.facts.create(state, &request.group_info);
        let author = author.clone();
        let submission = Submission { group_id: id.clone(), author, epoch, parent_state_id: None, content };
        let answer = self.command(&id, &mut group, &Command::Submit { submission, facts });
        for site in 0..group.sites.len() {
            self.follow(&id, &mut group, site);
        }
        self.groups.insert(id, group);
        (0..4).for_each(|_| self.tick(250));
        match answer.into() {
            Decided::Accepted(accepted) => Ok(accepted),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn submit(
        &mut self,
        site: usize,
        author: &ClientId,
        request: SubmitRequest,
    ) -> Answer<Outcome> {
        self.up(site)?;
        let message = DmlsMessage::decode(&request.message).map_err(|_| refusal(Reason::Malformed))?;
        let message = message.message();
        let id = GroupId::new(message.group_id().as_slice().to_vec()).unwrap();
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
        let parent = StateId::from_slice(&request.parent_state_id).expect("always given");
        let epoch = message.epoch().as_u64();
        self.with(&id, |world, group| world.decide(site, &id, group, author, parent, epoch, content))
    }

    #[allow(clippy::too_many_arguments)]
    fn decide(
        &mut self,
        site: usize,
        id: &GroupId,
        group: &mut Group,
        author: &ClientId,
        parent: StateId,
        epoch: u64,
        content: Content,
    ) -> Answer<Outcome> {
        let entry_id = hash::entry_id(&parent, &content);
        let state = entry_id.as_state();
        let known = group.facts.epoch(&parent);
        // A handshake of an unknown state is checked by whoever knows it.
        let facts = match known {
            Some(at) if at != epoch => return Err(refusal(Reason::InvalidCommit)),
            Some(_) => {
                let derived = group.facts.derive(&parent, state, &content);
                derived.ok_or_else(|| refusal(Reason::InvalidCommit))?
            }
            None => CommitFacts::default(),
        };
        let is_commit = matches!(content, Content::Commit(_));
        let outcome = match group.sites[site].mode() {
            Mode::Ordered if self.reaches_quorum(site) => {
                let (author, group_id) = (author.clone(), id.clone());
                let submission =
                    Submission { group_id, author, epoch, parent_state_id: Some(parent), content };
                self.order(site, id, group, Command::Submit { submission, facts })?
            }
            Mode::Forked => {
                let entry = BranchEntry { parent, author: author.clone(), content, facts };
                self.accept(site, id, group, entry, epoch)?
            }
            Mode::Reconciling => return Err(not_now(Reason::Reconciling)),
            _ => return Err(not_now(Reason::NoQuorum)),
        };
        if matches!(outcome, Outcome::Accepted(_) | Outcome::AcceptedProvisional(_)) {
            group.accepted.insert(entry_id, (parent, is_commit));
        }
        Ok(outcome)
    }

    fn order(&mut self, site: usize, id: &GroupId, group: &mut Group, command: Command) -> Answer<Outcome> {
        let answer = self.command(id, group, &command);
        if let group_log::fork::Answer::Decided(group_log::Decision::Superseded { winner_seq }) = &answer {
            let winner = group.cluster.log_entry(*winner_seq, CommitFacts::default()).unwrap();
            return Ok(Outcome::Superseded(pb::Superseded { winner: Some(winner.into()) }));
        }
        self.follow(id, group, site);
        let indices = |owed: &[group_log::fork::LeafId]| {
            let head = group.cluster.current().unwrap().state_id;
            group.facts.indices(&head, owed)
        };
        if let group_log::fork::Answer::RemoveFirst { owed } = &answer {
            let owed_leaf_indices = indices(owed);
            return Ok(Outcome::RemoveFirst(pb::RemoveFirst { owed: Vec::new(), owed_leaf_indices }));
        }
        match answer.into() {
            Decided::Accepted(accepted) => Ok(Outcome::Accepted(accepted)),
            Decided::OnSide(side) => Ok(Outcome::OnSide(side)),
            Decided::Reconciling(_) => Err(not_now(Reason::Reconciling)),
            Decided::Refused(reason) => Err(refused(reason)),
            other => panic!("{other:?}"),
        }
    }

    /// One gateway of a component accepts; the one that was asked keeps a copy.
    fn accept(
        &mut self,
        site: usize,
        id: &GroupId,
        group: &mut Group,
        entry: BranchEntry,
        epoch: u64,
    ) -> Answer<Outcome> {
        let Some(sequencer) = self.sequencer(group, site) else {
            return Err(not_now(Reason::NoQuorum));
        };
        let (entry_id, parent) = (entry.id(), entry.parent);
        let at = &group.sites[sequencer];
        if let Err(refusal) = at.tree.admit(&at.view, at.promised, &entry).unwrap() {
            return refuse_branch(group, sequencer, &refusal);
        }
        let is_commit = entry.is_commit();
        let content = entry.content.clone();
        for holder in [sequencer, site] {
            group.sites[holder].insert(entry.clone());
        }
        if is_commit && self.welcomes_on_branches {
            self.welcome(id, &content, (0, ChainHash::START), entry_id.as_state(), epoch + 1);
        }
        let state = if is_commit { entry_id.as_state() } else { parent };
        Ok(Outcome::AcceptedProvisional(AcceptedProvisional {
            entry_id: entry_id.to_bytes(),
            epoch: epoch + u64::from(is_commit),
            state_id: state.to_bytes(),
            fork_state_id: Bytes::new(),
            copies: 2,
        }))
    }

    pub(super) fn welcome(
        &mut self,
        id: &GroupId,
        content: &Content,
        (seq, chain): (u64, ChainHash),
        state: StateId,
        epoch: u64,
    ) {
        let Content::Commit(commit) = content else { return };
        for recipient in &commit.recipients {
            self.positions += 1;
            let place = pb::ShardPosition { shard: 1, position: self.positions };
            self.inboxes.entry(recipient.client_id.clone()).or_default().push(pb::PendingWelcome {
                cursor: Some(pb::InboxCursor { positions: vec![place] }),
                group_id: id.to_bytes(),
                seq,
                chain_hash: if seq > 0 { chain.to_bytes() } else { Bytes::new() },
                state_id: state.to_bytes(),
                epoch,
                kind: pb::GroupKind::Demls.into(),
                welcome: commit.welcome.clone(),
                key_package_refs: vec![recipient.key_package_ref.to_bytes()],
            });
        }
    }

    pub(super) fn read(&mut self, site: usize, request: &ReadEntriesRequest) -> Answer<ReadEntriesResponse> {
        self.up(site)?;
        let id = GroupId::new(request.group_id.clone()).unwrap();
        let quorum = self.reaches_quorum(site);
        if request.linearizable && !quorum {
            return Err(not_now(Reason::NoQuorum));
        }
        self.with(&id, |world, group| {
            if request.linearizable {
                world.follow(&id, group, site);
            }
            let at = &group.sites[site];
            let head = *at.view.current().ok_or_else(|| refusal(Reason::GroupNotFound))?;
            let cursor: Cursor =
                request.cursor.clone().map_or(Cursor::START, |cursor| cursor.try_into().unwrap());
            let first = match check_cursor(&at.view, &head, &cursor).unwrap() {
                Ok(first) => first,
                Err(error) => return Err(refused((&error).into())),
            };
            let most = request.max_entries.max(1) as usize;
            let entries = (first..=head.seq)
                .take(most)
                .map(|seq| group.entry(site, seq, world.claimed.as_ref()))
                .collect();
            Ok(ReadEntriesResponse { entries, head: Some((&head).into()) })
        })
    }

    pub(super) fn group_info(&mut self, site: usize, id: &[u8]) -> Answer<GetGroupInfoResponse> {
        self.up(site)?;
        let group = self.group(id)?;
        let at = &group.sites[site];
        let newest = at.view.items(1).filter_map(|(_, _, item)| match item {
            Item::Content(Content::Create(create)) => Some(create.group_info.clone()),
            Item::Content(Content::Commit(commit)) => Some(commit.group_info.clone()),
            _ => None,
        });
        Ok(GetGroupInfoResponse {
            group_info: newest.last().unwrap(),
            head: at.view.current().map(Into::into),
        })
    }

    pub(super) fn read_branch(
        &mut self,
        site: usize,
        request: &gw::ReadBranchEntriesRequest,
    ) -> Answer<gw::ReadBranchEntriesResponse> {
        self.up(site)?;
        let group = self.group(&request.group_id)?;
        let at = &group.sites[site];
        let ids = request.entry_ids.iter().map(|id| EntryId::from_slice(id).unwrap());
        let entries = ids
            .filter_map(|id| at.tree.get(&id).or_else(|| at.view.reported(&id)))
            .map(|entry| event(group, entry))
            .collect();
        Ok(gw::ReadBranchEntriesResponse { entries })
    }

    pub(super) fn offer(
        &mut self,
        site: usize,
        request: &gw::OfferBranchEntriesRequest,
    ) -> Answer<gw::OfferBranchEntriesResponse> {
        self.up(site)?;
        let at = &self.group(&request.group_id)?.sites[site];
        let lacks = |id: &&Bytes| {
            let id = EntryId::from_slice(id).unwrap();
            at.tree.get(&id).is_none() && at.view.verdict(&id).is_none()
        };
        Ok(gw::OfferBranchEntriesResponse {
            missing: request.entry_ids.iter().filter(lacks).cloned().collect(),
        })
    }

    pub(super) fn upload_branch(
        &mut self,
        site: usize,
        request: gw::UploadBranchEntriesRequest,
    ) -> Answer<gw::UploadBranchEntriesResponse> {
        self.up(site)?;
        let id = GroupId::new(request.group_id.clone()).unwrap();
        self.with(&id, |_, group| {
            let mut new_entries = 0;
            for entry in request.entries {
                let entry = BranchEntry::try_from(entry).unwrap();
                let state = entry.id().as_state();
                let facts = group
                    .facts
                    .derive(&entry.parent, state, &entry.content)
                    .ok_or_else(|| refusal(Reason::BranchGap))?;
                let at = &mut group.sites[site];
                match at.tree.insert(&at.view, BranchEntry { facts, ..entry }).unwrap() {
                    Ok(new) => new_entries += u32::from(new),
                    Err(BranchRefusal::UnknownParent { .. }) => return Err(refusal(Reason::BranchGap)),
                    Err(other) => panic!("{other}"),
                }
            }
            Ok(gw::UploadBranchEntriesResponse { new_entries })
        })
    }

    /// What a subscriber has not been told yet.
    pub(super) fn news(&self, site: usize, id: &[u8], seq: u64, known: &[EntryId]) -> Answer<Vec<Event>> {
        self.up(site)?;
        let group = self.group(id)?;
        let at = &group.sites[site];
        let log = (seq + 1..=at.seq()).map(|seq| Event::Entry(group.entry(site, seq, self.claimed.as_ref())));
        let branches = group.branch_entries(site);
        let branches = branches.iter().filter(|(id, _)| !known.contains(id));
        let branches = branches.map(|(_, entry)| Event::BranchEntry(event(group, entry)));
        Ok(log.chain(branches).collect())
    }

    pub(super) fn mode(&self, site: usize, id: &[u8]) -> gw::Mode {
        match self.group(id).map(|group| group.sites[site].mode()) {
            Ok(Mode::Ordered) => gw::Mode::Ordered,
            Ok(Mode::Suspect) | Err(_) => gw::Mode::Suspect,
            Ok(Mode::Forked) => gw::Mode::Forked,
            Ok(Mode::Reconciling) => gw::Mode::Reconciling,
        }
    }

    pub(super) fn claim(&mut self, client: &[u8], claim_id: Bytes) -> Answer<ClaimKeyPackageResponse> {
        let client = ClientId::new(client.to_vec()).unwrap();
        let stored = self.key_packages.entry(client.clone()).or_default();
        let claimed = match self.claims.get(&(client.clone(), claim_id.clone())) {
            Some(claimed) => claimed.clone(),
            None => match stored.iter().position(|kp| !kp.last_resort) {
                Some(one_time) => stored.remove(one_time),
                None => stored.first().cloned().ok_or_else(|| refusal(Reason::KeyPackagesExhausted))?,
            },
        };
        let one_time_left = stored.iter().filter(|kp| !kp.last_resort).count() as u32;
        self.claims.insert((client, claim_id), claimed.clone());
        Ok(ClaimKeyPackageResponse { key_package: Some(claimed), one_time_left })
    }
}

fn event(group: &Group, entry: &BranchEntry) -> BranchEvent {
    BranchEvent {
        entry_id: entry.id().to_bytes(),
        entry: Some(entry.clone().into()),
        fork_state_id: Bytes::new(),
        epoch: group.facts.epoch(&entry.parent).unwrap_or(0),
    }
}

fn refuse_branch(group: &Group, site: usize, refusal: &BranchRefusal) -> Answer<Outcome> {
    match refusal.into() {
        sequence_response::Outcome::RemoveFirst(_) => {
            let view = &group.sites[site].view;
            let head = view.current().unwrap().state_id;
            let owed_leaf_indices = group.facts.indices(&head, &view.state().owed);
            Ok(Outcome::RemoveFirst(pb::RemoveFirst { owed: Vec::new(), owed_leaf_indices }))
        }
        sequence_response::Outcome::Refused(reason) => Err(refused(reason)),
        other => panic!("{other:?}"),
    }
}

impl Group {
    /// An entry as a gateway shows it: marks name leaves as clients know them.
    fn entry(&self, site: usize, seq: u64, claimed: Option<&ClientId>) -> pb::Entry {
        let view = &self.sites[site].view;
        let state = view.items(seq).next().unwrap().1.state_id;
        let entry = view.log_entry(seq, CommitFacts::default()).unwrap();
        let owed = match &entry.item {
            Item::Mark(Mark::Side { .. }) if claimed.is_some() => claimed
                .and_then(|client| self.facts.index_of(&state, client.as_bytes()))
                .into_iter()
                .collect(),
            Item::Mark(Mark::Side { owed, .. }) => self.facts.indices(&state, owed),
            _ => Vec::new(),
        };
        let mut wire = pb::Entry::from(entry);
        if let Some(pb::Content { content: Some(pb::content::Content::Side(side)) }) = &mut wire.content {
            side.owed_leaf_indices = owed;
        }
        wire
    }
}

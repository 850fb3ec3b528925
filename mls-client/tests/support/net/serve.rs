//! What a gateway answers its clients.

use bytes::Bytes;
use concordat_proto::{
    gateway::v1::{AcceptedProvisional, CreateGroupRequest, SubmitRequest, submit_response::Outcome},
    log::v1::{self as pb, Reason},
    ordering::v1::outcome::Outcome as Decided,
    relay::v1::sequence_response,
};
use group_log::{
    ChainHash, ClientId, Commit, Content, Create, GroupId, StateId, Submission, WelcomeRecipient,
    fork::{BranchEntry, BranchRefusal, Command, CommitFacts, Mode},
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

pub(super) fn refused(refused: pb::Refused) -> CallError {
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
    pub(super) fn with<T>(
        &mut self,
        id: &GroupId,
        work: impl FnOnce(&mut World, &mut Group) -> Answer<T>,
    ) -> Answer<T> {
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

//! What an item of another does, once it is its turn: a first key, a commit, a message.

use std::collections::BTreeSet;

use openmls::{
    group::{ProcessMessageError, StageCommitError},
    prelude::tls_codec::{Deserialize, Serialize},
    prelude::{ContentType, MlsMessageBodyIn, MlsMessageIn, ProcessedMessageContent, Sender, StagedCommit},
    schedule::{PreSharedKeyId, Psk},
};

use super::{Event, Item, Member, Node, Records, Session, join::Invitation, record::HexBytes};
use crate::dimls::{
    aad::{CommitData, PublicHeader},
    error::{DimlsError, Rejected},
    graph::Verdict,
    group::protocol_message,
    psk,
};

/// What became of the item that was due.
pub(super) enum Outcome {
    Done(Vec<Event>),
    Waits(Node),
    /// It is the owner's, and this client can never process it.
    Never(Node),
}

/// Why an item was not taken in, and whose problem that is.
pub(super) enum Fail {
    Rejected(Rejected),
    Fatal(DimlsError),
}

impl From<Rejected> for Fail {
    fn from(rejected: Rejected) -> Self {
        Fail::Rejected(rejected)
    }
}

impl From<DimlsError> for Fail {
    fn from(error: DimlsError) -> Self {
        Fail::Fatal(error)
    }
}

impl<R: Records> Session<R> {
    /// Does what an item says, if it is the owner's and everything about it is right.
    pub(super) fn apply(&mut self, from: Member, item: &Item) -> Result<Outcome, Fail> {
        let message = MlsMessageIn::tls_deserialize_exact(&item.message)
            .map_err(|e| Rejected::Malformed(format!("the message: {e}")))?;
        let epoch;
        let kind = match message.extract() {
            MlsMessageBodyIn::KeyPackage(_) => return self.announced(from, &item.message),
            MlsMessageBodyIn::PublicMessage(public) => {
                let message = openmls::prelude::ProtocolMessage::from(public);
                self.check_group(from, message.group_id().as_slice())?;
                epoch = message.epoch().as_u64();
                message.content_type()
            }
            MlsMessageBodyIn::PrivateMessage(private) => {
                let message = openmls::prelude::ProtocolMessage::from(private);
                self.check_group(from, message.group_id().as_slice())?;
                epoch = message.epoch().as_u64();
                message.content_type()
            }
            _ => {
                return Err(
                    Rejected::Malformed("expected a KeyPackage or a message of a group".into()).into()
                );
            }
        };
        match kind {
            ContentType::Commit => self.committed(from, item),
            ContentType::Application => self.said(from, item, epoch),
            ContentType::Proposal => {
                Err(Rejected::Malformed("owners do not propose, they commit".into()).into())
            }
        }
    }

    fn check_group(&self, from: Member, group_id: &[u8]) -> Result<(), Rejected> {
        if group_id == self.send_group(from).as_bytes() { Ok(()) } else { Err(Rejected::ForeignGroup) }
    }

    /// The first item of a member: the key that it has from now on.
    fn announced(&mut self, from: Member, message: &[u8]) -> Result<Outcome, Fail> {
        let number = usize::from(from);
        if !self.peers[number].signature_key.0.is_empty() {
            return Err(Rejected::Replayed("a second first KeyPackage".into()).into());
        }
        let package = self.valid_package(from, message)?;
        let key = package.leaf_node().signature_key().as_slice().to_vec();
        self.peers[number].signature_key = HexBytes(key);
        self.peers[number].package = Some((0, HexBytes(message.to_vec())));
        Ok(Outcome::Done(Vec::new()))
    }

    /// COMMIT and UPDATE of another.
    fn committed(&mut self, from: Member, item: &Item) -> Result<Outcome, Fail> {
        let malformed = |e: crate::demls::DecodeError| Rejected::Malformed(e.to_string());
        let header = PublicHeader::read(&item.message).map_err(malformed)?;
        if !header.is_commit || header.leaf != Some(0) {
            return Err(Rejected::NotOwner(format!("leaf {:?}", header.leaf)).into());
        }
        let data = CommitData::decode(header.authenticated_data).map_err(malformed)?;
        let number = usize::from(from);
        let me = self.me;
        let mine = data.adds.iter().find(|(member, _)| *member == me).map(|(_, generation)| *generation);
        let outdated = mine.is_some_and(|generation| !self.record.held.contains_key(&generation));
        if outdated && self.groups[number].is_some() {
            // A leaf made of keys that are deleted already is no use: the owner has to take a newer KeyPackage.
            let now = Node { owner: from, epoch: header.epoch + 1 };
            return self.is_it_the_owners(from, item, now);
        }
        if (mine.is_none() || outdated) && self.groups[number].is_none() {
            // Not in that Send Group now. What may be needed to come into it again is the KeyPackage, which speaks for itself.
            self.new_package(from, &data)?;
            self.note(from, &data);
            return Ok(Outcome::Done(Vec::new()));
        }
        match self.graph.judge(from, &data.takes) {
            Verdict::Ready => {}
            Verdict::Waits(need) => return Ok(Outcome::Waits(need)),
            Verdict::Refused(node) => {
                let what = format!("the PSK of epoch {} of member {}", node.epoch, node.owner);
                return Err(Rejected::Replayed(what).into());
            }
            Verdict::Never(need) => return self.is_it_the_owners(from, item, need),
        }
        let events = match mine {
            Some(generation) => {
                let invitation = Invitation {
                    welcome: &item.welcome,
                    epoch: header.epoch,
                    generation,
                    takes: &data.takes,
                    update: data.key_package.is_some(),
                };
                self.join(from, &invitation)?
            }
            None => self.follow(from, item, &data)?,
        };
        self.new_package(from, &data)?;
        self.note(from, &data);
        Ok(Outcome::Done(events))
    }

    fn new_package(&mut self, from: Member, data: &CommitData) -> Result<(), Fail> {
        let Some((generation, message)) = &data.key_package else { return Ok(()) };
        let known = self.peers[usize::from(from)].package.as_ref().map(|(known, _)| *known);
        if known.is_none_or(|known| *generation > known) {
            let package = self.valid_package(from, message)?;
            // Where the beginning of a stream is gone, the first KeyPackage that is there counts.
            let key = package.leaf_node().signature_key().as_slice().to_vec();
            self.peers[usize::from(from)].signature_key = HexBytes(key);
            self.peers[usize::from(from)].package = Some((*generation, HexBytes(message.clone())));
            self.touched.insert(from);
        }
        Ok(())
    }

    /// A commit needs what this client can never have (a PSK, or deleted keys of its own). If all else about it is right, then the
    /// owner made it, and this client is lost.
    fn is_it_the_owners(&mut self, from: Member, item: &Item, need: Node) -> Result<Outcome, Fail> {
        let Some(group) = &mut self.groups[usize::from(from)] else { return Ok(Outcome::Never(need)) };
        let values = group.space.snapshot();
        let processed = group.mls.process_message(&group.space.provider, protocol_message(&item.message)?);
        group.restore(values)?;
        match processed {
            Err(ProcessMessageError::InvalidCommit(StageCommitError::PskError(_))) => {
                Ok(Outcome::Never(need))
            }
            Err(error) => Err(Rejected::Mls(error.to_string()).into()),
            Ok(processed) => match processed.into_content() {
                ProcessedMessageContent::StagedCommitMessage(staged) if staged.self_removed() => {
                    Ok(Outcome::Never(need))
                }
                _ => Err(Rejected::Lies("it takes other PSKs than it says").into()),
            },
        }
    }

    /// Processes a commit that leaves this client's leaf alone.
    fn follow(&mut self, from: Member, item: &Item, data: &CommitData) -> Result<Vec<Event>, Fail> {
        let ids: Vec<_> =
            data.takes.iter().map(|node| psk::psk_id(node.epoch, &self.send_group(node.owner))).collect();
        let number = usize::from(from);
        let group = self.groups[number].as_mut().ok_or(Rejected::NotJoined)?;
        let values = group.space.snapshot();
        let provider = &group.space.provider;
        let lent = psk::lend(
            provider,
            ids.iter().cloned().zip(data.takes.iter().filter_map(|node| self.psks.get(node))),
        )?;
        let staged = match group.mls.process_message(provider, protocol_message(&item.message)?) {
            Ok(processed) => match (processed.sender().clone(), processed.into_content()) {
                (Sender::Member(leaf), ProcessedMessageContent::StagedCommitMessage(staged))
                    if leaf.u32() == 0 =>
                {
                    check(&staged, &ids, data).map(|()| staged)
                }
                (sender, _) => Err(Rejected::NotOwner(format!("{sender:?}"))),
            },
            Err(error) => Err(Rejected::Mls(error.to_string())),
        };
        let staged = match staged {
            Ok(staged) => staged,
            Err(rejected) => {
                group.restore(values)?;
                return Err(rejected.into());
            }
        };
        group
            .mls
            .merge_staged_commit(&group.space.provider, *staged)
            .map_err(|e| DimlsError::mls("merging a commit", e))?;
        lent.take_back(&group.space.provider)?;
        if !group.mls.is_active() {
            let mut events = Vec::new();
            self.removed(self.me, from, &mut events);
            self.lose(from, &mut events);
            return Ok(events);
        }
        self.moved_on(from, data.key_package.is_some(), &data.takes)
    }

    /// A Send Group of another is in another epoch. Tells who has come and gone.
    pub(super) fn moved_on(&mut self, from: Member, update: bool, took: &[Node]) -> Result<Vec<Event>, Fail> {
        let before = self.graph.members(from);
        self.entered(from, update, took)??;
        let after: BTreeSet<Member> = self.graph.members(from);
        let epoch = self.graph.entered(from).unwrap_or_default();
        let mut events = vec![Event::Entered { owner: self.client(from).clone(), epoch, update }];
        for member in before.difference(&after) {
            self.removed(*member, from, &mut events);
        }
        self.drop_dead_groups(&mut events);
        Ok(events)
    }

    fn removed(&mut self, member: Member, by: Member, events: &mut Vec<Event>) {
        if self.record.removals.saw(member, by) {
            events.push(Event::Removed { member: self.client(member).clone(), by: self.client(by).clone() });
        }
    }

    /// The Send Group of a removed member is followed until all others have removed it, too: until then their commits may take PSKs
    /// from it.
    pub(super) fn drop_dead_groups(&mut self, events: &mut Vec<Event>) {
        let remaining = self.record.removals.remaining(self.peers.len());
        for member in 0..self.peers.len() as Member {
            let still_in = |owner: &Member| self.graph.members(*owner).contains(&member);
            let dead = member != self.me && !remaining.contains(&member) && !remaining.iter().any(still_in);
            if dead && self.groups[usize::from(member)].is_some() {
                self.lose(member, events);
            }
        }
    }

    /// UNPROTECT.
    fn said(&mut self, from: Member, item: &Item, epoch: u64) -> Result<Outcome, Fail> {
        let number = usize::from(from);
        let Some(group) = self.groups[number].as_mut() else { return Ok(Outcome::Done(Vec::new())) };
        let values = group.space.snapshot();
        let message = protocol_message(&item.message)?;
        let body = match group.mls.process_message(&group.space.provider, message) {
            Ok(processed) => match (processed.sender().clone(), processed.into_content()) {
                (Sender::Member(leaf), ProcessedMessageContent::ApplicationMessage(message))
                    if leaf.u32() == 0 =>
                {
                    Ok(message.into_bytes())
                }
                (sender, _) => Err(Rejected::NotOwner(format!("{sender:?}"))),
            },
            Err(error) => Err(Rejected::Mls(error.to_string())),
        };
        match body {
            // A removed member has nothing to say any more, wherever its messages come from.
            Ok(_) if self.record.removals.by(from).is_some() => Ok(Outcome::Done(Vec::new())),
            Ok(body) => Ok(Outcome::Done(vec![self.message(from, item.seq, epoch, body)?])),
            Err(rejected) => {
                // A forged message must not use up the key of the real one.
                group.restore(values)?;
                Err(rejected.into())
            }
        }
    }
}

/// Whether a commit does exactly what it said that it would.
fn check(staged: &StagedCommit, ids: &[Vec<u8>], data: &CommitData) -> Result<(), Rejected> {
    let mut taken = Vec::new();
    for proposal in staged.psk_proposals() {
        // OpenMLS has no other way to the id: a PreSharedKey proposal is a PreSharedKeyID (RFC 9420 section 12.1.4).
        let bytes = proposal.psk_proposal().tls_serialize_detached();
        let id = bytes.and_then(|bytes| PreSharedKeyId::tls_deserialize_exact(&bytes));
        match id.as_ref().map(PreSharedKeyId::psk) {
            Ok(Psk::External(external)) => taken.push(external.psk_id().to_vec()),
            _ => return Err(Rejected::Lies("it takes a PSK of another kind")),
        }
    }
    taken.sort();
    let mut said = ids.to_vec();
    said.sort();
    if taken != said {
        return Err(Rejected::Lies("it takes other PSKs than it says"));
    }
    if staged.add_proposals().count() != data.adds.len() {
        return Err(Rejected::Lies("it adds others than it says"));
    }
    if staged.update_proposals().next().is_some() {
        return Err(Rejected::Lies("it updates somebody else's leaf"));
    }
    if staged.update_path_leaf_node().is_none() && data.key_package.is_some() {
        return Err(Rejected::Lies("an UPDATE without a path"));
    }
    Ok(())
}

//! The public state of one group, as far as public handshakes show it: OpenMLS' `PublicGroup` and what has to be remembered with it.
//!
//! What it can and cannot see. It has no secrets, so it checks signatures, proposals, the tree, the length of the path and the
//! transcript, but neither the membership tag nor the confirmation tag nor the encrypted path secrets. A commit that is wrong
//! only there is accepted, and its confirmation tag then goes into the transcript hash that the next commit is signed over. If the
//! tag was tampered with on the way, this state is poisoned: honest later commits fail against it. Whoever holds such a state must
//! therefore rebuild it from the newest GroupInfo before it refuses anything (`validate.rs` does).

use std::collections::BTreeSet;

use concordat_proto::log::v1::Reason;
use openmls::{
    group::{QueuedProposal, StagedCommit},
    prelude::{
        LeafNodeIndex, OpenMlsCrypto, OpenMlsSignaturePublicKey, ProcessedMessageContent, Proposal,
        ProposalStore, PublicGroup, PublicMessageIn, Sender, SignaturePublicKey, Verifiable,
        tls_codec::{Deserialize, Serialize, Size, VLBytes},
    },
};

use super::{
    no_storage::NoStorage,
    parse::{GroupInfoIn, MessageKind, ParseError, Problem},
};

/// What a state counts for in the cache beside its leaves, in bytes.
const STATE_BYTES: usize = 8 * 1024;
/// What a leaf counts for, in bytes: the leaf itself and its share of the parents, as OpenMLS keeps them.
const LEAF_BYTES: usize = 2 * 1024;

/// No member could process this handshake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no member could process this {}: {detail}; catch up with the group's log and make it again", kind.name())]
pub struct CommitInvalid {
    /// A commit or a proposal.
    pub kind: MessageKind,
    /// Which check failed.
    pub detail: String,
}

impl CommitInvalid {
    fn new(kind: MessageKind, detail: impl ToString) -> Self {
        Self { kind, detail: detail.to_string() }
    }

    /// The machine-readable reason.
    pub fn reason(&self) -> Reason {
        match self.kind {
            MessageKind::Commit => Reason::InvalidCommit,
            MessageKind::Proposal | MessageKind::Application => Reason::Malformed,
        }
    }
}

/// The public state of a group in one epoch.
pub struct PublicState {
    group: PublicGroup,
    leaves: usize,
    /// A PrivateMessage proposal was accepted in this epoch: a commit may refer to what nobody here can read.
    pub hidden_proposals: bool,
    /// Every accepted proposal of this epoch up to the known position is in.
    pub has_all_proposals: bool,
}

/// What a commit does to the membership, in leaf indices of the state it was made in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// The leaf that made it; absent for an external commit.
    pub author: Option<u32>,
    /// Leaves that it removes.
    pub removes: BTreeSet<u32>,
    /// How many it adds, an external joiner included.
    pub adds: usize,
}

/// A commit that was validated and not accepted yet. Several can be staged on one state side by side.
pub struct Staged {
    commit: Box<StagedCommit>,
    committer: LeafNodeIndex,
    is_external: bool,
    committer_key: Option<SignaturePublicKey>,
    confirmation_tag: Vec<u8>,
}

/// What became of checking a handshake against a state.
pub enum Checked {
    /// The commit can be processed.
    Commit(Staged),
    /// The proposal can be processed.
    Proposal(Box<QueuedProposal>),
}

impl PublicState {
    /// Builds the state that a GroupInfo describes: nothing if it carries no ratchet tree or a cipher suite that is not known here,
    /// an error if tree or signature are wrong (RFC 9420 section 12.4.3.1).
    pub fn build(crypto: &impl OpenMlsCrypto, info: GroupInfoIn) -> Result<Option<Self>, ParseError> {
        let Some(tree) = info.ratchet_tree else { return Ok(None) };
        if crypto.supports(info.info.ciphersuite()).is_err() {
            return Ok(None);
        }
        let (group, _) =
            PublicGroup::from_external(crypto, &NoStorage, tree, info.info, ProposalStore::new()).map_err(
                |error| ParseError::new("group_info", Problem::Invalid { detail: error.to_string() }),
            )?;
        let leaves = group.members().count();
        Ok(Some(Self { group, leaves, hidden_proposals: false, has_all_proposals: false }))
    }

    /// The epoch that it describes.
    pub fn epoch(&self) -> u64 {
        self.group.group_context().epoch().as_u64()
    }

    /// The leaves that are not empty.
    pub fn occupied(&self) -> impl Iterator<Item = u32> + '_ {
        self.group.members().map(|member| member.index.u32())
    }

    /// The identities in the leaves (RFC 9420 section 5.3). Those of credentials that are not basic are shown as they are encoded.
    pub fn identities(&self) -> impl Iterator<Item = Vec<u8>> + '_ {
        self.group.members().map(|member| member.credential.serialized_content().to_vec())
    }

    /// The identity in the leaf that made a handshake which was checked here; nothing if no leaf did.
    pub fn author(&self, message: &PublicMessageIn, checked: &Checked) -> Option<Vec<u8>> {
        let credential = match (message.sender(), checked) {
            (Sender::Member(index), _) => self.group.leaf(*index)?.credential(),
            (Sender::NewMemberCommit, Checked::Commit(staged)) => {
                staged.commit.update_path_leaf_node()?.credential()
            }
            _ => return None,
        };
        Some(credential.serialized_content().to_vec())
    }

    /// What it counts for in the cache, in bytes.
    pub fn estimated_bytes(&self) -> usize {
        STATE_BYTES + self.leaves * LEAF_BYTES
    }

    /// Checks a handshake that was made in exactly this state.
    pub fn check(
        &self,
        crypto: &impl OpenMlsCrypto,
        kind: MessageKind,
        message: PublicMessageIn,
    ) -> Result<Checked, CommitInvalid> {
        let invalid = |detail: &dyn ToString| CommitInvalid::new(kind, detail.to_string());
        let tag = message.confirmation_tag().map(|tag| tag.tls_serialize_detached());
        let confirmation_tag = tag.transpose().map_err(|e| invalid(&e))?.unwrap_or_default();
        let sender = message.sender().clone();
        let processed = self.group.process_message(crypto, message).map_err(|e| invalid(&e))?;
        match processed.into_content() {
            ProcessedMessageContent::StagedCommitMessage(commit) => {
                let is_external = !matches!(sender, Sender::Member(_));
                let committer = match sender {
                    Sender::Member(index) => index,
                    _ => self.group.ext_commit_sender_index(&commit).map_err(|e| invalid(&e))?,
                };
                let from_path = commit.update_path_leaf_node().map(|leaf| leaf.signature_key().clone());
                let committer_key =
                    from_path.or_else(|| self.group.leaf(committer).map(|l| l.signature_key().clone()));
                Ok(Checked::Commit(Staged {
                    commit,
                    committer,
                    is_external,
                    committer_key,
                    confirmation_tag,
                }))
            }
            ProcessedMessageContent::ProposalMessage(proposal)
            | ProcessedMessageContent::ExternalJoinProposalMessage(proposal) => {
                Ok(Checked::Proposal(proposal))
            }
            _ => Err(invalid(&"it is neither a commit nor a proposal")),
        }
    }

    /// Takes in an accepted proposal.
    pub fn add_proposal(&mut self, proposal: QueuedProposal) {
        let Ok(()) = self.group.add_proposal(&NoStorage, proposal);
    }

    /// Goes on to the state after an accepted commit, which must have been staged on this very state.
    pub fn merge(&mut self, staged: Staged) -> Result<(), CommitInvalid> {
        let added = staged.commit.add_proposals().count();
        let removed = staged.commit.remove_proposals().count();
        self.group
            .merge_commit(&NoStorage, *staged.commit)
            .map_err(|error| CommitInvalid::new(MessageKind::Commit, error))?;
        // One more for the joiner of an external commit; the number only steers the cache.
        self.leaves = (self.leaves + added + 1).saturating_sub(removed);
        self.hidden_proposals = false;
        self.has_all_proposals = true;
        Ok(())
    }
}

impl Staged {
    /// What it does to the membership.
    pub fn membership(&self) -> Membership {
        let removed = self.commit.remove_proposals().map(|remove| remove.remove_proposal().removed().u32());
        let left =
            self.commit.queued_proposals().filter_map(|queued| match (queued.proposal(), queued.sender()) {
                (Proposal::SelfRemove, Sender::Member(index)) => Some(index.u32()),
                _ => None,
            });
        Membership {
            author: (!self.is_external).then(|| self.committer.u32()),
            removes: removed.chain(left).collect(),
            adds: self.commit.add_proposals().count() + usize::from(self.is_external),
        }
    }

    /// It adds or removes members, or brings in the one who made it, and does nothing else. The new keys of the committer's path
    /// (RFC 9420 section 12.4) do not count.
    pub fn changes_members_only(&self) -> bool {
        let mut proposals = self.commit.queued_proposals().peekable();
        let any = proposals.peek().is_some() || self.is_external;
        any && proposals.all(|queued| {
            matches!(
                queued.proposal(),
                Proposal::Add(_) | Proposal::Remove(_) | Proposal::SelfRemove | Proposal::ExternalInit(_)
            )
        })
    }

    /// Checks that a GroupInfo describes exactly the state after this commit and was signed by the committer, so that nobody joins
    /// or rebuilds from anything else.
    pub fn check_group_info(
        &self,
        crypto: &impl OpenMlsCrypto,
        info: &GroupInfoIn,
    ) -> Result<(), ParseError> {
        const WHAT: &str = "group_info";
        let invalid = |detail: String| ParseError::new(WHAT, Problem::Invalid { detail });
        let context = self.commit.group_context();
        if info.info.group_context() != context {
            return Err(ParseError::mismatch(
                WHAT,
                "GroupContext",
                "the one after the commit",
                "another one",
            ));
        }
        let signed = info.info.unsigned_payload().map_err(|e| invalid(e.to_string()))?;
        // GroupInfoTBS: GroupContext, extensions<V>, confirmation_tag<V>, uint32 signer (RFC 9420 section 12.4.3).
        let mut rest = signed.get(context.tls_serialized_len()..).unwrap_or_default();
        let tail = (|| {
            VLBytes::tls_deserialize(&mut rest)?;
            let tag = VLBytes::tls_deserialize(&mut rest)?.tls_serialize_detached()?;
            Ok((tag, u32::tls_deserialize(&mut rest)?))
        })();
        let (tag, signer) = tail.map_err(|e: openmls::prelude::tls_codec::Error| invalid(e.to_string()))?;
        if tag != self.confirmation_tag {
            return Err(ParseError::mismatch(WHAT, "confirmation tag", "the commit's", "another one"));
        }
        if signer != self.committer.u32() {
            return Err(ParseError::mismatch(WHAT, "signer", self.committer.u32(), signer));
        }
        let key = self.committer_key.clone().ok_or_else(|| invalid("the committer has no leaf".into()))?;
        let key =
            OpenMlsSignaturePublicKey::from_signature_key(key, context.ciphersuite().signature_algorithm());
        info.info
            .verify_no_out(crypto, &key)
            .map_err(|_| invalid("its signature is not the committer's".into()))
    }

    /// Checks that a Welcome is for exactly the members that this commit adds.
    pub fn check_welcome(
        &self,
        crypto: &impl OpenMlsCrypto,
        welcome_refs: &[Vec<u8>],
    ) -> Result<(), ParseError> {
        const WHAT: &str = "welcome";
        let mut added = BTreeSet::new();
        for add in self.commit.add_proposals() {
            let reference = add.add_proposal().key_package().hash_ref(crypto);
            let reference =
                reference.map_err(|e| ParseError::new(WHAT, Problem::Invalid { detail: e.to_string() }))?;
            added.insert(reference.as_slice().to_vec());
        }
        let welcomed: BTreeSet<Vec<u8>> = welcome_refs.iter().cloned().collect();
        if added == welcomed {
            return Ok(());
        }
        let both = added.intersection(&welcomed).count();
        Err(ParseError::mismatch(
            WHAT,
            "the members that the commit adds:",
            format_args!("{} KeyPackageRefs", added.len()),
            format_args!("{} KeyPackageRefs, {both} of them added", welcomed.len()),
        ))
    }
}

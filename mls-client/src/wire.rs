//! Between the wire and the words of the rules.

use bytes::Bytes;
use concordat_proto::gateway::v1 as gw;
use concordat_proto::log::v1 as pb;
use group_log::{
    Accepted, ChainHash, ClientId, Commit, Content, Create, Entry, GroupKind, KeyPackageRef, Policy, StateId,
    WelcomeRecipient, limits::DEFAULT_PAST_EPOCHS,
};

use crate::{
    error::Error,
    store::{GroupRecord, OutboxItem, Pending, PendingKind},
};

fn broken(what: impl std::fmt::Display) -> Error {
    Error::Protocol(what.to_string())
}

/// An entry as it came.
pub(crate) fn entry(wire: pb::Entry) -> Result<Entry, Error> {
    let content = wire.content.and_then(|c| c.content).ok_or_else(|| broken("an entry without content"))?;
    let author =
        if wire.author.is_empty() { None } else { Some(ClientId::new(wire.author).map_err(broken)?) };
    Ok(Entry {
        seq: wire.seq,
        chain: ChainHash::from_slice(&wire.chain_hash).map_err(broken)?,
        epoch: wire.epoch,
        state_id: StateId::from_slice(&wire.state_id).map_err(broken)?,
        author,
        content: self::content(content)?,
    })
}

fn content(wire: pb::content::Content) -> Result<Content, Error> {
    Ok(match wire {
        pb::content::Content::Create(create) => Content::Create(Create {
            kind: kind(create.kind)?,
            policy: policy(create.policy),
            group_info: create.group_info,
        }),
        pb::content::Content::Proposal(proposal) => Content::Proposal { message: proposal.message },
        pb::content::Content::Commit(commit) => Content::Commit(Commit {
            message: commit.message,
            welcome: commit.welcome,
            group_info: commit.group_info,
            recipients: commit.recipients.into_iter().map(recipient).collect::<Result<_, _>>()?,
        }),
        pb::content::Content::Application(application) => {
            Content::Application { message: application.message }
        }
        pb::content::Content::PolicyChange(change) => Content::PolicyChange { policy: policy(change.policy) },
        pb::content::Content::Close(pb::Close {}) => Content::Close,
    })
}

fn recipient(wire: pb::WelcomeRecipient) -> Result<WelcomeRecipient, Error> {
    Ok(WelcomeRecipient {
        client_id: ClientId::new(wire.client_id).map_err(broken)?,
        key_package_ref: KeyPackageRef::new(wire.key_package_ref).map_err(broken)?,
    })
}

/// The kind of a group.
pub(crate) fn kind(wire: i32) -> Result<GroupKind, Error> {
    match pb::GroupKind::try_from(wire) {
        Ok(pb::GroupKind::Mls) => Ok(GroupKind::Mls),
        Ok(pb::GroupKind::Demls) => Ok(GroupKind::Demls),
        Ok(pb::GroupKind::Dimls) => Ok(GroupKind::Dimls),
        Ok(pb::GroupKind::Unspecified) | Err(_) => Err(broken(format!("a group of the unknown kind {wire}"))),
    }
}

/// The kind of a group, for the wire.
pub(crate) fn kind_to_wire(kind: GroupKind) -> i32 {
    match kind {
        GroupKind::Mls => pb::GroupKind::Mls,
        GroupKind::Demls => pb::GroupKind::Demls,
        GroupKind::Dimls => pb::GroupKind::Dimls,
    }
    .into()
}

/// A policy; what is absent has its default.
pub(crate) fn policy(wire: Option<pb::Policy>) -> Policy {
    Policy { past_epochs: wire.and_then(|p| p.past_epochs).unwrap_or(DEFAULT_PAST_EPOCHS) }
}

/// A policy, for the wire.
pub(crate) fn policy_to_wire(policy: Policy) -> pb::Policy {
    pb::Policy { past_epochs: Some(policy.past_epochs) }
}

/// Where an accepted submission is.
pub(crate) fn accepted(wire: &pb::Accepted) -> Result<Accepted, Error> {
    Ok(Accepted {
        seq: wire.seq,
        epoch: wire.epoch,
        state_id: StateId::from_slice(&wire.state_id).map_err(broken)?,
        chain: ChainHash::from_slice(&wire.chain_hash).map_err(broken)?,
    })
}

/// The place up to which a group's log was applied.
pub(crate) fn cursor(record: &GroupRecord) -> pb::Cursor {
    let chain_hash = if record.seq == 0 { Bytes::new() } else { record.chain().to_bytes() };
    let place = pb::CanonicalCursor { seq: record.seq, chain_hash };
    pb::Cursor { chain: Some(pb::cursor::Chain::Canonical(place)) }
}

/// What an entry with this pending commit or create would carry.
pub(crate) fn pending_content(pending: &Pending, record: &GroupRecord) -> Result<Content, Error> {
    if pending.kind == PendingKind::Create {
        let (kind, policy) = (record.kind(), record.policy());
        return Ok(Content::Create(Create { kind, policy, group_info: pending.group_info.clone().into() }));
    }
    let recipients = pending.recipients.iter().map(|r| {
        Ok(WelcomeRecipient {
            client_id: ClientId::new(r.client_id.clone()).map_err(broken)?,
            key_package_ref: KeyPackageRef::new(r.key_package_ref.clone()).map_err(broken)?,
        })
    });
    Ok(Content::Commit(Commit {
        message: pending.message.clone().into(),
        welcome: pending.welcome.clone().into(),
        group_info: pending.group_info.clone().into(),
        recipients: recipients.collect::<Result<_, Error>>()?,
    }))
}

/// The submission of a pending commit: the same bytes each time.
pub(crate) fn submit_pending(pending: &Pending) -> gw::SubmitRequest {
    let recipients = pending.recipients.iter().map(|r| pb::WelcomeRecipient {
        client_id: r.client_id.clone().into(),
        key_package_ref: r.key_package_ref.clone().into(),
    });
    gw::SubmitRequest {
        message: pending.message.clone().into(),
        welcome: pending.welcome.clone().into(),
        group_info: pending.group_info.clone().into(),
        recipients: recipients.collect(),
        parent_state_id: pending.parent().to_bytes(),
    }
}

/// The submission of something in the outbox.
pub(crate) fn submit_item(item: &OutboxItem) -> gw::SubmitRequest {
    gw::SubmitRequest {
        message: item.message.clone().into(),
        parent_state_id: item.state_id().to_bytes(),
        ..Default::default()
    }
}

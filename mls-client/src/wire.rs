//! What goes to a gateway, made out of what is stored.

use concordat_proto::{convert::WireError, gateway::v1::SubmitRequest, log::v1 as pb};
use group_log::{
    ClientId, Commit, Content, Create, Cursor, Entry, GroupKind, IdLengthError, KeyPackageRef, Policy,
    WelcomeRecipient,
};

use crate::{
    error::Error,
    store::{GroupRecord, OutboxItem, Pending, PendingKind},
};

impl From<WireError> for Error {
    fn from(error: WireError) -> Self {
        Error::Protocol(error.to_string())
    }
}

impl From<IdLengthError> for Error {
    fn from(error: IdLengthError) -> Self {
        Error::Protocol(error.to_string())
    }
}

/// An entry as it came.
pub(crate) fn entry(wire: pb::Entry) -> Result<Entry, Error> {
    Ok(wire.try_into()?)
}

/// The kind of a group.
pub(crate) fn kind(wire: i32) -> Result<GroupKind, Error> {
    let known = pb::GroupKind::try_from(wire).unwrap_or(pb::GroupKind::Unspecified);
    Ok(known.try_into()?)
}

/// The policy of a group.
pub(crate) fn policy(wire: Option<pb::Policy>) -> Policy {
    wire.unwrap_or_default().into()
}

/// The place up to which a group's log was applied.
pub(crate) fn cursor(record: &GroupRecord) -> pb::Cursor {
    let chain = (record.seq > 0).then(|| record.chain());
    Cursor::Canonical { seq: record.seq, chain }.into()
}

/// What an entry with this pending commit or create would carry.
pub(crate) fn pending_content(pending: &Pending, record: &GroupRecord) -> Result<Content, IdLengthError> {
    if pending.kind == PendingKind::Create {
        let (kind, policy) = (record.kind(), record.policy());
        return Ok(Content::Create(Create { kind, policy, group_info: pending.group_info.clone().into() }));
    }
    commit_content(pending)
}

/// What an entry with this pending commit would carry.
pub(crate) fn commit_content(pending: &Pending) -> Result<Content, IdLengthError> {
    let recipients = pending.recipients.iter().map(|recipient| {
        Ok(WelcomeRecipient {
            client_id: ClientId::new(recipient.client_id.clone())?,
            key_package_ref: KeyPackageRef::new(recipient.key_package_ref.clone())?,
        })
    });
    Ok(Content::Commit(Commit {
        message: pending.message.clone().into(),
        welcome: pending.welcome.clone().into(),
        group_info: pending.group_info.clone().into(),
        recipients: recipients.collect::<Result<_, _>>()?,
    }))
}

/// The submission of a pending commit: the same bytes each time.
pub(crate) fn submit_pending(pending: &Pending) -> SubmitRequest {
    let recipients = pending.recipients.iter().map(|recipient| pb::WelcomeRecipient {
        client_id: recipient.client_id.clone().into(),
        key_package_ref: recipient.key_package_ref.clone().into(),
    });
    SubmitRequest {
        message: pending.message.clone().into(),
        welcome: pending.welcome.clone().into(),
        group_info: pending.group_info.clone().into(),
        recipients: recipients.collect(),
        parent_state_id: pending.parent().to_bytes(),
        members_only: pending.members_only,
    }
}

/// The submission of something in the outbox.
pub(crate) fn submit_item(item: &OutboxItem) -> SubmitRequest {
    SubmitRequest {
        message: item.message.clone().into(),
        parent_state_id: item.state_id().to_bytes(),
        ..Default::default()
    }
}

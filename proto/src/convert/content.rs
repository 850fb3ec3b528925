//! What submissions and entries carry.

use group_log::{Commit, Content, Create, GroupKind, KeyPackageRef, Policy, Turns, WelcomeRecipient};

use super::{WireError, client_id, length};
use crate::log::v1 as wire;

impl From<GroupKind> for wire::GroupKind {
    fn from(kind: GroupKind) -> Self {
        match kind {
            GroupKind::Mls => wire::GroupKind::Mls,
            GroupKind::Demls => wire::GroupKind::Demls,
            GroupKind::Dimls => wire::GroupKind::Dimls,
        }
    }
}

impl TryFrom<wire::GroupKind> for GroupKind {
    type Error = WireError;

    fn try_from(kind: wire::GroupKind) -> Result<Self, WireError> {
        group_kind("kind", kind.into())
    }
}

/// Reads a kind as protobuf carries it.
pub(super) fn group_kind(field: &'static str, kind: i32) -> Result<GroupKind, WireError> {
    match wire::GroupKind::try_from(kind) {
        Ok(wire::GroupKind::Mls) => Ok(GroupKind::Mls),
        Ok(wire::GroupKind::Demls) => Ok(GroupKind::Demls),
        Ok(wire::GroupKind::Dimls) => Ok(GroupKind::Dimls),
        Ok(wire::GroupKind::Unspecified) | Err(_) => {
            Err(WireError { field, expected: "a kind: MLS, DEMLS or DIMLS", got: kind.to_string() })
        }
    }
}

impl From<Policy> for wire::Policy {
    fn from(policy: Policy) -> Self {
        let Policy { past_epochs, retain_entries, retain_hours } = policy;
        wire::Policy { past_epochs: Some(past_epochs), turns: None, retain_entries, retain_hours }
    }
}

/// An absent value takes its default; turns are read apart. Bounds are checked by the rules, which refuse with the limits.
impl From<wire::Policy> for Policy {
    fn from(policy: wire::Policy) -> Self {
        let wire::Policy { past_epochs, turns: _, retain_entries, retain_hours } = policy;
        let past_epochs = past_epochs.unwrap_or(Policy::default().past_epochs);
        Policy { past_epochs, retain_entries, retain_hours }
    }
}

impl From<Turns> for wire::Turns {
    fn from(turns: Turns) -> Self {
        let order = turns.order.iter().map(group_log::ClientId::to_bytes).collect();
        wire::Turns { turn_ms: turns.turn_ms, order }
    }
}

impl TryFrom<wire::Turns> for Turns {
    type Error = WireError;

    fn try_from(turns: wire::Turns) -> Result<Self, WireError> {
        let order = turns.order.into_iter().map(|client| client_id("policy.turns.order", client));
        Ok(Turns { turn_ms: turns.turn_ms, order: order.collect::<Result<_, _>>()? })
    }
}

impl From<WelcomeRecipient> for wire::WelcomeRecipient {
    fn from(recipient: WelcomeRecipient) -> Self {
        wire::WelcomeRecipient {
            client_id: recipient.client_id.to_bytes(),
            key_package_ref: recipient.key_package_ref.to_bytes(),
        }
    }
}

impl TryFrom<wire::WelcomeRecipient> for WelcomeRecipient {
    type Error = WireError;

    fn try_from(recipient: wire::WelcomeRecipient) -> Result<Self, WireError> {
        let got = length(&recipient.key_package_ref);
        Ok(WelcomeRecipient {
            client_id: client_id("recipients.client_id", recipient.client_id)?,
            key_package_ref: KeyPackageRef::new(recipient.key_package_ref).map_err(|_| WireError {
                field: "recipients.key_package_ref",
                expected: "1 to 64 bytes",
                got,
            })?,
        })
    }
}

impl From<Content> for wire::Content {
    fn from(content: Content) -> Self {
        use wire::content::Content as Wire;
        let content = match content {
            Content::Create(Create { kind, policy, group_info }) => Wire::Create(wire::Create {
                kind: wire::GroupKind::from(kind).into(),
                policy: Some(policy.into()),
                group_info,
            }),
            Content::Proposal { message } => Wire::Proposal(wire::Proposal { message }),
            Content::Commit(Commit { message, welcome, group_info, recipients }) => {
                let recipients = recipients.into_iter().map(Into::into).collect();
                Wire::Commit(wire::Commit { message, welcome, group_info, recipients })
            }
            Content::Application { message } => Wire::Application(wire::Application { message }),
            Content::PolicyChange { policy, turns } => {
                let policy = wire::Policy { turns: turns.map(Into::into), ..policy.into() };
                Wire::PolicyChange(wire::PolicyChange { policy: Some(policy) })
            }
            Content::Close => Wire::Close(wire::Close {}),
        };
        wire::Content { content: Some(content) }
    }
}

impl TryFrom<wire::Content> for Content {
    type Error = WireError;

    fn try_from(content: wire::Content) -> Result<Self, WireError> {
        use wire::content::Content as Wire;
        let one_of = "one of create, proposal, commit, application, policy_change and close";
        Ok(match content.content.ok_or(WireError::missing("content", one_of))? {
            Wire::Create(create) if create.policy.as_ref().is_some_and(|policy| policy.turns.is_some()) => {
                let expected = "absent: set turns once the group has members";
                return Err(WireError {
                    field: "content.create.policy.turns",
                    expected,
                    got: "turns".into(),
                });
            }
            Wire::Create(create) => Content::Create(Create {
                kind: group_kind("content.create.kind", create.kind)?,
                policy: create.policy.unwrap_or_default().into(),
                group_info: create.group_info,
            }),
            Wire::Proposal(wire::Proposal { message }) => Content::Proposal { message },
            Wire::Commit(wire::Commit { message, welcome, group_info, recipients }) => {
                let recipients = recipients.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
                Content::Commit(Commit { message, welcome, group_info, recipients })
            }
            Wire::Application(wire::Application { message }) => Content::Application { message },
            Wire::PolicyChange(change) => {
                let policy = change.policy;
                let policy = policy.ok_or(WireError::missing("content.policy_change.policy", "a policy"))?;
                let turns = policy.turns.clone().map(TryInto::try_into).transpose()?;
                Content::PolicyChange { policy: policy.into(), turns }
            }
            Wire::Close(wire::Close {}) => Content::Close,
            Wire::Side(_) | Wire::Late(_) | Wire::Stable(_) => {
                return Err(WireError {
                    field: "content",
                    expected: one_of,
                    got: "a mark of the cluster".into(),
                });
            }
        })
    }
}

//! What the gateway does with entries and heads beside passing them on.

use bytes::Bytes;
use concordat_proto::log::v1::{Entry, Head, Policy, content::Content};

/// What an entry carries, if it carries anything.
pub fn content(entry: &Entry) -> Option<&Content> {
    entry.content.as_ref().and_then(|c| c.content.as_ref())
}

/// The GroupInfo that an entry carries, if it carries one.
pub fn group_info(entry: &Entry) -> Option<&Bytes> {
    match content(entry)? {
        Content::Create(create) => Some(&create.group_info),
        Content::Commit(commit) => Some(&commit.group_info).filter(|info| !info.is_empty()),
        _ => None,
    }
}

/// The head after one more entry. Heads of followed groups are kept up to date with it.
pub fn advance_head(head: &mut Head, entry: &Entry) {
    head.seq = entry.seq;
    head.chain_hash = entry.chain_hash.clone();
    match content(entry) {
        Some(Content::Create(create)) => {
            head.kind = create.kind;
            head.policy = create.policy.clone();
            head.epoch = entry.epoch;
            head.state_id = entry.state_id.clone();
        }
        Some(Content::Commit(_)) => {
            head.epoch = entry.epoch.saturating_add(1);
            head.state_id = entry.state_id.clone();
            // When a turn began is not in the log that clients see: only the nodes know.
            head.turn = None;
        }
        Some(Content::PolicyChange(change)) => {
            head.policy = change.policy.as_ref().map(|policy| Policy { turns: None, ..*policy });
            head.turn = None;
        }
        Some(Content::Close(_)) => head.closed = true,
        Some(
            Content::Proposal(_)
            | Content::Application(_)
            | Content::Side(_)
            | Content::Late(_)
            | Content::Stable(_),
        )
        | None => {}
    }
}

/// What an entry's payload counts for in a bounded memory, in bytes.
pub fn payload_bytes(entry: &Entry) -> usize {
    const RECIPIENT: usize = 64;
    match content(entry) {
        Some(Content::Create(c)) => c.group_info.len(),
        Some(Content::Proposal(p)) => p.message.len(),
        Some(Content::Commit(c)) => {
            let refs: usize =
                c.recipients.iter().map(|r| RECIPIENT + r.client_id.len() + r.key_package_ref.len()).sum();
            c.message.len() + c.welcome.len() + c.group_info.len() + refs
        }
        Some(Content::Application(a)) => a.message.len(),
        Some(Content::Side(m)) => m.ids.len() * 36,
        Some(Content::Late(m)) => m.ids.len() * 36,
        Some(Content::PolicyChange(_) | Content::Close(_) | Content::Stable(_)) | None => 0,
    }
}

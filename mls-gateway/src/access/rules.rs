//! Who may do what in a group. Pure: the membership and the act are given, and the answer follows.
//!
//! Where the gateway sees a group's ratchet tree (in public handshakes or in published GroupInfos), the members are the identities in
//! its leaves. Where it does not, they are its creator, whom accepted commits welcomed, and who joined by an external commit;
//! nobody leaves such a group in the gateway's eyes. `docs/security.md` says what that is worth.

use std::collections::BTreeSet;

use concordat_proto::log::v1::{Entry, content::Content};
use group_log::ClientId;

/// A client's relation to a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is a member now.
    Member,
    /// It was one until the entry with this number, which removed it.
    Removed {
        /// The entry.
        until: u64,
    },
    /// Nothing shows that it ever was one.
    Stranger,
}

/// Who made a handshake, as it shows itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// A leaf of the tree, or hidden in a private message.
    Member,
    /// An external commit: somebody who brings himself in.
    NewMemberCommit,
    /// Another sender who is no member: an external sender, or one that asks to be added.
    Outsider,
}

/// What somebody wants to do in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Submit a commit; `is_past` if its epoch is over.
    Commit {
        /// Who made it.
        sender: Sender,
        /// Its epoch is over, so that it can not be accepted any more.
        is_past: bool,
    },
    /// Submit a proposal.
    Propose,
    /// Submit an application message.
    Send,
    /// Close the group or change its policy.
    Govern,
    /// Read the log.
    Read,
    /// See the head or the GroupInfo.
    See,
}

/// How far somebody may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// All the way.
    Full,
    /// If the handshake validates against the group's tree: then whoever made it knew what only members are shown.
    IfValid,
    /// Nothing can come of it any more, and what became of it is told if the client may read that.
    IfShown,
    /// No answer may show an entry after this one.
    UpTo(u64),
    /// Not at all.
    None,
}

/// Whether a client of this standing may do this.
pub fn leave(act: Act, standing: Standing) -> Leave {
    match (standing, act) {
        (Standing::Member, _) => Leave::Full,
        // Whoever has a GroupInfo, which only members can see here, may come in by it (RFC 9420 section 12.4.3.2). Its leaf must be
        // the client's, and members see who came.
        (_, Act::Commit { sender: Sender::NewMemberCommit, is_past: false }) => Leave::IfValid,
        (Standing::Removed { until }, Act::Read) => Leave::UpTo(until),
        // After a lost reply: what became of the commit, which may have lost to the one that removed its author.
        (_, Act::Commit { is_past: true, .. }) => Leave::IfShown,
        (Standing::Removed { .. } | Standing::Stranger, _) => Leave::None,
    }
}

/// Takes in what an entry shows of the membership of a group whose tree is not seen. It only ever grows.
pub fn note(members: &mut BTreeSet<ClientId>, entry: &Entry, is_external: impl Fn(&bytes::Bytes) -> bool) {
    let mut add = |bytes: &bytes::Bytes| {
        // Entries come from the cluster, whose rules have checked the length.
        if let Ok(client) = ClientId::new(bytes.clone()) {
            members.insert(client);
        }
    };
    match entry.content.as_ref().and_then(|c| c.content.as_ref()) {
        Some(Content::Create(_)) => add(&entry.author),
        Some(Content::Commit(commit)) => {
            commit.recipients.iter().for_each(|recipient| add(&recipient.client_id));
            if is_external(&commit.message) {
                add(&entry.author);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use concordat_proto::log::v1::{self as log, WelcomeRecipient};

    use super::*;

    const SENDERS: [Sender; 3] = [Sender::Member, Sender::NewMemberCommit, Sender::Outsider];

    fn acts() -> Vec<Act> {
        let mut acts = vec![Act::Propose, Act::Send, Act::Govern, Act::Read, Act::See];
        for sender in SENDERS {
            acts.extend([true, false].map(|is_past| Act::Commit { sender, is_past }));
        }
        acts
    }

    #[test]
    fn members_may_do_everything() {
        assert!(acts().into_iter().all(|act| leave(act, Standing::Member) == Leave::Full));
    }

    #[test]
    fn strangers_may_do_nothing_but_bring_themselves_in() {
        for act in acts() {
            let expected = match act {
                Act::Commit { sender: Sender::NewMemberCommit, is_past: false } => Leave::IfValid,
                Act::Commit { is_past: true, .. } => Leave::IfShown,
                _ => Leave::None,
            };
            assert_eq!(leave(act, Standing::Stranger), expected, "{act:?}");
        }
    }

    #[test]
    fn who_was_removed_reads_up_to_that_and_learns_what_became_of_its_commits() {
        let standing = Standing::Removed { until: 9 };
        for act in acts() {
            let expected = match act {
                Act::Commit { sender: Sender::NewMemberCommit, is_past: false } => Leave::IfValid,
                Act::Read => Leave::UpTo(9),
                Act::Commit { is_past: true, .. } => Leave::IfShown,
                _ => Leave::None,
            };
            assert_eq!(leave(act, standing), expected, "{act:?}");
        }
    }

    fn entry(author: &'static [u8], content: Content) -> Entry {
        let content = Some(log::Content { content: Some(content) });
        Entry { author: author.into(), content, ..Entry::default() }
    }

    fn commit(message: &'static [u8], recipients: &[&'static [u8]]) -> Content {
        let recipient =
            |id: &&'static [u8]| WelcomeRecipient { client_id: (*id).into(), ..Default::default() };
        let recipients = recipients.iter().map(recipient).collect();
        Content::Commit(log::Commit { message: message.into(), recipients, ..log::Commit::default() })
    }

    #[test]
    fn without_a_tree_the_creator_the_welcomed_and_those_who_came_by_themselves_are_members() {
        let mut members = BTreeSet::new();
        for entry in [
            entry(b"creator", Content::Create(log::Create::default())),
            entry(b"creator", commit(b"private", &[b"welcomed", b"also"])),
            entry(b"joiner", commit(b"external", &[])),
            entry(b"writer", commit(b"private", &[])),
            entry(b"talker", Content::Application(log::Application::default())),
            entry(b"proposer", Content::Proposal(log::Proposal::default())),
            entry(b"", Content::Stable(log::Stable::default())),
        ] {
            note(&mut members, &entry, |message| message == &b"external"[..]);
        }
        let names: Vec<&[u8]> = members.iter().map(ClientId::as_bytes).collect();
        assert_eq!(names, [&b"also"[..], b"creator", b"joiner", b"welcomed"]);
    }
}

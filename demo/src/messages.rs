//! The proof about application messages: everybody who was entitled to one has decrypted it, and has read what was written.

use std::collections::BTreeMap;

use group_log::{Content, Entry};
use mls_client::StoredMessage;

use crate::{limits::ALL_MESSAGES, proof::Findings, roster::Timeline, world::Group};

/// What was found.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Read {
    /// Application messages in the log.
    pub(crate) messages: usize,
    /// Pairs of a message and a member entitled to it, all of which were checked.
    pub(crate) readings: usize,
}

/// Compares every application message of the log with what each member entitled to it has stored.
///
/// Entitled are the members of the group in the message's epoch, its sender among them, who were still members when the message came
/// into the log: who was removed in between has deleted its keys, as it must.
pub(crate) fn prove(group: &Group, log: &[Entry], timeline: &Timeline, findings: &mut Findings) -> Read {
    let mut stored: BTreeMap<Vec<u8>, BTreeMap<u64, StoredMessage>> = BTreeMap::new();
    for member in &group.members {
        match member.client.messages(&group.id, 0, ALL_MESSAGES) {
            Ok(messages) => {
                let by_seq = messages.into_iter().map(|message| (message.seq, message)).collect();
                stored.insert(member.id().as_bytes().to_vec(), by_seq);
            }
            // Somebody who was never in the group.
            Err(mls_client::Error::UnknownGroup) => {}
            Err(error) => findings
                .add(format!("{}: the messages of {} cannot be read: {error}", group.name, member.name)),
        }
    }
    let mut read = Read::default();
    for entry in log.iter().filter(|entry| matches!(entry.content, Content::Application { .. })) {
        read.messages += 1;
        read.readings += prove_one(group, entry, timeline, &stored, findings);
    }
    read
}

fn prove_one(
    group: &Group,
    entry: &Entry,
    timeline: &Timeline,
    stored: &BTreeMap<Vec<u8>, BTreeMap<u64, StoredMessage>>,
    findings: &mut Findings,
) -> usize {
    let at = format!("{}, message {} of epoch {}", group.name, entry.seq, entry.epoch);
    let (Some(then), Some(now)) = (timeline.members(entry.epoch), timeline.members_at(entry.seq)) else {
        findings.add(format!("{at}: nobody knows who the members were"));
        return 0;
    };
    let author = entry.author.as_ref().map(|a| a.as_bytes().to_vec()).unwrap_or_default();
    let kept = |member: &Vec<u8>| stored.get(member).and_then(|messages| messages.get(&entry.seq));
    let by_author = kept(&author);
    match by_author {
        Some(own) if own.item.is_some() && own.sender == author => {}
        Some(_) => findings.add(format!("{at}: {} does not know it as its own", name(&author))),
        // Removed before its message came into the log, it has stopped following; the readers must still agree.
        None if !now.contains(&author) => {}
        None => findings.add(format!("{at}: its sender {} does not know it", name(&author))),
    }
    let Some(written) = by_author.or_else(|| then.intersection(now).find_map(kept)) else {
        if then.intersection(now).next().is_some() {
            findings.add(format!("{at}: nobody has read it"));
        }
        return 0;
    };
    let mut readings = 0;
    for member in then.intersection(now) {
        readings += 1;
        match kept(member) {
            Some(got) if got.body == written.body && got.sender == author && got.epoch == entry.epoch => {}
            Some(_) => findings.add(format!(
                "{at}: {} has read something else than {} wrote",
                name(member),
                name(&author)
            )),
            None => findings.add(format!("{at}: {} was entitled to it and has not read it", name(member))),
        }
    }
    readings
}

fn name(id: &[u8]) -> String {
    String::from_utf8_lossy(id).into_owned()
}

//! Things as a person reads them.

use mls_client::{GroupKind, GroupView, LeftReason, Status, transport::Mode};

/// A client's name. What is not text is shown as hex.
pub(super) fn name(id: &[u8]) -> String {
    let printable = |text: &&str| !text.chars().any(char::is_control);
    std::str::from_utf8(id).ok().filter(printable).map_or_else(|| hex::encode(id), str::to_owned)
}

/// Several names.
pub(super) fn names(ids: &[Vec<u8>]) -> String {
    ids.iter().map(|id| name(id)).collect::<Vec<_>>().join(", ")
}

/// What somebody said, safe for a terminal: control characters are shown, not obeyed.
pub(super) fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body)
        .chars()
        .flat_map(|c| {
            if c.is_control() && c != '\n' && c != '\t' { c.escape_default().collect() } else { vec![c] }
        })
        .collect()
}

/// What a gateway's mode means for a group.
pub(super) fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Ordered => "the group is ordered by a quorum: what is accepted is final",
        Mode::Suspect => "the quorum is perhaps lost; what you do waits",
        Mode::Forked => "no quorum: the group goes on here by itself, and what is accepted is provisional",
        Mode::Reconciling => "the quorum is back; branches are being brought together",
        Mode::Unspecified => "the gateway is in a mode that this program does not know",
    }
}

/// A group in `status`.
pub(super) fn group(view: &GroupView) {
    println!("\n{}", hex::encode(&view.group));
    match &view.status {
        Status::Active => println!("  members   {}", names(&view.members)),
        Status::Joining => println!("  joining; not decided yet"),
        Status::Waiting => {
            println!("  the branch that you were added on has lost; whoever added you adds you again");
        }
        Status::Stuck { seq, reason } => {
            println!("  stuck at entry {seq} ({reason}); `rejoin` it");
        }
        Status::Left(LeftReason::Removed { by }) => println!("  removed by {}", name(by)),
        Status::Left(LeftReason::RemovedUnseen) => println!("  removed while away"),
        Status::Left(LeftReason::Left) => println!("  left"),
        Status::Left(LeftReason::NeverJoined) => println!("  never joined: it was refused"),
        Status::Closed => println!("  closed"),
    }
    let settled = if view.provisional { "; provisional: on a branch, not settled yet" } else { "" };
    println!("  epoch     {} (entry {}{settled})", view.epoch, view.seq);
    if view.kind == GroupKind::Demls {
        println!("  kind      demls: goes on without a quorum");
    }
    if view.retained_states > 1 {
        println!("  states    {} are kept until everybody has read up to here", view.retained_states);
    }
    if view.repairing {
        println!("  repair    something is done again, because a branch has lost");
    }
    if !view.epoch_authenticator.is_empty() {
        // Members who see the same here agree on everything (RFC 9420 section 8.7).
        println!(
            "  agreement {}",
            hex::encode(&view.epoch_authenticator[..view.epoch_authenticator.len().min(8)])
        );
    }
    if view.outbox > 0 {
        println!("  waiting   {} to be sent", view.outbox);
    }
    if view.commit_pending {
        println!("  pending   a change of yours is not decided yet");
    }
    if view.leaving {
        println!("  leaving   until another member commits it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_said_controls_the_terminal() {
        assert_eq!(text(b"a\x1b[2Jb\r\nc"), "a\\u{1b}[2Jb\\r\nc");
        assert_eq!(name(b"ann"), "ann");
        assert_eq!(name(b"a\x1b"), "611b");
        assert_eq!(name(&[0xff, 1]), "ff01");
    }
}

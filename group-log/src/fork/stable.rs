//! Who may still come with something old: registered gateways, what they acknowledge, and the position that follows from it.

use crate::{
    fork::{
        answer::{Answer, Rejection},
        draft::{Draft, Read},
        facts::GatewayId,
        marks::Mark,
        report::demls_head,
        state::{ForkState, Registration},
        view::ForkView,
    },
    head::Head,
    limits::MAX_GATEWAYS,
    rules::record,
};

/// `gateway` has nothing unreported at or below `position`, and promised durably not to fork below it.
pub(super) fn ack<V: ForkView>(
    draft: &mut Draft<'_, V>,
    gateway: GatewayId,
    number: u64,
    position: u64,
) -> Read<Answer, V> {
    let head = match demls_head(draft).and_then(|head| reachable(head, position)) {
        Ok(head) => head,
        Err(rejection) => return Ok(Answer::Rejected(rejection)),
    };
    match draft.fork.gateways.get_mut(&gateway).filter(|registration| registration.number == number) {
        None => return Ok(Answer::Rejected(Rejection::NotRegistered)),
        Some(registration) => registration.acknowledged = position.max(registration.acknowledged),
    }
    advance(draft, head)
}

/// From now on nothing becomes stable without this gateway. It starts at the stable position, and must have the log that far.
pub(super) fn register<V: ForkView>(
    draft: &mut Draft<'_, V>,
    gateway: GatewayId,
    position: u64,
    departures: u64,
) -> Read<Answer, V> {
    if let Err(rejection) = demls_head(draft).and_then(|head| reachable(head, position)) {
        return Ok(Answer::Rejected(rejection));
    }
    let ForkState { stable, departures: now, .. } = draft.fork;
    if let Some(registration) = draft.fork.gateways.get(&gateway) {
        return Ok(Answer::Registered { stable, registration: registration.number });
    }
    if departures != now {
        // Perhaps it was on its way since before a release of the same gateway, which knows nothing of it any more.
        return Ok(Answer::Rejected(Rejection::Overtaken { departures: now, got: departures }));
    }
    if position < stable {
        return Ok(Answer::Rejected(Rejection::NotFollowed { stable, got: position }));
    }
    let got = draft.fork.gateways.len() as u64 + 1;
    if got > MAX_GATEWAYS as u64 {
        let limit = MAX_GATEWAYS as u64;
        return Ok(Answer::Rejected(Rejection::Full { what: "registered gateways", limit, got }));
    }
    draft.fork.gateways.insert(gateway, Registration { number: now, acknowledged: stable });
    Ok(Answer::Registered { stable, registration: now })
}

/// A gateway lets go of the group. Nobody notices: only one that nothing waits for may go, so neither a close nor `Stable` comes sooner
/// for it. A registration that is over is passed over.
pub(super) fn release<V: ForkView>(
    draft: &mut Draft<'_, V>,
    gateway: GatewayId,
    number: u64,
) -> Read<Answer, V> {
    let head = match demls_head(draft) {
        Ok(head) => head,
        Err(rejection) => return Ok(Answer::Rejected(rejection)),
    };
    let stable = draft.fork.stable;
    let registration = draft.fork.gateways.get(&gateway).filter(|registration| registration.number == number);
    let Some(&Registration { acknowledged, .. }) = registration else {
        return Ok(Answer::Gateways { stable });
    };
    if draft.fork.collecting.is_some() {
        return Ok(Answer::Retry);
    }
    let epoch_after = record(draft, acknowledged)?.epoch_after;
    if draft.fork.is_held_back(acknowledged, epoch_after, head.epoch) {
        return Ok(Answer::Rejected(Rejection::NotAcknowledged { head_seq: head.seq, got: acknowledged }));
    }
    depart(&mut draft.fork, gateway);
    Ok(Answer::Gateways { stable })
}

/// A gateway that does not come back blocks nobody any more. What it still brings may be late.
pub(super) fn evict<V: ForkView>(draft: &mut Draft<'_, V>, gateway: GatewayId) -> Read<Answer, V> {
    let head = match demls_head(draft) {
        Ok(head) => head,
        Err(rejection) => return Ok(Answer::Rejected(rejection)),
    };
    depart(&mut draft.fork, gateway);
    advance(draft, head)
}

fn depart(fork: &mut ForkState, gateway: GatewayId) {
    if fork.gateways.remove(&gateway).is_some() {
        fork.departures += 1;
    }
    if let Some(collecting) = &mut fork.collecting {
        collecting.reported.remove(&gateway);
    }
}

fn reachable(head: Head, position: u64) -> Result<Head, Rejection> {
    if position > head.seq {
        return Err(Rejection::PositionAhead { head_seq: head.seq, got: position });
    }
    Ok(head)
}

/// Appends `Stable` when the least acknowledged position has passed a commit or a side branch. Only then is there something to
/// delete; and so `Stable` entries do not call forth further ones.
fn advance<V: ForkView>(draft: &mut Draft<'_, V>, head: Head) -> Read<Answer, V> {
    let stable = draft.fork.stable;
    let least = draft.fork.least_acknowledged().unwrap_or(stable);
    if least > stable {
        let epoch = record(draft, least)?.epoch_after;
        let passed_marks = draft.fork.pending_marks.range(stable + 1..=least).next().is_some();
        if passed_marks || epoch != draft.fork.stable_epoch {
            draft.append_mark(head, Mark::Stable { position: least })?;
            draft.stand_at(least, epoch);
        }
    }
    Ok(Answer::Gateways { stable: draft.fork.stable })
}

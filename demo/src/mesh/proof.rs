//! What has to be true in the end, and what it cost.

use std::time::Duration;

use crate::{intruder::Attack, members::Members, schedule::Changes};

/// Says what holds and what does not. Returns whether everything does.
pub(crate) fn report(
    members: &Members,
    away: usize,
    attacks: &[Attack],
    links: &Changes,
    link_bytes: u64,
) -> bool {
    let mut all = true;
    let mut holds = |text: String, true_: bool| {
        println!("  [{}] {text}", if true_ { "ok" } else { "NOT TRUE" });
        all &= true_;
    };
    let present = || members.members.iter().enumerate().filter(|(number, _)| *number != away).map(|(_, m)| m);
    println!("\nProof");
    holds(
        format!(
            "the links were never all up: at most {} of {} at a time, in {} turns; every link was up at some time",
            links.most_up,
            links.up.len(),
            links.turns
        ),
        links.most_up < links.up.len(),
    );
    let (missing, surplus) = present().fold((0, 0), |(missing, surplus), member| {
        (missing + members.missing(member), surplus + members.surplus(member))
    });
    let entitled = members.said.len() * (present().count() - 1);
    holds(
        format!(
            "every message reached everyone entitled to it, once: {} messages, {entitled} deliveries, {missing} missing, {surplus} too many",
            members.said.len()
        ),
        missing == 0 && surplus == 0 && entitled > 0,
    );
    holds(
        format!(
            "every member took in everyone's latest UPDATE: {} pairs lack one",
            members.stale_pairs(away)
        ),
        members.stale_pairs(away) == 0,
    );
    let absent = &members.members[away];
    let read = members.read(absent);
    let after = read.iter().filter(|(_, body)| body.starts_with(b"after the removal")).count();
    holds(
        format!("{} is out, knows it, and read nothing that was said after its removal", members.name(away)),
        members.knows_it_is_out(away) && after == 0 && members.all_removed(away),
    );
    for Attack { what, refused } in attacks {
        let answer = refused.as_deref().unwrap_or("ACCEPTED");
        holds(format!("writing in another's Send Group, {what}: {answer}"), refused.is_some());
    }
    let heard = members.delays.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    holds(
        format!("nobody lost a Send Group for good; {} commits waited for a PSK", heard.waited),
        present().all(|member| {
            member.shared.with(|session| {
                let view = session.view();
                view.peers.iter().all(|peer| !peer.lost || !view.members.contains(&peer.client))
            })
        }),
    );

    let mut delays: Vec<Duration> = heard
        .read
        .iter()
        .filter_map(|(_, text, at)| {
            members.said.get(text).map(|(_, said)| at.saturating_duration_since(*said))
        })
        .collect();
    delays.sort();
    let at =
        |share: usize| delays.get(delays.len().saturating_sub(1) * share / 100).copied().unwrap_or_default();
    println!(
        "\nDelay of messages  half within {:.1?}, 99 of 100 within {:.1?}, the slowest {:.1?}",
        at(50),
        at(99),
        at(100)
    );
    println!("Bytes over links   {link_bytes} between gateways, framing included");
    if !heard.rejected.is_empty() || heard.lost > 0 {
        println!("Rejected items     {}; Send Groups lost for a while: {}", heard.rejected.len(), heard.lost);
    }
    println!("\n{}", if all { "All of it is true." } else { "NOT ALL OF IT IS TRUE." });
    all
}

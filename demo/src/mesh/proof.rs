//! What has to be true in the end, and what it cost.

use std::time::Duration;

use crate::{beside::Beside, intruder::Attack, members::Members, schedule::Changes};

/// Rejected items that are shown.
const SHOWN: usize = 10;

/// Says what holds and what does not. Returns whether everything does.
pub(crate) fn report(
    members: &Members,
    away: usize,
    attacks: &[Attack],
    beside: &Beside,
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
            links.most_up, links.links, links.turns
        ),
        links.most_up < links.links && links.up.len() == links.links,
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
        members.knows_it_is_out(away) && after == 0 && members.not_removed(away) == 0,
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

    holds(
        format!(
            "the DeMLS group beside it is in one state everywhere, and everybody has read everything ({}; {} readings missing)",
            beside.told(),
            beside.missing()
        ),
        beside.is_settled() && beside.missing() == 0,
    );

    let mut delays: Vec<Duration> = heard
        .read
        .iter()
        // Whoever stayed away reads late by its own will.
        .filter(|(reader, ..)| *reader != absent.id)
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
    let lost = heard.lost.iter().filter(|(by, of)| by != &absent.id && of != &absent.id).count();
    println!("Lost for a while   {lost} Send Groups");
    println!("Rejected items     {}", heard.rejected.len());
    heard.rejected.iter().take(SHOWN).for_each(|rejected| println!("  {rejected}"));
    println!("\n{}", if all { "PROVED: all of it is true." } else { "NOT ALL OF IT IS TRUE." });
    all
}

//! Clients at work in the background.

use std::time::Duration;

use mls_client::{Options, Status};

use crate::{
    story::{story_with, until},
    support::{id, texts},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_clients_go_through_a_split_and_heal_by_themselves() {
    let pauses = (Duration::from_millis(1), Duration::from_millis(20));
    let options = Options { first_pause: pauses.0, longest_pause: pauses.1, ..Options::default() };
    let story = story_with(&["ann", "bob", "cy", "dan"], &options).await;
    let ([ann, bob, cy, dan], group) = (&story.members[..], &story.group) else { unreachable!() };
    let running: Vec<_> = story.members.iter().map(|member| member.client.start()).collect();
    story.net.split(&[0, 0, 1], Some(0));
    bob.update(group).await.unwrap();
    bob.send(group, "with a quorum").await.unwrap();
    cy.remove(group, &[id("ann")]).await.unwrap();
    cy.send(group, "without one").await.unwrap();
    until("dan reads the branch", || texts(dan, group).len() == 1).await;
    story.net.heal();
    let net = story.net.clone();
    let clock = tokio::spawn(async move {
        loop {
            net.pass(1);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    until("ann is gone, and the others are in one settled state", || {
        let views: Vec<_> = [bob, cy, dan].iter().map(|member| member.group(group).unwrap()).collect();
        let agree = views.iter().all(|view| view.epoch_authenticator == views[0].epoch_authenticator);
        let quiet = views.iter().all(|v| !v.provisional && !v.repairing && v.retained_states == 1);
        matches!(ann.group(group).unwrap().status, Status::Left(_)) && agree && quiet
    })
    .await;
    for member in [bob, cy, dan] {
        until("all is read", || texts(member, group).len() == 2).await;
    }
    clock.abort();
    for running in running {
        running.stop().await;
    }
}

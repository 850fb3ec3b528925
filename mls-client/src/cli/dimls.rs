//! DiMLS groups on the command line.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use mls_client::{
    Error, Identity, Store,
    dimls::{
        DgroupId, Event, Policy, Session, Setup,
        follow::{Shared, follow},
        records::Records,
        remote::Remote,
    },
};
use service_kit::clock::SystemClock;
use tokio::{sync::mpsc, time::timeout};

use super::{args::Args, session::client_ids, show};

/// How long a command tries to get rid of what it has to send.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the policy is asked.
const PULSE: Duration = Duration::from_secs(1);
/// Events that wait.
const EVENTS: usize = 1024;

fn open(state: &Path) -> anyhow::Result<(Store, Identity)> {
    let store = Store::open(state)?;
    let identity = Identity::load(&store)?.ok_or(Error::NoIdentity)?;
    Ok((store, identity))
}

/// The DGroup that is meant: by the beginning of its id, or the only one.
fn session(state: &Path, id: Option<&str>) -> anyhow::Result<Session<Store>> {
    let (store, identity) = open(state)?;
    let wanted = id.unwrap_or_default().to_lowercase();
    let known = store.dgroups()?;
    let matching: Vec<&DgroupId> = known.iter().filter(|id| hex::encode(id.0).starts_with(&wanted)).collect();
    match &matching[..] {
        [one] => Ok(Session::open(store, identity, one)?),
        [] => bail!("this client has no such DiMLS group; take part in one with `dgroup join`"),
        many => bail!("{} DiMLS groups are meant; name more of the id with --id", many.len()),
    }
}

/// Begins a DGroup of this client and those named.
pub(super) async fn create(args: &Args, state: &Path, with: &[String]) -> anyhow::Result<()> {
    if with.is_empty() {
        bail!("a DiMLS group has its members from the beginning; name the others with --with NAME");
    }
    let (store, identity) = open(state)?;
    let mut members = client_ids(with)?;
    members.push(identity.client_id().clone());
    let nonce = mls_client::Randomness::from_os().bytes();
    let suite = identity.ciphersuite();
    let setup = Setup::new(nonce, members, [u16::from(suite)], suite.hash_length() as u16)?;
    let session = Session::create(store, identity, &setup, Policy::default(), now())?;
    deliver(args, session).await?;
    println!("{}", hex::encode(setup.id().0));
    eprintln!(
        "The group exists. The others take part with `dgroup join`; `dgroup watch` adds them as they come."
    );
    Ok(())
}

/// Takes part in every DGroup that names this client.
pub(super) async fn join(args: &Args, state: &Path) -> anyhow::Result<()> {
    let (mut store, identity) = open(state)?;
    let remote = Remote::new(&args.gateway, identity.client_id(), &args.security()?)?;
    let known = store.dgroups()?;
    drop(identity);
    let listed = remote.list().await?;
    if listed.is_empty() {
        eprintln!("No DiMLS group at this gateway names this client. Try again when the gateways have met.");
    }
    for setup in listed.into_iter().filter(|setup| !known.contains(&setup.id())) {
        let identity = Identity::load(&store)?.ok_or(Error::NoIdentity)?;
        let session = Session::create(store, identity, &setup, Policy::default(), now())?;
        println!("{}", hex::encode(setup.id().0));
        store = deliver(args, session).await?;
    }
    Ok(())
}

/// Says something.
pub(super) async fn send(args: &Args, state: &Path, id: Option<&str>, text: &[String]) -> anyhow::Result<()> {
    let mut session = session(state, id)?;
    let seq = session.protect(text.join(" ").as_bytes())?;
    deliver(args, session).await?;
    println!("Sent as item {seq} of your stream.");
    Ok(())
}

/// Follows a DGroup and shows what is said.
pub(super) async fn watch(args: &Args, state: &Path, id: Option<&str>) -> anyhow::Result<()> {
    let session = session(state, id)?;
    for message in session.messages(0, usize::MAX)? {
        println!("{}: {}", show::name(message.sender.as_bytes()), show::text(&message.body));
    }
    let remote = Remote::new(&args.gateway, session.client_id(), &args.security()?)?;
    let (events, mut told) = mpsc::channel(EVENTS);
    let following = follow(Shared::new(session), remote, SystemClock::shared(), PULSE, events);
    tokio::pin!(following);
    loop {
        tokio::select! {
            ended = &mut following => return Ok(ended?),
            Some(event) = told.recv() => show_event(&event),
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

/// Shows a DGroup.
pub(super) fn status(state: &Path, id: Option<&str>) -> anyhow::Result<()> {
    let session = session(state, id)?;
    let view = session.view();
    println!("{}", hex::encode(view.id.0));
    if let Some(by) = &view.removed_by {
        println!("  removed by {}; ask for a new group", show::name(by.as_bytes()));
    }
    println!("  own Send Group in epoch {}; {} items wait to be sent", view.epoch, view.outbox);
    for peer in &view.peers {
        let standing = match (peer.lost, peer.in_own_group, peer.entered) {
            _ if !view.members.contains(&peer.client) => "removed",
            (true, ..) => "cannot be followed until it has added this client again",
            (_, false, _) => "has not come yet",
            (_, _, None) => "has not added this client yet",
            _ => "reads and is read",
        };
        println!(
            "  {:<16} {standing}; epoch {}, its latest update {}, taken in up to {}; {} items wait",
            show::name(peer.client.as_bytes()),
            peer.entered.unwrap_or_default(),
            peer.updated,
            peer.taken.unwrap_or_default(),
            peer.waiting
        );
    }
    Ok(())
}

fn show_event(event: &Event) {
    let name = |client: &mls_client::ClientId| show::name(client.as_bytes());
    match event {
        Event::Message(message) => println!("{}: {}", name(&message.sender), show::text(&message.body)),
        Event::Removed { member, by } => eprintln!("* {} was removed by {}", name(member), name(by)),
        Event::Lost { owner } => {
            eprintln!(
                "* what {} says cannot be read until it has added this client again, which it is asked for",
                name(owner)
            );
        }
        Event::Rejected { owner, reason, .. } => {
            eprintln!("* an item of {} was rejected: {reason}", name(owner))
        }
        Event::Entered { .. } | Event::Waiting { .. } => {}
    }
}

/// Sends what is in the outbox, and takes in what there is meanwhile. What cannot be sent now is sent by the next command.
async fn deliver(args: &Args, session: Session<Store>) -> anyhow::Result<Store> {
    let remote = Remote::new(&args.gateway, session.client_id(), &args.security()?)?;
    let shared = Shared::new(session);
    let (events, mut told) = mpsc::channel(EVENTS);
    let sent = async {
        while shared.with(|session| session.outbox().next().is_some()) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let ignored = async { while told.recv().await.is_some() {} };
    let result = tokio::select! {
        ended = follow(Arc::clone(&shared), remote, SystemClock::shared(), PULSE, events) => ended.map_err(Into::into),
        () = ignored => Ok(()),
        sent = timeout(PATIENCE, sent) => sent.context("not sent yet, the gateway cannot be reached; the next command tries again"),
    };
    result?;
    let shared = Arc::into_inner(shared).context("the session is still in use")?;
    Ok(shared.into_session().into_records())
}

fn now() -> u64 {
    SystemClock::shared().now_ms()
}

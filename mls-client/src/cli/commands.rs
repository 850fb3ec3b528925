//! Commands that do one thing and end.

use std::{path::Path, time::Duration};

use anyhow::Context;
use mls_client::{
    Committed, DEFAULT_CIPHERSUITE, Error, GroupId, GroupKind, Identity, NewGroup, Policy, Status, Store,
};

use tonic::Code;

use super::{
    args::{Args, GroupArg, KindArg},
    session::{Session, client_ids},
    show,
};

pub(super) async fn identity(args: &Args, state: &Path, name: Option<&str>) -> anyhow::Result<()> {
    if let Some(name) = name {
        let id = client_ids(&[name.to_owned()])?.remove(0);
        let mut store = Store::open(state)?;
        Identity::create(&mut store, id, DEFAULT_CIPHERSUITE)?;
        println!("You are {name}. The identity is in {}.", state.display());
        let session = Session::over(args, store)?;
        let published = session.client.publish_key_packages().await;
        if let Err(Error::Call(error)) = &published
            && error.code == Code::Unimplemented
        {
            println!(
                "This gateway has no cluster: it serves groups of kind `dimls` only, where nobody is invited."
            );
            return Ok(());
        }
        let count = published.context(
            "the identity is stored, but others cannot invite it before its KeyPackages are published; `join` tries again",
        )?;
        println!("Others can invite you: {} KeyPackages are published.", count.one_time);
        return Ok(());
    }
    let session = Session::open(args, state)?;
    println!(
        "You are {}. The identity is in {}.",
        show::name(session.client.id().as_bytes()),
        state.display()
    );
    Ok(())
}

pub(super) async fn create(session: &Session, kind: KindArg, policy: Policy) -> anyhow::Result<()> {
    let kind = match kind {
        KindArg::Mls => GroupKind::Mls,
        KindArg::Demls => GroupKind::Demls,
        KindArg::Dimls => anyhow::bail!("a group of kind `dimls` is not created in a log"),
    };
    let group = session.client.create_group(NewGroup { kind, policy, ..NewGroup::default() }).await?;
    println!("{}", hex::encode(&group));
    eprintln!("The group exists, with you in it. Add somebody with `invite NAME`.");
    Ok(())
}

pub(super) async fn invite(session: &Session, names: &[String], group: &GroupArg) -> anyhow::Result<()> {
    let group = session.group(group)?;
    let committed = session.client.invite(&group, &client_ids(names)?).await?;
    report(session, &group, committed)
}

pub(super) async fn remove(session: &Session, names: &[String], group: &GroupArg) -> anyhow::Result<()> {
    let group = session.group(group)?;
    let committed = session.client.remove(&group, &client_ids(names)?).await?;
    report(session, &group, committed)
}

pub(super) async fn update(session: &Session, group: &GroupArg) -> anyhow::Result<()> {
    let group = session.group(group)?;
    let committed = session.client.update(&group).await?;
    report(session, &group, committed)
}

fn report(session: &Session, group: &GroupId, committed: Committed) -> anyhow::Result<()> {
    match committed {
        Committed::Accepted { seq, epoch, attempts: 1 } => {
            println!("Accepted as entry {seq}; epoch {epoch}.")
        }
        Committed::Accepted { seq, epoch, attempts } => {
            println!(
                "Accepted as entry {seq}, built again {} times because others were first; epoch {epoch}.",
                attempts - 1
            );
        }
        Committed::Provisional { epoch, .. } => {
            println!(
                "Accepted without a quorum, provisionally: epoch {epoch}. What becomes of it is known later."
            );
        }
        Committed::NothingToDo => println!("There was nothing left to do."),
    }
    println!("Members: {}", show::names(&session.client.group(group)?.members));
    Ok(())
}

pub(super) async fn join(session: &Session, wait: u64) -> anyhow::Result<()> {
    session.client.publish_key_packages().await?;
    let joined = session.client.join_waiting(Duration::from_secs(wait)).await?;
    if joined.is_empty() {
        println!(
            "No invitation waits. Ask a member to run `invite {}`.",
            show::name(session.client.id().as_bytes())
        );
    }
    for group in joined {
        let view = session.client.sync(&group).await?;
        println!("{}", hex::encode(&group));
        eprintln!("Joined. Members: {}", show::names(&view.members));
    }
    Ok(())
}

pub(super) async fn send(session: &Session, text: &[String], group: &GroupArg) -> anyhow::Result<()> {
    let group = session.group(group)?;
    session.client.sync(&group).await?;
    let sent = session.client.send(&group, text.join(" ")).await?;
    println!("Sent as entry {} in epoch {}.", sent.seq, sent.epoch);
    Ok(())
}

pub(super) async fn leave(session: &Session, group: &GroupArg) -> anyhow::Result<()> {
    let group = session.group(group)?;
    session.client.leave(&group).await?;
    match session.client.group(&group)?.status {
        Status::Closed => println!("You were the only member, so the group is closed."),
        _ => println!("The others were asked to let you go; `watch` until one of them has committed it."),
    }
    Ok(())
}

pub(super) async fn rejoin(session: &Session, group: &GroupArg) -> anyhow::Result<()> {
    let known = session.group(group);
    let group = match (known, &group.id) {
        (Ok(group), _) => group,
        // A group that this client does not know yet, by its whole id.
        (Err(unknown), Some(id)) => match hex::decode(id).ok().and_then(|id| GroupId::new(id).ok()) {
            Some(group) => group,
            None => return Err(unknown),
        },
        (Err(unknown), None) => return Err(unknown),
    };
    session.client.rejoin(&group).await?;
    println!("Joined. Members: {}", show::names(&session.client.group(&group)?.members));
    Ok(())
}

pub(super) async fn status(session: &Session) -> anyhow::Result<()> {
    println!("You are {}, at {}.", show::name(session.client.id().as_bytes()), session.gateway);
    match session.client.publish_key_packages().await {
        Ok(count) => println!("Others can invite you: {} KeyPackages are published.", count.one_time),
        Err(error) => println!("What follows is what was known last: {error}"),
    }
    for view in session.client.groups()? {
        // Shows the newest where the gateway can be reached, and what is known where it cannot.
        let current = session.client.sync(&view.group).await;
        show::group(current.as_ref().unwrap_or(&view));
    }
    Ok(())
}

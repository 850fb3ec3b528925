//! Following a group, and talking in it.

use std::io::{IsTerminal, stdin};

use mls_client::{Client, EventKind, GroupId, LeftReason, StoredMessage};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    sync::{broadcast::error::RecvError, mpsc},
};

use super::{args::GroupArg, session::Session, show};

/// Messages shown at once.
const PAGE: usize = 500;

/// Lines that were typed and are not sent yet.
const TYPED_LINES: usize = 16;

pub(super) async fn watch(session: &Session, group: &GroupArg, talk: bool) -> anyhow::Result<()> {
    let (client, group) = (&session.client, session.group(group)?);
    let mut events = client.events();
    let mut shown = show_messages(client, &group, 0)?;
    let running = client.start();
    if talk && stdin().is_terminal() {
        eprintln!("Each line is sent. End with Ctrl-D.");
    }
    let mut typed = talk.then(read_lines);
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Ok(event) if event.group == group => {
                    match event.kind {
                        EventKind::MessageReceived { .. } | EventKind::MessageSent { .. } => {
                            shown = show_messages(client, &group, shown)?;
                        }
                        other => if show_event(&other) { break },
                    }
                }
                Ok(event) => if let EventKind::Joined { .. } = event.kind {
                    eprintln!("* you were added to another group, {}", hex::encode(&event.group));
                },
                Err(RecvError::Lagged(_)) => shown = show_messages(client, &group, shown)?,
                Err(RecvError::Closed) => break,
            },
            line = next_line(&mut typed) => match line {
                Some(line) if line.trim().is_empty() => {}
                Some(line) => if let Err(error) = client.send(&group, line).await {
                    eprintln!("not sent yet: {error}");
                },
                None => break,
            },
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    running.stop().await;
    Ok(())
}

/// Lines from standard input, read by a task of their own: a read that was begun cannot be taken back.
fn read_lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(TYPED_LINES);
    tokio::spawn(async move {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if sender.send(line).await.is_err() {
                break;
            }
        }
    });
    receiver
}

async fn next_line(typed: &mut Option<mpsc::Receiver<String>>) -> Option<String> {
    match typed {
        Some(lines) => lines.recv().await,
        None => std::future::pending().await,
    }
}

/// Shows the messages after entry `shown`. Returns the last entry that was shown.
fn show_messages(client: &Client, group: &GroupId, mut shown: u64) -> anyhow::Result<u64> {
    loop {
        let page = client.messages(group, shown, PAGE)?;
        for StoredMessage { seq, sender, item, body, .. } in &page {
            let who = if item.is_some() { "you".into() } else { show::name(sender) };
            println!("{who}: {}", show::text(body));
            shown = *seq;
        }
        if page.len() < PAGE {
            return Ok(shown);
        }
    }
}

/// Shows what is worth knowing. Returns whether there is nothing to watch any more.
fn show_event(event: &EventKind) -> bool {
    match event {
        EventKind::MemberAdded { member } => eprintln!("* {} has come", show::name(member)),
        EventKind::MemberRemoved { member } => eprintln!("* {} has gone", show::name(member)),
        EventKind::ModeChanged { mode } => eprintln!("* {}", show::mode(*mode)),
        EventKind::BranchAdvanced { epoch, by, .. } => {
            eprintln!("* {} changed the group on a branch: epoch {epoch}, provisional", show::name(by));
        }
        EventKind::PutAside { entries, late, .. } => {
            let why = if *late { "came too late" } else { "belong to a branch that has lost" };
            eprintln!(
                "* {entries} changes or messages {why}; they stay readable, and what matters is done again"
            );
        }
        EventKind::WentBack { to: Some(_), .. } => {
            eprintln!("* your branch has lost; you are back where everybody is");
        }
        EventKind::WentBack { to: None, .. } => {
            eprintln!("* the branch that you were added on has lost; whoever added you adds you again");
        }
        EventKind::StatesDeleted { deleted, .. } => {
            eprintln!("* everybody has read up to here: {deleted} old states were deleted");
        }
        EventKind::MessageUnreadable { seq, reason, .. } => {
            eprintln!("* the message in entry {seq} cannot be read: {reason}");
        }
        EventKind::MessageRefused { reason, .. } => eprintln!("* a message of yours was refused: {reason}"),
        EventKind::Stuck { reason, .. } => {
            eprintln!("* a commit cannot be processed ({reason}); `rejoin` the group");
            return true;
        }
        EventKind::LogRejected { reason } => {
            eprintln!("* the log was rejected: {reason}");
            return true;
        }
        EventKind::EntriesMissed { first, last } => {
            eprintln!("* you were away for too long: entries {first} to {last} are gone");
        }
        EventKind::Left { reason: LeftReason::Removed { by } } => {
            eprintln!("* you were removed by {}", show::name(by));
            return true;
        }
        EventKind::Left { reason: LeftReason::RemovedUnseen } => {
            eprintln!("* you were removed while you were away");
            return true;
        }
        EventKind::Left { .. } => {
            eprintln!("* you have left");
            return true;
        }
        EventKind::Closed => {
            eprintln!("* the group was closed");
            return true;
        }
        _ => {}
    }
    false
}

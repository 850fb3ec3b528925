//! Looks whether a gateway and its cluster do what they promise: `mls-client check`.

use anyhow::{Context, bail, ensure};
use concordat_proto::{
    gateway::v1::{ReadEntriesRequest, SubmitRequest, submit_response::Outcome},
    log::v1::{Entry, content},
};
use mls_client::{
    Committed, DEFAULT_CIPHERSUITE, GrpcTransport, Identity, NewGroup, Store, transport::Transport,
};

use super::{
    args::Args,
    session::{Session, client_ids},
};

/// Makes a group that nobody else is in, submits a commit, submits the same bytes again, reads the commit back, and closes the group.
/// Needs no state file.
pub(super) async fn check(args: &Args, name: &str) -> anyhow::Result<()> {
    let id = client_ids(&[name.to_owned()])?.remove(0);
    let mut store = Store::in_memory()?;
    Identity::create(&mut store, id.clone(), DEFAULT_CIPHERSUITE)?;
    let session = Session::over(args, store)?;
    let transport = GrpcTransport::secured(&args.gateway, &id, &args.security()?)?;

    let group = session.client.create_group(NewGroup::default()).await.context("creating a group")?;
    let Committed::Accepted { seq, epoch, .. } =
        session.client.update(&group).await.context("submitting a commit")?
    else {
        bail!("expected the commit to be accepted, but there was nothing to commit");
    };
    println!("accepted: entry {seq}, epoch {epoch}");

    let request = ReadEntriesRequest { group_id: group.to_bytes(), linearizable: true, ..Default::default() };
    let entries = transport.read_entries(request).await.context("reading the log back")?.entries;
    let read = entries.iter().find(|entry| entry.seq == seq).context("the commit is not in the log")?;
    println!("read back: entry {seq}");

    let outcome =
        transport.submit(again(&entries, read)?).await.context("submitting the same bytes again")?;
    let Outcome::Accepted(accepted) = outcome else {
        bail!("expected the same answer for the same bytes, got another");
    };
    ensure!(
        (accepted.seq, &accepted.chain_hash) == (seq, &read.chain_hash),
        "expected the same bytes to be entry {seq} again, got entry {}",
        accepted.seq
    );
    println!("submitted again: entry {seq} again");
    session.client.close_group(&group).await.context("closing the group")?;
    Ok(())
}

/// The submission that became `entry`.
fn again(entries: &[Entry], entry: &Entry) -> anyhow::Result<SubmitRequest> {
    let parent = entries.iter().find(|other| other.seq + 1 == entry.seq).context("the log has a gap")?;
    match entry.content.as_ref().and_then(|content| content.content.clone()) {
        Some(content::Content::Commit(commit)) => Ok(SubmitRequest {
            message: commit.message,
            welcome: commit.welcome,
            group_info: commit.group_info,
            recipients: commit.recipients,
            parent_state_id: parent.state_id.clone(),
            members_only: false,
        }),
        _ => bail!("expected entry {} to be the commit, got something else", entry.seq),
    }
}

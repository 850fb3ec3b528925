//! A file system without room: writes are refused with a typed error while everything stays readable, and go on once there is room.

#![allow(clippy::unwrap_used)] // A panic in a test is its report.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use bytes::Bytes;
use concordat_proto::{
    log::v1::{self as log, content::Content},
    ordering::v1::{Command as Wire, GroupSubmission, command, outcome::Outcome},
};
use group_log::GroupId;
use prost::Message;
use testbed::{
    Cluster, ClusterOptions,
    ordering::{Attempt, OrderingClient},
    wait::eventually,
};

const DEADLINE: Duration = Duration::from_secs(60);
const SIZE_MIB: u64 = 900;

/// A small file system in memory, unmounted at the end.
struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Nothing if this process may not mount.
    fn mount(path: &Path) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let size = format!("size={SIZE_MIB}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(path.to_owned())),
            Ok(output) => skipped(&String::from_utf8_lossy(&output.stderr)),
            Err(error) => skipped(&error.to_string()),
        }
    }
}

fn skipped(why: &str) -> Option<Tmpfs> {
    eprintln!("full file system: SKIPPED, mounting a small file system needs root: {}", why.trim());
    None
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn commit(group: &GroupId, epoch: u64) -> Wire {
    let message = Bytes::from(format!("commit of epoch {epoch}"));
    submission(group, epoch, Content::Commit(log::Commit { message, ..log::Commit::default() }))
}

fn submission(group: &GroupId, epoch: u64, content: Content) -> Wire {
    Wire {
        command: Some(command::Command::Group(GroupSubmission {
            group_id: group.to_bytes(),
            author: Bytes::from_static(b"somebody"),
            epoch,
            parent_state_id: Bytes::new(),
            facts: None,
            content: Some(log::Content { content: Some(content) }),
            members_only: false,
        })),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_room_refuses_writes_and_stays_readable() {
    let scratch = tempfile::tempdir().unwrap();
    let Some(disk) = Tmpfs::mount(&scratch.path().join("disk")) else { return };
    let dir = Some(disk.0.join("cluster"));
    let cluster =
        Cluster::start(ClusterOptions { nodes: 1, dir, ..ClusterOptions::default() }).await.unwrap();
    let client = OrderingClient::new(cluster.ordering_addresses());
    let group = GroupId::new("a group").unwrap();
    let shard = client.assign(&group, 1, DEADLINE).await.unwrap();
    let create = Content::Create(log::Create {
        kind: log::GroupKind::Mls.into(),
        policy: None,
        group_info: Bytes::from_static(b"group info"),
    });
    let created = client.submit(shard, &submission(&group, 0, create), DEADLINE).await.unwrap();
    assert!(matches!(created, Outcome::Accepted(_)), "{created:?}");

    // Other files take the room away, down to less than any node keeps in reserve.
    let ballast = disk.0.join("ballast");
    // Besides what the log has reserved for its newest file.
    fs::write(&ballast, vec![1; (SIZE_MIB as usize - 128) << 20]).unwrap();
    let mut epoch = 0;
    let refused = eventually("a refusal for lack of room", DEADLINE, async || {
        match client.attempt(shard, commit(&group, epoch).encode_to_vec().into()).await {
            Attempt::Answered(Outcome::Refused(refused)) => Some(refused.message),
            Attempt::Answered(Outcome::Overloaded(overloaded)) => Some(overloaded.message),
            Attempt::Answered(Outcome::Accepted(accepted)) => {
                epoch = accepted.epoch;
                None
            }
            _ => None,
        }
    });
    let message = refused.await.unwrap();
    eprintln!("full file system: refused with: {message}");
    assert!(message.contains("disk"), "the reason is not clear: {message}");
    let node = cluster.node(1);
    let log = client.read_log(node.address(), &group).await.unwrap();
    assert_eq!(log.len() as u64, epoch + 1);

    fs::remove_file(&ballast).unwrap();
    let commit = commit(&group, epoch);
    eventually("writes to go on", DEADLINE, async || {
        match client.attempt(shard, commit.encode_to_vec().into()).await {
            Attempt::Answered(Outcome::Accepted(accepted)) => Some(accepted),
            _ => None,
        }
    })
    .await
    .unwrap();
    drop(cluster);
}

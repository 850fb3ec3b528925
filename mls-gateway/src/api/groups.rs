//! Groups begin, change their policy, and end.

use std::collections::BTreeSet;

use bytes::Bytes;
use concordat_proto::{
    convert,
    gateway::v1::{
        CloseGroupRequest, CloseGroupResponse, CreateGroupRequest, CreateGroupResponse, SetPolicyRequest,
        SetPolicyResponse,
    },
    log::v1::{self as log, content::Content},
    ordering::v1::{AssignGroup, Command, GroupSubmission, command},
};
use group_log::{
    ClientId, GroupId,
    hash::create_state_id,
    limits::{MAX_PAST_EPOCHS, MAX_RETAIN_HOURS, MAX_SEQ},
};
use tokio::time::timeout;

use super::{Api, group_id};
use crate::{
    cluster::{Final, choose_shard},
    demls::states::first_members,
    error::GatewayError,
    limits::{DIRECTORY_SHARD, READ_DEADLINE, REGISTRATION_PATIENCE, SHARDS_MAX},
    mls,
};

impl Api {
    pub(super) async fn create(
        &self,
        author: ClientId,
        request: CreateGroupRequest,
    ) -> Result<CreateGroupResponse, GatewayError> {
        let info = mls::group_info(&request.group_info)?;
        let (group_id, epoch) = (info.group_id.clone(), info.epoch);
        self.meter.client(&author, request.group_info.len())?;
        let _under_way = self.meter.group(&group_id, request.group_info.len())?;
        if matches!(log::GroupKind::try_from(request.kind), Ok(log::GroupKind::Unspecified) | Err(_)) {
            return Err(GatewayError::bad_field("kind", "MLS or DEMLS", request.kind));
        }
        if request.kind == i32::from(log::GroupKind::Dimls) {
            return Err(GatewayError::bad_field(
                "kind",
                "MLS or DEMLS here; a DIMLS group has no log: create it with concordat.gateway.v1.DimlsGroups/CreateDgroup",
                "DIMLS",
            ));
        }
        if let Some(policy) = &request.policy {
            check_policy(policy)?;
        }
        let is_demls = request.kind == i32::from(log::GroupKind::Demls);
        let mut facts = None;
        let state = if is_demls {
            self.registry()?;
            let state = create_state_id(&group_id, epoch, &request.group_info);
            let (first, members) = first_members(info, &state)?;
            // Without a tree nobody could be told from a stranger.
            self.may_create(&author, Some(&members.unwrap_or_default()))?;
            facts = convert::facts_out(&first);
            None
        } else {
            let state = self.validator.check_create(info).await?;
            self.may_create(&author, state.as_ref().map(mls::members_of).as_ref())?;
            state
        };
        let shard = self.assign(&group_id).await?;
        self.cluster.locator.learn(group_id.clone(), shard);
        let create =
            log::Create { kind: request.kind, policy: request.policy, group_info: request.group_info };
        let submission =
            GroupSubmission { facts, ..submission(&group_id, author, epoch, Content::Create(create)) };
        let accepted = self.order_plain(submission, &group_id).await?;
        if is_demls {
            self.registry()?.created(&group_id);
            let group = self.registry()?.used(&group_id).await?;
            // Whoever is told that the group exists can go on with it here if the quorum is lost in the next moment. If it takes longer
            // than usual, the group exists all the same.
            if !group.wait_until_it_may_fork(REGISTRATION_PATIENCE).await {
                tracing::info!("a new group is not registered for yet");
            }
        }
        self.validator.created(&group_id, state, &accepted).await;
        Ok(CreateGroupResponse { accepted: Some(accepted) })
    }

    pub(super) async fn close(
        &self,
        author: ClientId,
        request: CloseGroupRequest,
    ) -> Result<CloseGroupResponse, GatewayError> {
        let group_id = group_id(request.group_id)?;
        self.meter.client(&author, 0)?;
        self.available(&group_id).await?;
        self.may_govern(&group_id, &author, request.epoch).await?;
        let _under_way = self.meter.group(&group_id, 0)?;
        let submission = submission(&group_id, author, request.epoch, Content::Close(log::Close {}));
        let accepted = self.order_plain(submission, &group_id).await?;
        Ok(CloseGroupResponse { accepted: Some(accepted) })
    }

    pub(super) async fn change_policy(
        &self,
        author: ClientId,
        request: SetPolicyRequest,
    ) -> Result<SetPolicyResponse, GatewayError> {
        let group_id = group_id(request.group_id)?;
        let policy =
            request.policy.ok_or_else(|| GatewayError::bad_field("policy", "a policy", "nothing"))?;
        check_policy(&policy)?;
        self.meter.client(&author, 0)?;
        self.available(&group_id).await?;
        self.may_govern(&group_id, &author, request.epoch).await?;
        let _under_way = self.meter.group(&group_id, 0)?;
        let content = Content::PolicyChange(log::PolicyChange { policy: Some(policy) });
        let accepted =
            self.order_plain(submission(&group_id, author, request.epoch, content), &group_id).await?;
        Ok(SetPolicyResponse { accepted: Some(accepted) })
    }

    /// Settles which shard a new group lives in, by preference one that is led from this gateway's site. The first wish for an id wins, so
    /// everybody gets the same answer.
    async fn assign(&self, group_id: &GroupId) -> Result<u32, GatewayError> {
        let board = &self.cluster.board;
        let led = self.data_shards().await?.into_iter().map(|shard| (shard, board.leader_site(shard)));
        let shard =
            choose_shard(group_id, &led.collect(), &self.cluster.site).ok_or(GatewayError::NoQuorum)?;
        let wish = AssignGroup { group_id: group_id.to_bytes(), shard };
        let command = Command { command: Some(command::Command::AssignGroup(wish)) };
        match self.bring(DIRECTORY_SHARD, &command).await? {
            Final::GroupAssigned(assigned) if assigned.shard < SHARDS_MAX => Ok(assigned.shard),
            Final::Refused(refused) => Err(GatewayError::Refused(refused)),
            _ => Err(GatewayError::Protocol("an outcome that does not belong to the command")),
        }
    }

    /// The data shards, at least one. Waits a while for the first node to name them.
    async fn data_shards(&self) -> Result<BTreeSet<u32>, GatewayError> {
        let board = &self.cluster.board;
        let mut changes = board.changes();
        let named = async {
            loop {
                changes.borrow_and_update();
                let mut shards = board.shards();
                shards.extend(self.demls.iter().flat_map(|demls| demls.paths().relay.quorums_of_others()));
                shards.remove(&DIRECTORY_SHARD);
                if !shards.is_empty() || changes.changed().await.is_err() {
                    return shards;
                }
            }
        };
        let shards = timeout(READ_DEADLINE, named).await.unwrap_or_default();
        if shards.is_empty() { Err(GatewayError::NoQuorum) } else { Ok(shards) }
    }
}

pub(super) fn submission(
    group_id: &GroupId,
    author: ClientId,
    epoch: u64,
    content: Content,
) -> GroupSubmission {
    GroupSubmission {
        group_id: group_id.to_bytes(),
        author: author.to_bytes(),
        epoch,
        parent_state_id: Bytes::new(),
        content: Some(log::Content { content: Some(content) }),
        facts: None,
        members_only: false,
    }
}

fn check_policy(policy: &log::Policy) -> Result<(), GatewayError> {
    let values = [
        ("past_epochs", MAX_PAST_EPOCHS.into(), policy.past_epochs.unwrap_or(0).into()),
        ("retain_entries", MAX_SEQ, policy.retain_entries),
        ("retain_hours", MAX_RETAIN_HOURS.into(), policy.retain_hours.into()),
    ];
    match values.into_iter().find(|(_, max, got)| got > max) {
        Some((field, max, got)) => {
            let facts = [("expected", format!("0 to {max}")), ("got", got.to_string())];
            Err(GatewayError::Refused(concordat_proto::convert::refused(
                log::Reason::PolicyInvalid,
                format_args!("{field} must be 0 to {max}, got {got}"),
                facts,
            )))
        }
        None => Ok(()),
    }
}

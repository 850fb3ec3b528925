//! Ann's groups: she is a member, Bob was one and was removed, and Mallory never was. And what anybody may ask about them.

use bytes::Bytes;
use concordat_proto::{
    gateway::v1::{
        CloseGroupRequest, CreateDgroupRequest, CreateGroupRequest, DimlsItem, GetGroupInfoRequest,
        GetHeadRequest, OfferBranchEntriesRequest, ReadBranchEntriesRequest, ReadEntriesRequest,
        SetPolicyRequest, SubmitItemRequest, SubmitRequest, SubmitStreamRequest, SubscribeItemsRequest,
        SubscribeRequest, UploadBranchEntriesRequest, UploadKeyPackagesRequest,
        dimls_groups_client::DimlsGroupsClient, gateway_client::GatewayClient, submit_response::Outcome,
    },
    log::v1::{GroupKind, Policy},
};
use group_log::{ClientId, GroupId, dimls::Setup, hash};
use prost::Message;

use crate::{member::Member, table::Server, world::World};

const ORDERED: &[u8] = b"ordered";
const FORKING: &[u8] = b"forking";

/// What has happened.
pub struct Story {
    ordered: SubmitRequest,
    another: Bytes,
    key_package: Bytes,
    setup: Bytes,
    dgroup_id: Bytes,
}

impl Story {
    /// Lets it happen.
    pub async fn tell(world: &World) -> Self {
        let ann = world.client("ann");
        let mut calls = GatewayClient::new(world.channel(&ann, &world.places(Server::Gateway)[0]));
        let mut member = Member::new("ann");
        for (id, kind) in [(FORKING, GroupKind::Demls), (ORDERED, GroupKind::Mls)] {
            let is_demls = kind == GroupKind::Demls;
            let bob = Member::new("bob");
            let group_info = member.create(id);
            let mut state = hash::create_state_id(&GroupId::new(id.to_vec()).unwrap(), 0, &group_info);
            let create = CreateGroupRequest { group_info, kind: kind.into(), policy: None };
            calls.create_group(create).await.unwrap();
            for step in 0..2 {
                let package = [("bob", bob.key_package(false))];
                let mut commit =
                    if step == 0 { member.commit(&package, &[]) } else { member.commit(&[], &[1]) };
                if is_demls {
                    commit.message = [&commit.message[..], &[32], &[9; 32]].concat().into();
                    commit.parent_state_id = state.to_bytes();
                }
                state = hash::commit_state_id(&state, &commit.message);
                let outcome = calls.submit(commit).await.unwrap().into_inner().outcome;
                assert!(matches!(outcome, Some(Outcome::Accepted(_))), "{outcome:?}");
                member.merge();
            }
        }
        let ordered = member.say("hello");
        let another = Member::new("ann").create(b"another");
        let key_package = member.key_package(false);
        let members = ["ann", "cat"].map(|name| ClientId::new(name.as_bytes()).unwrap());
        let setup = Setup::new([7; 16], members, [1], 32).unwrap();
        let setup = Bytes::from(setup.encode());
        let mut dgroup_id = Bytes::new();
        for place in world.places(Server::Dimls) {
            let mut mesh = DimlsGroupsClient::new(world.channel(&ann, &place));
            let create = CreateDgroupRequest { setup: setup.clone() };
            dgroup_id = mesh.create_dgroup(create).await.unwrap().into_inner().dgroup_id;
        }
        Self { ordered, another, key_package, setup, dgroup_id }
    }
}

fn ordered() -> Bytes {
    Bytes::from_static(ORDERED)
}

fn forking() -> Bytes {
    Bytes::from_static(FORKING)
}

fn bytes(message: impl Message) -> Bytes {
    message.encode_to_vec().into()
}

pub fn create_group(story: &Story) -> Bytes {
    bytes(CreateGroupRequest { group_info: story.another.clone(), kind: GroupKind::Mls.into(), policy: None })
}

pub fn submit(story: &Story) -> Bytes {
    bytes(story.ordered.clone())
}

pub fn submit_stream(story: &Story) -> Bytes {
    bytes(SubmitStreamRequest { id: 1, request: Some(story.ordered.clone()) })
}

pub fn subscribe(_: &Story) -> Bytes {
    bytes(SubscribeRequest { group_id: ordered(), ..SubscribeRequest::default() })
}

pub fn read_entries(_: &Story) -> Bytes {
    bytes(ReadEntriesRequest { group_id: ordered(), ..ReadEntriesRequest::default() })
}

pub fn read_branch_entries(_: &Story) -> Bytes {
    bytes(ReadBranchEntriesRequest { group_id: forking(), ..ReadBranchEntriesRequest::default() })
}

pub fn offer_branch_entries(_: &Story) -> Bytes {
    bytes(OfferBranchEntriesRequest { group_id: forking(), ..OfferBranchEntriesRequest::default() })
}

pub fn upload_branch_entries(_: &Story) -> Bytes {
    bytes(UploadBranchEntriesRequest { group_id: forking(), ..UploadBranchEntriesRequest::default() })
}

pub fn get_head(_: &Story) -> Bytes {
    bytes(GetHeadRequest { group_id: ordered(), linearizable: false })
}

pub fn get_group_info(_: &Story) -> Bytes {
    bytes(GetGroupInfoRequest { group_id: ordered() })
}

/// In an epoch that is over, so that the group outlives a member that asks for it.
pub fn close_group(_: &Story) -> Bytes {
    bytes(CloseGroupRequest { group_id: ordered(), epoch: 0 })
}

pub fn set_policy(_: &Story) -> Bytes {
    bytes(SetPolicyRequest { group_id: ordered(), epoch: 0, policy: Some(Policy::default()) })
}

pub fn upload_key_packages(story: &Story) -> Bytes {
    bytes(UploadKeyPackagesRequest { key_packages: vec![story.key_package.clone()], replace: false })
}

pub fn create_dgroup(story: &Story) -> Bytes {
    bytes(CreateDgroupRequest { setup: story.setup.clone() })
}

pub fn submit_item(story: &Story) -> Bytes {
    let item = DimlsItem { seq: 1, ..DimlsItem::default() };
    bytes(SubmitItemRequest { dgroup_id: story.dgroup_id.clone(), item: Some(item) })
}

pub fn subscribe_items(story: &Story) -> Bytes {
    bytes(SubscribeItemsRequest { dgroup_id: story.dgroup_id.clone(), ..SubscribeItemsRequest::default() })
}

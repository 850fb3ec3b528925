//! Who may call what. One row for each RPC.

use bytes::Bytes;
use service_kit::tls::RoleKind;

use crate::story::{self, Story};

/// Where a service is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// Nodes, to nodes.
    Peers,
    /// Nodes, to gateways.
    Ordering,
    /// Nodes, to operators.
    Admin,
    /// Gateways, to gateways.
    Relay,
    /// Gateways, to clients.
    Gateway,
    /// Gateways without a cluster, to clients.
    Dimls,
    /// Gateways without a cluster, to gateways.
    Mesh,
}

impl Server {
    /// Who may call.
    pub fn role(self) -> RoleKind {
        match self {
            Self::Peers => RoleKind::Node,
            Self::Ordering | Self::Relay | Self::Mesh => RoleKind::Gateway,
            Self::Admin => RoleKind::Operator,
            Self::Gateway | Self::Dimls => RoleKind::Client,
        }
    }

    /// Whether a token will do in place of a certificate.
    pub fn takes_tokens(self) -> bool {
        matches!(self, Self::Gateway | Self::Dimls)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Peers => "concordat.raft.v1.Peers",
            Self::Ordering => "concordat.ordering.v1.Ordering",
            Self::Admin => "concordat.ordering.v1.Admin",
            Self::Relay => "concordat.relay.v1.Relay",
            Self::Gateway => "concordat.gateway.v1.Gateway",
            Self::Dimls => "concordat.gateway.v1.DimlsGroups",
            Self::Mesh => "concordat.mesh.v1.Mesh",
        }
    }
}

/// One RPC.
#[derive(Debug)]
pub struct Row {
    /// Where it is served, and so who may call it.
    pub server: Server,
    method: &'static str,
    /// What concerns somebody else's group or name: only members, or the owner, may call with it. Absent where a caller can name nothing
    /// that is not its own, and between servers, which vouch for their clients.
    pub foreign: Option<fn(&Story) -> Bytes>,
}

impl Row {
    /// As it stands in a request.
    pub fn path(&self) -> String {
        format!("/{}/{}", self.server.name(), self.method)
    }
}

const fn row(server: Server, method: &'static str) -> Row {
    Row { server, method, foreign: None }
}

const fn foreign(server: Server, method: &'static str, request: fn(&Story) -> Bytes) -> Row {
    Row { server, method, foreign: Some(request) }
}

/// Every RPC.
pub const ROWS: &[Row] = &[
    row(Server::Peers, "Identify"),
    row(Server::Peers, "Join"),
    row(Server::Peers, "Admit"),
    row(Server::Peers, "Replicate"),
    row(Server::Peers, "Heartbeat"),
    row(Server::Peers, "Vote"),
    row(Server::Peers, "TransferLeader"),
    row(Server::Peers, "InstallSnapshot"),
    row(Server::Peers, "ReadIndex"),
    row(Server::Peers, "Administer"),
    row(Server::Peers, "Ping"),
    row(Server::Ordering, "Submit"),
    row(Server::Ordering, "Subscribe"),
    row(Server::Ordering, "ReadEntries"),
    row(Server::Ordering, "GetHead"),
    row(Server::Ordering, "Locate"),
    row(Server::Ordering, "ReadInbox"),
    row(Server::Ordering, "ReadBranchEntries"),
    row(Server::Ordering, "GetKeyPackageStatus"),
    row(Server::Ordering, "WatchQuorum"),
    row(Server::Admin, "Bootstrap"),
    row(Server::Admin, "AddLearner"),
    row(Server::Admin, "Promote"),
    row(Server::Admin, "Remove"),
    row(Server::Admin, "TransferLeader"),
    row(Server::Admin, "ListGateways"),
    row(Server::Admin, "EvictGateway"),
    row(Server::Admin, "Backup"),
    row(Server::Admin, "GetStatus"),
    row(Server::Relay, "Link"),
    row(Server::Relay, "Sequence"),
    row(Server::Relay, "Store"),
    row(Server::Relay, "FetchBranch"),
    row(Server::Relay, "FetchLog"),
    row(Server::Relay, "Forward"),
    foreign(Server::Gateway, "CreateGroup", story::create_group),
    foreign(Server::Gateway, "Submit", story::submit),
    foreign(Server::Gateway, "SubmitStream", story::submit_stream),
    foreign(Server::Gateway, "Subscribe", story::subscribe),
    foreign(Server::Gateway, "ReadEntries", story::read_entries),
    foreign(Server::Gateway, "ReadBranchEntries", story::read_branch_entries),
    foreign(Server::Gateway, "OfferBranchEntries", story::offer_branch_entries),
    foreign(Server::Gateway, "UploadBranchEntries", story::upload_branch_entries),
    foreign(Server::Gateway, "GetHead", story::get_head),
    foreign(Server::Gateway, "GetGroupInfo", story::get_group_info),
    foreign(Server::Gateway, "CloseGroup", story::close_group),
    foreign(Server::Gateway, "SetPolicy", story::set_policy),
    foreign(Server::Gateway, "UploadKeyPackages", story::upload_key_packages),
    row(Server::Gateway, "ClaimKeyPackage"),
    row(Server::Gateway, "GetKeyPackageStatus"),
    row(Server::Gateway, "WatchWelcomes"),
    row(Server::Gateway, "AckWelcomes"),
    foreign(Server::Dimls, "CreateDgroup", story::create_dgroup),
    row(Server::Dimls, "ListDgroups"),
    foreign(Server::Dimls, "SubmitItem", story::submit_item),
    foreign(Server::Dimls, "SubscribeItems", story::subscribe_items),
    row(Server::Mesh, "Watch"),
    row(Server::Mesh, "Fetch"),
];

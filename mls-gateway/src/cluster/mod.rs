//! The client side of the ordering API: connections to every node, submissions to leaders, reads from whoever answers, and one
//! stream that follows groups and inboxes.

mod distance;
mod follow;
mod home;
mod lanes;
mod locate;
mod pool;
mod quorum;
mod read;
mod router;
mod submit_stream;

use std::sync::Arc;

use group_log::fork::GatewayId;
use service_kit::{net::SharedNetwork, rng::Randomness};
use tokio_util::task::AbortOnDropHandle;

pub use follow::{FollowGuard, Follower, GroupSink, InboxSink, Verdict};
pub use home::choose_shard;
pub use locate::Locator;
pub use pool::{Node, Pool};
pub use quorum::QuorumBoard;
pub use read::{HeadAnswer, LogReader, Reader};
pub use router::{Final, Router};

use crate::modes::Modes;

/// Everything that the gateway needs of the cluster.
pub struct Cluster {
    /// Submissions.
    pub router: Router,
    /// Reads.
    pub reader: Arc<Reader>,
    /// Which shard a group lives in.
    pub locator: Locator,
    /// Groups and inboxes as they grow.
    pub follower: Follower,
    /// What the nodes say about their quorum.
    pub board: Arc<QuorumBoard>,
    /// How each shard can be served.
    pub modes: Arc<Modes>,
    /// Where this gateway stands; empty if it does not say.
    pub site: String,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

impl Cluster {
    /// Connects to the ordering nodes at `addresses` (`host:port`), and in time to those that they name as leaders. They are told which
    /// `gateway` that may hold branches listens, and at which `site` it stands. Needs a tokio runtime. A node that cannot be reached is tried again for good; nothing is waited for here.
    pub fn connect(
        addresses: &[String],
        network: SharedNetwork,
        rng: &Randomness,
        gateway: Option<GatewayId>,
        site: &str,
    ) -> Self {
        let board = QuorumBoard::new();
        let pool = Pool::new(network, Arc::clone(&board), gateway, site);
        for address in addresses {
            pool.node(address);
        }
        let modes = Modes::new();
        let reader = Arc::new(Reader::new(Arc::clone(&pool)));
        let (follower, follow_task) = Follower::start(Arc::clone(&pool));
        let mode_task = tokio::spawn(Arc::clone(&modes).run(Arc::clone(&board)));
        Self {
            router: Router::new(pool, Arc::clone(&modes), rng.fork()),
            locator: Locator::new(Arc::clone(&reader)),
            reader,
            follower,
            board,
            modes,
            site: site.to_owned(),
            _tasks: vec![AbortOnDropHandle::new(mode_task), follow_task],
        }
    }
}

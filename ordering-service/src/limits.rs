//! The bounds of this crate. Every queue, message and loop has its bound here.

use std::time::Duration;

// What clients may send.

/// Submissions in one request of a submit stream.
pub const SUBMISSIONS_PER_REQUEST: usize = 1024;
/// Bytes of one encoded command.
pub const COMMAND_BYTES: usize = 4 << 20;
/// Bytes of one request of the API, whole batches included.
pub const API_REQUEST_BYTES: usize = 16 << 20;
/// Submissions of one stream that are not answered yet.
pub const STREAM_SUBMISSIONS: usize = 8_192;
/// Command bytes of one stream that are not answered yet.
pub const STREAM_BYTES: usize = 64 << 20;
/// Submissions of all streams of a node that are not answered yet.
pub const NODE_SUBMISSIONS: usize = 65_536;
/// Command bytes of all streams of a node that are not answered yet.
pub const NODE_BYTES: usize = 256 << 20;
/// Commits for one epoch of one group that wait on this leader for the first of them to be decided.
pub const WAITING_COMMITS_PER_GROUP: usize = 1_024;
/// Outcomes in one response of a submit stream.
pub const OUTCOMES_PER_RESPONSE: usize = 1_024;
/// Bytes of one response of a submit stream are kept near this: a superseded commit is answered with the winner.
pub const RESPONSE_BYTES: usize = 4 << 20;
/// So many proposals of a shard go to Raft as they come; when more are under way they go in rounds.
pub const PROPOSED_SINGLY: usize = 24;
/// A round of proposals waits no longer for the one before it to be decided.
pub const ROUND_MAX: Duration = Duration::from_millis(2);
/// How often the age of the submissions that are under way is looked at.
pub const EXPIRY_INTERVAL: Duration = Duration::from_millis(100);
/// What an overloaded node asks clients to wait.
pub const OVERLOADED_RETRY: Duration = Duration::from_millis(50);
/// What a client is asked to wait while no leader is known.
pub const NO_LEADER_RETRY: Duration = Duration::from_millis(100);

// What readers may ask for.

/// Groups and inboxes that one stream follows.
pub const FOLLOWED_PER_STREAM: usize = 100_000;
/// Groups and inboxes that all streams of a node follow.
pub const FOLLOWED_PER_NODE: usize = 1_000_000;
/// Subscription streams of a node.
pub const SUBSCRIBE_STREAMS: usize = 10_000;
/// Responses of a subscription stream that wait for the network.
pub const SUBSCRIBE_QUEUE: usize = 16;
/// Entries of one response of a subscription stream.
pub const SUBSCRIBE_ENTRIES: usize = 256;
/// Bytes of one response with entries are kept near this (a single larger entry is sent alone).
pub const ENTRIES_BYTES: usize = 1 << 20;
/// Entries of one page when the reader names no number.
pub const READ_ENTRIES_DEFAULT: usize = 100;
/// Entries of one page at most.
pub const READ_ENTRIES: usize = 1_000;
/// Ids of branch entries in one request.
pub const BRANCH_ENTRIES: usize = 1_024;
/// Welcomes of one page, also when the reader names no number.
pub const READ_WELCOMES: usize = 100;
/// Welcomes that are read from the disk at once.
pub const WELCOMES_AT_ONCE: usize = 8;
/// Between two states of a quorum watch at most.
pub const QUORUM_WATCH_INTERVAL: Duration = Duration::from_millis(100);
/// How often a node looks at the quorum of its shards.
pub const QUORUM_SAMPLE_INTERVAL: Duration = Duration::from_millis(25);

/// Bytes of a group id.
pub const GROUP_ID_BYTES: usize = 256;
/// Bytes of a client id.
pub const CLIENT_ID_BYTES: usize = 128;

// Branches.

/// A collection of reports is ended after so long, by default.
pub const COLLECT_FOR: Duration = Duration::from_secs(10);
/// Gateways that come back together do so within this time.
pub const COLLECT_AT_LEAST: Duration = Duration::from_secs(1);
/// A gateway that nobody has seen for so long is evicted, by default.
pub const EVICT_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);
/// Gateways that watch one node.
pub const GATEWAYS_PER_NODE: usize = 1_024;
/// Gateways of one shard that a leader looks at.
pub const GATEWAYS_PER_SHARD: usize = 16_384;
/// A gateway whose stream has ended counts as connected for so long.
pub const GATEWAY_GRACE: Duration = Duration::from_secs(3);
/// How often a leader looks at open collections.
pub const COLLECTION_INTERVAL: Duration = Duration::from_millis(100);
/// Open collections of one shard that a leader looks at; the others wait until some of these are closed.
pub const COLLECTIONS_AT_ONCE: usize = 1_024;
/// Closes and evictions of one shard that a leader has under way.
pub const CLOSES_AT_ONCE: usize = 64;
/// How often a leader looks at registered gateways.
pub const GATEWAYS_INTERVAL: Duration = Duration::from_secs(1);
/// A leader writes down which gateways are there when that was last done so long ago. Well below
/// [`NOTES_APART`](crate::storage::limits::NOTES_APART).
pub const NOTE_AFTER: Duration = Duration::from_secs(3600);
/// Groups of a gateway that are read at once.
pub const GROUPS_PER_PAGE: usize = 256;
/// Groups that owe removals are counted up to this number.
pub const GROUPS_COUNTED: usize = 10_000;
/// Groups that are looked at for gateways that hold `Stable` back, at most and each time.
pub const UNSTABLE_GROUPS_COUNTED: usize = 1_024;

// Between nodes.

/// Bytes of one message between nodes.
pub const PEER_MESSAGE_BYTES: usize = 24 << 20;
/// Append requests of one lane that are not answered yet.
pub const LANE_REQUESTS: usize = 64;
/// Entry bytes of one lane that are not answered yet (a single larger request is sent alone).
pub const LANE_BYTES: usize = 16 << 20;
/// Lanes of one replication stream.
pub const LANES_PER_STREAM: usize = 1_024;
/// Messages of a replication stream that wait for the network, in each direction.
pub const PEER_QUEUE: usize = 64;
/// What was committed is told to a follower with the next entries, or alone after this time.
pub const COMMIT_NOTICE: Duration = Duration::from_millis(1);
/// Entries of one append request between nodes.
pub const REPLICATION_ENTRIES: u64 = 2_048;
/// Entries that one write to the log takes.
pub const APPEND_ENTRIES: u64 = 4_096;
/// Proposals that a leader takes at once.
pub const PROPOSAL_BATCH: u64 = 4_096;
/// Log entries that one purge removes at least.
pub const PURGE_BATCH: u64 = 10_000;
/// Log entries that are kept although a snapshot covers them.
pub const LOG_ENTRIES_KEPT: u64 = 100_000;
/// A snapshot transfer that makes no progress for this long is given up. Installing it must fit as well.
pub const SNAPSHOT_PROGRESS_TIMEOUT: Duration = Duration::from_secs(60);
/// Snapshots that a node receives at a time.
pub const SNAPSHOTS_RECEIVED: usize = 8;
/// Parts of a snapshot that wait for the network.
pub const SNAPSHOT_QUEUE: usize = 4;
/// The first pause before a peer is tried again; it doubles each time.
pub const RECONNECT_MIN: Duration = Duration::from_millis(20);
/// The longest pause before a peer is tried again.
pub const RECONNECT_MAX: Duration = Duration::from_secs(1);
/// HTTP/2 pings on connections between nodes.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// A connection between nodes without an answer to an HTTP/2 ping for this long is closed.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(4);
/// Requests on one connection that were given up before this node looked at them.
pub const PENDING_RESETS: usize = 1_024;
/// The same complaint about a peer is logged once in this time.
pub const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

// Placement of leaders.

/// Pings of one peer of which the fastest counts as the round trip.
pub const ROUND_TRIP_SAMPLES: usize = 32;
/// Sites that one node counts submissions of; those of further sites count as if they named none.
pub const SITES_COUNTED: usize = 64;
/// The shortest time over which submissions are counted before who leads is judged, by default.
pub const PLACEMENT_WINDOW: Duration = Duration::from_secs(5);
/// A window goes on until so many submissions were counted in it: fewer say little about where they come from.
pub const PLACEMENT_SUBMISSIONS: u64 = 100;
/// In so many windows in a row the same voter must be better before it gets the leadership.
pub const PLACEMENT_WINDOWS: u32 = 6;
/// A shard stays where it is for so many windows after its leader changed, for whatever reason.
pub const PLACEMENT_REST_WINDOWS: u32 = 6;
/// A voter is better if commits would take so much less time there, in percent of what they take now, ...
pub const PLACEMENT_GAIN_PERCENT: u32 = 20;
/// ... and at least so much.
pub const PLACEMENT_GAIN: Duration = Duration::from_millis(5);
/// The round trip that is assumed between two sites as long as nothing at all was measured.
pub const UNMEASURED_ROUND_TRIP: Duration = Duration::from_millis(50);

// Clusters.

/// Data shards of a cluster at most.
pub const DATA_SHARDS: u32 = 64;
/// Data shards of a cluster when bootstrap names no number.
pub const DATA_SHARDS_DEFAULT: u32 = 2;
/// Nodes of a cluster, learners included.
pub const NODES: usize = 32;
/// Bytes of an address or of a site's name.
pub const NAME_BYTES: usize = 255;
/// A membership change or a transfer of leadership that takes longer is reported as unfinished.
pub const ADMIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Adding a learner takes as long as copying its data: longer than this is reported as unfinished.
pub const LEARNER_TIMEOUT: Duration = Duration::from_secs(600);
/// Between two rounds of asking to be admitted to a cluster.
pub const ADMIT_RETRY: Duration = Duration::from_secs(1);
/// Entries that a new learner may lack when it counts as caught up, by default.
pub const LEARNER_LAG_DEFAULT: u64 = 1_000;
/// Entries that the target of a leadership transfer may lack at most.
pub const TRANSFER_LAG: u64 = 1_000;
/// How long a leader that is to hand over waits for the target to lack no more than that.
pub const TRANSFER_CATCH_UP: Duration = Duration::from_secs(5);
/// Parts of a backup that wait for the network.
pub const BACKUP_QUEUE: usize = 4;
/// Bytes of a backup's manifest.
pub const MANIFEST_BYTES: u64 = 1 << 20;
/// Bytes of a backup that are read from its files at once.
pub const RESTORE_CHUNK_BYTES: usize = 1 << 20;
/// How long a stopping node tells the readers of one stream where it ends.
pub const SUBSCRIBE_END: Duration = Duration::from_secs(1);
/// Between two looks at what retention gives up, by default.
pub const RETENTION_INTERVAL: Duration = Duration::from_secs(60);
/// Looks that are left out where the configuration keeps everything and no group was found that chose otherwise: with the default pause
/// between them, an hour's.
pub const RETENTION_IDLE_LOOKS: u32 = 59;
/// Groups that one such look reads at once.
pub const RETENTION_GROUPS: usize = 1_024;
/// Pause before the next groups are read: a million take less than two minutes, and no processor for themselves.
pub const RETENTION_PAUSE: Duration = Duration::from_millis(100);
/// Groups that are pruned at the same time.
pub const PRUNES_AT_ONCE: usize = 8;
/// Between two looks at readiness and the slower metrics.
pub const OBSERVE_INTERVAL: Duration = Duration::from_millis(250);
/// A leader whose disk is full tries to hand over this often.
pub const HAND_OVER_INTERVAL: Duration = Duration::from_secs(5);
/// How long a graceful stop may take, leadership transfers included.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

//! The bounds of the gateway, each with its unit.

use std::time::Duration;

// --- Submissions ---

/// An encoded command, in bytes: the ordering API takes no more.
pub const COMMAND_BYTES_MAX: usize = 4 * 1024 * 1024;
/// One gRPC message from a client, in bytes: a submission with its Welcome and GroupInfo, or a batch of KeyPackages.
pub const CLIENT_MESSAGE_BYTES_MAX: usize = 5 * 1024 * 1024;
/// One gRPC message from an ordering node, in bytes: a page of entries.
pub const CLUSTER_MESSAGE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How long one submission is retried before its caller is told that it is unavailable.
pub const SUBMIT_DEADLINE: Duration = Duration::from_secs(10);
/// How long one attempt on one node may take before it counts as lost.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// Unanswered submissions of one SubmitStream; the stream is not read any further while it has that many.
pub const STREAM_IN_FLIGHT_MAX: usize = 256;
/// Answers of one SubmitStream that wait for a slow client.
pub const STREAM_ANSWERS_MAX: usize = 64;

// --- The pipelined stream to a node ---

/// Submissions in one batch to a node; the ordering API takes no more.
pub const BATCH_SUBMISSIONS_MAX: usize = 1024;
/// Bytes in one batch to a node, unless a single submission is larger.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Unanswered submissions on the stream to one node.
pub const NODE_IN_FLIGHT_MAX: usize = 8192;
/// Bytes of unanswered submissions on the stream to one node.
pub const NODE_IN_FLIGHT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Batches that wait for the transport.
pub const NODE_BATCHES_QUEUED_MAX: usize = 4;
/// Nodes that a gateway keeps connections to. Addresses beyond that are not learnt.
pub const NODES_MAX: usize = 64;
/// The shard that holds the directory of groups and KeyPackages.
pub const DIRECTORY_SHARD: u32 = 0;
/// Shards that a gateway believes in: the directory and 64 data shards.
pub const SHARDS_MAX: u32 = 65;

/// First pause before a submission is tried again; doubled each time up to [`RETRY_PAUSE_MAX`].
pub const RETRY_PAUSE_MIN: Duration = Duration::from_millis(4);
/// Longest pause before a submission is tried again.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_millis(250);
/// Pause before a broken stream to a node is opened again.
pub const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection attempt to a node may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often an idle connection to a node is pinged.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// How long the answer to such a ping may take.
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long one read on one node may take before another node is asked.
pub const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a read is tried on all nodes.
pub const READ_DEADLINE: Duration = Duration::from_secs(6);

// --- The quorum ---

/// A node's report of a quorum counts for this long; nodes send one at least every 100 ms.
pub const QUORUM_REPORT_TTL: Duration = Duration::from_millis(1000);
/// How often the mode of each shard is looked at.
pub const MODE_TICK: Duration = Duration::from_millis(50);
/// A shard without a quorum for this long is unavailable: submissions fail at once. Until then they wait, because an
/// election usually ends sooner.
pub const SUSPECT_PATIENCE: Duration = Duration::from_secs(3);
/// What a client is told to wait before it tries an unavailable group again.
pub const NO_QUORUM_RETRY_AFTER: Duration = Duration::from_millis(1000);
/// What a client is told to wait before it asks again what became of a submission.
pub const OUTCOME_UNKNOWN_RETRY_AFTER: Duration = Duration::from_millis(250);
/// What a client is told to wait when a bound of the gateway is reached.
pub const OVERLOADED_RETRY_AFTER: Duration = Duration::from_millis(500);

// --- Caches ---

/// Groups whose shard is remembered.
pub const LOCATIONS_MAX: usize = 100_000;
/// Groups whose public state is kept for validation.
pub const PUBLIC_STATES_MAX: usize = 10_000;
/// Bytes of public states kept for validation, as estimated.
pub const PUBLIC_STATES_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Entries that validation reads to bring a public state up to date, before it starts over from the newest GroupInfo.
pub const CATCH_UP_ENTRIES_MAX: u64 = 4096;
/// Entries that validation looks back to find the proposals of the current epoch.
pub const LOOK_BACK_ENTRIES_MAX: u64 = 8192;
/// Entries in one page that validation reads.
pub const CATCH_UP_PAGE: u32 = 256;
/// Inputs of at least this many bytes are validated on a thread of their own.
pub const BLOCKING_VALIDATION_BYTES: usize = 32 * 1024;

/// How long an accepted commit waits to be merged into the public state, before that is left to the log.
pub const MERGE_PATIENCE: Duration = Duration::from_millis(20);

// --- Fan-out ---

/// Bytes of recent entries of all groups together that subscribers share.
pub const RING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of recent entries of one group.
pub const RING_BYTES_PER_GROUP_MAX: usize = 8 * 1024 * 1024;
/// What an entry in a ring counts for beside its payload, in bytes.
pub const RING_ENTRY_OVERHEAD: usize = 256;
/// Entries that one subscriber takes from a ring at a time.
pub const PULL_ENTRIES_MAX: usize = 64;
/// Entries in one page that a subscriber behind the ring reads.
pub const BEHIND_PAGE: u32 = 256;
/// Subscriptions of all clients together.
pub const SUBSCRIPTIONS_MAX: usize = 100_000;
/// Groups that are followed at the same time.
pub const FOLLOWED_GROUPS_MAX: usize = 100_000;
/// Events that wait for a slow subscriber; it pulls no further while it has that many.
pub const SUBSCRIBER_EVENTS_MAX: usize = 32;
/// How long a group is followed after its last subscriber has left.
pub const FOLLOW_LINGER: Duration = Duration::from_secs(30);
/// How often groups without subscribers are looked for.
pub const FOLLOW_SWEEP: Duration = Duration::from_secs(5);
/// How long the followed node may lack an entry that the cluster has accepted, before another node is followed.
pub const FOLLOW_LAG_MAX: Duration = Duration::from_secs(2);
/// Requests to the followed node that wait for the transport.
pub const FOLLOW_REQUESTS_MAX: usize = 1024;
/// How often a node may show a log whose hashes do not fit, before its readers are told.
pub const MISMATCHES_MAX: u32 = 3;
/// Pause before a group that the followed node does not know yet is asked for again.
pub const FOLLOW_RETRY_PAUSE: Duration = Duration::from_millis(100);

// --- Clients, KeyPackages, Welcomes ---

/// Entries in one page for a client.
pub const READ_PAGE_MAX: u32 = 1000;
/// Entries in one page for a client that names no number.
pub const READ_PAGE_DEFAULT: u32 = 100;
/// KeyPackages in one upload.
pub const KEY_PACKAGES_PER_UPLOAD_MAX: usize = 100;
/// One KeyPackage, in bytes.
pub const KEY_PACKAGE_BYTES_MAX: usize = 32 * 1024;
/// Length of a claim id, in bytes.
pub const CLAIM_ID_BYTES: usize = 16;
/// Batches of Welcomes that wait for a slow client; it is served by reading from then on.
pub const INBOX_BATCHES_MAX: usize = 16;

// --- The process ---

/// How long calls under way may take to end when the process stops.
pub const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(10);
/// Streams of one connection.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 10_000;

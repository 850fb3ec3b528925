//! Subscriptions: many groups and inboxes over one stream. The server keeps a cursor for each and reads when the stream has room, so
//! memory is bounded and a slow reader slows nobody else.

mod follow;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use concordat_proto::ordering::v1::{
    SubscribeRequest, SubscribeResponse, subscribe_request::Request, subscribe_response::Response,
};
use futures::{Stream, StreamExt, future::BoxFuture};
use service_kit::status::StatusBuilder;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use self::follow::{Follow, Next, Page};
use super::{find::blocking, linearize::linearize};
use crate::{
    error::{ApiError, malformed},
    hub::Marks,
    limits,
    node::Node,
};

/// Pages read by one visit to the storage.
const PAGES_PER_VISIT: usize = 64;

/// Serves one stream until its reader goes away or the node stops.
///
/// # Errors
/// There are too many streams.
pub fn serve(
    node: Arc<Node>,
    requests: Streaming<SubscribeRequest>,
) -> Result<impl Stream<Item = Result<SubscribeResponse, Status>> + Send, ApiError> {
    let open = OpenStream::new(&node)?;
    let (out, responses) = mpsc::channel(limits::SUBSCRIBE_QUEUE);
    let subscriber = Subscriber {
        node,
        marks: Arc::default(),
        follows: HashMap::new(),
        unconfirmed: Vec::new(),
        confirming: None,
        out,
        _open: open,
    };
    tokio::spawn(subscriber.run(requests));
    Ok(ReceiverStream::new(responses))
}

/// Counts an open stream as long as it lives.
struct OpenStream(Arc<Node>);

impl OpenStream {
    fn new(node: &Arc<Node>) -> Result<Self, ApiError> {
        let (what, limit) = ("subscription streams", limits::SUBSCRIBE_STREAMS);
        if !node.hub.open_stream() {
            return Err(ApiError::Overloaded { what, limit });
        }
        node.metrics.subscribe_streams.increment(1.0);
        Ok(Self(node.clone()))
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.hub.close_stream();
        self.0.metrics.subscribe_streams.decrement(1.0);
    }
}

/// For these subscriptions: did quorums confirm how far the logs go?
type Question = BoxFuture<'static, (Vec<u64>, Result<(), ApiError>)>;

type Out = mpsc::Sender<Result<SubscribeResponse, Status>>;

struct Subscriber {
    node: Arc<Node>,
    marks: Arc<Marks>,
    follows: HashMap<u64, Follow>,
    /// Readers that are ahead of this node: a quorum has to say how far the logs go.
    unconfirmed: Vec<u64>,
    /// The question under way, for all that waited when it was asked.
    confirming: Option<Question>,
    out: Out,
    _open: OpenStream,
}

impl Subscriber {
    async fn run(mut self, requests: Streaming<SubscribeRequest>) {
        let mut requests = requests.fuse();
        let (stop, out, marks) = (self.node.stop.clone(), self.out.clone(), self.marks.clone());
        loop {
            let served = tokio::select! {
                () = stop.cancelled() => {
                    // A reader that does not read goes on from what it has.
                    let _ = timeout(limits::SUBSCRIBE_END, self.end()).await;
                    return;
                }
                () = out.closed() => return,
                Some(request) = requests.next() => match request {
                    Ok(request) => self.take(request).await,
                    Err(_) => return,
                },
                Some((ids, confirmed)) = next(&mut self.confirming) => self.confirmed(ids, confirmed).await,
                first = marks.next() => self.visit(first).await,
            };
            if let Err(status) = served {
                let _ = self.out.send(Err(status)).await;
                return;
            }
        }
    }

    /// Says of everything that is followed where it ends.
    async fn end(&mut self) -> Result<(), Status> {
        for (id, follow) in &self.follows {
            send(&self.out, *id, vec![follow.ended()]).await?;
        }
        let message = "this node stops: go on at another node, from the places that were named";
        let stopping =
            StatusBuilder::new(Code::Unavailable, "NO_QUORUM", message).retry_after(limits::NO_LEADER_RETRY);
        let _ = self.out.send(Err(stopping.build())).await;
        Ok(())
    }

    async fn take(&mut self, request: SubscribeRequest) -> Result<(), Status> {
        let (id, follow) = match request.request {
            Some(Request::Follow(follow)) => (follow.id, Follow::group(follow).map_err(ApiError::from)),
            Some(Request::FollowInbox(follow)) => (follow.id, Follow::inbox(follow)),
            Some(Request::Unfollow(unfollow)) => {
                self.unfollow(unfollow.id);
                return Ok(());
            }
            Some(Request::UnfollowInbox(unfollow)) => {
                self.unfollow(unfollow.id);
                return Ok(());
            }
            None => {
                return Err(
                    ApiError::from(malformed("a request", "to follow or to unfollow", "nothing")).into()
                );
            }
        };
        if self.follows.contains_key(&id) {
            return Err(ApiError::from(malformed(
                "the id of a subscription",
                "not in use on this stream",
                id,
            ))
            .into());
        }
        let follow = match follow.and_then(|follow| self.check_bounds().map(|()| follow)) {
            Ok(follow) => follow,
            Err(error) => return send(&self.out, id, Page::end(error).responses).await,
        };
        // Registered before the first read, so that no change is missed in between.
        self.node.hub.follow(follow.topic(), follow.key.clone(), &self.marks, id);
        self.follows.insert(id, follow);
        self.marks.mark(id);
        Ok(())
    }

    fn check_bounds(&self) -> Result<(), ApiError> {
        if self.follows.len() >= limits::FOLLOWED_PER_STREAM {
            return Err(ApiError::Overloaded {
                what: "followed on one stream",
                limit: limits::FOLLOWED_PER_STREAM,
            });
        }
        if self.node.hub.count() >= limits::FOLLOWED_PER_NODE {
            return Err(ApiError::Overloaded {
                what: "followed on one node",
                limit: limits::FOLLOWED_PER_NODE,
            });
        }
        Ok(())
    }

    fn unfollow(&mut self, id: u64) {
        if let Some(follow) = self.follows.remove(&id) {
            self.node.hub.unfollow(follow.topic(), &follow.key, &self.marks, id);
        }
    }

    /// Reads the next pages of what has changed, and sends them.
    async fn visit(&mut self, first: u64) -> Result<(), Status> {
        // A set: what is marked again in this very moment would be read twice from the same place.
        let ids: BTreeSet<u64> = std::iter::once(first)
            .chain(std::iter::from_fn(|| self.marks.take()))
            .take(PAGES_PER_VISIT)
            .collect();
        let work: Vec<(u64, Follow)> = ids
            .into_iter()
            .filter_map(|id| self.follows.get(&id).map(|follow| (id, follow.clone())))
            .collect();
        let (node, marks) = (self.node.clone(), self.marks.clone());
        let pages = blocking(move || Ok(read_pages(&node, &marks, work))).await?;
        for (id, page) in pages {
            self.node.metrics.entries_sent.increment(page.entries);
            match page.next {
                Next::Wait(follow) => drop(self.follows.insert(id, follow)),
                Next::More(follow) => {
                    self.follows.insert(id, follow);
                    self.marks.mark(id);
                }
                Next::Confirm => self.confirm(id),
                Next::End => self.unfollow(id),
            }
            send(&self.out, id, page.responses).await?;
        }
        Ok(())
    }

    fn confirm(&mut self, id: u64) {
        self.unconfirmed.push(id);
        self.ask_quorums();
    }

    /// One question at a time, for everybody who waits for the answer.
    fn ask_quorums(&mut self) {
        if self.confirming.is_some() || self.unconfirmed.is_empty() {
            return;
        }
        let (node, ids) = (self.node.clone(), std::mem::take(&mut self.unconfirmed));
        self.confirming = Some(Box::pin(async move { (ids, linearize_all(&node).await) }));
    }

    async fn confirmed(&mut self, ids: Vec<u64>, confirmed: Result<(), ApiError>) -> Result<(), Status> {
        self.confirming = None;
        let refusal = confirmed.err().map(|error| Page::end(error).responses);
        for id in ids {
            let Some(follow) = self.follows.get_mut(&id) else { continue };
            match &refusal {
                None => {
                    follow.confirmed = true;
                    self.marks.mark(id);
                }
                Some(refusal) => {
                    self.unfollow(id);
                    send(&self.out, id, refusal.clone()).await?;
                }
            }
        }
        self.ask_quorums();
        Ok(())
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        for (id, follow) in &self.follows {
            self.node.hub.unfollow(follow.topic(), &follow.key, &self.marks, *id);
        }
    }
}

async fn send(out: &Out, id: u64, responses: Vec<Response>) -> Result<(), Status> {
    for response in responses {
        let response = SubscribeResponse { id, response: Some(response) };
        // A reader that is gone is noticed by the loop.
        if out.send(Ok(response)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

async fn next<T>(question: &mut Option<BoxFuture<'static, T>>) -> Option<T> {
    match question {
        Some(question) => Some(question.await),
        None => None,
    }
}

async fn linearize_all(node: &Arc<Node>) -> Result<(), ApiError> {
    for shard in node.readable()?.iter() {
        linearize(node, shard).await?;
    }
    Ok(())
}

/// Reads page after page until enough is read for one visit; what is left keeps its mark.
fn read_pages(node: &Arc<Node>, marks: &Marks, work: Vec<(u64, Follow)>) -> Vec<(u64, Page)> {
    let mut pages = Vec::with_capacity(work.len());
    let mut bytes = 0;
    for (id, follow) in work {
        if bytes >= limits::ENTRIES_BYTES {
            marks.mark(id);
            continue;
        }
        let page = follow.read(node);
        bytes += page.bytes;
        pages.push((id, page));
    }
    pages
}

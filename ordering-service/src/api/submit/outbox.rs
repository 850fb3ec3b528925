//! One submit stream's submissions: those under way, and the answers that wait for the network.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use concordat_proto::ordering::v1::{Outcome, SubmissionOutcome, SubmitResponse};
use futures::Stream;
use openraft::raft::ClientWriteResult;
use parking_lot::Mutex;
use prost::Message;
use tokio::{sync::Notify, time::Instant};
use tonic::Status;

use super::outcome::{of_result, unknown};
use crate::{
    limits,
    metrics::NodeMetrics,
    raft::{responder::ResultSink, types::TypeConfig},
};

/// Submissions of all streams of a node that are not answered yet.
#[derive(Default)]
pub(crate) struct NodeLoad {
    submissions: AtomicUsize,
    bytes: AtomicUsize,
}

impl NodeLoad {
    fn admit(&self, bytes: usize) -> Result<(), &'static str> {
        if self.submissions.load(Ordering::Relaxed) >= limits::NODE_SUBMISSIONS {
            return Err("too many submissions under way at this node");
        }
        if self.bytes.load(Ordering::Relaxed) + bytes > limits::NODE_BYTES {
            return Err("too many command bytes under way at this node");
        }
        self.submissions.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn release(&self, bytes: usize) {
        self.submissions.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Submissions and bytes under way.
    pub(crate) fn now(&self) -> (usize, usize) {
        (self.submissions.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

/// One stream's part of the load, and its answers.
pub(crate) struct Outbox {
    load: Arc<NodeLoad>,
    metrics: Arc<NodeMetrics>,
    state: Mutex<State>,
    /// Told when answers were taken by the network.
    drained: Notify,
}

#[derive(Default)]
struct State {
    next_token: u64,
    under_way: HashMap<u64, UnderWay>,
    ids: HashSet<u64>,
    /// Tokens by age, answered ones included until they reach the front.
    by_age: VecDeque<(u64, Instant)>,
    bytes: usize,
    ready: VecDeque<SubmissionOutcome>,
    ready_bytes: usize,
    /// No submissions will come any more.
    input_ended: bool,
    /// Nobody reads answers any more.
    closed: bool,
    failed: Option<Status>,
    reader: Option<Waker>,
}

struct UnderWay {
    id: u64,
    bytes: usize,
    received: Instant,
}

/// Why a submission is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// Another submission with this id is not answered yet.
    DuplicateId,
    /// A bound is reached.
    Full(&'static str),
}

impl Outbox {
    /// For one stream.
    pub(crate) fn new(load: Arc<NodeLoad>, metrics: Arc<NodeMetrics>) -> Arc<Self> {
        Arc::new(Self { load, metrics, state: Mutex::default(), drained: Notify::new() })
    }

    /// Takes a submission under way. The token names it from now on.
    ///
    /// # Errors
    /// It is not under way.
    pub(crate) fn begin(&self, id: u64, bytes: usize, now: Instant) -> Result<u64, NotTaken> {
        let mut state = self.state.lock();
        if state.ids.contains(&id) {
            return Err(NotTaken::DuplicateId);
        }
        if state.under_way.len() >= limits::STREAM_SUBMISSIONS {
            return Err(NotTaken::Full("too many submissions under way on this stream"));
        }
        if state.bytes + bytes > limits::STREAM_BYTES {
            return Err(NotTaken::Full("too many command bytes under way on this stream"));
        }
        self.load.admit(bytes).map_err(NotTaken::Full)?;
        state.next_token += 1;
        let token = state.next_token;
        state.ids.insert(id);
        state.bytes += bytes;
        state.under_way.insert(token, UnderWay { id, bytes, received: now });
        state.by_age.push_back((token, now));
        Ok(token)
    }

    /// Answers a submission. A second answer, and one that comes after the submission expired, is dropped.
    pub(crate) fn answer(&self, token: u64, outcome: Outcome) {
        let mut state = self.state.lock();
        let Some(under_way) = state.under_way.remove(&token) else { return };
        self.load.release(under_way.bytes);
        state.ids.remove(&under_way.id);
        state.bytes -= under_way.bytes;
        self.metrics.answered(&outcome, under_way.received.elapsed());
        self.push(&mut state, under_way.id, outcome);
    }

    /// Answers a submission that was never under way.
    pub(crate) fn refuse(&self, id: u64, outcome: Outcome) {
        self.metrics.answered(&outcome, Default::default());
        self.push(&mut self.state.lock(), id, outcome);
    }

    fn push(&self, state: &mut State, id: u64, outcome: Outcome) {
        if state.closed {
            return;
        }
        let answer = SubmissionOutcome { id, outcome: Some(outcome) };
        state.ready_bytes += answer.encoded_len();
        state.ready.push_back(answer);
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }

    /// Answers everything that was received at or before `before` with `unknown`.
    pub(crate) fn expire(&self, before: Instant) {
        loop {
            let mut state = self.state.lock();
            let Some((token, received)) = state.by_age.front().copied() else { return };
            let answered = !state.under_way.contains_key(&token);
            if !answered && received > before {
                return;
            }
            state.by_age.pop_front();
            drop(state);
            if !answered {
                self.answer(
                    token,
                    unknown("not decided in time: submit the same bytes again to learn what became of it"),
                );
            }
        }
    }

    /// Waits until the reader has room for more answers.
    pub(crate) async fn room(&self) {
        loop {
            let drained = self.drained.notified();
            {
                let state = self.state.lock();
                let full = state.ready_bytes > limits::STREAM_BYTES
                    || state.ready.len() > limits::STREAM_SUBMISSIONS;
                if !full || state.closed {
                    return;
                }
            }
            drained.await;
        }
    }

    /// No more submissions will come. The stream of answers ends when everything is answered, or at once with `failed`.
    pub(crate) fn end_input(&self, failed: Option<Status>) {
        let mut state = self.state.lock();
        state.input_ended = true;
        state.failed = failed;
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }

    /// Whether everything that ever will be under way is answered, or nobody reads answers any more.
    pub(crate) fn is_finished(&self) -> bool {
        let state = self.state.lock();
        state.closed || (state.input_ended && state.under_way.is_empty())
    }

    /// Whether nobody reads answers any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    fn poll_answers(&self, cx: &mut Context<'_>) -> Poll<Option<Result<SubmitResponse, Status>>> {
        let mut state = self.state.lock();
        if state.ready.is_empty() {
            if let Some(status) = state.failed.take() {
                return Poll::Ready(Some(Err(status)));
            }
            if state.input_ended && state.under_way.is_empty() {
                return Poll::Ready(None);
            }
            state.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut outcomes = Vec::with_capacity(state.ready.len().min(limits::OUTCOMES_PER_RESPONSE));
        let mut bytes = 0;
        while outcomes.len() < limits::OUTCOMES_PER_RESPONSE {
            let Some(next) = state.ready.front().map(Message::encoded_len) else { break };
            if !outcomes.is_empty() && bytes + next > limits::RESPONSE_BYTES {
                break;
            }
            bytes += next;
            outcomes.extend(state.ready.pop_front());
        }
        state.ready_bytes -= bytes;
        drop(state);
        self.drained.notify_waiters();
        Poll::Ready(Some(Ok(SubmitResponse { outcomes })))
    }

    fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.ready.clear();
        state.ready_bytes = 0;
        drop(state);
        self.drained.notify_waiters();
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        for under_way in self.state.get_mut().under_way.values() {
            self.load.release(under_way.bytes);
        }
    }
}

/// The answers of a stream, in batches.
pub struct Answers(pub(crate) Arc<Outbox>);

impl Stream for Answers {
    type Item = Result<SubmitResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_answers(cx)
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl ResultSink<ClientWriteResult<TypeConfig>> for Outbox {
    fn complete(&self, token: u64, result: ClientWriteResult<TypeConfig>) {
        self.answer(token, of_result(result));
    }

    fn abandoned(&self, token: u64) {
        self.answer(token, unknown("this node stopped: submit the same bytes again at another node"));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use concordat_proto::ordering::v1::outcome::Outcome as Kind;
    use futures::{FutureExt, StreamExt};

    use super::*;

    fn outbox() -> (Arc<NodeLoad>, Arc<Outbox>) {
        let load = Arc::new(NodeLoad::default());
        (load.clone(), Outbox::new(load, Arc::new(NodeMetrics::new(1))))
    }

    #[tokio::test]
    async fn every_submission_is_answered_exactly_once() {
        let (load, outbox) = outbox();
        let now = Instant::now();
        let first = outbox.begin(7, 10, now).expect("room");
        let second = outbox.begin(8, 10, now).expect("room");
        assert_eq!(load.now(), (2, 20));
        outbox.answer(first, unknown("a"));
        outbox.answer(first, unknown("again"));
        outbox.answer(second, unknown("b"));
        outbox.end_input(None);
        let mut answers = Answers(outbox);
        let response = answers.next().await.expect("answers").expect("no failure");
        assert_eq!(response.outcomes.iter().map(|o| o.id).collect::<Vec<_>>(), [7, 8]);
        assert!(answers.next().await.is_none());
        assert_eq!(load.now(), (0, 0));
    }

    #[tokio::test]
    async fn an_id_may_be_used_again_only_after_its_answer() {
        let (_, outbox) = outbox();
        let now = Instant::now();
        let token = outbox.begin(7, 0, now).expect("room");
        assert_eq!(outbox.begin(7, 0, now), Err(NotTaken::DuplicateId));
        outbox.answer(token, unknown(""));
        assert!(outbox.begin(7, 0, now).is_ok());
        outbox.answer(token, unknown("late"));
        assert_eq!(outbox.state.lock().ready.len(), 1, "a late answer does not reach the new submission");
    }

    #[tokio::test]
    async fn what_is_not_decided_in_time_is_unknown() {
        let (load, outbox) = outbox();
        let now = Instant::now();
        let old = outbox.begin(1, 5, now).expect("room");
        outbox.begin(2, 5, now + Duration::from_secs(5)).expect("room");
        outbox.expire(now + Duration::from_secs(1));
        assert_eq!(load.now(), (1, 5));
        outbox.answer(old, unknown("late"));
        let mut answers = Answers(outbox);
        let response = answers.next().now_or_never().flatten().expect("one").expect("no failure");
        assert_eq!(response.outcomes.len(), 1);
        assert!(matches!(
            response.outcomes[0].outcome.as_ref().and_then(|o| o.outcome.as_ref()),
            Some(Kind::Unknown(_))
        ));
    }

    #[tokio::test]
    async fn bounds_hold_and_a_dropped_stream_gives_its_load_back() {
        let (load, outbox) = outbox();
        let now = Instant::now();
        for id in 0..limits::STREAM_SUBMISSIONS as u64 {
            outbox.begin(id, 1, now).expect("room");
        }
        assert!(matches!(outbox.begin(u64::MAX, 1, now), Err(NotTaken::Full(_))));
        drop(outbox);
        assert_eq!(load.now(), (0, 0));
    }
}

//! A request's body that can be sent again, as long as little of it was sent.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as _, Frame};
use tonic::{Status, body::Body};

use crate::limits::REPLAY_BYTES_MAX;

/// A body, and what attempts have taken of it. Clones share it.
#[derive(Clone)]
pub(super) struct Replay {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    body: Body,
    /// The body has ended, well or not, and must not be asked again.
    ended: bool,
    /// What was taken, from the beginning; nothing is kept any more if it is absent.
    taken: Option<Vec<Bytes>>,
    taken_bytes: usize,
    /// The attempt that may take more. Of those before it nobody waits for an answer.
    attempt: u32,
}

/// The body of one attempt.
pub(super) struct Attempt {
    shared: Arc<Mutex<Shared>>,
    number: u32,
    /// How much of what others took was given to this one.
    given: usize,
}

impl Replay {
    pub(super) fn of(body: Body) -> Self {
        let shared = Shared { body, ended: false, taken: Some(Vec::new()), taken_bytes: 0, attempt: 0 };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// The whole body, for another attempt. The one before it gets no more.
    pub(super) fn attempt(&self) -> Attempt {
        let mut shared = lock(&self.shared);
        shared.attempt += 1;
        Attempt { shared: Arc::clone(&self.shared), number: shared.attempt, given: 0 }
    }

    /// Whether another attempt would get the whole body.
    pub(super) fn is_complete(&self) -> bool {
        lock(&self.shared).taken.is_some()
    }

    /// There will be no further attempt.
    pub(super) fn settle(&self) {
        lock(&self.shared).taken = None;
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &next {
            Some(Ok(frame)) => self.keep(frame),
            Some(Err(_)) => {
                self.ended = true;
                self.taken = None;
            }
            None => self.ended = true,
        }
        Poll::Ready(next)
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        let Some(taken) = &mut self.taken else { return };
        // Requests of gRPC have no trailers; whatever has is not sent again.
        let kept = frame.data_ref().filter(|data| self.taken_bytes + data.len() <= REPLAY_BYTES_MAX);
        match kept {
            Some(data) => {
                self.taken_bytes += data.len();
                taken.push(data.clone());
            }
            None => self.taken = None,
        }
    }
}

impl http_body::Body for Attempt {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let mut shared = lock(&this.shared);
        if shared.attempt != this.number {
            return Poll::Ready(Some(Err(Status::cancelled("the request is sent over another connection"))));
        }
        if let Some(data) = shared.taken.as_ref().and_then(|taken| taken.get(this.given)) {
            this.given += 1;
            return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
        }
        let next = shared.poll_more(cx);
        if let Poll::Ready(Some(Ok(_))) = next {
            this.given += 1;
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        let shared = lock(&self.shared);
        let all_given = shared.taken.as_ref().is_none_or(|taken| self.given >= taken.len());
        all_given && (shared.ended || shared.body.is_end_stream())
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, future::poll_fn, stream};

    use super::*;

    /// A body of these frames, which come one by one.
    fn body(frames: &[usize]) -> Replay {
        let frames: Vec<_> = frames.iter().map(|length| Bytes::from(vec![7; *length])).collect();
        Replay::of(Body::new(Frames(stream::iter(frames))))
    }

    struct Frames<S>(S);

    impl<S: futures::Stream<Item = Bytes> + Unpin> http_body::Body for Frames<S> {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Pin::new(&mut self.0).poll_next(cx).map(|next| next.map(|data| Ok(Frame::data(data))))
        }
    }

    /// The length of the next frame. Nothing at the end.
    fn next(attempt: &mut Attempt) -> Result<Option<usize>, Status> {
        let frame = poll_fn(|cx| Pin::new(&mut *attempt).poll_frame(cx)).now_or_never().expect("it is there");
        frame.transpose().map(|frame| frame.map(|frame| frame.into_data().expect("data").len()))
    }

    #[test]
    fn every_attempt_gets_the_whole_body_and_those_before_it_no_more() {
        let replay = body(&[1, 2, 3]);
        let mut first = replay.attempt();
        assert_eq!((next(&mut first).unwrap(), next(&mut first).unwrap()), (Some(1), Some(2)));
        assert!(replay.is_complete());
        let mut second = replay.attempt();
        assert_eq!(next(&mut first).unwrap_err().code(), tonic::Code::Cancelled);
        for expected in [Some(1), Some(2), Some(3), None, None] {
            assert_eq!(next(&mut second).unwrap(), expected);
        }
        let mut third = replay.attempt();
        for expected in [Some(1), Some(2), Some(3), None] {
            assert_eq!(next(&mut third).unwrap(), expected);
        }
        assert!(third.is_end_stream());
    }

    #[test]
    fn what_is_too_long_or_settled_is_not_sent_again() {
        let replay = body(&[REPLAY_BYTES_MAX, 1, 1]);
        let mut attempt = replay.attempt();
        assert_eq!(next(&mut attempt).unwrap(), Some(REPLAY_BYTES_MAX));
        assert!(replay.is_complete());
        assert_eq!(next(&mut attempt).unwrap(), Some(1));
        assert!(!replay.is_complete());
        assert_eq!((next(&mut attempt).unwrap(), next(&mut attempt).unwrap()), (Some(1), None));

        let replay = body(&[1, 1]);
        let mut attempt = replay.attempt();
        assert_eq!(next(&mut attempt).unwrap(), Some(1));
        replay.settle();
        assert!(!replay.is_complete());
        assert_eq!((next(&mut attempt).unwrap(), next(&mut attempt).unwrap()), (Some(1), None));
    }
}

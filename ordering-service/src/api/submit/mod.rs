//! The submit stream: batches in, batches of outcomes out, matched by id, in any order.

mod desk;
mod outbox;
mod outcome;
mod races;
mod rounds;

use std::{pin::pin, sync::Arc};

use concordat_proto::ordering::v1::SubmitRequest;
use futures::future::{Either, select};
use tokio::time::{Instant, interval};
use tonic::{Status, Streaming};

use self::outbox::Outbox;
pub use self::{desk::Desk, outbox::Answers};
use crate::{
    error::{ApiError, malformed},
    limits,
    placement::tally::SiteTally,
};

/// Serves one stream. The stream of answers ends when the requests have ended and everything is answered.
pub(crate) fn serve(desk: Arc<Desk>, requests: Streaming<SubmitRequest>) -> Answers {
    let outbox = desk.outbox();
    tokio::spawn(run(desk, outbox.clone(), requests));
    Answers(outbox)
}

async fn run(desk: Arc<Desk>, outbox: Arc<Outbox>, requests: Streaming<SubmitRequest>) {
    desk.node().metrics.submit_streams.increment(1.0);
    {
        let read = pin!(read(&desk, &outbox, requests));
        let expire = pin!(expire(&desk, &outbox));
        if let Either::Left((ended, expire)) = select(read, expire).await {
            outbox.end_input(ended.err());
            // What is under way still gets its answer, or expires.
            expire.await;
        }
    }
    desk.node().metrics.submit_streams.decrement(1.0);
}

async fn read(
    desk: &Desk,
    outbox: &Arc<Outbox>,
    mut requests: Streaming<SubmitRequest>,
) -> Result<(), Status> {
    let mut site = None;
    loop {
        outbox.room().await;
        let message = tokio::select! {
            message = requests.message() => message,
            // A draining server takes nothing more.
            () = desk.node().stop.cancelled() => return Ok(()),
        };
        // A stream that broke ends like one that was ended: what is under way goes on.
        let Ok(Some(request)) = message else { return Ok(()) };
        let count = request.submissions.len();
        if count > limits::SUBMISSIONS_PER_REQUEST {
            let expected = format!("at most {} submissions", limits::SUBMISSIONS_PER_REQUEST);
            return Err(ApiError::from(malformed("a request", &expected, count)).into());
        }
        let site = match &site {
            Some(site) => site,
            None => site.insert(site_of(desk, &request)?),
        };
        if let Some(outcome) = desk.closed() {
            request.submissions.iter().for_each(|submission| outbox.refuse(submission.id, outcome.clone()));
            continue;
        }
        let now = Instant::now();
        for submission in request.submissions {
            site.count(submission.shard);
            desk.take(outbox, submission, now).await.map_err(ApiError::from)?;
        }
    }
}

/// Where a stream comes from, as its first request says.
fn site_of(desk: &Desk, first: &SubmitRequest) -> Result<SiteTally, Status> {
    if first.site.len() > limits::NAME_BYTES {
        let expected = format!("at most {} bytes", limits::NAME_BYTES);
        return Err(ApiError::from(malformed("the site of a submitter", &expected, first.site.len())).into());
    }
    Ok(desk.node().placement.tally.of_site(&first.site))
}

/// Answers what takes too long, until nothing is left to answer.
async fn expire(desk: &Desk, outbox: &Outbox) {
    let mut ticks = interval(limits::EXPIRY_INTERVAL);
    while !outbox.is_finished() {
        ticks.tick().await;
        if let Some(before) = Instant::now().checked_sub(desk.node().timing.submission) {
            outbox.expire(before);
        }
    }
}

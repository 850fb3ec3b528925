//! An owner that tries to write in another's Send Group, in every way that a client has.

use std::time::Duration;

use bytes::Bytes;
use mls_client::{
    Security,
    dimls::{Item, remote::Remote},
};

use tokio::time::sleep;

use crate::members::Members;

/// Before an attempt that had no answer is made again.
const PAUSE: Duration = Duration::from_millis(100);

/// What was tried, and what the gateway answered.
pub(crate) struct Attack {
    pub(crate) what: &'static str,
    /// The refusal, or nothing if it was accepted.
    pub(crate) refused: Option<String>,
}

/// Member 1 tries to get something into the Send Group of member 2.
pub(crate) async fn try_everything(members: &Members, gateways: &[String]) -> anyhow::Result<Vec<Attack>> {
    let (intruder, victim) = (&members.members[0], &members.members[1]);
    let remote = Remote::new(&gateways[0], &intruder.id, &Security::default())?;
    // Something real of the victim: whatever comes first in its stream beyond the KeyPackage.
    let mut told = remote.subscribe(&members.id(), &[]).await?;
    let stolen = loop {
        use futures::StreamExt;
        use mls_client::dimls::remote::Delivery;
        match told.next().await {
            Some(Ok(Delivery::Item(item))) if item.owner == victim.id && item.seq > 1 => break item,
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error.into()),
            None => anyhow::bail!("the subscription ended"),
        }
    };
    let far = intruder.shared.with(|session| session.view().epoch) + 5000;
    let attempts = [
        ("into the victim's stream", Item { owner: victim.id.clone(), seq: far, ..stolen.clone() }),
        (
            "the victim's message in its own stream",
            Item { owner: intruder.id.clone(), seq: far, ..stolen.clone() },
        ),
        (
            "junk",
            Item {
                owner: intruder.id.clone(),
                seq: far,
                message: Bytes::from_static(b"junk"),
                welcome: Bytes::new(),
            },
        ),
    ];
    let mut attacks = Vec::new();
    for (what, item) in attempts {
        let refused = loop {
            match remote.submit(&members.id(), &item).await {
                Ok(_) => break None,
                // No answer is no refusal.
                Err(error) if error.is_temporary() => sleep(PAUSE).await,
                Err(error) => break Some(error.to_string()),
            }
        };
        attacks.push(Attack { what, refused });
    }
    Ok(attacks)
}

//! One member that decrypts: a session of `mls-client`, its state on disk, at its site's gateway.

use std::{collections::HashMap, sync::Arc, time::Instant};

use anyhow::{Context, bail};
use futures::StreamExt;
use mls_client::{
    ClientId, Store,
    dimls::{
        Event, Item, Session,
        remote::{Delivery, Remote},
    },
};
use tokio::{
    sync::{mpsc, watch},
    task::block_in_place,
};

use super::journal::{Journal, What};
use crate::topology::limits::MESSAGE_BYTES;

/// What a worker is to do.
#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    /// Add everybody.
    Add,
    /// Send something that is due at this moment.
    Send(What, Instant),
}

/// How far a worker is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Standing {
    /// Others whose KeyPackage it has.
    pub(super) met: usize,
    /// Others in whose Send Group it is.
    pub(super) entered: usize,
    /// The last item of its own that its gateway keeps.
    pub(super) sent: u64,
}

pub(super) struct Worker {
    pub(super) number: usize,
    pub(super) site: usize,
    pub(super) session: Session<Store>,
    pub(super) remote: Remote,
    pub(super) journal: Arc<Journal>,
    pub(super) numbers: Arc<HashMap<ClientId, usize>>,
    pub(super) orders: mpsc::UnboundedReceiver<Order>,
    pub(super) standing: watch::Sender<Standing>,
    /// How far it has read every other stream.
    pub(super) read: HashMap<ClientId, u64>,
}

/// Nothing here depends on the time: the policy asks for nothing.
const NOW: u64 = 1;

impl Worker {
    /// Works until nobody gives orders any more.
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        self.send().await?;
        let mut told = self.remote.subscribe(&self.session.id(), &self.session.cursor()).await?;
        loop {
            tokio::select! {
                order = self.orders.recv() => match order {
                    None => return Ok(()),
                    Some(order) => {
                        block_in_place(|| self.obey(order))?;
                        self.send().await?;
                    }
                },
                delivery = told.next() => match delivery.context("a subscription ended")?? {
                    Delivery::Item(item) => block_in_place(|| self.take_in(item))?,
                    Delivery::Dropped { .. } => bail!("a gateway has dropped items of a group that is measured"),
                    Delivery::CaughtUp => {}
                },
            }
        }
    }

    fn obey(&mut self, order: Order) -> anyhow::Result<()> {
        match order {
            Order::Add => _ = self.session.tick(NOW)?,
            Order::Send(what, due) => {
                let seq = match what {
                    What::Update => self.session.update(NOW)?,
                    What::Message => self.session.protect(&[7; MESSAGE_BYTES])?,
                };
                let made = self.session.outbox().find(|item| item.seq == seq);
                let bytes = made.map_or(0, Item::bytes);
                self.journal.sent((self.number, seq), self.site, bytes, due);
            }
        }
        Ok(())
    }

    async fn send(&mut self) -> anyhow::Result<()> {
        loop {
            let next = self.session.outbox().next().cloned();
            let Some(item) = next else { return Ok(()) };
            self.remote.submit(&self.session.id(), &item).await?;
            self.journal.accepted((self.number, item.seq));
            block_in_place(|| self.session.confirmed(item.seq))?;
            self.standing.send_modify(|standing| standing.sent = item.seq);
        }
    }

    fn take_in(&mut self, item: Item) -> anyhow::Result<()> {
        // What this one has sent itself is told, too.
        if item.owner == *self.session.client_id() {
            return Ok(());
        }
        let number = |owner: &ClientId| self.numbers.get(owner).copied().context("an item of nobody");
        self.journal.arrived((number(&item.owner)?, item.seq));
        let events = self.session.receive(item, NOW)?;
        // One that takes in an UPDATE of a third member may have to wait for it.
        let good = |event: &Event| {
            matches!(event, Event::Message(_) | Event::Entered { .. } | Event::Waiting { .. })
        };
        if let Some(event) = events.iter().find(|event| !good(event)) {
            bail!("an item that should have been taken in was not: {event:?}");
        }
        let cursor = self.session.cursor();
        for (owner, now) in &cursor {
            let (owner, before) = (number(owner)?, self.read.get(owner).copied().unwrap_or_default());
            (before + 1..=*now).for_each(|seq| self.journal.taken((owner, seq)));
        }
        let met = cursor.iter().filter(|(_, seq)| *seq > 0).count();
        self.read = cursor.into_iter().collect();
        if events.iter().any(|event| matches!(event, Event::Entered { .. }))
            || met > self.standing.borrow().met
        {
            let peers = self.session.view().peers;
            let entered = peers.iter().filter(|peer| peer.entered.is_some()).count();
            self.standing.send_modify(|standing| (standing.met, standing.entered) = (met, entered));
        }
        Ok(())
    }
}

//! What is measured of a design that puts commits into an order, on one topology: under load, when many commit at once, while something is
//! broken, and in a split.

use std::{path::Path, time::Duration};

use super::{
    chains::Chains,
    contention,
    contention::Contention,
    faults,
    limits::{TURN_MEMBERS_MAX, TURNS_RATE},
    load,
    load::Load,
    options::Plan,
    row::Row,
    spec::Topology,
    split,
    world::{Design, World, slowest_of},
};
use crate::progress::Progress;

/// One design on one topology.
pub(crate) struct Ordered<'a> {
    pub(crate) plan: &'a Plan,
    /// Median of a sync on the disk.
    pub(crate) sync: Duration,
    pub(crate) topology: &'a Topology,
    pub(crate) design: Design,
    pub(crate) chains: &'a Chains,
    pub(crate) progress: &'a Progress,
}

impl Ordered<'_> {
    /// Steps of the progress bar.
    pub(crate) fn steps(plan: &Plan, design: Design) -> usize {
        let loads = plan.members.len();
        match design {
            // The processes, contention, faults.
            Design::Lead => loads + 3,
            // And the same in turn, and a split.
            Design::Consensus => loads + 3 + plan.in_turn().count() + plan.compared().count() + 2,
        }
    }

    pub(crate) fn label(&self) -> String {
        self.of(self.design.name())
    }

    fn of(&self, design: &str) -> String {
        format!("{design} on {}", self.topology.name)
    }

    fn has_turns(&self) -> bool {
        self.design == Design::Consensus
    }

    pub(crate) async fn measure(&self, dir: &Path) -> anyhow::Result<Vec<Row>> {
        let label = self.label();
        self.progress.now(format!("{label}: starting the processes"));
        let world = World::start(self.design, self.topology, dir, self.plan.seed).await?;
        self.progress.done(&format!("{label}: all processes run"));
        let mut rows = self.loads(&world).await?;
        let contention = self.contention(&world, &mut rows).await?;
        self.progress.now(format!("{label}: the leader dies, the home site is cut off"));
        let faults = faults::run(&world, self.chains, self.plan.fault).await?;
        self.progress.done(&format!("{label}: faults"));
        if self.design == Design::Consensus {
            self.split(&world, dir, &mut rows).await?;
        }
        // They concern the design on the topology, whatever the size of the groups.
        if let Some(row) = rows.first_mut() {
            row.add_contention(&contention);
            row.add_faults(&faults);
        }
        Ok(rows)
    }

    async fn loads(&self, world: &World) -> anyhow::Result<Vec<Row>> {
        let changing = world.keep_changing();
        let mut rows = Vec::new();
        for members in &self.plan.members {
            rows.push(self.load(world, *members).await?);
            if self.has_turns() && *members <= TURN_MEMBERS_MAX {
                rows.push(self.load_in_turn(world, *members).await?);
            }
        }
        if self.has_turns() {
            for members in self.plan.compared() {
                rows.push(self.load(world, members).await?);
            }
        }
        drop(changing);
        world.links.heal_all();
        Ok(rows)
    }

    async fn load(&self, world: &World, members: usize) -> anyhow::Result<Row> {
        let Plan { rate, time, seed, .. } = *self.plan;
        let label = format!("{}, groups of {members}", self.label());
        self.progress.now(format!("{label}: {rate} commits/s"));
        // The same number of groups for each design and topology: then their chains serve all.
        let slowest = self.plan.slowest();
        let load = Load { rate, time, members, slowest, sync: self.sync, turn: None, seed };
        let loaded = load::run(world, self.chains, load, "load").await?;
        self.progress.done(&format!("{label}: {} commits", loaded.commits));
        Ok(Row::new(self.topology, self.design.name(), members, rate, &loaded))
    }

    async fn load_in_turn(&self, world: &World, members: usize) -> anyhow::Result<Row> {
        let Plan { time, seed, .. } = *self.plan;
        let (rate, turn) = (self.plan.rate * TURNS_RATE, world.turn(self.sync));
        let label = format!("{}, groups of {members}", self.of("turns"));
        self.progress.now(format!("{label}: {rate} commits/s"));
        let slowest = slowest_of(self.topology);
        let load = Load { rate, time, members, slowest, sync: self.sync, turn: Some(turn), seed };
        let loaded = load::run(world, self.chains, load, "turns").await?;
        self.progress.done(&format!("{label}: {} commits", loaded.commits));
        let row = Row::new(self.topology, "turns", members, rate, &loaded);
        Ok(Row { turn_ms: Some(turn.as_secs_f64() * 1e3), ..row })
    }

    async fn contention(&self, world: &World, rows: &mut [Row]) -> anyhow::Result<Vec<Contention>> {
        let mut at_once = Vec::new();
        for members in &self.plan.contention {
            self.progress.now(format!("{}: {members} members commit at once", self.label()));
            at_once.push(contention::run(world, self.chains, *members).await?);
        }
        self.progress.done(&format!("{}: contention", self.label()));
        if self.has_turns() {
            let mut in_turn = Vec::new();
            for members in &self.plan.contention {
                self.progress.now(format!("{}: {members} members want to commit", self.of("turns")));
                let turn = world.turn(self.sync);
                in_turn.push(contention::in_turn(world, self.chains, *members, turn).await?);
            }
            if let Some(row) = rows.iter_mut().find(|row| row.design == "turns") {
                row.add_contention(&in_turn);
            }
            self.progress.done(&format!("{}: contention", self.of("turns")));
        }
        Ok(at_once)
    }

    async fn split(&self, world: &World, dir: &Path, rows: &mut Vec<Row>) -> anyhow::Result<()> {
        self.progress.now(format!("{}: the network is split", self.of("demls")));
        world.lead_from_home().await?;
        if let Some(split) = split::run(world, self.plan.fault, dir, self.plan.seed).await? {
            if let Some(row) = rows.first_mut() {
                row.client_bytes_per_commit = Some(split.mls_bytes_per_commit);
            }
            rows.push(Row::of_split(&self.topology.name, self.topology.sites.len(), &split));
        }
        self.progress.done(&format!("{}: a split and its end", self.of("demls")));
        Ok(())
    }
}

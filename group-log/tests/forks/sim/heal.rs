//! All faults end, everybody does what is his to do, and then everything that was promised must be true.

use group_log::fork::{Answer, Command};

use super::{
    acts::Act,
    world::{Budget, Checked, Kind, OUT, Seat, World, bit, bits, gateway_id},
};

const ROUNDS: usize = 40;

/// Tries the ends that a world may come to: what is on its way arrives or is lost, and one branch or another wins.
pub fn check(world: &World) -> Checked {
    let on_its_way = world.submitted & !world.recorded() != 0
        || world.reporting != [0; 3]
        || (0..3).any(|g| world.is_acking(g) || late_word(world, g));
    let waiting = world.gateways.iter().map(|gateway| gateway.tree_mask).chain(world.reporting);
    let waiting = waiting.fold(world.accepted, |all, mask| all | mask) & !world.recorded();
    let has_choice = world.collecting() || waiting.count_ones() > 1;
    for variant in 0..4u8 {
        let useless = (variant & 1 == 1 && !on_its_way) || (variant & 2 == 2 && !has_choice);
        if !useless {
            heal(world, variant).map_err(|error| format!("{error} [after healing, variant {variant}]"))?;
        }
    }
    Ok(())
}

/// A registration or a release that was sent long ago would change something.
fn late_word(world: &World, g: usize) -> bool {
    let register = world.registering[g].is_some() && !world.registered(g);
    register || (world.releasing[g].is_some() && world.releasing[g] == world.registration(g))
}

/// The world after all faults have ended.
pub fn heal(world: &World, variant: u8) -> Result<World, String> {
    let mut world = world.clone();
    (world.quorum, world.links) = (7, 7);
    world.budget = Budget { commits: 9, apps: 9, evictions: 9, moves: 9, ..Budget::default() };
    for gateway in &mut world.gateways {
        gateway.down = if gateway.down == 1 { 0 } else { gateway.down };
    }
    let Some(alive) = (0..3).find(|g| world.gateways[*g].up()) else { return Ok(world) };
    for member in 0..4 {
        let at = world.clients[member].at as usize;
        if at == 3 || world.gateways[at].down == 2 {
            world.clients[member].at = alive as u8;
        }
    }
    settle_wire(&mut world, variant & 1 == 1)?;
    for round in 0.. {
        let before = progress(&world);
        one_round(&mut world, variant >> 1)?;
        if progress(&world) == before {
            break;
        }
        if round > ROUNDS {
            return Err("ENDLESS: the world does not come to rest".into());
        }
    }
    final_checks(&world)?;
    Ok(world)
}

fn settle_wire(world: &mut World, arrives: bool) -> Checked {
    if !arrives {
        world.submitted = 0;
        world.reporting = [0; 3];
        for g in 0..3 {
            world.acking[g] = world.acking[g].min(world.acked(g));
            (world.registering[g], world.releasing[g]) = (None, None);
        }
        return Ok(());
    }
    for index in bits(world.submitted) {
        world.command(world.submission(index))?;
    }
    for g in 0..3u8 {
        if world.reporting[g as usize] != 0 {
            world.step(Act::DeliverReport(g))?;
        }
        if world.is_acking(g as usize) {
            world.step(Act::DeliverAck(g))?;
        }
        if late_word(world, g as usize) {
            world.step(if world.registered(g as usize) {
                Act::DeliverRelease(g)
            } else {
                Act::DeliverRegister(g)
            })?;
        }
    }
    Ok(())
}

fn progress(world: &World) -> impl PartialEq + use<> {
    let trees = world
        .gateways
        .clone()
        .map(|gateway| (gateway.tree_mask, gateway.view, gateway.promised, gateway.seat));
    (world.log.clone(), world.ents.len(), world.clients, trees, world.cluster.state().clone())
}

fn one_round(world: &mut World, nonce: u8) -> Checked {
    let up: Vec<usize> = (0..3).filter(|g| world.gateways[*g].up()).collect();
    for g in 0..3 {
        if world.rules.evict && world.gateways[g].down == 2 && world.registered(g) {
            world.step(Act::Evict(g as u8))?;
        }
    }
    for &g in &up {
        world.gateways[g].view = world.log.len() as u8;
        world.observe(g, true);
    }
    clients_read_branches(world)?;
    for &g in &up {
        // Whoever has let go of the group comes back when somebody asks.
        let is_asked = (0..4).any(|member| usize::from(world.clients[member].at) == g);
        if world.would_register(g) && (is_asked || world.gateways[g].seat != Seat::Out) {
            world.register(g)?;
        }
        let entries = world.reportable(g);
        world.report(g, entries)?;
    }
    if world.collecting() && (world.rules.evict || world.all_reported()) {
        world.close(nonce)?;
    }
    for &g in &up {
        world.gateways[g].view = world.log.len() as u8;
    }
    for member in 0..4 {
        world.consume(member, world.log.len())?;
    }
    if !world.collecting() {
        repair(world)?;
    }
    for &g in &up {
        world.gateways[g].view = world.log.len() as u8;
        world.observe(g, true);
        let view = world.gateways[g].view;
        if world.takes_part(g) && world.may_ack(g) && view > world.acked(g) {
            world.step(Act::Ack(g as u8))?;
            world.step(Act::DeliverAck(g as u8))?;
        }
        if matches!(world.gateways[g].seat, Seat::Leaving(_)) {
            world.step(Act::Release(g as u8))?;
        }
    }
    Ok(())
}

fn clients_read_branches(world: &mut World) -> Checked {
    for member in 0..4u8 {
        loop {
            let of_branches =
                |act: &Act| matches!(act, Act::Learn(who, _) | Act::Upload(who, _) if *who == member);
            let Some(act) = world.acts(false).into_iter().find(of_branches) else { break };
            world.step(act)?;
        }
    }
    Ok(())
}

/// First the removals that are owed, then the Adds that were lost.
fn repair(world: &mut World) -> Checked {
    let head = world.head();
    let members = world.members(head);
    let owed = world.owed();
    let stands_there = |world: &World, member: usize| world.clients[member].current == head;
    if owed != 0 {
        let free = members & !owed;
        let Some(member) = (0..4).find(|m| free >> m & 1 == 1 && stands_there(world, *m)) else {
            return Err(format!("STUCK: nobody can carry out removals {owed:b} of members {members:b}"));
        };
        return commit(world, member, Kind::Remove(owed));
    }
    if members & 8 != 0 {
        return Ok(());
    }
    let may_add = |author: u8| !world.rules.author_adds || members >> author & 1 == 1;
    let lost =
        bits(world.side()).find(|e| world.ents[*e].kind == Kind::AddZ && may_add(world.ents[*e].author));
    let Some(lost) = lost else { return Ok(()) };
    let author = world.ents[lost].author as usize;
    let member = match world.rules.author_adds {
        true => Some(author),
        false => (0..3).find(|m| members >> m & 1 == 1 && stands_there(world, *m)),
    };
    let Some(member) = member.filter(|member| stands_there(world, *member)) else { return Ok(()) };
    commit(world, member, Kind::AddZ)?;
    if members >> author & 1 == 0 {
        return Err(format!(
            "SECURITY: Z, added on a side branch by removed member {author}, is added again by {member}"
        ));
    }
    Ok(())
}

fn commit(world: &mut World, member: usize, kind: Kind) -> Checked {
    let index = world.make(member, kind);
    world.clients[member].pending |= 1 << index;
    match world.command(world.submission(index))? {
        Answer::Decided(group_log::Decision::Accepted(_)) => Ok(()),
        other => Err(format!("REPAIR: {kind:?} by {member} was not accepted: {other:?}")),
    }
}

fn final_checks(world: &World) -> Checked {
    let head = world.head();
    let members = world.members(head);
    if world.collecting() {
        return Err("BLOCKED: the group stays in a collection".into());
    }
    if world.owed() != 0 {
        return Err("OBLIGATION: still owed".into());
    }
    for member in (0..4).filter(|member| members >> member & 1 == 1) {
        let client = &world.clients[member];
        if client.current != head || !bit(client.held, head as usize) {
            return Err(format!("CONVERGENCE: member {member} ends in {}, not in {head}", client.current));
        }
        let extra = client.held & !(1 << head);
        if extra != 0 && world.rules.keep {
            return Err(format!("RETENTION: member {member} keeps {extra:b} forever"));
        }
    }
    for index in bits(world.accepted) {
        accepted_entry(world, index, members)?;
    }
    final_answers(world)
}

fn accepted_entry(world: &World, index: usize, members: u8) -> Checked {
    if !bit(world.recorded(), index) {
        return Err(format!("LOST: accepted entry {index} is nowhere"));
    }
    if bit(world.late(), index) {
        let never =
            if world.evicted == 0 { Err(format!("LATE without an eviction: {index}")) } else { Ok(()) };
        return never;
    }
    let ent = &world.ents[index];
    let entitled = world.members(ent.parent) & members;
    for member in (0..4).filter(|member| entitled >> member & 1 == 1) {
        if !bit(world.clients[member].read, index) {
            return Err(format!("UNREAD: member {member} never read accepted {index}"));
        }
    }
    if bit(world.side(), index) && members >> ent.author & 1 == 1 {
        match ent.kind {
            Kind::Remove(who) if members & who != 0 && ent.author != 3 => {
                return Err(format!("REMOVAL LOST: {index} removed {who:b}, which is still there"));
            }
            Kind::AddZ if members & 8 == 0 => return Err(format!("ADD LOST: {index}")),
            _ => {}
        }
    }
    Ok(())
}

/// Whatever is in the log gets a final answer, and the same one twice; the log does not change by asking.
fn final_answers(world: &World) -> Checked {
    let mut again = world.clone();
    for index in bits(world.recorded()) {
        let answer = again.command(world.submission(index))?;
        if answer != again.command(world.submission(index))? || again.log.len() != world.log.len() {
            return Err(format!("ANSWER: asking again about {index} changed something"));
        }
        if matches!(answer, Answer::Retry | Answer::RemoveFirst { .. } | Answer::Rejected(_)) {
            return Err(format!("ANSWER: {index} is in the log, but got {answer:?}"));
        }
    }
    let unknown = Command::Ack { gateway: gateway_id(9), registration: 0, position: 1 };
    match again.command(unknown)? {
        Answer::Rejected(_) => Ok(()),
        other => Err(format!("ANSWER: an unknown gateway got {other:?}")),
    }
}

/// Nobody stands anywhere any more: used by tests that ask about those outside.
pub fn is_outside(world: &World, member: usize) -> bool {
    world.clients[member].current == OUT
}

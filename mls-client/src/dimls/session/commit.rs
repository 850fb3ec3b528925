//! What the owner does in its own Send Group: UPDATE, COMMIT and PROTECT.

use std::collections::BTreeSet;

use openmls::prelude::{KeyPackage, KeyPackageIn, LeafNodeIndex, ProtocolVersion};
use openmls::prelude::{MlsMessageBodyIn, MlsMessageIn, tls_codec::Deserialize};
use openmls_traits::OpenMlsProvider;

use super::{Member, Node, Records, Session, record};
use crate::dimls::{
    aad::CommitData,
    error::{DimlsError, Rejected},
    limits::{BODY_BYTES, PSKS_KEPT},
    psk,
};

/// What a commit is to do, beside taking all PSKs that it can.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Who is added, or replaced by a Remove and an Add.
    pub(super) add: BTreeSet<Member>,
    pub(super) remove: BTreeSet<Member>,
    /// With a new path, and with a new KeyPackage for the others: an UPDATE.
    pub(super) update: bool,
}

impl<R: Records> Session<R> {
    /// PROTECT: encrypts a message in the own Send Group. Returns its number in the own stream.
    pub fn protect(&mut self, body: &[u8]) -> Result<u64, DimlsError> {
        self.check_sending()?;
        if body.len() > BODY_BYTES {
            return Err(DimlsError::TooLong { limit: BODY_BYTES, got: body.len() });
        }
        self.operate(|session| {
            session.touched.insert(session.me);
            let me = usize::from(session.me);
            let group = session.groups[me].as_mut().ok_or(DimlsError::Unknown)?;
            let message = group
                .mls
                .create_message(&group.space.provider, session.identity.signer(), body)
                .map_err(|e| DimlsError::mls("encrypting a message", e))?
                .to_bytes()
                .map_err(|e| DimlsError::mls("encoding a message", e))?;
            session.push(message, Vec::new())
        })
    }

    /// UPDATE: new keys for this client, and everything of the others that can be taken in by PSKs. Returns its number in the own
    /// stream.
    pub fn update(&mut self, now_ms: u64) -> Result<u64, DimlsError> {
        self.check_sending()?;
        self.operate(|session| session.commit(Plan { update: true, ..Plan::default() }, now_ms))
    }

    /// A full replacement: an UPDATE that also gives a fresh leaf to everybody who has published a newer KeyPackage. PSKs follow in the
    /// next acknowledgement.
    pub fn replace(&mut self, now_ms: u64) -> Result<u64, DimlsError> {
        self.check_sending()?;
        self.operate(|session| {
            let plan = Plan { add: session.replaceable(), remove: session.owed(now_ms), update: true };
            session.commit(plan, now_ms)
        })
    }

    /// COMMIT by PSKs alone, without a path: acknowledges all UPDATEs that have been seen. Nothing happens if there are none.
    pub fn acknowledge(&mut self, now_ms: u64) -> Result<Option<u64>, DimlsError> {
        self.check_sending()?;
        if self.importable(&self.own_members()).is_empty() {
            return Ok(None);
        }
        self.operate(|session| session.commit(Plan::default(), now_ms).map(Some))
    }

    /// Who is in the own Send Group.
    pub(super) fn own_members(&self) -> BTreeSet<Member> {
        self.graph.members(self.me)
    }

    pub(super) fn importable(&self, with: &BTreeSet<Member>) -> Vec<Node> {
        let mut takes = self.graph.importable(self.me, with);
        // Whoever has lost that Send Group could not follow, and would lose this one, too.
        takes.retain(|node| {
            self.psks.contains_key(node) && !with.iter().any(|member| self.lacks(*member, node.owner))
        });
        takes
    }

    /// Commits in the own Send Group, and puts the commit into the outbox.
    pub(super) fn commit(&mut self, plan: Plan, now_ms: u64) -> Result<u64, DimlsError> {
        let failed = |e: &dyn std::fmt::Display| DimlsError::mls("committing in the own Send Group", e);
        let before = self.own_members();
        let after: BTreeSet<Member> =
            before.union(&plan.add).copied().filter(|m| !plan.remove.contains(m)).collect();
        // Whoever is added may have lost other Send Groups, and could not come in by a Welcome that needs their PSKs. If two owners
        // waited for one another like that, it would never come back. So PSKs follow in the next acknowledgement.
        let takes = if plan.add.is_empty() { self.importable(&after) } else { Vec::new() };
        let mut data = CommitData { takes: takes.clone(), ..CommitData::default() };
        if plan.update {
            let package = self.new_key_package()?;
            data.key_package = Some((self.record.generation, package));
            data.lost = self.say_lost(now_ms);
        }
        let mut adds = Vec::new();
        for member in plan.add.difference(&plan.remove) {
            let Some((generation, package)) = self.peers[usize::from(*member)].package.clone() else {
                continue;
            };
            let package = self.valid_package(*member, &package.0).map_err(|e| failed(&e))?;
            data.adds.push((*member, generation));
            adds.push(package);
        }
        let leaves = |session: &Self, members: &BTreeSet<Member>| -> Vec<LeafNodeIndex> {
            let Some(own) = &session.groups[usize::from(session.me)] else { return Vec::new() };
            let wanted = |m: &openmls::prelude::Member| {
                let id = crate::identity::client_id_of(&m.credential);
                members.iter().any(|member| session.client(*member).as_bytes() == id)
            };
            own.mls.members().filter(wanted).map(|m| m.index).collect()
        };
        let gone: BTreeSet<Member> = plan
            .remove
            .iter()
            .copied()
            .chain(data.adds.iter().map(|(member, _)| *member))
            .filter(|member| before.contains(member))
            .collect();
        let removes = leaves(self, &gone);

        let ids: Vec<_> =
            takes.iter().map(|node| psk::psk_id(node.epoch, &self.send_group(node.owner))).collect();
        let nonce = self.ciphersuite.hash_length();
        let me = usize::from(self.me);
        let group = self.groups[me].as_mut().ok_or(DimlsError::Unknown)?;
        let provider = &group.space.provider;
        let lent =
            psk::lend(provider, ids.iter().cloned().zip(takes.iter().filter_map(|n| self.psks.get(n))))?;
        let proposals =
            ids.into_iter().map(|id| psk::proposal(provider, id, nonce)).collect::<Result<Vec<_>, _>>()?;
        group.mls.set_aad(data.encode());
        let bundle = group
            .mls
            .commit_builder()
            .propose_removals(removes)
            .propose_adds(adds)
            .add_proposals(proposals)
            .force_self_update(plan.update)
            .load_psks(provider.storage())
            .map_err(|e| failed(&e))?
            .create_group_info(false)
            .use_ratchet_tree_extension(true)
            .build(provider.rand(), provider.crypto(), self.identity.signer(), |_| true)
            .map_err(|e| failed(&e))?
            .stage_commit(provider)
            .map_err(|e| failed(&e))?;
        let (commit, welcome, _) = bundle.into_messages();
        // Nobody else commits here, so there is nothing to wait for.
        group.mls.merge_pending_commit(provider).map_err(|e| failed(&e))?;
        lent.take_back(provider)?;
        let commit = commit.to_bytes().map_err(|e| failed(&e))?;
        let welcome = welcome.map(|w| w.to_bytes()).transpose().map_err(|e| failed(&e))?.unwrap_or_default();

        for (member, generation) in &data.adds {
            self.peers[usize::from(*member)].used = Some(*generation);
            self.touched.insert(*member);
        }
        for member in &plan.remove {
            self.record.removals.saw(*member, self.me);
        }
        self.entered_own(plan.update, &takes)?;
        self.note_unacknowledged(now_ms);
        self.push(commit, welcome)
    }

    /// The own Send Group is in another epoch.
    pub(super) fn entered_own(&mut self, update: bool, took: &[Node]) -> Result<(), DimlsError> {
        let me = self.me;
        self.entered(me, update, took)
            .map_err(|rejected| DimlsError::Damaged(format!("the own Send Group: {rejected}")))
            .and_then(|done| done)
    }

    /// A Send Group is in another epoch: its PSK is exported now or never.
    pub(super) fn entered(
        &mut self,
        owner: Member,
        update: bool,
        took: &[Node],
    ) -> Result<Result<(), DimlsError>, Rejected> {
        let id = self.send_group(owner);
        let Some(group) = &self.groups[usize::from(owner)] else { return Ok(Ok(())) };
        let members = group.members(|client, key| self.known(client, key))?;
        let node = Node { owner, epoch: group.mls.epoch().as_u64() };
        let exported = psk::export(&group.mls, &group.space.provider, &id, self.setup.exporter_bytes());
        let secret = match exported {
            Ok(secret) => secret,
            Err(error) => return Ok(Err(error)),
        };
        self.changes.push(record::put_psk(&node, &secret));
        self.psks.insert(node, secret);
        self.graph.enter(node, update, members, took);
        self.touched.insert(owner);
        self.drop_old_psks();
        Ok(Ok(()))
    }

    fn drop_old_psks(&mut self) {
        let active = self.record.removals.remaining(self.peers.len());
        for node in self.graph.deletable(&active, PSKS_KEPT) {
            self.graph.forget(node);
            self.psks.remove(&node);
            self.changes.push(record::delete_psk(&node));
        }
    }

    /// A KeyPackage (an MLSMessage) that is whole, valid, a last resort, and of this member.
    pub(super) fn valid_package(&self, member: Member, message: &[u8]) -> Result<KeyPackage, Rejected> {
        let package = self.read_package(message)?;
        let leaf = package.leaf_node();
        let key = leaf.signature_key().as_slice();
        let client = crate::identity::client_id_of(leaf.credential());
        let pinned = &self.peers[usize::from(member)].signature_key.0;
        if client != self.client(member).as_bytes() || (!pinned.is_empty() && pinned != key) {
            return Err(Rejected::OtherKey);
        }
        Ok(package)
    }

    fn read_package(&self, message: &[u8]) -> Result<KeyPackage, Rejected> {
        let bad = |e: &dyn std::fmt::Display| Rejected::Malformed(format!("the KeyPackage: {e}"));
        let message = MlsMessageIn::tls_deserialize_exact(message).map_err(|e| bad(&e))?;
        let MlsMessageBodyIn::KeyPackage(package) = message.extract() else {
            return Err(bad(&"it is another kind of message"));
        };
        let package: KeyPackageIn = package;
        let package = package.validate(&*self.crypto, ProtocolVersion::Mls10).map_err(|e| bad(&e))?;
        if package.ciphersuite() != self.ciphersuite || !package.last_resort() {
            return Err(bad(&"expected a last resort of the DGroup's ciphersuite"));
        }
        Ok(package)
    }
}

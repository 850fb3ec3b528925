//! What a gateway lets its clients read, and what they bring.

use bytes::Bytes;
use concordat_proto::{
    gateway::v1::{
        self as gw, BranchEvent, ClaimKeyPackageResponse, GetGroupInfoResponse, ReadEntriesRequest,
        ReadEntriesResponse, subscribe_response::Event,
    },
    log::v1::{self as pb, Reason},
};
use group_log::{
    ClientId, Content, Cursor, EntryId, GroupId, check_cursor,
    fork::{BranchEntry, BranchRefusal, CommitFacts, Item, Mark, Mode},
};

use super::{
    Group, World,
    serve::{Answer, not_now, refusal, refused},
};

impl World {
    pub(super) fn read(&mut self, site: usize, request: &ReadEntriesRequest) -> Answer<ReadEntriesResponse> {
        self.up(site)?;
        let id = GroupId::new(request.group_id.clone()).unwrap();
        let quorum = self.reaches_quorum(site);
        if request.linearizable && !quorum {
            return Err(not_now(Reason::NoQuorum));
        }
        self.with(&id, |world, group| {
            if request.linearizable {
                world.follow(&id, group, site);
            }
            let at = &group.sites[site];
            let head = *at.view.current().ok_or_else(|| refusal(Reason::GroupNotFound))?;
            let cursor: Cursor =
                request.cursor.clone().map_or(Cursor::START, |cursor| cursor.try_into().unwrap());
            let first = match check_cursor(&at.view, &head, &cursor).unwrap() {
                Ok(first) => first,
                Err(error) => return Err(refused((&error).into())),
            };
            let most = request.max_entries.max(1) as usize;
            let entries = (first..=head.seq)
                .take(most)
                .map(|seq| group.entry(site, seq, world.claimed.as_ref()))
                .collect();
            Ok(ReadEntriesResponse { entries, head: Some((&head).into()) })
        })
    }

    pub(super) fn group_info(&mut self, site: usize, id: &[u8]) -> Answer<GetGroupInfoResponse> {
        self.up(site)?;
        let group = self.group(id)?;
        let at = &group.sites[site];
        let newest = at.view.items(1).filter_map(|(_, _, item)| match item {
            Item::Content(Content::Create(create)) => Some(create.group_info.clone()),
            Item::Content(Content::Commit(commit)) => Some(commit.group_info.clone()),
            _ => None,
        });
        Ok(GetGroupInfoResponse {
            group_info: newest.last().unwrap(),
            head: at.view.current().map(Into::into),
        })
    }

    pub(super) fn read_branch(
        &mut self,
        site: usize,
        request: &gw::ReadBranchEntriesRequest,
    ) -> Answer<gw::ReadBranchEntriesResponse> {
        self.up(site)?;
        let group = self.group(&request.group_id)?;
        let at = &group.sites[site];
        let ids = request.entry_ids.iter().map(|id| EntryId::from_slice(id).unwrap());
        let entries = ids
            .filter_map(|id| at.tree.get(&id).or_else(|| at.view.reported(&id)))
            .map(|entry| event(group, entry))
            .collect();
        Ok(gw::ReadBranchEntriesResponse { entries })
    }

    pub(super) fn offer(
        &mut self,
        site: usize,
        request: &gw::OfferBranchEntriesRequest,
    ) -> Answer<gw::OfferBranchEntriesResponse> {
        self.up(site)?;
        let at = &self.group(&request.group_id)?.sites[site];
        let lacks = |id: &&Bytes| {
            let id = EntryId::from_slice(id).unwrap();
            at.tree.get(&id).is_none() && at.view.verdict(&id).is_none()
        };
        Ok(gw::OfferBranchEntriesResponse {
            missing: request.entry_ids.iter().filter(lacks).cloned().collect(),
        })
    }

    pub(super) fn upload_branch(
        &mut self,
        site: usize,
        request: gw::UploadBranchEntriesRequest,
    ) -> Answer<gw::UploadBranchEntriesResponse> {
        self.up(site)?;
        let id = GroupId::new(request.group_id.clone()).unwrap();
        self.with(&id, |_, group| {
            let mut new_entries = 0;
            for entry in request.entries {
                let entry = BranchEntry::try_from(entry).unwrap();
                let state = entry.id().as_state();
                let facts = group
                    .facts
                    .derive(&entry.parent, state, &entry.content)
                    .ok_or_else(|| refusal(Reason::BranchGap))?;
                let at = &mut group.sites[site];
                match at.tree.insert(&at.view, BranchEntry { facts, ..entry }).unwrap() {
                    Ok(new) => new_entries += u32::from(new),
                    Err(BranchRefusal::UnknownParent { .. }) => return Err(refusal(Reason::BranchGap)),
                    Err(other) => panic!("{other}"),
                }
            }
            Ok(gw::UploadBranchEntriesResponse { new_entries })
        })
    }

    /// What a subscriber has not been told yet.
    pub(super) fn news(&self, site: usize, id: &[u8], seq: u64, known: &[EntryId]) -> Answer<Vec<Event>> {
        self.up(site)?;
        let group = self.group(id)?;
        let at = &group.sites[site];
        let log = (seq + 1..=at.seq()).map(|seq| Event::Entry(group.entry(site, seq, self.claimed.as_ref())));
        let branches = group.branch_entries(site);
        let branches = branches.iter().filter(|(id, _)| !known.contains(id));
        let branches = branches.map(|(_, entry)| Event::BranchEntry(event(group, entry)));
        Ok(log.chain(branches).collect())
    }

    pub(super) fn mode(&self, site: usize, id: &[u8]) -> gw::Mode {
        match self.group(id).map(|group| group.sites[site].mode()) {
            Ok(Mode::Ordered) => gw::Mode::Ordered,
            Ok(Mode::Suspect) | Err(_) => gw::Mode::Suspect,
            Ok(Mode::Forked) => gw::Mode::Forked,
            Ok(Mode::Reconciling) => gw::Mode::Reconciling,
        }
    }

    pub(super) fn claim(&mut self, client: &[u8], claim_id: Bytes) -> Answer<ClaimKeyPackageResponse> {
        let client = ClientId::new(client.to_vec()).unwrap();
        let stored = self.key_packages.entry(client.clone()).or_default();
        let claimed = match self.claims.get(&(client.clone(), claim_id.clone())) {
            Some(claimed) => claimed.clone(),
            None => match stored.iter().position(|kp| !kp.last_resort) {
                Some(one_time) => stored.remove(one_time),
                None => stored.first().cloned().ok_or_else(|| refusal(Reason::KeyPackagesExhausted))?,
            },
        };
        let one_time_left = stored.iter().filter(|kp| !kp.last_resort).count() as u32;
        self.claims.insert((client, claim_id), claimed.clone());
        Ok(ClaimKeyPackageResponse { key_package: Some(claimed), one_time_left })
    }
}

fn event(group: &Group, entry: &BranchEntry) -> BranchEvent {
    BranchEvent {
        entry_id: entry.id().to_bytes(),
        entry: Some(entry.clone().into()),
        fork_state_id: Bytes::new(),
        epoch: group.facts.epoch(&entry.parent).unwrap_or(0),
    }
}

impl Group {
    /// An entry as a gateway shows it: marks name leaves as clients know them.
    fn entry(&self, site: usize, seq: u64, claimed: Option<&ClientId>) -> pb::Entry {
        let view = &self.sites[site].view;
        let state = view.items(seq).next().unwrap().1.state_id;
        let entry = view.log_entry(seq, CommitFacts::default()).unwrap();
        let owed = match &entry.item {
            Item::Mark(Mark::Side { .. }) if claimed.is_some() => claimed
                .and_then(|client| self.facts.index_of(&state, client.as_bytes()))
                .into_iter()
                .collect(),
            Item::Mark(Mark::Side { owed, .. }) => self.facts.indices(&state, owed),
            _ => Vec::new(),
        };
        let mut wire = pb::Entry::from(entry);
        if let Some(pb::Content { content: Some(pb::content::Content::Side(side)) }) = &mut wire.content {
            side.owed_leaf_indices = owed;
        }
        wire
    }
}

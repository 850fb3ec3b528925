//! Payloads of entries, read from the log entries that brought them.

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

use concordat_proto::{
    log::v1::{BranchEntry, CommitFacts, Content},
    ordering::v1::{Command, GroupSubmission, ReportBranches, command},
};
use prost::Message;

use super::{
    keys::RowKey,
    place::{Place, ReportedAt},
    shard::Rows,
};
use crate::storage::{error::StorageError, limits::REPORTS_AT_HAND};

/// Reads payloads. Keeps the last few reports at hand: their entries are often wanted together.
pub(super) struct Payloads<'a> {
    rows: &'a Rows<'a>,
    reports: RefCell<VecDeque<(u64, Rc<ReportBranches>)>>,
}

impl<'a> Payloads<'a> {
    pub(super) fn new(rows: &'a Rows<'a>) -> Self {
        Payloads { rows, reports: RefCell::default() }
    }

    /// What the entry `seq` of a group carries, and what it does to the membership as far as that was submitted with it.
    pub(super) fn content(
        &self,
        group: &[u8],
        seq: u64,
        place: Place,
    ) -> Result<(Content, Option<CommitFacts>), StorageError> {
        match place {
            Place::Submission { index } => self.submission(index),
            Place::Report(reported) => {
                let entry = self.reported(reported)?;
                let content = entry.content.ok_or_else(|| self.bad("it carries nothing"))?;
                Ok((content, entry.facts))
            }
            Place::Pruned => Err(self.bad("it was given up")),
            Place::Mark => {
                let row = self.rows.get(&RowKey::Mark { group, seq }.encode())?;
                let row = row.ok_or_else(|| self.rows.bad_row("a mark", "it is missing"))?;
                let mark = Content::decode(row).map_err(|error| self.rows.bad_row("a mark", error))?;
                Ok((mark, None))
            }
        }
    }

    fn submission(&self, index: u64) -> Result<(Content, Option<CommitFacts>), StorageError> {
        match self.command(index)? {
            command::Command::Group(GroupSubmission { content: Some(content), facts, .. }) => {
                Ok((content, facts))
            }
            _ => Err(self.bad("it is no group submission")),
        }
    }

    /// An entry of a report.
    pub(super) fn reported(&self, at: ReportedAt) -> Result<BranchEntry, StorageError> {
        let report = self.report(at.index)?;
        let entry = report.entries.get(at.position as usize).cloned();
        entry.ok_or_else(|| self.bad("the report has no such entry"))
    }

    fn report(&self, index: u64) -> Result<Rc<ReportBranches>, StorageError> {
        let mut reports = self.reports.borrow_mut();
        if let Some((_, report)) = reports.iter().find(|(known, _)| *known == index) {
            return Ok(report.clone());
        }
        let command::Command::ReportBranches(report) = self.command(index)? else {
            return Err(self.bad("it is no report"));
        };
        let report = Rc::new(report);
        if reports.len() >= REPORTS_AT_HAND {
            reports.pop_front();
        }
        reports.push_back((index, report.clone()));
        Ok(report)
    }

    fn command(&self, index: u64) -> Result<command::Command, StorageError> {
        let command = Command::decode(self.rows.command(index)?.command).map_err(|error| self.bad(error))?;
        command.command.ok_or_else(|| self.bad("it is empty"))
    }

    pub(super) fn bad(&self, error: impl std::fmt::Display) -> StorageError {
        self.rows.bad_row("the payload of an entry", error)
    }
}

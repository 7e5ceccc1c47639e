//! A primary's commands that were not sent yet. A command that undoes an unsent one removes it instead of waiting
//! behind it, so at most one command waits for each path and each grant.

use std::collections::BTreeMap;

use crate::id::{Epoch, GrantId, PathId};
use crate::limits::Limits;
use crate::wire::{AddPath, ControlFrame, Grant, RemovePath, Revoke};

/// In the order of their epochs.
pub(in crate::session) struct Commands {
    bytes_max: usize,
    queue: BTreeMap<Epoch, ControlFrame>,
    /// The one of each path: to add it, or to remove it.
    paths: BTreeMap<PathId, Epoch>,
    /// The one of each grant: to grant, or to revoke.
    grants: BTreeMap<GrantId, Epoch>,
    bytes: usize,
}

impl Commands {
    pub(in crate::session) fn new(limits: &Limits) -> Self {
        let (paths, grants) = (BTreeMap::new(), BTreeMap::new());
        Self { bytes_max: limits.command_bytes_max, queue: BTreeMap::new(), paths, grants, bytes: 0 }
    }

    /// Whether there is room for one more grant with a request of so many bytes. If no grant waits, there always is.
    pub(in crate::session) fn has_room(&self, request_bytes: usize) -> bool {
        self.grants.is_empty() || self.bytes.saturating_add(Self::cost(request_bytes)) <= self.bytes_max
    }

    /// What waits, as accounted, in bytes.
    pub(in crate::session) fn held_bytes(&self) -> usize {
        self.bytes
    }

    pub(in crate::session) fn add_path(&mut self, add: AddPath) {
        self.paths.insert(add.path, add.epoch);
        self.push(add.epoch, add.into());
    }

    pub(in crate::session) fn remove_path(&mut self, remove: RemovePath) {
        self.paths.insert(remove.path, remove.epoch);
        self.push(remove.epoch, remove.into());
    }

    pub(in crate::session) fn grant(&mut self, grant: Grant) {
        self.grants.insert(grant.grant, grant.epoch);
        self.push(grant.epoch, grant.into());
    }

    pub(in crate::session) fn revoke(&mut self, revoke: Revoke) {
        self.grants.insert(revoke.grant, revoke.epoch);
        self.push(revoke.epoch, revoke.into());
    }

    /// Whether ADD_PATH of this path still waits, so that the client does not know the path.
    pub(in crate::session) fn holds_add_path(&self, path: PathId) -> bool {
        let epoch = self.paths.get(&path);
        epoch.is_some_and(|epoch| matches!(self.queue.get(epoch), Some(ControlFrame::AddPath(_))))
    }

    /// Whether GRANT of this grant still waits, so that the client does not know the grant.
    pub(in crate::session) fn holds_grant(&self, grant: GrantId) -> bool {
        let epoch = self.grants.get(&grant);
        epoch.is_some_and(|epoch| matches!(self.queue.get(epoch), Some(ControlFrame::Grant(_))))
    }

    /// The grants for this path whose GRANT still waits.
    pub(in crate::session) fn grants_for(&self, path: PathId) -> Vec<GrantId> {
        let grants = self.queue.values().filter_map(|frame| match frame {
            ControlFrame::Grant(grant) if grant.path == path => Some(grant.grant),
            _ => None,
        });
        grants.collect()
    }

    /// Drops the command about this path that still waits, if any.
    pub(in crate::session) fn drop_path(&mut self, path: PathId) {
        if let Some(epoch) = self.paths.get(&path).copied() {
            self.take(epoch);
        }
    }

    /// Drops the command about this grant that still waits, if any.
    pub(in crate::session) fn drop_grant(&mut self, grant: GrantId) {
        if let Some(epoch) = self.grants.get(&grant).copied() {
            self.take(epoch);
        }
    }

    /// The next one to be sent.
    pub(in crate::session) fn pop(&mut self) -> Option<ControlFrame> {
        let epoch = *self.queue.first_key_value()?.0;
        self.take(epoch)
    }

    fn push(&mut self, epoch: Epoch, frame: ControlFrame) {
        self.bytes += Self::cost(request_len(&frame));
        self.queue.insert(epoch, frame);
    }

    fn take(&mut self, epoch: Epoch) -> Option<ControlFrame> {
        let frame = self.queue.remove(&epoch)?;
        self.bytes -= Self::cost(request_len(&frame));
        match &frame {
            ControlFrame::AddPath(AddPath { path, .. }) | ControlFrame::RemovePath(RemovePath { path, .. }) => {
                self.paths.remove(path);
            }
            ControlFrame::Grant(Grant { grant, .. }) | ControlFrame::Revoke(Revoke { grant, .. }) => {
                self.grants.remove(grant);
            }
            _ => {}
        }
        Some(frame)
    }

    /// What a command is accounted for, in bytes.
    fn cost(request_bytes: usize) -> usize {
        size_of::<ControlFrame>() + request_bytes
    }
}

fn request_len(frame: &ControlFrame) -> usize {
    match frame {
        ControlFrame::Grant(grant) => grant.signed.payload.len(),
        _ => 0,
    }
}

#[cfg(test)]
impl Commands {
    /// What waits, as accounted.
    pub(in crate::session) fn bytes(&self) -> usize {
        let bytes = self.queue.values().map(|frame| Self::cost(request_len(frame))).sum();
        assert_eq!((self.bytes, self.queue.len()), (bytes, self.paths.len() + self.grants.len()));
        bytes
    }
}

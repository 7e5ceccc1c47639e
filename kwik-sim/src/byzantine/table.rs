//! Every behaviour there is.

use super::behaviour::{Behaviour, BehaviourRow, PeerRole};
use super::{client, common, joiner, mutate, primary, secondary, streams};

impl Behaviour {
    /// Every behaviour of a role.
    #[must_use]
    pub fn all(role: PeerRole) -> Vec<Self> {
        let own: &[BehaviourRow] = match role {
            PeerRole::Primary => primary::BEHAVIOURS,
            PeerRole::Secondary => secondary::BEHAVIOURS,
            PeerRole::Client => client::BEHAVIOURS,
            PeerRole::Joiner => joiner::BEHAVIOURS,
        };
        let placed: &[BehaviourRow] = if role == PeerRole::Joiner { &[] } else { common::PLACED_BEHAVIOURS };
        let of_streams: &[BehaviourRow] =
            if matches!(role, PeerRole::Primary | PeerRole::Client) { streams::BEHAVIOURS } else { &[] };
        [own, of_streams, placed, common::BEHAVIOURS, mutate::BEHAVIOURS]
            .concat()
            .into_iter()
            .map(|(name, when, cost, act)| Self { name, role, when, cost, act })
            .collect()
    }

    /// Whether it draws what it says, so that other seeds say other things.
    #[must_use]
    pub fn draws(&self) -> bool {
        mutate::BEHAVIOURS.iter().any(|(name, ..)| *name == self.name) || self.name.contains("flipped")
    }

    /// The behaviour of that name.
    #[must_use]
    pub fn named(role: PeerRole, name: &str) -> Option<Self> {
        Self::all(role).into_iter().find(|behaviour| behaviour.name == name)
    }
}

//! Disturbances as a reader wants them: what, between whom, from when to when.

use std::time::Duration;

use super::chart::{rate, span};
use crate::disturbance::{Disturbance, Rebind, RestartState};
use crate::link::{Ecn, Link};
use crate::node::NodeId;

/// A disturbance on a timeline.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mark {
    pub(super) at: Duration,
    /// `None` for what only changes something.
    pub(super) end: Option<Duration>,
    pub(super) sort: Sort,
    pub(super) what: String,
    pub(super) scope: Scope,
    /// The rate a link has from now on, in bits a second.
    pub(super) rate: Option<u64>,
}

/// What a disturbance does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// Nothing gets through.
    Block,
    /// A node does not run as it should.
    Node,
    /// Something is different.
    Change,
    /// Something is well again.
    Heal,
}

/// Whom a disturbance is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// What one node sends to another.
    Way(NodeId, NodeId),
    /// Both ways between two nodes.
    Pair(NodeId, NodeId),
    Sides(Vec<NodeId>, Vec<NodeId>),
    Node(NodeId),
    World,
}

impl Sort {
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Block => "f-block",
            Self::Node => "f-node",
            Self::Change => "f-change",
            Self::Heal => "f-heal",
        }
    }
}

impl Scope {
    /// Whether traffic between two nodes suffers.
    pub(super) fn concerns(&self, a: NodeId, b: NodeId) -> bool {
        match self {
            Self::Way(from, to) | Self::Pair(from, to) => (*from, *to) == (a, b) || (*from, *to) == (b, a),
            Self::Sides(left, right) => {
                (left.contains(&a) && right.contains(&b)) || (left.contains(&b) && right.contains(&a))
            }
            Self::Node(node) => *node == a || *node == b,
            Self::World => true,
        }
    }

    fn text(&self) -> String {
        let list = |nodes: &[NodeId]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match self {
            Self::Way(from, to) => format!("{from} → {to}"),
            Self::Pair(a, b) => format!("{a} ↔ {b}"),
            Self::Sides(left, right) => format!("{} | {}", list(left), list(right)),
            Self::Node(node) => node.to_string(),
            Self::World => "all".to_owned(),
        }
    }
}

impl Mark {
    /// The marks of all disturbances of a run, in order. The two directions of one disturbance become one.
    pub(super) fn all(disturbances: &[(Duration, Disturbance)], duration: Duration) -> Vec<Self> {
        let mut marks: Vec<Self> = Vec::new();
        for (index, (at, disturbance)) in disturbances.iter().enumerate() {
            let later = disturbances.get(index + 1..).unwrap_or_default();
            let mark = Self::new(*at, disturbance, later, duration);
            let twin =
                marks.iter_mut().rev().take_while(|other| other.at == mark.at).find(|other| other.is_twin(&mark));
            match twin {
                Some(twin) => {
                    if let Scope::Way(a, b) = twin.scope {
                        twin.scope = Scope::Pair(a.min(b), a.max(b));
                    }
                }
                None => marks.push(mark),
            }
        }
        marks
    }

    /// In words.
    pub(super) fn text(&self) -> String {
        format!("{} {}", self.scope.text(), self.what)
    }

    fn is_twin(&self, other: &Self) -> bool {
        let reversed = match (&self.scope, &other.scope) {
            (Scope::Way(a, b), Scope::Way(c, d)) => (a, b) == (d, c),
            _ => false,
        };
        reversed && (self.end, &self.what) == (other.end, &other.what)
    }

    fn new(at: Duration, disturbance: &Disturbance, later: &[(Duration, Disturbance)], duration: Duration) -> Self {
        let until = |is_end: &dyn Fn(&Disturbance) -> bool| {
            Some(later.iter().find(|(_, disturbance)| is_end(disturbance)).map_or(duration, |(at, _)| *at))
        };
        let healed_by = |later: &Disturbance, from: NodeId, to: NodeId| match later {
            Disturbance::HealAll => true,
            Disturbance::Heal { a, b } => (*a, *b) == (from, to) || (*a, *b) == (to, from),
            _ => false,
        };
        let over = |span: Duration| {
            until(&|disturbance| *disturbance == Disturbance::HealAll).map(|healed| healed.min(at.saturating_add(span)))
        };
        let mark = |sort, scope, what: String, end| Self { at, end, sort, what, scope, rate: None };
        match disturbance {
            Disturbance::Link { from, to, link } => {
                let again = |disturbance: &Disturbance| {
                    healed_by(disturbance, *from, *to)
                        || matches!(disturbance, Disturbance::Link { from: a, to: b, .. } if (a, b) == (from, to))
                };
                let sort = if link.up { Sort::Change } else { Sort::Block };
                let mark = mark(sort, Scope::Way(*from, *to), describe(link), until(&again));
                Self { rate: link.rate.filter(|_| link.up), ..mark }
            }
            Disturbance::Mtu { a, b, mtu } => mark(Sort::Change, Scope::Pair(*a, *b), format!("MTU {mtu}"), None),
            Disturbance::Partition { left, right } => {
                let some = left.first().zip(right.first()).map_or((NodeId(0), NodeId(0)), |(a, b)| (*a, *b));
                let end = until(&|disturbance| healed_by(disturbance, some.0, some.1));
                mark(Sort::Block, Scope::Sides(left.clone(), right.clone()), "partition".to_owned(), end)
            }
            Disturbance::Blackhole { from, to } => {
                let end = until(&|disturbance| healed_by(disturbance, *from, *to));
                mark(Sort::Block, Scope::Way(*from, *to), "blackhole".to_owned(), end)
            }
            Disturbance::Heal { a, b } => mark(Sort::Heal, Scope::Pair(*a, *b), "heal".to_owned(), None),
            Disturbance::HealAll => mark(Sort::Heal, Scope::World, "heal".to_owned(), None),
            Disturbance::Rebind { node, to } => {
                let to = match to {
                    Rebind::Port => "port",
                    Rebind::Address => "address",
                };
                mark(Sort::Change, Scope::Node(*node), format!("gets another {to} of its NAT"), None)
            }
            Disturbance::Prefer { node, address } => {
                mark(Sort::Change, Scope::Node(*node), format!("sends from {address}"), None)
            }
            Disturbance::Crash { node } => {
                let end = until(
                    &|disturbance| matches!(disturbance, Disturbance::Restart { node: again, .. } if again == node),
                );
                mark(Sort::Node, Scope::Node(*node), "crash".to_owned(), end)
            }
            Disturbance::Restart { node, state } => {
                let what = match state {
                    RestartState::Kept => "restart, nothing forgotten",
                    RestartState::Lost => "restart, everything forgotten",
                };
                mark(Sort::Heal, Scope::Node(*node), what.to_owned(), None)
            }
            Disturbance::Pause { node, span: length } => {
                mark(Sort::Node, Scope::Node(*node), format!("pause of {}", span(*length)), over(*length))
            }
            Disturbance::SendErrors { node, span: length } => {
                mark(Sort::Node, Scope::Node(*node), format!("cannot send for {}", span(*length)), over(*length))
            }
            Disturbance::ClockOffset { node, millis } => {
                mark(Sort::Change, Scope::Node(*node), format!("clock {millis:+} ms"), None)
            }
        }
    }
}

/// What of a link is not as usual.
fn describe(link: &Link) -> String {
    let usual = Link::default();
    if !link.up {
        return "link down".to_owned();
    }
    let mut parts = vec![link.rate.map_or_else(|| "no limit".to_owned(), |bits| rate(bits as f64))];
    parts.push(span(link.delay));
    if !link.jitter.is_zero() {
        parts.push(format!("jitter {}", span(link.jitter)));
    }
    let chances = [("loss", link.loss), ("reordering", link.reordering), ("duplication", link.duplication)];
    for (name, chance) in chances.into_iter().chain([("corruption", link.corruption)]) {
        if chance > 0.0 {
            parts.push(format!("{name} {} %", (chance * 1e4).round() / 100.0));
        }
    }
    if link.bursts.is_some() {
        parts.push("loss in bursts".to_owned());
    }
    if link.mtu != usual.mtu {
        parts.push(format!("MTU {}", link.mtu));
    }
    if link.ecn != Ecn::Pass {
        parts.push(format!("ECN {:?}", link.ecn));
    }
    format!("link {}", parts.join(", "))
}

//! How disturbances happen.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use super::World;
use crate::disturbance::{Disturbance, Rebind, RestartState};
use crate::node::NodeId;
use crate::trace::TraceKind;

impl World {
    /// Makes something happen now.
    ///
    /// # Panics
    /// If a node cannot restart with the configuration it began with, which cannot be.
    pub fn inject(&mut self, disturbance: Disturbance) {
        let node = disturbance.node();
        self.record(node, TraceKind::Disturbance { disturbance: Box::new(disturbance.clone()) });
        let now = self.clock.now();
        match disturbance {
            Disturbance::Link { from, to, link } => {
                self.each_wire(from, to, |wire| wire.change(|own| *own = link.clone()));
            }
            Disturbance::Mtu { a, b, mtu } => {
                self.each_wire(a, b, |wire| wire.change(|link| link.mtu = mtu));
                self.each_wire(b, a, |wire| wire.change(|link| link.mtu = mtu));
            }
            Disturbance::Partition { left, right } => {
                for (a, b) in left.iter().flat_map(|a| right.iter().map(move |b| (*a, *b))) {
                    self.each_wire(a, b, |wire| wire.blocked = true);
                    self.each_wire(b, a, |wire| wire.blocked = true);
                }
            }
            Disturbance::Blackhole { from, to } => self.each_wire(from, to, |wire| wire.blocked = true),
            Disturbance::Heal { a, b } => {
                self.each_wire(a, b, super::Wire::heal);
                self.each_wire(b, a, super::Wire::heal);
            }
            Disturbance::HealAll => self.heal_all(now),
            Disturbance::Rebind { node, to } => self.rebind(node, to),
            Disturbance::Prefer { node, address } => self.prefer(node, address),
            Disturbance::Crash { node } => self.nodes[node.0].crash(),
            Disturbance::Restart { node, state } => self.restart(node, state),
            Disturbance::Pause { node, span } => self.nodes[node.0].paused_until = now.checked_add(span),
            Disturbance::SendErrors { node, span } => self.nodes[node.0].send_errors_until = now.checked_add(span),
            Disturbance::ClockOffset { node, millis } => {
                let (elapsed, node) = (self.clock.elapsed(), &mut self.nodes[node.0]);
                node.config.clock_offset_ms = millis;
                node.endpoint.handle_wall_clock(now, node.config.wall_clock(elapsed));
            }
        }
    }

    fn heal_all(&mut self, now: Instant) {
        for wire in self.wires.values_mut() {
            wire.heal();
        }
        for node in &mut self.nodes {
            node.send_errors_until = None;
            node.paused_until = node.paused_until.map(|until| until.min(now));
        }
        self.resume(now);
    }

    /// A node that never crashed may restart too: then it crashes at this moment.
    fn restart(&mut self, id: NodeId, state: RestartState) {
        let node = &self.nodes[id.0];
        let fresh = match state {
            RestartState::Kept => None,
            RestartState::Lost => {
                Some(self.new_endpoint(id, &node.config, node.lives + 1).expect("it could begin before"))
            }
        };
        let node = &mut self.nodes[id.0];
        node.crash();
        node.crashed = false;
        node.touched = true;
        if let Some(endpoint) = fresh {
            node.begin_anew(endpoint);
        }
    }

    fn rebind(&mut self, id: NodeId, to: Rebind) {
        for index in 0..self.nodes[id.0].interfaces.len() {
            let old = self.nodes[id.0].interfaces[index].outward;
            let new = loop {
                let new = self.elsewhere(old, to);
                if !self.by_address.contains_key(&new) {
                    break new;
                }
            };
            self.by_address.remove(&old);
            self.by_address.insert(new, (id, index));
            self.nodes[id.0].interfaces[index].outward = new;
            self.record(id, TraceKind::Note { text: format!("{old} is {new} from now on") });
        }
    }

    fn elsewhere(&mut self, old: SocketAddr, to: Rebind) -> SocketAddr {
        let low = u16::try_from(self.rng.below(0xfc00)).unwrap_or(0);
        match (to, old.ip()) {
            (Rebind::Port, ip) => SocketAddr::new(ip, 0x400 + low),
            (Rebind::Address, IpAddr::V4(ip)) => {
                let [a, b, ..] = ip.octets();
                let [c, d] = low.to_be_bytes();
                SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), old.port())
            }
            (Rebind::Address, IpAddr::V6(ip)) => {
                let mut segments = ip.segments();
                segments[7] = low;
                SocketAddr::new(Ipv6Addr::from(segments).into(), old.port())
            }
        }
    }

    fn prefer(&mut self, id: NodeId, address: SocketAddr) {
        let node = &mut self.nodes[id.0];
        if let Some(index) = node.interfaces.iter().position(|interface| interface.local == address) {
            node.preferred = index;
        }
    }
}

impl Disturbance {
    /// The node it is about, or the first of them.
    fn node(&self) -> NodeId {
        match self {
            Self::Link { from: node, .. }
            | Self::Mtu { a: node, .. }
            | Self::Blackhole { from: node, .. }
            | Self::Heal { a: node, .. }
            | Self::Rebind { node, .. }
            | Self::Prefer { node, .. }
            | Self::Crash { node }
            | Self::Restart { node, .. }
            | Self::Pause { node, .. }
            | Self::SendErrors { node, .. }
            | Self::ClockOffset { node, .. } => *node,
            Self::Partition { left, .. } => left.first().copied().unwrap_or(NodeId(0)),
            Self::HealAll => NodeId(0),
        }
    }
}

//! What a world can do to its nodes and links.

use std::net::SocketAddr;
use std::time::Duration;

use crate::link::Link;
use crate::node::NodeId;

/// Something that happens to the world at a moment. See [`World::at`](crate::World::at).
#[derive(Debug, Clone, PartialEq)]
pub enum Disturbance {
    /// One direction between two nodes is different from now on.
    Link {
        /// From this node.
        from: NodeId,
        /// To this one.
        to: NodeId,
        /// What it is like.
        link: Link,
    },
    /// Both directions between two nodes carry at most this UDP payload, in bytes.
    Mtu {
        /// One node.
        a: NodeId,
        /// The other.
        b: NodeId,
        /// The largest payload.
        mtu: usize,
    },
    /// Nothing gets through between the nodes of one side and those of the other.
    Partition {
        /// One side.
        left: Vec<NodeId>,
        /// The other.
        right: Vec<NodeId>,
    },
    /// Nothing gets through in one direction.
    Blackhole {
        /// From this node.
        from: NodeId,
        /// To this one.
        to: NodeId,
    },
    /// Partitions and black holes between two nodes end, and their links are again as they were set when the world was
    /// built.
    Heal {
        /// One node.
        a: NodeId,
        /// The other.
        b: NodeId,
    },
    /// Every link heals, and every pause and every failure to send ends. Crashed nodes stay crashed.
    HealAll,
    /// The others see the node elsewhere from now on; what is sent to where it was goes nowhere.
    Rebind {
        /// The node, at all its addresses.
        node: NodeId,
        /// Where.
        to: Rebind,
    },
    /// The node sends from this one of its own addresses first, as when the default route moves to another interface.
    Prefer {
        /// The node.
        node: NodeId,
        /// The address, as the node was built with it.
        address: SocketAddr,
    },
    /// The node neither sends nor receives any more, without a word.
    Crash {
        /// The node.
        node: NodeId,
    },
    /// A crashed node runs again.
    Restart {
        /// The node.
        node: NodeId,
        /// With what.
        state: RestartState,
    },
    /// The node is suspended: its timers fire late, and what arrives waits as far as the socket's buffer goes.
    Pause {
        /// The node.
        node: NodeId,
        /// For how long.
        span: Duration,
    },
    /// The node's socket refuses to send.
    SendErrors {
        /// The node.
        node: NodeId,
        /// For how long.
        span: Duration,
    },
    /// The node's wall clock is set, and differs from the world's.
    ClockOffset {
        /// The node.
        node: NodeId,
        /// Milliseconds it is ahead.
        millis: i64,
    },
}

/// What a node that restarts remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartState {
    /// Everything: as if it had been unreachable.
    Kept,
    /// Its address, its configuration and its identity: a new process.
    Lost,
}

/// Where a NAT puts a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rebind {
    /// At another port of the same address.
    Port,
    /// At another address of the same network.
    Address,
}

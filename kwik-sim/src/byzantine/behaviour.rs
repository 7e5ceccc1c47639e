//! Ways to misbehave, by the role that a node plays.

use kwik_core::TransportCode;

use super::peer::PeerContext;

/// What a node is in the session it spoils.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerRole {
    /// The server that was dialled.
    Primary,
    /// A server that a primary had the client join.
    Secondary,
    /// A client, on its connection to the primary.
    Client,
    /// A client, on its connection to a secondary.
    Joiner,
}

/// When a node that was honest so far begins to misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Instead of HELLO, JOIN or WELCOME.
    First,
    /// Once WELCOME was sent or came.
    Welcomed,
    /// Once there is a stream or grant of the peer to write on.
    Placed,
    /// Once the path to the partner is active: a primary.
    Partnered,
    /// Once a primary granted something: a client.
    Granted,
    /// Instead of JOIN, when the ticket's time is over.
    Late,
    /// Instead of JOIN, on a second connection with a ticket that was used.
    Again,
}

/// What misbehaviour costs the one who does it: its path if it is a secondary, else its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// It is tolerated.
    Nothing,
    /// The connection ends with this code.
    Code(TransportCode),
    /// The stream in question ends with this code, and the path lives on.
    Stream(TransportCode),
    /// The connection ends, with the code of whatever rule was met first, or it does not.
    Anything,
}

/// One way to misbehave.
#[derive(Clone, Copy)]
pub struct Behaviour {
    /// In a few words; unique for each role.
    pub name: &'static str,
    /// The role it needs.
    pub role: PeerRole,
    /// When it begins.
    pub when: When,
    /// What an honest peer makes of it.
    pub cost: Cost,
    /// One act. Returns whether another one follows a moment later.
    pub(super) act: fn(&mut PeerContext<'_>) -> bool,
}

impl std::fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {}", self.role, self.name)
    }
}

/// Name, beginning, cost and act of a behaviour.
pub(super) type BehaviourRow = (&'static str, When, Cost, fn(&mut PeerContext<'_>) -> bool);

pub(super) const VIOLATION: Cost = Cost::Code(TransportCode::PROTOCOL_VIOLATION);
pub(super) const TOO_LARGE: Cost = Cost::Code(TransportCode::FRAME_TOO_LARGE);
pub(super) const FLOOD: Cost = Cost::Code(TransportCode::CONTROL_FLOOD);

//! Ways to misbehave, by the part that a node plays.

use kwik_core::TransportCode;

use super::stage::Stage;
use super::{client, common, joiner, mutate, primary, secondary, streams};

/// What a node is in the session it spoils.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
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
    /// In a few words; unique for each part.
    pub name: &'static str,
    /// The part it needs.
    pub part: Part,
    /// When it begins.
    pub when: When,
    /// What an honest peer makes of it.
    pub cost: Cost,
    /// One act. Returns whether another one follows a moment later.
    pub(super) act: fn(&mut Stage<'_>) -> bool,
}

impl Behaviour {
    /// Every behaviour of a part.
    #[must_use]
    pub fn all(part: Part) -> Vec<Self> {
        let own: &[Row] = match part {
            Part::Primary => primary::ROWS,
            Part::Secondary => secondary::ROWS,
            Part::Client => client::ROWS,
            Part::Joiner => joiner::ROWS,
        };
        let placed: &[Row] = if part == Part::Joiner { &[] } else { common::PLACED_ROWS };
        let of_streams: &[Row] = if matches!(part, Part::Primary | Part::Client) { streams::ROWS } else { &[] };
        [own, of_streams, placed, common::ROWS, mutate::ROWS]
            .concat()
            .into_iter()
            .map(|(name, when, cost, act)| Self { name, part, when, cost, act })
            .collect()
    }

    /// Whether it draws what it says, so that other seeds say other things.
    #[must_use]
    pub fn draws(&self) -> bool {
        mutate::ROWS.iter().any(|(name, ..)| *name == self.name) || self.name.contains("flipped")
    }

    /// The behaviour of that name.
    #[must_use]
    pub fn named(part: Part, name: &str) -> Option<Self> {
        Self::all(part).into_iter().find(|behaviour| behaviour.name == name)
    }
}

impl std::fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {}", self.part, self.name)
    }
}

/// Name, beginning, cost and act of a behaviour.
pub(super) type Row = (&'static str, When, Cost, fn(&mut Stage<'_>) -> bool);

pub(super) const VIOLATION: Cost = Cost::Code(TransportCode::PROTOCOL_VIOLATION);
pub(super) const TOO_LARGE: Cost = Cost::Code(TransportCode::FRAME_TOO_LARGE);
pub(super) const FLOOD: Cost = Cost::Code(TransportCode::CONTROL_FLOOD);

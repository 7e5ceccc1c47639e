//! Grants: which path may write which range of a stream. The client keeps what each path may write and reports how that
//! fares ([`client`]); the primary keeps what it issued and what the client reported of it ([`primary`]).

mod client;
mod primary;

pub(crate) use client::{Access, Grant, GrantTable};
pub(crate) use primary::{Change, Delegations};

use crate::error::{Fault, TransportCode};

fn violation(detail: &'static str) -> Fault {
    Fault::new(TransportCode::PROTOCOL_VIOLATION, detail)
}

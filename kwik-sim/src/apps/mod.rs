//! Applications for simulated worlds, written as for a real network: a client that fetches and uploads, and a server
//! that answers, delegates and serves what it was granted.
//!
//! Every byte they carry follows from the session and the stream it belongs to, so that a byte in the wrong place is
//! recognised wherever it turns up. What they do and see goes to a shared [`FlowModel`](crate::checks::FlowModel).

pub mod bulk;
mod client;
mod distributed;
pub mod flows;
mod granted;
mod message;
mod primary;
mod push;
mod raw;
mod reader;
pub mod requests;
mod response;
mod secondaries;
mod server;
mod session;
mod writer;

pub use client::{ClientApp, ClientPlan, GiveUp, Request, SessionPlan};
pub use granted::Reliability;
pub use message::Header;
pub use reader::ReadStyle;
pub use server::{ServerApp, ServerPlan};

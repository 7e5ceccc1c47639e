//! Applications for simulated worlds, written as for a real network: a client that fetches and uploads, and a server
//! that answers, delegates and serves what it was granted.
//!
//! Every byte they carry follows from the session and the stream it belongs to, so that a byte in the wrong place is
//! recognised wherever it turns up. What they do and see goes to a shared [`Model`](crate::checks::Model).

pub mod bulk;
mod client;
mod fleet;
mod message;
mod parts;
mod primary;
mod push;
mod raw;
mod reader;
mod response;
mod server;
mod visit;
mod writer;

pub use client::{ClientApp, ClientPlan, GiveUp, Job, Visit};
pub use message::Header;
pub use parts::Reliability;
pub use reader::ReadStyle;
pub use server::{ServerApp, ServerPlan};

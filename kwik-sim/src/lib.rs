//! KWIK endpoints in virtual time: any number of them in one process and one thread, joined by links that delay and lose
//! datagrams as told.
//!
//! A [`World`] owns the nodes and the time. Nothing in it sleeps, opens a socket or reads a clock: time jumps from one
//! thing that happens to the next.
//!
//! ```
//! use std::time::Duration;
//! use kwik_sim::{Link, Pki, World};
//! use kwik_core::{Dir, SessionEvent};
//!
//! let pki = Pki::new("example.test");
//! let mut world = World::new(7);
//! let server = world.add_server("10.0.0.1:4433".parse()?, pki.server(1))?;
//! let client = world.add_client("10.0.0.2:1".parse()?)?;
//! world.set_link_both(client, server, Link::with_delay(Duration::from_millis(20)));
//!
//! let session = world.dial(client, server, pki.client(), "example.test")?;
//! let stream = world.session_mut(client, session).ok_or("no session")?.open_stream(Dir::Bi)?;
//! world.session_mut(client, session).ok_or("no session")?.stream_mut(stream).write(b"hello")?;
//! let accepted = world.run_until(Duration::from_secs(1), |world| world.saw(server, |event| *event == SessionEvent::Incoming));
//! assert!(accepted);
//! // One round trip for the handshake, half of one for the first flight.
//! assert_eq!(world.elapsed(), Duration::from_millis(60));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod app;
pub mod apps;
pub mod byzantine;
pub mod checks;
mod clock;
pub mod content;
mod disturbance;
mod fleet;
mod link;
mod net;
mod node;
mod pki;
pub mod plain;
mod raw_node;
pub mod report;
mod rng;
pub mod swarm;
mod tls;
mod trace;
mod world;

pub use app::{App, Context};
pub use disturbance::{Disturbance, Rebind, RestartState};
pub use fleet::{Ends, Fleet, FleetBuilder, LONG, SERVER_NAME};
pub use link::{Bursts, Ecn, Link, LinkStats, Policer};
pub use node::{NodeConfig, NodeId};
pub use pki::Pki;
pub use raw_node::RawNode;
pub use tls::TlsMode;
pub use trace::{Delivery, Trace, TraceEvent, TraceKind};
pub use world::{World, WorldConfig};

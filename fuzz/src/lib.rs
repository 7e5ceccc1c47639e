//! What a peer's bytes, or an application's calls, can do to KWIK: a function of bytes for each part of it, which panics
//! where something is wrong. `fuzz/run` looks for such bytes, the tests of this crate replay the corpus.

mod decoders;
mod limits;
mod seeds;
mod sessions;

use kwik_core::__test_exports::inside::{self, Input};

/// A name, and what is done with the bytes.
pub type Target = (&'static str, fn(&mut Input<'_>));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("control", decoders::control),
    ("data", decoders::data),
    ("ticket", decoders::ticket),
    ("signatures", inside::signatures),
    ("reassembly", inside::reassembly),
    ("grants", inside::grants),
    ("streams", inside::streams),
    ("policy", inside::policy),
    ("limits", limits::limits),
    ("client", sessions::client),
    ("server", sessions::server),
    ("relay", sessions::relay),
];

pub use decoders::reached;
pub use seeds::seeds;

/// The target with this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|(known, _)| *known == name)
}

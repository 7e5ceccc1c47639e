//! The corpus passes, and the targets reach every decoder and every command of an application.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use kwik_core::__test_exports::inside::Input;
use kwik_fuzz::{TARGETS, reached, target};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn inputs(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = root().join("fuzz/corpus").join(name);
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut inputs: Vec<_> = entries.map(|path| (path.clone(), fs::read(path).expect("it can be read"))).collect();
    inputs.sort();
    inputs
}

fn replay(name: &str) {
    let (_, body) = target(name).expect("it is a target");
    let inputs = inputs(name);
    assert!(inputs.len() > 3, "{name} has no corpus: fuzz/run 60 {name}, then fuzz/run distil {name}");
    for (path, data) in inputs {
        eprintln!("{}", path.display());
        body(&mut Input::new(&data));
    }
}

macro_rules! replays {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name));
            }
        )*

        #[test]
        fn every_target_is_replayed() {
            let replayed = BTreeSet::from([$(stringify!($name)),*]);
            assert_eq!(replayed, TARGETS.iter().map(|(name, _)| *name).collect());
        }
    };
}

replays!(control data ticket signatures reassembly grants streams policy limits client server relay);

#[test]
fn corpus_reaches_every_decoder() {
    for name in ["control", "data", "ticket"] {
        replay(name);
    }
    let source = fs::read_to_string(root().join("kwik-core/src/test_exports.rs")).expect("it is where it was");
    let table =
        source.split_once("\nframes! {").and_then(|(_, rest)| rest.split_once("\n}")).expect("a table of frames").0;
    let frames = table.lines().filter_map(|line| line.trim().split_once('(')).map(|(name, _)| name.to_owned());
    let mut wanted: BTreeSet<String> = frames.collect();
    assert!(wanted.len() >= 20);
    wanted.extend(["Stream", "Grant", "Raw", "PacketEnd", "Ticket"].map(str::to_owned));
    let reached = reached();
    let missing: Vec<_> = wanted.difference(&reached).collect();
    assert!(missing.is_empty(), "no input of the corpus decodes as {missing:?}");
}

#[test]
fn sessions_make_every_call_of_an_application() {
    let calls = fs::read_to_string(root().join("fuzz/src/sessions.rs")).expect("it is where it was");
    let mut count = 0;
    for file in ["session/view.rs", "session/view_mut.rs", "endpoint/mod.rs"] {
        let source = fs::read_to_string(root().join("kwik-core/src").join(file)).expect("it is where it was");
        // What only tests use is hidden from the documents, and what the world itself calls need not be called twice.
        let of_the_world = ["new", "poll_transmit", "poll_event", "poll_protocol_event"];
        for name in documented(&source).filter(|name| !of_the_world.contains(name)) {
            assert!(calls.contains(&format!(".{name}(")), "no target calls `{name}` of {file}");
            count += 1;
        }
    }
    assert!(count > 40, "{count} calls were looked for");
}

/// The names of the public functions in `source` that its documents show.
fn documented(source: &str) -> impl Iterator<Item = &str> {
    let mut hidden = false;
    source.lines().map(str::trim).filter_map(move |line| {
        hidden |= line == "#[doc(hidden)]";
        let (name, _) = line.strip_prefix("pub fn ")?.split_once(['(', '<'])?;
        (!std::mem::take(&mut hidden)).then_some(name)
    })
}

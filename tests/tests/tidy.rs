//! House rules that no compiler checks: sizes, who may import whom, names, and what must not appear.
//!
//! Every rule is a function of texts, and is shown one that breaks it.

#[path = "tidy/callers.rs"]
mod callers;
#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/files.rs"]
mod files;
#[path = "tidy/rust.rs"]
mod rust;

use std::fs;
use std::path::Path;

use rust::{Source, UsedPath, body_after, is_rust, paths, tokens, words};

/// Longer ones have two owners of state in them.
const FILE_LINES_MAX: usize = 700;
const FUNCTION_LINES_MAX: usize = 100;

/// What every module of `kwik-core` may use.
const BASE: &[&str] = &["address", "id", "limits", "error", "status", "range_set", "allowance"];

/// What each module of `kwik-core` may use besides itself (ARCHITECTURE.md, import direction).
const MAY_USE: &[(&str, &[&[&str]])] = &[
    ("address", &[]),
    ("limits", &[]),
    ("id", &[&["limits"]]),
    ("error", &[&["limits", "id"]]),
    ("status", &[&["error"]]),
    ("range_set", &[]),
    ("allowance", &[]),
    ("congestion", &[]),
    ("wire", &[BASE]),
    ("auth", &[BASE]),
    ("stream", &[BASE, &["protocol_event"]]),
    ("grant", &[BASE]),
    ("protocol_event", &[BASE]),
    ("config", &[BASE, &["auth", "protocol_event"]]),
    ("path", &[BASE, &["wire", "auth", "config", "congestion", "protocol_event"]]),
    ("session", &[BASE, &["wire", "auth", "config", "stream", "grant", "path", "protocol_event"]]),
    ("sched", &[BASE, &["stream", "session"]]),
    ("endpoint", &[BASE, &["wire", "auth", "config", "stream", "path", "protocol_event", "session"]]),
    ("test_support", &[]),
    ("test_exports", &[BASE, &["wire", "auth", "config", "stream", "grant"]]),
];

/// What is tested through the public machine may use all of it.
const TESTED_FROM_ABOVE: &[&str] = &["kwik-core/src/session/tests/", "kwik-sim/src/report/tests.rs"];

/// What is said of nodes and links, below the world they are in.
const PARTS_OF_A_WORLD: &[&str] = &["clock", "rng", "link", "app", "raw_node", "node", "disturbance", "trace"];

/// What each module of `kwik-sim` may use besides itself: of the lower ones only.
const SIM_MAY_USE: &[(&str, &[&[&str]])] = &[
    ("clock", &[]),
    ("rng", &[]),
    ("link", &[]),
    ("app", &[]),
    ("raw_node", &[]),
    ("content", &[&["rng"]]),
    ("node", &[&["app", "clock", "raw_node"]]),
    ("disturbance", &[&["link", "node"]]),
    ("trace", &[&["disturbance", "node"]]),
    ("net", &[&["clock", "link", "rng", "trace"]]),
    ("tls", &[&["rng"]]),
    ("pki", &[&["clock", "rng", "tls"]]),
    ("world", &[PARTS_OF_A_WORLD, &["net", "tls", "pki"]]),
    ("fleet", &[PARTS_OF_A_WORLD, &["pki", "world"]]),
    ("byzantine", &[PARTS_OF_A_WORLD, &["world", "fleet"]]),
    ("checks", &[PARTS_OF_A_WORLD, &["content", "world"]]),
    ("apps", &[PARTS_OF_A_WORLD, &["content", "world", "fleet", "checks"]]),
    ("report", &[PARTS_OF_A_WORLD]),
    ("plain", &[PARTS_OF_A_WORLD, &["content", "world", "fleet", "byzantine"]]),
    ("swarm", &[PARTS_OF_A_WORLD, &["tls", "world", "fleet", "byzantine", "checks", "apps"]]),
];

/// What `path` may know of `config`.
const OF_CONFIG_FOR_PATHS: &[&str] = &["AckFrequency", "Congestion", "MtuBounds", "TransportConfig"];

/// These know no QUIC, and no clock but the spans of time in frames, tickets and limits.
const KNOW_NO_QUIC: &[&str] =
    &["limits", "id", "error", "range_set", "allowance", "wire", "auth", "stream", "grant", "status"];

/// The parts of an identifier and the words of a comment that say nothing.
const EMPTY_WORDS: &[&str] = &["manager", "handler", "coordinator", "helper", "util", "processor", "aggregator"];

/// Where an empty word stands because a dependency named something so, or to forbid it: file and word.
const EMPTY_WORDS_EXEMPT: &[(&str, &str)] = &[];

/// What only servers do (PROTOCOL.md §7, §9).
const COMMANDS_OF_SERVERS: &[&str] = &["add_path", "remove_path", "send_raw", "recv_raw", "delegate", "revoke"];

/// Public items of a library that nobody outside it uses here: why they stay, and which they are.
const WITHOUT_CALLERS: &[(&str, &callers::Exceptions)] = &[
    (
        "kwik-core",
        &[
            ("an application that logs or stores a code asks", &["ErrorCode::to_wire", "TransportCode::meaning"]),
            (
                "what an application gives is refused beyond it, or cut",
                &["CREDENTIAL_BYTES_MAX", "SERVER_NAME_BYTES_MAX", "CLOSE_REASON_BYTES_MAX"],
            ),
            (
                "the documents of `Limits` name it as a bound",
                &[
                    "FLOOR_STREAMS",
                    "FLOOR_STREAM_BYTES",
                    "GRANTS_SESSION_MAX",
                    "KEEP_ALIVE_MAX",
                    "CONTROL_PROGRESS_BYTES",
                ],
            ),
            ("the type of a field or a result of what is used", &["RangeConflict", "LimitError", "LimitMut"]),
        ],
    ),
    (
        "kwik-tokio",
        &[
            ("an application that keeps many delegations asks", &["Delegation::stream_id"]),
            ("an application implements it; closures do too", &["Authorizer"]),
            (
                "the type of a field or a result of what is used",
                &[
                    "EndpointStats",
                    "GrantId",
                    "GrantInfo",
                    "IdentityError",
                    "Lost",
                    "PathEvents",
                    "RangeWriter",
                    "SessionId",
                    "SourceReport",
                    "SourceView",
                ],
            ),
        ],
    ),
];

/// First names of directories that exist on one machine only.
const OF_ONE_MACHINE: &[&str] = &["work", "home", "root", "Users"];

// ---- the tree

#[test]
fn files_and_functions_are_short() {
    enforce(is_rust, file_length);
    enforce(is_rust, function_lengths);
}

#[test]
fn core_modules_import_downwards_only() {
    enforce(is_core, layers);
}

#[test]
fn simulator_modules_import_downwards_only() {
    enforce(|path| path.starts_with("kwik-sim/src/") && !path.ends_with("main.rs"), layers);
}

#[test]
fn lower_modules_know_neither_quic_nor_the_time() {
    enforce(is_core, quic_and_time);
}

#[test]
fn runtime_is_known_to_its_driver_only() {
    enforce(|_| true, runtime);
}

#[test]
fn examples_use_the_driver_alone() {
    enforce(|path| path.starts_with("examples/") && path.ends_with("Cargo.toml"), dependencies_of_examples);
}

#[test]
fn measurements_use_the_driver_alone() {
    enforce(|path| path.starts_with("bench/src/"), crates_of_measurements);
}

#[test]
fn client_commands_no_path() {
    enforce(|path| path.starts_with("kwik-tokio/src/"), client_commands);
    let clients = sources().iter().filter(|source| source.code.contains("impl ClientSession {")).count();
    assert!(clients > 0, "the type this rule is about has another name now");
}

#[test]
fn names_and_comments_say_something() {
    enforce(|path| is_rust(path) || path.ends_with(".md"), empty_words);
}

#[test]
fn nothing_is_excused_or_left_open() {
    enforce(is_rust, excuses);
}

#[test]
fn nothing_waits_for_real_time_to_pass() {
    enforce(is_rust, sleeps);
}

#[test]
fn no_path_of_one_machine_appears() {
    enforce(|_| true, machine_paths);
}

#[test]
fn every_rule_of_the_protocol_has_a_test_that_names_it() {
    let offences = judge("docs/PROTOCOL.md", documents::untested);
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

#[test]
fn tests_that_prove_the_mission_and_answer_attacks_exist() {
    for document in ["ARCHITECTURE.md", "docs/SECURITY.md"] {
        let offences = judge(document, documents::unproven);
        assert!(offences.is_empty(), "{document}\n{}\n", offences.join("\n"));
    }
}

#[test]
fn figures_of_limits_are_those_of_the_code() {
    let offences = judge("docs/SECURITY.md", documents::misquoted);
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

#[test]
fn readme_shows_the_example_of_two_servers_as_it_is() {
    let sources = sources();
    let text = |path: &str| &sources.iter().find(|source| source.path == path).expect("it is where it was").text;
    let (_, program) = text("kwik-tokio/examples/two_servers.rs").split_once("\n\n").expect("a heading");
    assert!(text("README.md").contains(&format!("```rust,no_run\n{program}```\n")));
}

#[test]
fn every_file_is_compiled() {
    let offences = files::unnamed(&sources());
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

#[test]
fn public_items_have_callers() {
    let sources = sources();
    let packages = WITHOUT_CALLERS.iter();
    let offences: Vec<_> =
        packages.flat_map(|(package, exempt)| callers::uncalled(package, exempt, &sources)).collect();
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

/// Compares a document with all the Rust there is.
fn judge(document: &str, rule: impl Fn(&str, &[Source]) -> Vec<String>) -> Vec<String> {
    let (rust, others): (Vec<_>, Vec<_>) = sources().into_iter().partition(|source| is_rust(&source.path));
    let document = others.iter().find(|source| source.path == document).expect("the document is where it was");
    rule(&document.text, &rust)
}

fn is_core(path: &str) -> bool {
    path.starts_with("kwik-core/src/")
}

fn enforce(concerns: impl Fn(&str) -> bool, rule: impl Fn(&Source) -> Vec<Offence>) {
    let sources = sources();
    let concerned: Vec<_> = sources.iter().filter(|source| concerns(&source.path)).collect();
    assert!(!concerned.is_empty(), "no file is concerned: the tree has moved");
    let offences: Vec<_> = concerned
        .into_iter()
        .flat_map(|source| rule(source).into_iter().map(|(line, what)| format!("{}:{line}: {what}", source.path)))
        .collect();
    assert!(offences.is_empty(), "\n{}\n", offences.join("\n"));
}

/// Every text of the project that people write.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate is a member of a workspace");
    let mut sources = Vec::new();
    collect(root, root, &mut sources);
    assert!(sources.iter().any(|source| source.path == "kwik-core/src/lib.rs"), "{} is not the tree", root.display());
    sources
}

fn collect(root: &Path, directory: &Path, into: &mut Vec<Source>) {
    for entry in fs::read_dir(directory).expect("a directory of the project can be read") {
        let path = entry.expect("an entry of the project can be read").path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let skipped = name == "target" || (name.starts_with('.') && name != ".ci");
        if path.is_dir() && !skipped {
            collect(root, &path, into);
        } else if [".rs", ".md", ".toml"].iter().any(|end| name.ends_with(end)) || name == "run" {
            let text = fs::read_to_string(&path).expect("a file of the project is text");
            let path = path.strip_prefix(root).expect("below the root").to_string_lossy().replace('\\', "/");
            into.push(Source::new(&path, &text));
        }
    }
}

// ---- the rules

/// A line, counted from 1, and what is wrong there.
type Offence = (usize, String);

fn file_length(source: &Source) -> Vec<Offence> {
    let lines = source.text.lines().count();
    let too_long = lines > FILE_LINES_MAX;
    too_long.then(|| (lines, format!("{lines} lines; at most {FILE_LINES_MAX}"))).into_iter().collect()
}

fn function_lengths(source: &Source) -> Vec<Offence> {
    let tokens = tokens(&source.code);
    let mut offences = Vec::new();
    for (at, pair) in tokens.windows(2).enumerate().filter(|(_, pair)| pair[0].text == "fn" && pair[1].text != "(") {
        let Some(body) = body_after(&tokens, at) else { continue };
        let (begin, name) = (pair[0].line, pair[1].text);
        let lines = tokens[body.end - 1].line + 1 - begin;
        if lines > FUNCTION_LINES_MAX {
            offences.push((begin, format!("`{name}` has {lines} lines; at most {FUNCTION_LINES_MAX}")));
        }
    }
    offences
}

fn layers(source: &Source) -> Vec<Offence> {
    let home = source.modules();
    let is_above = TESTED_FROM_ABOVE.iter().any(|tests| source.path.starts_with(tests));
    let Some(own) = home.first().copied().filter(|_| !is_above) else {
        return Vec::new();
    };
    let rows = if source.path.starts_with("kwik-sim/") { SIM_MAY_USE } else { MAY_USE };
    let Some((_, may)) = rows.iter().find(|(module, _)| *module == own) else {
        return vec![(1, format!("say in MAY_USE what `{own}` may use"))];
    };
    let mut offences = Vec::new();
    for path in paths(&source.code) {
        let Some(target) = path.in_crate(&home) else { continue };
        let is_module = rows.iter().any(|(module, _)| *module == target);
        let is_constant = target.chars().all(|char| char.is_ascii_uppercase() || char == '_');
        if !is_module && !is_constant {
            offences.push((path.line, format!("`{target}` comes from its module, not from the root of the crate")));
        } else if is_module && target != own && target != "test_support" && !may.iter().any(|may| may.contains(&target))
        {
            offences.push((path.line, format!("`{own}` must not know `{target}`")));
        }
        if own == "path"
            && path.starts_with(&["crate", "config"])
            && path.segments.get(2).is_none_or(|name| !OF_CONFIG_FOR_PATHS.contains(name))
        {
            offences.push((path.line, format!("of `config`, `path` may know {OF_CONFIG_FOR_PATHS:?} only")));
        }
    }
    offences
}

fn quic_and_time(source: &Source) -> Vec<Offence> {
    let home = source.modules();
    let own = home.first().copied().unwrap_or_default();
    let offence = |path: UsedPath<'_>| {
        let what = if path.segments.contains(&"Connection") && own != "path" {
            "only `path` knows QUIC's connections".to_owned()
        } else if path.segments[0] == "quinn_proto" && KNOW_NO_QUIC.contains(&own) {
            format!("`{own}` must not know QUIC")
        } else if path.starts_with(&["std", "time"]) && own == "stream" {
            "`stream` must not know the time".to_owned()
        } else {
            return None;
        };
        Some((path.line, what))
    };
    paths(&source.code).into_iter().filter_map(offence).collect()
}

/// `tokio` is named by its driver, by applications and by what measures both only; the core does not even speak of it.
fn runtime(source: &Source) -> Vec<Offence> {
    let offence = |line| (line, "only `kwik-tokio`, `bench` and examples know tokio".to_owned());
    if source.path.starts_with("kwik-core/") {
        return source.lines_with(|line| line.to_lowercase().contains("tokio")).map(offence).collect();
    }
    let is_driver = ["kwik-tokio/", "bench/", "examples/"].iter().any(|prefix| source.path.starts_with(prefix));
    let is_member = source.path.contains('/');
    if is_driver || !is_member || source.path.ends_with(".md") {
        return Vec::new();
    }
    if source.path.ends_with(".toml") {
        return source.lines_with(|line| line.contains("tokio")).map(offence).collect();
    }
    let named = paths(&source.code).into_iter().filter(|path| path.segments[0] == "tokio");
    named.map(|path| offence(path.line)).collect()
}

fn dependencies_of_examples(source: &Source) -> Vec<Offence> {
    let is_foreign = |line: &str| {
        let words = line.split(|char: char| !(char.is_ascii_alphanumeric() || "-_".contains(char)));
        let mut own = words.filter(|word| word.starts_with("kwik"));
        !line.starts_with("name") && own.any(|word| word != "kwik-tokio")
    };
    let what = "an application depends on no crate of KWIK but `kwik-tokio`";
    source.lines_with(is_foreign).map(|line| (line, what.to_owned())).collect()
}

/// What is measured on sockets is what applications get. Benches of inner parts stand beside.
fn crates_of_measurements(source: &Source) -> Vec<Offence> {
    let below = |path: &UsedPath<'_>| path.segments[0].starts_with("kwik_") && path.segments[0] != "kwik_tokio";
    let what = "of KWIK, a measurement knows `kwik_tokio` only";
    paths(&source.code).into_iter().filter(below).map(|path| (path.line, what.to_owned())).collect()
}

fn client_commands(source: &Source) -> Vec<Offence> {
    let tokens = tokens(&source.code);
    let mut offences = Vec::new();
    for at in (0..tokens.len()).filter(|at| tokens[*at].text == "impl") {
        let Some(body) = body_after(&tokens, at) else { continue };
        let header = &tokens[at..body.start];
        if header.iter().all(|token| token.text != "ClientSession") {
            continue;
        }
        if header.iter().any(|token| token.text == "Deref") {
            offences.push((tokens[at].line, "a client's session lends nothing it does not show itself".into()));
        }
        for pair in tokens[body].windows(2).filter(|pair| pair[0].text == "fn") {
            if COMMANDS_OF_SERVERS.iter().any(|command| pair[1].text.starts_with(command)) {
                offences.push((pair[1].line, format!("`{}` is for servers", pair[1].text)));
            }
        }
    }
    offences
}

fn empty_words(source: &Source) -> Vec<Offence> {
    let mut offences = Vec::new();
    let spoken =
        if is_rust(&source.path) { [&source.code, &source.comments] } else { [&source.text, &source.comments] };
    for (number, line) in spoken.iter().flat_map(|text| text.lines().enumerate()) {
        for word in words(line) {
            let bare = word.strip_suffix('s').unwrap_or(&word);
            let is_exempt = EMPTY_WORDS_EXEMPT.contains(&(source.path.as_str(), bare));
            if EMPTY_WORDS.contains(&bare) && !is_exempt {
                offences.push((number + 1, format!("`{word}` does not say what it is")));
            }
        }
    }
    offences
}

fn excuses(source: &Source) -> Vec<Offence> {
    let mut offences = Vec::new();
    let tokens = tokens(&source.code);
    for three in tokens.windows(3) {
        let [before, word, after] = [three[0].text, three[1].text, three[2].text];
        if ["[", ","].contains(&before) && word == "allow" && after == "(" {
            offences
                .push((three[1].line, "`#[expect(.., reason = \"..\")]` where it is justified, never `allow`".into()));
        }
        if ["todo", "unimplemented"].contains(&word) && after == "!" {
            offences.push((three[1].line, format!("`{word}!` is not finished")));
        }
    }
    for (number, line) in source.comments.lines().enumerate() {
        if let Some(mark) = ["TODO", "FIXME"].iter().find(|mark| line.contains(*mark)) {
            offences.push((number + 1, format!("{mark}: do it, or open an issue")));
        }
    }
    offences
}

fn sleeps(source: &Source) -> Vec<Offence> {
    let is_test = source.path.starts_with("tests/") || source.path.contains("/tests/");
    let sleeps = |path: &UsedPath<'_>| {
        let calls = |module: &str| path.segments.windows(2).any(|pair| pair == [module, "sleep"]);
        calls("thread") || (is_test && calls("time"))
    };
    let what = "wait for what is to happen, not for a while";
    paths(&source.code).into_iter().filter(sleeps).map(|path| (path.line, what.to_owned())).collect()
}

fn machine_paths(source: &Source) -> Vec<Offence> {
    let names_one = |line: &str| {
        let starts = line.match_indices('/').filter(|(at, _)| {
            !line[..*at].ends_with(|char: char| char.is_alphanumeric() || "/._-:)]}>*".contains(char))
        });
        let mut names = starts.map(|(at, _)| line[at + 1..].split(|char: char| !char.is_alphanumeric()).next());
        names.any(|name| name.is_some_and(|name| OF_ONE_MACHINE.contains(&name)))
    };
    source.lines_with(names_one).map(|line| (line, "a path that exists on one machine".to_owned())).collect()
}

// ---- each rule sees what breaks it

/// The lines of a text that a rule objects to.
fn seen(rule: impl Fn(&Source) -> Vec<Offence>, path: &str, text: &str) -> Vec<usize> {
    rule(&Source::new(path, text)).into_iter().map(|(line, _)| line).collect()
}

#[test]
fn long_files_and_functions_are_seen() {
    assert_eq!(seen(file_length, "a.rs", &"\n".repeat(FILE_LINES_MAX)), []);
    assert_eq!(seen(file_length, "a.rs", &"\n".repeat(FILE_LINES_MAX + 1)), [FILE_LINES_MAX + 1]);
    let function = |lines| format!("trait A {{ fn b(); }}\nfn c(d: [u8; 2]) {{{}}}\n", "f();\n".repeat(lines));
    assert_eq!(seen(function_lengths, "a.rs", &function(FUNCTION_LINES_MAX - 1)), []);
    assert_eq!(seen(function_lengths, "a.rs", &function(FUNCTION_LINES_MAX)), [2]);
}

#[test]
fn imports_against_the_direction_are_seen() {
    let stream = "kwik-core/src/stream/table/queries.rs";
    for good in ["use crate::id::{Dir, GrantId};", "use super::super::recv::A;", "use crate::{limits, VERSION};"] {
        assert_eq!(seen(layers, stream, good), [], "{good}");
    }
    for bad in [
        "use crate::wire::Frame;",
        "use crate::{id::Dir, session::{Session, Role}};",
        "fn f() { crate::path::open() }",
        "use super::super::super::auth::SignedPayload;",
        "mod tests { use super::super::super::super::config; }",
        "use crate::SessionError;",
        "use crate::*;",
        "/* a */ const A: &str = \"crate::id\"; use crate::endpoint;",
    ] {
        assert!(seen(layers, stream, bad).contains(&1), "{bad}");
    }
    assert_eq!(seen(layers, "kwik-core/src/id.rs", "\nuse crate::error::ErrorCode;"), [2]);
    assert_eq!(seen(layers, "kwik-core/src/id.rs", "mod tests { use super::SessionId; }"), []);
    assert_eq!(seen(layers, "kwik-core/src/wire/mod.rs", "use super::auth::SignedPayload;"), [1]);
    assert_eq!(seen(layers, "kwik-core/src/auth/mod.rs", "use crate::wire::SignedPayload;"), [1]);
    assert_eq!(seen(layers, "kwik-core/src/path/mod.rs", "use crate::config::{Congestion, Limits};"), [1]);
    assert_eq!(seen(layers, "kwik-core/src/path/mod.rs", "use crate::stream::Chunk;"), [1]);
    assert_eq!(seen(layers, "kwik-core/src/session/mod.rs", "use crate::endpoint::Endpoint;"), [1]);
    assert_eq!(seen(layers, "kwik-core/src/extra.rs", ""), [1], "a new module needs a row");
    assert_eq!(seen(layers, "kwik-sim/src/checks/model.rs", "use crate::apps::ClientApp;"), [1]);
    assert_eq!(seen(layers, "kwik-sim/src/world/run.rs", "use crate::checks::Coverage;"), [1]);
    assert_eq!(seen(layers, "kwik-sim/src/swarm/run.rs", "use crate::checks::Coverage;"), []);
}

#[test]
fn quic_and_time_below_are_seen() {
    assert_eq!(seen(quic_and_time, "kwik-core/src/stream/send.rs", "use quinn_proto::VarInt;"), [1]);
    assert_eq!(seen(quic_and_time, "kwik-core/src/stream/send.rs", "use std::{fmt, time::Duration};"), [1]);
    assert_eq!(seen(quic_and_time, "kwik-core/src/session/mod.rs", "use quinn_proto::{Connection, Dir};"), [1]);
    assert_eq!(seen(quic_and_time, "kwik-core/src/path/mod.rs", "use quinn_proto::Connection;"), []);
}

#[test]
fn runtime_in_the_wrong_place_is_seen() {
    assert_eq!(seen(runtime, "kwik-core/src/lib.rs", "\n// as tokio does"), [2]);
    assert_eq!(seen(runtime, "kwik-core/Cargo.toml", "tokio.workspace = true"), [1]);
    assert_eq!(seen(runtime, "kwik-sim/Cargo.toml", "tokio.workspace = true"), [1]);
    assert_eq!(seen(runtime, "tests/tests/a.rs", "#[tokio::test]"), [1]);
    assert_eq!(seen(runtime, "kwik-tokio/src/lib.rs", "use tokio::net;"), []);
    assert_eq!(seen(runtime, "bench/src/main.rs", "use tokio::net;"), []);
}

#[test]
fn examples_below_the_driver_are_seen() {
    let text = "name = \"kwik-demo\"\n[dependencies]\nkwik-tokio.workspace = true\nanyhow = \"1\"\n";
    assert_eq!(seen(dependencies_of_examples, "Cargo.toml", text), []);
    let bad = format!("{text}kwik-core.workspace = true\nx = {{ path = \"../../kwik-sim\" }}\n");
    assert_eq!(seen(dependencies_of_examples, "Cargo.toml", &bad), [5, 6]);
}

#[test]
fn measurements_below_the_driver_are_seen() {
    let text = "use kwik_tokio::{Limits, dial};\nuse kwik_core::Limits;\nfn a() { kwik_sim::run() }";
    assert_eq!(seen(crates_of_measurements, "bench/src/a.rs", text), [2, 3]);
}

#[test]
fn commands_at_a_client_are_seen() {
    let text = "impl SessionMut { fn add_path() {} }\nimpl ClientSession { fn id() {} }\n";
    assert_eq!(seen(client_commands, "client.rs", text), []);
    let bad =
        "impl ClientSession {\nfn id() {}\npub async fn delegate_at(&self) {}\n}\nimpl Deref for ClientSession {}";
    assert_eq!(seen(client_commands, "client.rs", bad), [3, 5]);
}

#[test]
fn empty_names_are_seen() {
    let good = "fn handle_datagram() { let utility = \"helper\"; } // processing";
    assert_eq!(seen(empty_words, "a.rs", good), []);
    for bad in
        ["struct PathManager;", "mod utils;", "fn event_handler() {}", "// a Helper", "/// aggregators", "HTTPHandler"]
    {
        assert_eq!(seen(empty_words, "a.rs", bad).len(), 1, "{bad}");
    }
    assert_eq!(seen(empty_words, "a.md", "\nThe stream manager"), [2]);
}

#[test]
fn excuses_are_seen() {
    assert_eq!(seen(excuses, "a.rs", "#[expect(dead_code, reason = \"allow(x)\")] fn allow() { allow(1) }"), []);
    let bad = "#![allow(dead_code)]\n#[cfg_attr(test, allow(unused))]\nfn a() { todo!() }\n// FIXME\n# [allow (x)]";
    assert_eq!(seen(excuses, "a.rs", bad), [1, 2, 3, 5, 4]);
}

#[test]
fn sleeping_is_seen() {
    let text = "use std::thread;\nfn a() { thread::sleep(b) }\nuse tokio::{net, time::{sleep, timeout}};";
    assert_eq!(seen(sleeps, "kwik-tokio/tests/a.rs", text), [2, 3]);
    assert_eq!(seen(sleeps, "kwik-tokio/src/a.rs", text), [2], "a driver may have a timer");
}

#[test]
fn paths_of_one_machine_are_seen() {
    let root = '/';
    for bad in ["home/me/a", "work", "Users/me"] {
        assert_eq!(seen(machine_paths, "a.md", &format!("\nsee `{root}{bad}`")), [2], "{bad}");
    }
    for good in ["docs/work/a", "https://home/a", "a / work", "/workspace", "../home"] {
        assert_eq!(seen(machine_paths, "a.rs", &format!("\"{good}\"")), [], "{good}");
    }
}

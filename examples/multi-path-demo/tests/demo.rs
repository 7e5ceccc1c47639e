//! The program as a user runs it.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;
use sha2::{Digest, Sha256};

/// The SHA-256 of the first 4 MiB of the generated file.
const SHA256_OF_4_MIB: &str = "4cd7ead15a867b280c1aad613b8cb3a4187fb8dc550b2df3e10c1c687e20b699";

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_multi-path-demo"))
}

/// The last line of stdout, of a run that succeeded.
fn report(output: &Output) -> Value {
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{stdout}\n{stderr}", output.status);
    let report: Value = serde_json::from_str(stdout.lines().last().expect("a report")).expect("one JSON object");
    assert_eq!(report["ok"], true, "{stdout}\n{stderr}");
    assert!(stdout.lines().any(|line| line == "OK"), "{stdout}");
    report
}

fn run(args: &[&str]) -> Value {
    report(&program().args(args).arg("--json").output().expect("the program starts"))
}

/// Checks that the bytes add up, and returns how many servers sent some.
fn sources(report: &Value) -> usize {
    let bytes: Vec<_> = report["paths"].as_array().expect("paths").iter().map(|path| path["bytes"].as_u64()).collect();
    assert_eq!(bytes.iter().copied().sum::<Option<u64>>(), report["bytes"].as_u64(), "{report}");
    bytes.into_iter().filter(|bytes| *bytes > Some(0)).count()
}

#[test]
fn three_servers_fill_one_stream() {
    let report = run(&["--size", "4MiB", "--limit", "2"]);
    assert_eq!(sources(&report), 3, "{report}");
    assert_eq!(report["bytes"], 4 << 20);
    assert_eq!(report["raw_round_trips"], 2);
    assert_eq!(report["sha256"], SHA256_OF_4_MIB);
    let role = |index: usize| report["paths"][index]["role"].clone();
    assert_eq!((role(0), role(1), role(2)), ("primary".into(), "secondary".into(), "secondary".into()));
}

#[test]
fn five_servers_fill_one_stream() {
    let report = run(&["--size", "4MiB", "--servers", "5", "--limit", "1"]);
    assert_eq!(sources(&report), 5, "{report}");
    assert_eq!(report["raw_round_trips"], 4);
    assert_eq!(report["sha256"], SHA256_OF_4_MIB);
}

#[test]
fn a_primary_alone_is_enough() {
    let report = run(&["--size", "4MiB", "--servers", "1"]);
    assert_eq!(sources(&report), 1, "{report}");
    assert_eq!(report["sha256"], SHA256_OF_4_MIB);
}

#[test]
fn the_death_of_a_secondary_loses_nothing() {
    for servers in ["2", "3"] {
        let report = run(&["--size", "32MiB", "--servers", servers, "--kill-one", "--limit", "16"]);
        assert_eq!(report["bytes"], 32 << 20);
        assert!(report["refilled_bytes"].as_u64() > Some(0), "{report}");
    }
}

#[test]
fn a_file_of_the_user_arrives_as_it_is() {
    let dir = Dir::new("file");
    let (file, copy) = (dir.0.join("a file.bin"), dir.0.join("copy.bin"));
    let bytes: Vec<u8> = (0..3_000_001_u32).flat_map(|n| n.to_le_bytes().into_iter().take(1)).collect();
    std::fs::write(&file, &bytes).expect("a file in the temporary directory");
    let report = run(&["--file", text(&file), "--output", text(&copy)]);
    assert_eq!(report["sha256"], sha256(&bytes));
    assert!(std::fs::read(&copy).expect("the copy") == bytes, "the copy differs");
}

#[test]
fn an_empty_file_is_a_file() {
    let report = run(&["--size", "0"]);
    assert_eq!((sources(&report), &report["bytes"]), (0, &Value::from(0)));
    assert_eq!(report["sha256"], sha256(&[]));
}

#[test]
fn a_failure_is_told_and_has_an_exit_code() {
    let output = program().args(["--file", "/nonexistent", "--json"]).output().expect("the program starts");
    assert_eq!(output.status.code(), Some(1));
    let stdout = String::from_utf8_lossy(&output.stdout);
    let report: Value = serde_json::from_str(stdout.lines().last().expect("a report")).expect("one JSON object");
    assert_eq!(report["ok"], false);
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent"));
}

#[test]
fn the_roles_run_as_processes_of_their_own() {
    let dir = Dir::new("processes");
    let (keys, files, copy) = (dir.0.join("keys"), dir.0.join("files"), dir.0.join("copy.bin"));
    let keys = text(&keys);
    assert!(program().args(["init", keys]).status().expect("the program starts").success());
    std::fs::create_dir(&files).expect("a directory");
    let bytes: Vec<u8> = (0..4 << 20).map(|n: u32| (n ^ (n >> 8) ^ (n >> 16)).to_le_bytes()[0]).collect();
    std::fs::write(files.join("movie.bin"), &bytes).expect("a file");

    let serve = |role: &str, more: &[&str]| {
        Server::start(program().args(["serve", role, "--keys", keys, "--dir", text(&files), "--limit", "2"]).args(more))
    };
    let first = serve("secondary", &["--name", "secondary-1"]);
    let second = serve("secondary", &["--name", "secondary-2"]);
    let holders = [format!("secondary-1@{}", first.address), format!("secondary-2@{}", second.address)];
    let primary = serve("primary", &["--secondary", &holders[0], "--secondary", &holders[1]]);

    let fetch = |name: &str| {
        let args = ["fetch", &primary.address, name, "--keys", keys, "--output", text(&copy), "--json"];
        program().args(args).output().expect("the program starts")
    };
    // The servers go on after a client has left.
    for _ in 0..2 {
        let report = report(&fetch("movie.bin"));
        assert_eq!(sources(&report), 3, "{report}");
        assert_eq!(report["sha256"], sha256(&bytes));
        assert!(std::fs::read(&copy).expect("the copy") == bytes, "the copy differs");
    }
    let refused = fetch("../keys/primary.identity.secret");
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("refused"), "{refused:?}");
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the temporary directory has a name in UTF-8")
}

/// A directory that is removed in the end.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("kwik-demo-test-{}-{name}", std::process::id()));
        std::fs::create_dir(&dir).expect("a new directory");
        Self(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server process that is killed in the end.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start(command: &mut Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).spawn().expect("the program starts");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line from the server");
        let address = line.trim().strip_prefix("listening on ").expect("the server's address").to_owned();
        Self { process, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

//! Every workload comes to its end with every library, small as it is here.

use std::process::Command;

/// Arguments that make a round short.
const WORKLOADS: [&[&str]; 7] = [
    &["bulk", "--mib", "1", "--sessions", "2"],
    &["upload", "--mib", "1", "--socket-each"],
    &["rr", "--operations", "20"],
    &["streams", "--operations", "20", "--concurrency", "4"],
    &["dial", "--operations", "2"],
    &["idle", "--sessions", "3", "--idle-seconds", "1"],
    &["mixed", "--operations", "3"],
];

#[test]
fn every_workload_ends_and_gives_ratios() {
    for (workload, peer) in WORKLOADS.iter().flat_map(|workload| ["quinn", "noq"].map(|peer| (workload, peer))) {
        let mut program = Command::new(env!("CARGO_BIN_EXE_kwik-bench"));
        program.args(*workload).args(["--peer", peer, "--pairs", "1", "--json"]);
        let output = program.output().expect("the program starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{workload:?} beside {peer}: {errors}");
        let told = String::from_utf8_lossy(&output.stdout);
        let told: serde_json::Value = serde_json::from_str(&told).expect("one object, and nothing else");
        assert_eq!(told["peer"], peer);
        assert_eq!(told["ratio_time"].is_object(), workload[0] != "idle", "{told}");
    }
}

#[test]
fn round_that_fails_is_an_error() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_kwik-bench"));
    // A round that does nothing for longer than it may take.
    program.args(["idle", "--sessions", "1", "--idle-seconds", "600", "--timeout", "1"]);
    let output = program.output().expect("the program starts");
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("--timeout"), "the option to change is named");
}

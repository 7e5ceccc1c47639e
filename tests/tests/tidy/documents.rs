//! What documents say of tests, and tests of documents.

use std::collections::BTreeSet;

use super::rust::Source;

/// A test, and the rules that the comment above it names.
pub(crate) struct Test {
    pub(crate) name: String,
    pub(crate) rules: Vec<String>,
}

/// The rules named in a text, each as `P`, section and number in brackets; with their lines, counted from 1.
pub(crate) fn rules(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for (at, _) in line.match_indices("[P-") {
            let Some(len) = line[at..].find(']') else { continue };
            let rule = &line[at..=at + len];
            if rule[3..len].starts_with(|first: char| first.is_ascii_digit()) {
                found.push((number + 1, rule.to_owned()));
            }
        }
    }
    found
}

/// The rules that a document states, not those it refers to.
pub(crate) fn stated(document: &str) -> BTreeSet<String> {
    let is_stated = |line: &str, rule: &str| line.starts_with(&format!("**{rule}**"));
    let mut stated = BTreeSet::new();
    for (number, rule) in rules(document) {
        if document.lines().nth(number - 1).is_some_and(|line| is_stated(line, &rule)) {
            stated.insert(rule);
        }
    }
    stated
}

pub(crate) fn tests(source: &Source) -> Vec<Test> {
    let text: Vec<_> = source.text.lines().collect();
    let code: Vec<_> = source.code.lines().map(str::trim).collect();
    let comments: Vec<_> = source.comments.lines().collect();
    let mut tests = Vec::new();
    for (at, line) in code.iter().enumerate() {
        let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        let Some((name, _)) = function.and_then(|function| function.split_once('(')) else { continue };
        let belongs = |above: &usize| {
            !text[*above].trim().is_empty() && (code[*above].is_empty() || code[*above].starts_with("#["))
        };
        let head: Vec<_> = (0..at).rev().take_while(belongs).collect();
        if head.iter().any(|line| ["#[test]", "#[tokio::test"].iter().any(|mark| code[*line].starts_with(mark))) {
            let named = head.iter().flat_map(|line| comments.get(*line)).flat_map(|comment| rules(comment));
            tests.push(Test { name: name.to_owned(), rules: named.map(|(_, rule)| rule).collect() });
        }
    }
    tests
}

/// What is wrong between the rules of a document and those that tests name.
pub(crate) fn untested(document: &str, sources: &[Source]) -> Vec<String> {
    let stated = stated(document);
    let tested: BTreeSet<_> = sources.iter().flat_map(tests).flat_map(|test| test.rules).collect();
    let mut offences: Vec<_> = stated.difference(&tested).map(|rule| format!("{rule} is named by no test")).collect();
    let referred = rules(document).into_iter().map(|(line, rule)| (format!("the document:{line}"), rule));
    let named = sources.iter().flat_map(|source| {
        rules(&source.comments).into_iter().map(|(line, rule)| (format!("{}:{line}", source.path), rule))
    });
    for (place, rule) in referred.chain(named).filter(|(_, rule)| !stated.contains(rule)) {
        offences.push(format!("{place}: there is no rule {rule}"));
    }
    offences
}

/// What is wrong with the rows of a document's table of tests: each is to name tests as `file::test`, and they exist.
pub(crate) fn unproven(document: &str, sources: &[Source]) -> Vec<String> {
    let exists = |named: &str| {
        let file = named.rsplit_once("::").and_then(|(file, test)| {
            let source = sources.iter().find(|source| source.path == file)?;
            tests(source).into_iter().find(|found| found.name == test)
        });
        file.is_some()
    };
    let rows = document.lines().skip_while(|line| !line.ends_with("| TEST |")).skip(2);
    let mut offences = Vec::new();
    let mut count = 0;
    for row in rows.take_while(|line| line.starts_with('|')) {
        count += 1;
        let cell = row.trim_matches('|').split_once('|').map_or("", |(_, cell)| cell);
        let named: Vec<_> = cell.split('`').skip(1).step_by(2).collect();
        if named.is_empty() {
            offences.push(format!("no test in the row {row}"));
        }
        offences.extend(named.into_iter().filter(|named| !exists(named)).map(|named| format!("no test {named}")));
    }
    if count == 0 {
        offences.push("there is no table with a column TEST".to_owned());
    }
    offences
}

/// What is wrong with the rows of a document's table of limits: each names a limit of `limits.rs` and its default.
pub(crate) fn misquoted(document: &str, sources: &[Source]) -> Vec<String> {
    let limits = sources.iter().find(|source| source.path == "kwik-core/src/limits.rs");
    let lines = limits.map_or("", |source| &source.code).lines().map(str::trim);
    // A line of the table reads `name: type = default, least => most;`.
    let defaults: Vec<_> = lines
        .filter(|line| line.contains("=>") && line.ends_with(';'))
        .filter_map(|line| {
            let (name, rest) = line.split_once(": ")?;
            Some((name, figure(rest.split_once(" = ")?.1.split_once(", ")?.0)))
        })
        .collect();
    let mut offences = Vec::new();
    let mut count = 0;
    for row in document.lines().skip_while(|line| !line.starts_with("| limit |")).skip(2) {
        let mut cells = row.split('|').map(str::trim).skip(1);
        let (Some(name), Some(quoted)) = (cells.next(), cells.next()) else { break };
        count += 1;
        match defaults.iter().find(|(limit, _)| *limit == name.trim_matches('`')) {
            None => offences.push(format!("there is no limit {name}")),
            Some((_, default)) if default != quoted => offences.push(format!("{name} is {default}, and not {quoted}")),
            Some(_) => {}
        }
    }
    if count == 0 {
        offences.push("there is no table of limits".to_owned());
    }
    offences
}

/// A default as people write it: `2 * MIB` is 2 MiB, `SECOND` 1 s.
fn figure(default: &str) -> String {
    let (count, unit) = default.split_once(" * ").unwrap_or_else(|| match default {
        number if number.starts_with(|first: char| first.is_ascii_digit()) => (number, ""),
        unit => ("1", unit),
    });
    let count = count.replace('_', "");
    match unit.trim_end_matches("_USIZE").trim_end_matches("_U32") {
        "MIB" => format!("{count} MiB"),
        "KIB" => format!("{count} KiB"),
        "SECOND" => format!("{count} s"),
        "MILLISECOND" => format!("{count} ms"),
        "HOUR" => format!("{count} h"),
        "1024" => (1024 * count.parse::<u64>().unwrap_or(0)).to_string(),
        "GRANTS_SESSION_MAX" => "1024".to_owned(),
        unit => format!("{count}{unit}"),
    }
}

#[test]
fn rules_without_a_test_and_tests_without_a_rule_are_seen() {
    let document = "**[P-1.1]** One.\n**[P-1.2]** Two, as [P-1.1].\n";
    let test = |text: &str| vec![Source::new("a.rs", text)];
    let both = "// [P-1.1] [P-1.2]\n#[test]\nfn a() {}\n";
    assert_eq!(untested(document, &test(both)), [""; 0]);
    let one = "// [P-1.1]\n#[test]\nfn a() {}\n// [P-1.2]\nfn b() {}\nconst C: &str = \"// [P-1.2]\";\n";
    assert_eq!(untested(document, &test(one)), ["[P-1.2] is named by no test"]);
    let apart = "    // [P-1.1]\n    #[tokio::test]\n    async fn a() {}\n\n// [P-1.2]\n\n#[test]\nfn b() {}\n";
    assert_eq!(untested(document, &test(apart)), ["[P-1.2] is named by no test"]);
    let more = format!("/// Text.\n// [P-9.9]\n{both}");
    assert_eq!(untested(document, &test(&more)), ["a.rs:2: there is no rule [P-9.9]"]);
    let lost = format!("{document}As [P-7.7].\n");
    assert_eq!(untested(&lost, &test(both)), ["the document:3: there is no rule [P-7.7]"]);
}

#[test]
fn tables_that_name_no_test_are_seen() {
    let sources = [Source::new("b/a.rs", "#[test]\nfn good() {}\nfn plain() {}\n")];
    let table = |cell: &str| format!("text\n| what | TEST |\n|---|---|\n| row | {cell} |\n\nmore | text\n");
    assert_eq!(unproven(&table("`b/a.rs::good`"), &sources), [""; 0]);
    for bad in ["", "`b/a.rs::plain`", "`b/a.rs::good`, `b/a.rs::gone`", "`a.rs::good`", "`b/a.rs`"] {
        assert_eq!(unproven(&table(bad), &sources).len(), 1, "{bad}");
    }
    assert_eq!(unproven("no table", &sources).len(), 1);
}

#[test]
fn figures_that_are_not_those_of_the_code_are_seen() {
    let code = "limits! {\n    a_max: usize = 10_000, 1 => usize::MAX;\n    b_bytes: u64 = 16 * MIB, MIB => u64::MAX;\n    \
                c_time: Duration = SECOND, SECOND => DAY;\n    d: usize = 16 * 1024, 1 => 2;\n}\n";
    let sources = [Source::new("kwik-core/src/limits.rs", code)];
    let table = |rows: &str| format!("text\n| limit | default | of |\n|---|---|---|\n{rows}\n\nmore\n");
    let good = "| `a_max` | 10000 | x |\n| `b_bytes` | 16 MiB | x |\n| `c_time` | 1 s | x |\n| `d` | 16384 | x |";
    assert_eq!(misquoted(&table(good), &sources), [""; 0]);
    for bad in ["| `a_max` | 1000 | x |", "| `e_max` | 1 | x |", "| `b_bytes` | 16 | x |", ""] {
        assert_eq!(misquoted(&table(bad), &sources).len(), 1, "{bad}");
    }
}

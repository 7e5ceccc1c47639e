//! Which files a compiler never sees.

use std::collections::BTreeSet;

use super::rust::{Source, Token, is_rust, tokens};

/// Where Cargo finds targets by itself, below the root of a package: single files, and directories of files.
const ROOTS: &[&str] = &["src/lib.rs", "src/main.rs", "build.rs"];
const DIRECTORIES_OF_ROOTS: &[&str] = &["src/bin", "tests", "examples", "benches"];

/// A package of the workspace, or several: its directory with a slash at the end, and what its manifest says.
pub(crate) struct Package<'a> {
    pub(crate) directory: &'a str,
    pub(crate) manifest: &'a str,
}

impl<'a> Package<'a> {
    pub(crate) fn all(sources: &'a [Source]) -> Vec<Self> {
        let manifests = sources.iter().filter(|source| source.text.lines().any(|line| line == "[package]"));
        let packages = manifests.filter_map(|source| {
            let directory = source.path.strip_suffix("Cargo.toml")?;
            Some(Self { directory, manifest: &source.text })
        });
        packages.collect()
    }

    pub(crate) fn name(&self) -> &'a str {
        self.values("name").next().unwrap_or_default()
    }

    /// What stands in quotes behind a key, each time that the key begins a line.
    fn values(&self, key: &str) -> impl Iterator<Item = &'a str> {
        let lines =
            self.manifest.lines().filter_map(move |line| line.strip_prefix(key)?.trim_start().strip_prefix('='));
        lines.filter_map(|rest| rest.split('"').nth(1))
    }

    /// Whether Cargo builds a target from the file at `path`.
    fn is_target(&self, path: &str) -> bool {
        let Some(inside) = path.strip_prefix(self.directory) else { return false };
        let has_no_auto = |directory: &str| {
            let switch = format!("auto{}", directory.rsplit('/').next().unwrap_or_default());
            self.manifest.lines().any(|line| line.replace(' ', "") == format!("{switch}=false"))
        };
        let is_found = DIRECTORIES_OF_ROOTS.iter().any(|directory| {
            let name = inside.strip_prefix(directory).and_then(|rest| rest.strip_prefix('/'));
            let is_root = name.is_some_and(|name| {
                !name.contains('/') || (name.ends_with("/main.rs") && name.matches('/').count() == 1)
            });
            is_root && !has_no_auto(directory)
        });
        is_found || ROOTS.contains(&inside) || self.values("path").any(|named| named == inside)
    }
}

/// Files of Rust that no target of Cargo, `mod` or `#[path]` leads to.
pub(crate) fn unnamed(sources: &[Source]) -> Vec<String> {
    let packages = Package::all(sources);
    let is_target = |source: &&Source| packages.iter().any(|package| package.is_target(&source.path));
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut next: Vec<_> = sources.iter().filter(|source| is_rust(&source.path)).filter(is_target).collect();
    let roots: BTreeSet<_> = next.iter().map(|source| source.path.as_str()).collect();
    while let Some(source) = next.pop() {
        if seen.insert(&source.path) {
            let named = modules(source, roots.contains(source.path.as_str()));
            next.extend(sources.iter().filter(|file| named.contains(&file.path)));
        }
    }
    let unseen = sources.iter().filter(|file| is_rust(&file.path) && !seen.contains(file.path.as_str()));
    unseen.map(|file| format!("{}: no `mod`, `#[path]` or target names it", file.path)).collect()
}

/// The files that a file's modules may be in.
fn modules(source: &Source, is_root: bool) -> Vec<String> {
    let (directory, name) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
    let stem = name.trim_end_matches(".rs");
    let own = if is_root || stem == "mod" { directory.to_owned() } else { format!("{directory}/{stem}") };
    let tokens = tokens(&source.code);
    let mut files = Vec::new();
    // The modules of the file itself around a place, each with the depth at which it began.
    let mut inline: Vec<(usize, &str)> = Vec::new();
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                inline.pop_if(|(began, _)| *began == depth);
            }
            "mod" => {
                let [name, end] = [1, 2].map(|further| tokens.get(at + further).map_or("", |token| token.text));
                if end == "{" {
                    inline.push((depth, name));
                } else if end == ";" {
                    let inside: String = inline.iter().map(|(_, name)| format!("/{name}")).collect();
                    files.extend(match given_path(source, &tokens, at) {
                        Some(path) if inside.is_empty() => vec![format!("{directory}/{path}")],
                        Some(path) => vec![format!("{own}{inside}/{path}")],
                        None => [".rs", "/mod.rs"].map(|end| format!("{own}{inside}/{name}{end}")).to_vec(),
                    });
                }
            }
            _ => {}
        }
    }
    files
}

/// What the `#[path = ".."]` above the `mod` at `at` says.
fn given_path<'a>(source: &'a Source, tokens: &[Token<'_>], at: usize) -> Option<&'a str> {
    let attributes = tokens[..at].iter().rev().take_while(|token| ![";", "{", "}"].contains(&token.text));
    let path = attributes.into_iter().find(|token| token.text == "path")?;
    let (_, value) = source.text.lines().nth(path.line - 1)?.split_once("path")?;
    value.split('"').nth(1)
}

#[test]
fn files_that_nobody_names_are_seen() {
    let tree = |files: &[(&str, &str)]| -> Vec<String> {
        let sources: Vec<_> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
        let offences = unnamed(&sources).into_iter();
        offences.map(|offence| offence.split(':').next().unwrap_or_default().to_owned()).collect()
    };
    let manifest = ("a/Cargo.toml", "[package]\nname = \"a\"\n");
    let lib = ("a/src/lib.rs", "mod b;\nmod c { mod d; }\n#[cfg(test)]\n#[path = \"e_tests.rs\"]\nmod e;\n// mod f;\n");
    let named = [
        ("a/src/b.rs", "mod g;"),
        ("a/src/b/g/mod.rs", "mod h;"),
        ("a/src/b/g/h.rs", ""),
        ("a/src/c/d.rs", ""),
        ("a/src/e_tests.rs", ""),
        ("a/tests/i.rs", "#[path = \"i/j.rs\"]\nmod j;"),
        ("a/tests/i/j.rs", ""),
        ("a/examples/k/main.rs", ""),
    ];
    let good = [&[manifest, lib][..], &named].concat();
    assert_eq!(tree(&good), [""; 0]);
    for lost in ["a/src/e.rs", "a/src/f.rs", "a/src/g.rs", "a/src/d.rs", "a/tests/i/l.rs", "a/examples/k/l.rs", "b.rs"]
    {
        assert_eq!(tree(&[&good[..], &[(lost, "")]].concat()), [lost]);
    }
    let told =
        ("a/Cargo.toml", "[package]\nname = \"a\"\nautotests = false\n[[test]]\nname = \"m\"\npath = \"tests/m.rs\"\n");
    let good = [told, ("a/tests/m.rs", "mod n;"), ("a/tests/n.rs", "")];
    assert_eq!(tree(&good), [""; 0]);
    assert_eq!(tree(&[&good[..], &[("a/tests/i.rs", "mod n;")]].concat()), ["a/tests/i.rs"]);
}

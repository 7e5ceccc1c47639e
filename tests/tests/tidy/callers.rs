//! Which public items nobody outside their crate uses. Names are compared, and no types.

use std::collections::BTreeSet;

use super::files::Package;
use super::rust::{Source, Token, body_after, is_rust, tokens};

/// Words before the name of what they define.
const DEFINING: &[&str] =
    &["fn", "struct", "enum", "trait", "const", "static", "type", "mod", "let", "mut", "macro_rules"];

/// Reasons why items need no caller, each with the items that have it.
pub(crate) type Exceptions = [(&'static str, &'static [&'static str])];

/// How an item is used: `name`, `Owner::name` or `.name(`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Word,
    OfOwner,
    Method,
}

/// A public item of a crate. What stands in an `impl` has an owner.
struct Item<'a> {
    place: String,
    owner: Option<&'a str>,
    name: &'a str,
    by: Use,
}

impl Item<'_> {
    /// As the list of exceptions names it.
    fn full_name(&self) -> String {
        self.owner.map_or_else(|| self.name.to_owned(), |owner| format!("{owner}::{}", self.name))
    }
}

/// What is wrong with the public items of `package`: nobody outside uses them and `exempt` does not name them, or it names
/// what needs no exception.
pub(crate) fn uncalled(package: &str, exempt: &Exceptions, sources: &[Source]) -> Vec<String> {
    let packages = Package::all(sources);
    let Some(own) = packages.iter().find(|known| known.name() == package) else {
        return vec![format!("there is no package {package}")];
    };
    let inside = format!("{}src/", own.directory);
    let mut used = Used::default();
    for source in sources {
        let is_rust = is_rust(&source.path);
        if is_rust && !depends(&packages, &source.path, package) {
            continue;
        }
        used.read(&examples(source));
        if is_rust && !source.path.starts_with(&inside) {
            used.read(&source.code);
        }
    }
    let files = sources.iter().filter(|source| source.path.starts_with(&inside) && is_rust(&source.path));
    let mut offences = Vec::new();
    let mut spared = BTreeSet::new();
    for source in files {
        let tokens = tokens(&source.code);
        for item in items(source, &tokens).into_iter().filter(|item| !used.has(item)) {
            let name = item.full_name();
            if exempt.iter().any(|(_, names)| names.contains(&name.as_str())) {
                spared.insert(name);
            } else {
                offences.push(format!("{}: nobody outside {package} uses `{name}`", item.place));
            }
        }
    }
    let listed = exempt.iter().flat_map(|(_, names)| *names);
    let unneeded = listed.filter(|name| !spared.contains(**name));
    offences.extend(unneeded.map(|name| format!("{package}: `{name}` needs no exception")));
    offences
}

/// Whether the file at `path` belongs to a package that uses `package`, itself or by others, or to its own tests and
/// examples.
fn depends(packages: &[Package<'_>], path: &str, package: &str) -> bool {
    let mut users = vec![package];
    while let Some(user) = packages.iter().find(|user| {
        let is_dependency = |line: &str| {
            users.iter().any(|used| line.strip_prefix(used).is_some_and(|rest| rest.starts_with([' ', '.', '='])))
        };
        !users.contains(&user.name()) && user.manifest.lines().any(is_dependency)
    }) {
        users.push(user.name());
    }
    packages.iter().any(|user| path.starts_with(user.directory) && users.contains(&user.name()))
}

/// The programs in a document, or in the comments of Rust that are documents.
fn examples(source: &Source) -> String {
    let is_document = !is_rust(&source.path);
    let mut programs = String::new();
    let (mut is_inside, mut is_program) = (false, false);
    for line in if is_document { &source.text } else { &source.comments }.lines() {
        let line = line.trim_start();
        let text = ["///", "//!"].iter().find_map(|mark| line.strip_prefix(mark));
        let Some(text) = text.or_else(|| is_document.then_some(line)).map(str::trim_start) else { continue };
        if let Some(language) = text.strip_prefix("```") {
            is_inside = !is_inside;
            is_program = language.starts_with("rust") || (!is_document && language != "text");
        } else if is_inside && is_program {
            programs.push_str(text.strip_prefix("# ").unwrap_or(text));
            programs.push('\n');
        }
    }
    Source::new("example.rs", &programs).code
}

/// Everything that code names, by how it names it.
#[derive(Default)]
struct Used {
    words: BTreeSet<String>,
    of_owners: BTreeSet<(String, String)>,
    methods: BTreeSet<String>,
}

impl Used {
    fn read(&mut self, code: &str) {
        let tokens = tokens(code);
        let text = |at: Option<usize>| at.and_then(|at| tokens.get(at)).map_or("", |token: &Token<'_>| token.text);
        for (at, token) in tokens.iter().enumerate().filter(|(_, token)| is_name(token.text)) {
            let (before, after) = (text(at.checked_sub(1)), text(Some(at + 1)));
            match before {
                "." if after == "(" || after == "::" => drop(self.methods.insert(token.text.to_owned())),
                "." => {}
                _ if DEFINING.contains(&before) => {}
                _ => {
                    self.words.insert(token.text.to_owned());
                    let owner = text(at.checked_sub(2)).to_owned();
                    if before == "::" {
                        self.of_owners.insert((owner, token.text.to_owned()));
                    }
                }
            }
        }
    }

    fn has(&self, item: &Item<'_>) -> bool {
        let of_owner = || {
            let owner = item.owner.unwrap_or_default().to_owned();
            self.of_owners.contains(&(owner, item.name.to_owned()))
        };
        match item.by {
            Use::Word => self.words.contains(item.name),
            Use::OfOwner => of_owner(),
            Use::Method => self.methods.contains(item.name) || of_owner(),
        }
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// What a file makes public. A field is no item, and neither is what a macro names.
fn items<'a>(source: &Source, tokens: &[Token<'a>]) -> Vec<Item<'a>> {
    let owners = owners(tokens);
    let mut items = Vec::new();
    for at in (0..tokens.len()).filter(|at| tokens[*at].text == "pub") {
        let mut rest =
            tokens[at + 1..].iter().enumerate().filter(|(_, token)| !["async", "unsafe"].contains(&token.text));
        let Some((_, mut kind)) = rest.next() else { continue };
        let Some((mut further, mut name)) = rest.next() else { continue };
        if kind.text == "const" && name.text == "fn" {
            kind = name;
            let Some(next) = rest.next() else { continue };
            (further, name) = next;
        }
        let place = format!("{}:{}", source.path, name.line);
        match kind.text {
            "use" if source.path.ends_with("/lib.rs") => {
                let leaves = exported(&tokens[at + 2..]);
                items.extend(leaves.into_iter().map(|name| Item {
                    place: place.clone(),
                    owner: None,
                    name,
                    by: Use::Word,
                }));
            }
            "fn" | "struct" | "enum" | "trait" | "const" | "static" | "type" | "mod" if is_name(name.text) => {
                let owner = owners.iter().filter(|(_, body)| body.contains(&at)).max_by_key(|(_, body)| body.start);
                let owner = owner.map(|(owner, _)| *owner);
                let by = match owner {
                    None => Use::Word,
                    Some(_) if kind.text == "fn" && takes_self(&tokens[at + 2 + further..]) => Use::Method,
                    Some(_) => Use::OfOwner,
                };
                items.push(Item { place, owner, name: name.text, by });
            }
            _ => {}
        }
    }
    items
}

/// The blocks of `impl`s, each with the type that it is for. Methods of traits are as public as the trait.
fn owners<'a>(tokens: &[Token<'a>]) -> Vec<(&'a str, std::ops::Range<usize>)> {
    let impls = (0..tokens.len()).filter(|at| tokens[*at].text == "impl");
    let owners = impls.filter_map(|at| {
        let body = body_after(tokens, at)?;
        let mut depth = 0;
        let names = tokens[at + 1..body.start].iter().filter(|token| {
            depth += match token.text {
                "<" => 1,
                ">" => -1,
                _ => 0,
            };
            depth == 0 && is_name(token.text)
        });
        let names: Vec<_> = names.map(|token| token.text).take_while(|name| *name != "where").collect();
        Some((*names.last()?, body))
    });
    owners.collect()
}

/// Whether a function is a method; `tokens` begin behind its name.
fn takes_self(tokens: &[Token<'_>]) -> bool {
    let mut depth = 0;
    let parameters = tokens.iter().skip_while(|token| {
        depth += match token.text {
            "<" => 1,
            ">" => -1,
            _ => 0,
        };
        depth > 0 || token.text != "("
    });
    let first = parameters.skip(1).take_while(|token| ![",", ")", ":"].contains(&token.text));
    first.into_iter().any(|token| token.text == "self")
}

/// The names that a `use` exports; `tokens` begin behind it.
fn exported<'a>(tokens: &[Token<'a>]) -> Vec<&'a str> {
    let path: Vec<_> = tokens.iter().map(|token| token.text).take_while(|text| *text != ";").collect();
    let ends = |at: usize| path.get(at + 1).is_none_or(|after| [",", "}"].contains(after));
    let leaves = path.iter().enumerate().filter(|(at, name)| is_name(name) && **name != "self" && ends(*at));
    leaves.map(|(_, name)| *name).collect()
}

#[test]
fn public_items_without_a_caller_are_seen() {
    let manifest = |name: &str, rest: &str| {
        Source::new(&format!("{name}/Cargo.toml"), &format!("[package]\nname = \"{name}\"\n{rest}"))
    };
    let library = "
        pub use inner::{A as B, C};
        pub mod m { pub const D: u8 = 1; pub(crate) const D2: u8 = 1; }
        pub enum E { F }
        pub struct G<T> { pub h: T }
        impl<T: Into<u8>> G<T> where T: Copy {
            pub const I: u8 = 1;
            pub fn new(self_less: T) -> impl Iterator<Item = T> { None.into_iter() }
            pub const fn j(&self) {}
            pub async fn k<F: Fn(u8)>(mut self, f: F) {}
        }
        impl From<u8> for E { fn from(_: u8) -> Self { Self::F } }
        pub fn l() { m::D; E::F; G::<u8>::I; l(); }
    ";
    let uses = [
        "use a::{B, C};",
        "fn f() { a::m::D; }",
        "fn f(_: E) {}",
        "fn f(g: G<u8>) { G::I; g.k::<F>(l) }",
        "fn f(g: G<u8>) { G::new(1); g.j() }",
    ];
    let seen = |uses: &[&str], exempt: &Exceptions| -> Vec<String> {
        let mut sources = vec![
            manifest("a", ""),
            manifest("b", "[dependencies]\na.workspace = true\n"),
            manifest("c", "[dependencies]\nb = { path = \"../b\" }\n"),
            manifest("d", "[dependencies]\naa.workspace = true\n"),
            Source::new("a/src/lib.rs", library),
            Source::new("a/src/tests.rs", "fn f() { B; C; m::D; E; G::new(G::I).j(); l(); x.k() }"),
            Source::new("d/src/lib.rs", "fn f() { B; C; m::D; E; G::new(G::I).j(); l(); x.k() }"),
        ];
        let places = ["a/tests/t.rs", "a/examples/e.rs", "b/src/lib.rs", "c/src/lib.rs", "c/src/x.rs"];
        sources.extend(places.iter().zip(uses).map(|(path, text)| Source::new(path, text)));
        let offences = uncalled("a", exempt, &sources).into_iter();
        offences.map(|offence| offence.split('`').nth(1).unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(seen(&uses, &[]), [""; 0]);
    let all = ["B", "C", "m", "D", "E", "G", "G::I", "G::new", "G::j", "G::k", "l"];
    assert_eq!(seen(&[], &[]), all);
    assert_eq!(seen(&uses[1..], &[]), ["B", "C"]);
    assert_eq!(seen(&[&uses[..4], &["fn new() { H::new(); x.j; } fn j() {}"]].concat(), &[]), ["G::new", "G::j"]);
    assert_eq!(seen(&uses[..2], &[("they wait", &["E", "G", "G::I", "G::new", "G::j", "G::k", "l"])]), [""; 0]);
    assert_eq!(seen(&uses, &[("they wait", &["E", "Z::z"])]), ["E", "Z::z"], "nothing is excepted without need");
    let program = "//! ```\n//! # use a::{B, C};\n//! m::D; E; G::new(G::I).j(); x.k(l);\n//! ```\n//! text";
    assert_eq!(seen(&[program], &[]), [""; 0], "a program in a document uses them");
    let prose = "//! ```text\n//! B; C; m::D; E; G::new(G::I).j(); l(x.k());\n//! ```\n/// `l()` [`B`] [`C`]";
    assert_eq!(seen(&[prose], &[]), all);
}

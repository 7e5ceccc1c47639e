//! Reading Rust, as far as house rules need it: comments, tokens, paths and blocks.

use std::ops::Range;

pub(crate) fn is_rust(path: &str) -> bool {
    path.ends_with(".rs")
}

/// A file. Of Rust, `code` has neither comments nor the insides of strings, and `comments` has nothing else; both keep
/// the lines.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) code: String,
    pub(crate) comments: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let (code, comments) = if is_rust(path) { split(text) } else { Default::default() };
        Self { path: path.to_owned(), text: text.to_owned(), code, comments }
    }

    pub(crate) fn lines_with(&self, wanted: impl Fn(&str) -> bool) -> impl Iterator<Item = usize> {
        self.text.lines().enumerate().filter(move |(_, line)| wanted(line)).map(|(number, _)| number + 1)
    }

    /// Where in its crate the file is: `[wire, control, grant]`.
    pub(crate) fn modules(&self) -> Vec<&str> {
        let inside = self.path.split_once("/src/").map_or("", |(_, inside)| inside);
        let mut modules: Vec<_> = inside.trim_end_matches(".rs").split('/').collect();
        if matches!(modules.last(), Some(&("mod" | "lib" | ""))) {
            modules.pop();
        }
        modules
    }
}

/// Code without comments and strings, and comments alone.
fn split(text: &str) -> (String, String) {
    let (mut code, mut comments) = (String::new(), String::new());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let is_raw = !code.ends_with(|char: char| char.is_alphanumeric() || char == '_');
        let (len, is_comment) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), true)
        } else if rest.starts_with("/*") {
            (rest.find("*/").map_or(rest.len(), |end| end + 2), true)
        } else if let Some(len) = literal(rest, is_raw) {
            (len, false)
        } else {
            code.push(first);
            comments.push(if first == '\n' { '\n' } else { ' ' });
            rest = &rest[first.len_utf8()..];
            continue;
        };
        let piece = &rest[..len];
        let lines = "\n".repeat(piece.matches('\n').count());
        code.push_str(if is_comment { "" } else { "\"\"" });
        code.push_str(&lines);
        comments.push_str(if is_comment { piece } else { &lines });
        rest = &rest[len..];
    }
    (code, comments)
}

/// The length of the string or character that `text` begins with. A lifetime is none.
fn literal(text: &str, is_raw: bool) -> Option<usize> {
    let hashes = text.strip_prefix('r').map(|raw| raw.len() - raw.trim_start_matches('#').len()).filter(|_| is_raw);
    if let Some(hashes) = hashes.filter(|hashes| text[hashes + 1..].starts_with('"')) {
        let close = format!("\"{}", "#".repeat(hashes));
        let begin = hashes + 2;
        return Some(text[begin..].find(&close).map_or(text.len(), |end| begin + end + close.len()));
    }
    let quote = text.chars().next().filter(|first| "\"'".contains(*first))?;
    let mut chars = text.char_indices().skip(1);
    while let Some((at, char)) = chars.next() {
        let is_first = at == 1;
        match char {
            '\\' => drop(chars.next()),
            _ if char == quote => return Some(at + 1),
            _ if quote == '\'' && !(is_first && text[at + char.len_utf8()..].starts_with('\'')) => return None,
            _ => {}
        }
        if quote == '\'' && is_first && char == '\\' {
            return text[3..].find('\'').map(|end| 3 + end + 1);
        }
    }
    None
}

/// A word or a sign of code.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token<'a> {
    pub(crate) line: usize,
    pub(crate) text: &'a str,
}

pub(crate) fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    for (number, mut rest) in code.lines().enumerate() {
        while let Some(first) = rest.chars().next() {
            let is_word = |char: char| char.is_alphanumeric() || char == '_';
            let word = rest.find(|char| !is_word(char)).unwrap_or(rest.len());
            let len = if rest.starts_with("::") { 2 } else { word.max(first.len_utf8()) };
            if !first.is_whitespace() {
                tokens.push(Token { line: number + 1, text: &rest[..len] });
            }
            rest = &rest[len..];
        }
    }
    tokens
}

/// The tokens of the block that a function or an `impl` has, braces included. A declaration has none.
pub(crate) fn body_after(tokens: &[Token<'_>], from: usize) -> Option<Range<usize>> {
    let mut depth = 0;
    let mut start = None;
    for (at, token) in tokens.iter().enumerate().skip(from) {
        match token.text {
            ";" if depth == 0 => return None,
            "{" if depth == 0 => start = Some(at),
            _ => {}
        }
        match token.text {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            _ => {}
        }
        if let Some(start) = start.filter(|_| depth == 0) {
            return Some(start..at + 1);
        }
    }
    None
}

/// A path in code, one for each leaf of a `use`.
#[derive(Debug)]
pub(crate) struct UsedPath<'a> {
    pub(crate) line: usize,
    pub(crate) segments: Vec<&'a str>,
    /// Modules of the file itself around it.
    inline: usize,
}

impl<'a> UsedPath<'a> {
    pub(crate) fn starts_with(&self, segments: &[&str]) -> bool {
        self.segments.starts_with(segments)
    }

    /// The first segment below the root of the crate, if that is where the path leads from a file at `home`.
    pub(crate) fn in_crate(&self, home: &[&str]) -> Option<&'a str> {
        if self.segments[0] == "crate" {
            return self.segments.get(1).copied();
        }
        let segments = self.segments.iter().skip_while(|segment| **segment == "self");
        let up = segments.clone().take_while(|segment| **segment == "super").count();
        (up > 0 && up == home.len() + self.inline).then(|| segments.skip(up).copied().next()).flatten()
    }
}

pub(crate) fn paths(code: &str) -> Vec<UsedPath<'_>> {
    let tokens = tokens(code);
    let mut paths = Vec::new();
    // The depths at which modules of the file itself began.
    let mut inline = Vec::new();
    let (mut at, mut depth) = (0, 0);
    while at < tokens.len() {
        match tokens[at].text {
            "{" => {
                let begins_module = at >= 2 && tokens[at - 2].text == "mod";
                inline.extend(begins_module.then_some(depth));
                depth += 1;
            }
            "}" => {
                depth -= 1;
                inline.pop_if(|began| *began == depth);
            }
            _ => {}
        }
        at = tree(&tokens, at, &[], inline.len(), &mut paths);
    }
    paths
}

/// Reads a path, or all the paths of a `use` with braces, and returns where it ends.
fn tree<'a>(
    tokens: &[Token<'a>],
    mut at: usize,
    prefix: &[&'a str],
    inline: usize,
    into: &mut Vec<UsedPath<'a>>,
) -> usize {
    let is_segment = |token: &Token<'_>| {
        token.text == "*" || token.text.starts_with(|char: char| char.is_alphabetic() || char == '_')
    };
    let mut segments = prefix.to_vec();
    let line = tokens[at].line;
    while let Some(token) = tokens.get(at).filter(|token| is_segment(token)) {
        segments.push(token.text);
        at += 1;
        if tokens.get(at).is_none_or(|token| token.text != "::") {
            break;
        }
        at += 1;
        if tokens.get(at).is_some_and(|token| token.text == "{") {
            at += 1;
            while tokens.get(at).is_some_and(|token| token.text != "}") {
                at = tree(tokens, at, &segments, inline, into);
                let is_renamed = tokens.get(at).is_some_and(|token| token.text == "as");
                at += if is_renamed { 2 } else { 0 };
            }
            return at + 1;
        }
    }
    if segments.len() == prefix.len() {
        return at + 1;
    }
    into.push(UsedPath { line, segments, inline });
    at
}

/// The words of a line in lower case; a name falls apart at `_` and at capitals.
pub(crate) fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_small = false;
    let mut chars = line.chars().peekable();
    while let Some(char) = chars.next() {
        let before_small = chars.peek().is_some_and(|next| next.is_lowercase());
        if !char.is_alphabetic() || (char.is_uppercase() && (was_small || before_small)) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| char.is_alphabetic()) {
            word.extend(char.to_lowercase());
        }
        was_small = char.is_lowercase();
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn strings_and_comments_are_told_from_code() {
    let text = "let a = '\"'; // b \"c\nlet d: &'e str = \"f // \\\" g\n\"; /* h\n*/ let i = r#\"j\"k\"#; let l = '\\''; m(b'n')";
    let source = Source::new("a.rs", text);
    let code: Vec<_> = tokens(&source.code)
        .into_iter()
        .map(|token| token.text)
        .filter(|text| text.len() == 1 && text.chars().all(char::is_alphabetic))
        .collect();
    assert_eq!(code, ["a", "d", "e", "i", "l", "m", "b"]);
    assert_eq!(words(&source.comments.replace('\n', " ")), ["b", "c", "h"]);
    assert_eq!([source.code.lines().count(), source.comments.lines().count()], [4, 4]);
}

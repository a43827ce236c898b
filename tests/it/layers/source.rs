//! Just enough of Rust's syntax to find the paths that a file names.

/// The text without comments and without what strings and characters hold.
pub(super) fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(char) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if char == '"' {
            end_of_string(rest)
        } else if let Some(length) = raw_string(rest).filter(|_| !ends_in_word(&code)) {
            length
        } else if char == '\'' {
            character(rest)
        } else {
            0
        };
        if skipped == 0 {
            code.push(char);
            rest = &rest[char.len_utf8()..];
        } else {
            code.push(' ');
            rest = &rest[skipped..];
        }
    }
    code
}

fn ends_in_word(code: &str) -> bool {
    code.chars().next_back().is_some_and(|char| char.is_alphanumeric() || char == '_')
}

fn end_of_string(text: &str) -> usize {
    let mut escaped = false;
    for (index, char) in text.char_indices().skip(1) {
        match char {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return index + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw_string(text: &str) -> Option<usize> {
    let after = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let body = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let start = text.len() - body.len();
    Some(body.find(&end).map_or(text.len(), |at| start + at + end.len()))
}

/// The length of a character such as `'a'` or `'\n'`; none for a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    let Some((_, first)) = chars.next() else { return 0 };
    if first == '\\' {
        return text[3..].find('\'').map_or(text.len(), |end| end + 4);
    }
    chars.next().filter(|(_, second)| *second == '\'').map_or(0, |(at, _)| at + 1)
}

/// The names that follow `root::` anywhere, in groups too: `a` and `b` for `root::{a::x, b}`.
pub(super) fn roots_of(code: &str, root: &str) -> Vec<String> {
    let mut found = Vec::new();
    let path = format!("{root}::");
    for (at, _) in code.match_indices(&path) {
        let before = &code[..at];
        if ends_in_word(before) || before.ends_with("::") {
            continue;
        }
        let after = code[at + path.len()..].trim_start();
        match after.strip_prefix('{') {
            Some(group) => found.extend(group_of(group)),
            None => found.push(word(after)),
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

fn word(text: &str) -> String {
    text.trim_start().chars().take_while(|char| char.is_alphanumeric() || *char == '_').collect()
}

/// The first names of a group's members, up to its closing brace.
fn group_of(text: &str) -> Vec<String> {
    let mut members = vec![String::new()];
    let mut depth = 0;
    for char in text.chars() {
        match char {
            '}' if depth == 0 => break,
            ',' if depth == 0 => members.push(String::new()),
            _ => {
                depth += i32::from(char == '{') - i32::from(char == '}');
                members.last_mut().unwrap().push(char);
            }
        }
    }
    members.iter().map(|member| word(member)).collect()
}

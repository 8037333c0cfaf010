//! Which field of a JSON text is at a position: for the message of a configuration that is refused there.
//!
//! serde_json tells line and column of what it refuses, not the field. A crate that follows the path while it reads
//! (serde_path_to_error) compiles every type a second time, which made this program a sixth larger; going over the text
//! once more costs only those whose text is wrong.

/// A value that is open at the position.
enum Open {
    /// An object, and the key whose value is being read.
    Object(Option<String>),
    /// An array, and the number of the element being read.
    Array(usize),
}

/// The path of the innermost value at `line` and `column` (both from 1, in bytes, as serde_json counts) of well-formed JSON,
/// such as `process.rlimits[0].type`; empty for the whole text.
pub fn at(text: &[u8], line: usize, column: usize) -> String {
    let before: usize = text.split(|byte| *byte == b'\n').take(line.saturating_sub(1)).map(|line| line.len() + 1).sum();
    let target = before + column.saturating_sub(1);
    let mut open: Vec<Open> = Vec::new();
    let mut position = 0;
    while position < text.len() && position <= target {
        match text[position] {
            b'{' => open.push(Open::Object(None)),
            b'[' => open.push(Open::Array(0)),
            b'}' | b']' => {
                if position == target {
                    // What is missing in an object shows at its end, and is not a matter of its last member.
                    if let Some(Open::Object(key)) = open.last_mut() {
                        *key = None;
                    }
                    break;
                }
                open.pop();
            }
            b',' => match open.last_mut() {
                Some(Open::Object(key)) => *key = None,
                Some(Open::Array(index)) => *index += 1,
                None => {}
            },
            b'"' => {
                let end = end_of_string(text, position);
                if let Some(Open::Object(key @ None)) = open.last_mut() {
                    *key = Some(String::from_utf8_lossy(&text[position + 1..end]).into_owned());
                }
                position = end;
            }
            _ => {}
        }
        position += 1;
    }
    path(&open)
}

/// Where the string that begins at `start` has its closing quote.
fn end_of_string(text: &[u8], start: usize) -> usize {
    let mut position = start + 1;
    while position < text.len() && text[position] != b'"' {
        // An escape is two bytes at least, of which the second may be a quote.
        position += if text[position] == b'\\' { 2 } else { 1 };
    }
    position.min(text.len())
}

fn path(open: &[Open]) -> String {
    let mut path = String::new();
    for value in open {
        match value {
            Open::Object(Some(key)) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
            }
            Open::Object(None) => {}
            Open::Array(index) => path.push_str(&format!("[{index}]")),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::at;

    #[test]
    fn the_innermost_value_at_a_position_is_named() {
        // The position is that of the mark.
        for (text, expected) in [
            ("{\"a\": ^1}", "a"),
            ("{\"a\": {\"b\": [1, {\"c\": ^2}]}}", "a.b[1].c"),
            ("{\"a\": 1, \"b\": [[], [^3]]}", "b[1][0]"),
            ("{\"a\": {\"x\": 1^}, \"b\": 2}", "a"),
            ("{\"a\\\"}\": {\"b,[\": ^1}}", "a\\\"}.b,["),
            ("{\n  \"a\": 1,\n  \"b\": [\"s\", \"x^\"]\n}", "b[1]"),
            ("^{}", ""),
            ("", ""),
        ] {
            let mark = text.find('^').unwrap_or(0);
            let text = text.replace('^', "");
            let line = text[..mark].matches('\n').count() + 1;
            let column = mark - text[..mark].rfind('\n').map_or(0, |newline| newline + 1) + 1;
            assert_eq!(at(text.as_bytes(), line, column), expected, "{text}");
        }
    }

    #[test]
    fn no_text_and_no_position_is_too_odd() {
        for text in ["{", "[[[", "\"", "\"\\", "}", "{\"a\"", "]]"] {
            for (line, column) in [(0, 0), (1, 1), (1, 99), (9, 1)] {
                at(text.as_bytes(), line, column);
            }
        }
    }
}

//! Values written as text: GVariant's notation, which `busctl`-like tools and annotations use.
//!
//! ```text
//! 'text'  "text"  true  12  -3  0x1f  1.5  b'bytes'  ['a', 'b']  (1, 'x')  {'key': 1}  <'in a variant'>
//! uint64 12   objectpath '/a'   @as []        a type in front, by its word or its signature
//! ```
//! A number without a type is an `i`, or what its neighbours in an array are.

use crate::dbus::{Type, Value};

/// Longer texts and deeper ones are refused.
const MAX_TEXT: usize = 64 << 10;
const MAX_DEPTH: usize = 32;

/// Reads a value; an error says what is wrong with the text.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    if text.len() > MAX_TEXT {
        return Err(format!("it is longer than {} KiB", MAX_TEXT >> 10));
    }
    let mut reader = Reader { rest: text };
    let node = reader.node(MAX_DEPTH)?;
    reader.space();
    if !reader.rest.is_empty() {
        return Err(format!("{:?} follows the value", reader.rest));
    }
    let typ = infer(&node)?;
    build(node, &typ)
}

/// A value whose type may not be settled yet.
#[derive(Debug)]
enum Node {
    Bool(bool),
    Number(String),
    Text(String),
    Bytes(Vec<u8>),
    Array(Vec<Node>),
    Tuple(Vec<Node>),
    Dictionary(Vec<(Node, Node)>),
    Variant(Box<Node>),
    Typed(Type, Box<Node>),
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    /// Takes `token`, with the space before it.
    fn take(&mut self, token: &str) -> bool {
        self.space();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        match self.take(token) {
            true => Ok(()),
            false => Err(format!("{token:?} is missing before {:?}", self.rest)),
        }
    }

    fn word(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|letter| !belongs(letter)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn node(&mut self, depth: usize) -> Result<Node, String> {
        let depth = depth.checked_sub(1).ok_or("it is nested too deeply")?;
        self.space();
        let Some(first) = self.rest.chars().next() else { return Err("a value is missing".to_owned()) };
        match first {
            '\'' | '"' => self.text().map(Node::Text),
            '[' => Ok(Node::Array(self.list("[", "]", |reader| reader.node(depth))?)),
            '(' => Ok(Node::Tuple(self.list("(", ")", |reader| reader.node(depth))?)),
            '{' => Ok(Node::Dictionary(self.list("{", "}", |reader| {
                let key = reader.node(depth)?;
                reader.expect(":")?;
                Ok((key, reader.node(depth)?))
            })?)),
            '<' => {
                self.expect("<")?;
                let inner = self.node(depth)?;
                self.expect(">")?;
                Ok(Node::Variant(Box::new(inner)))
            }
            '@' => {
                self.expect("@")?;
                let signature = self.word(|letter| letter.is_ascii_alphabetic() || "(){}".contains(letter));
                let typ = Type::parse(signature).ok_or_else(|| format!("{signature:?} is no type"))?;
                Ok(Node::Typed(typ, Box::new(self.node(depth)?)))
            }
            '0'..='9' | '+' | '-' | '.' => {
                let word = self.word(|letter| letter.is_ascii_alphanumeric() || "+-.".contains(letter));
                Ok(Node::Number(word.to_owned()))
            }
            'b' if self.rest[1..].starts_with(['\'', '"']) => {
                self.rest = &self.rest[1..];
                // As C has it, and as GVariant does: with its end.
                Ok(Node::Bytes(self.text()?.into_bytes().into_iter().chain([0]).collect()))
            }
            _ => self.keyword(depth),
        }
    }

    fn keyword(&mut self, depth: usize) -> Result<Node, String> {
        let here = self.rest;
        let typ = match self.word(|letter| letter.is_ascii_alphanumeric()) {
            "true" => return Ok(Node::Bool(true)),
            "false" => return Ok(Node::Bool(false)),
            word @ ("inf" | "nan") => return Ok(Node::Number(word.to_owned())),
            "boolean" => Type::Bool,
            "byte" => Type::Byte,
            "int16" => Type::I16,
            "uint16" => Type::U16,
            "int32" => Type::I32,
            "uint32" => Type::U32,
            "int64" => Type::I64,
            "uint64" => Type::U64,
            "double" => Type::Double,
            "string" => Type::Text,
            "objectpath" => Type::Path,
            "signature" => Type::Signature,
            _ => return Err(format!("{here:?} is no value: write text in quotes, such as 'text'")),
        };
        Ok(Node::Typed(typ, Box::new(self.node(depth)?)))
    }

    fn list<T>(
        &mut self,
        open: &str,
        close: &str,
        mut one: impl FnMut(&mut Self) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        self.expect(open)?;
        let mut items = Vec::new();
        while !self.take(close) {
            if !items.is_empty() {
                self.expect(",")?;
                // A tuple of one has a comma at its end.
                if open == "(" && self.take(close) {
                    break;
                }
            }
            items.push(one(self)?);
        }
        Ok(items)
    }

    fn text(&mut self) -> Result<String, String> {
        let mut letters = self.rest.chars();
        let quote = letters.next();
        let mut text = String::new();
        loop {
            let letter = letters.next();
            match letter {
                None => return Err(format!("{:?} has no closing quote", self.rest)),
                letter if letter == quote => break,
                Some('\\') => text.push(escaped(&mut letters)?),
                // Strings of D-Bus end there.
                Some('\0') => return Err("a text has a null character".to_owned()),
                Some(letter) => text.push(letter),
            }
        }
        self.rest = letters.as_str();
        Ok(text)
    }
}

fn escaped(letters: &mut std::str::Chars<'_>) -> Result<char, String> {
    let letter = letters.next().ok_or("a text ends with a backslash")?;
    let length = match letter {
        'a' => return Ok('\u{7}'),
        'b' => return Ok('\u{8}'),
        'f' => return Ok('\u{c}'),
        'n' => return Ok('\n'),
        'r' => return Ok('\r'),
        't' => return Ok('\t'),
        'v' => return Ok('\u{b}'),
        'u' => 4,
        'U' => 8,
        letter => return Ok(letter),
    };
    let digits: String = letters.take(length).collect();
    let number = (digits.len() == length).then(|| u32::from_str_radix(&digits, 16).ok()).flatten();
    let letter = number.filter(|&number| number != 0).and_then(char::from_u32);
    letter.ok_or_else(|| format!("\\{} with {digits:?} is no character", if length == 4 { 'u' } else { 'U' }))
}

/// The type of a value that has nothing else to go by.
fn infer(node: &Node) -> Result<Type, String> {
    Ok(match node {
        Node::Bool(_) => Type::Bool,
        Node::Number(text) if is_fraction(text) => Type::Double,
        Node::Number(_) => Type::I32,
        Node::Text(_) => Type::Text,
        Node::Bytes(_) => Type::Array(Box::new(Type::Byte)),
        Node::Variant(_) => Type::Variant,
        Node::Typed(typ, _) => typ.clone(),
        Node::Tuple(nodes) if nodes.is_empty() => return Err("D-Bus has no empty tuple".to_owned()),
        Node::Tuple(nodes) => Type::Struct(nodes.iter().map(infer).collect::<Result<_, _>>()?),
        Node::Array(nodes) => Type::Array(Box::new(common(nodes.iter())?)),
        Node::Dictionary(pairs) => {
            let (key, value) = (common(pairs.iter().map(|pair| &pair.0))?, common(pairs.iter().map(|pair| &pair.1))?);
            Type::Array(Box::new(Type::Entry(Box::new(key), Box::new(value))))
        }
    })
}

/// The type that all of them have: that of one which says it, or else of one with a fraction, or else of the first.
fn common<'a>(nodes: impl Iterator<Item = &'a Node> + Clone) -> Result<Type, String> {
    let says = |node: &&Node| !matches!(node, Node::Number(_));
    let fraction = |node: &&Node| matches!(node, Node::Number(text) if is_fraction(text));
    let chosen = nodes.clone().find(says).or_else(|| nodes.clone().find(fraction)).or_else(|| nodes.clone().next());
    infer(chosen.ok_or("an empty array needs its type in front, such as @as []")?)
}

fn is_fraction(text: &str) -> bool {
    let digits = text.trim_start_matches(['+', '-']);
    !digits.starts_with("0x") && (digits.contains(['.', 'e']) || digits == "inf" || digits == "nan")
}

fn build(node: Node, typ: &Type) -> Result<Value, String> {
    match (node, typ) {
        (Node::Typed(own, inner), typ) if own == *typ => build(*inner, typ),
        (Node::Bool(value), Type::Bool) => Ok(Value::Bool(value)),
        (Node::Number(text), typ) => number(&text, typ),
        (Node::Text(text), Type::Text) => Ok(Value::Text(text)),
        (Node::Text(text), Type::Path) if is_path(&text) => Ok(Value::Path(text)),
        (Node::Text(text), Type::Signature) if text.len() <= 255 && Type::parse(&text).is_some() => {
            Ok(Value::Signature(text))
        }
        (Node::Bytes(bytes), Type::Array(of)) if **of == Type::Byte => Ok(Value::bytes(&bytes)),
        (Node::Variant(inner), Type::Variant) => {
            let own = infer(&inner)?;
            Ok(Value::variant(build(*inner, &own)?))
        }
        (Node::Array(nodes), Type::Array(of)) => {
            let values = nodes.into_iter().map(|node| build(node, of)).collect::<Result<_, _>>()?;
            Ok(Value::Array((**of).clone(), values))
        }
        (Node::Tuple(nodes), Type::Struct(types)) if nodes.len() == types.len() => {
            let members = nodes.into_iter().zip(types).map(|(node, typ)| build(node, typ));
            Ok(Value::Struct(members.collect::<Result<_, _>>()?))
        }
        (Node::Dictionary(pairs), Type::Array(of)) => {
            let Type::Entry(key, value) = &**of else { return Err(format!("a dictionary is no {typ}")) };
            let entry = |(first, second)| {
                Ok::<_, String>(Value::Entry(Box::new(build(first, key)?), Box::new(build(second, value)?)))
            };
            Ok(Value::Array((**of).clone(), pairs.into_iter().map(entry).collect::<Result<_, _>>()?))
        }
        (node, typ) => {
            let what = match &node {
                Node::Bool(_) => "true or false",
                Node::Number(text) => text,
                Node::Text(text) => return Err(format!("{text:?} is no value of the type {typ}")),
                Node::Bytes(_) => "a byte string",
                Node::Array(_) => "an array",
                Node::Tuple(_) => "a tuple",
                Node::Dictionary(_) => "a dictionary",
                Node::Variant(_) => "a variant",
                Node::Typed(own, _) => return Err(format!("a value of the type {own} is none of the type {typ}")),
            };
            Err(format!("{what} is no value of the type {typ}"))
        }
    }
}

fn number(text: &str, typ: &Type) -> Result<Value, String> {
    let wrong = || format!("{text} is no number of the type {typ}");
    if *typ == Type::Double {
        return text.parse().map(Value::Double).map_err(|_| wrong());
    }
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let value = match digits.strip_prefix("0x") {
        Some(digits) if !digits.starts_with('+') => i128::from_str_radix(digits, 16),
        // As in C.
        None if digits.len() > 1 && digits.starts_with('0') => i128::from_str_radix(digits, 8),
        None if digits.starts_with(|digit: char| digit.is_ascii_digit()) => digits.parse(),
        _ => return Err(wrong()),
    };
    let value = value.map_err(|_| wrong())?;
    let value = if negative { -value } else { value };
    match typ {
        Type::Byte => u8::try_from(value).map(Value::Byte),
        Type::I16 => i16::try_from(value).map(Value::I16),
        Type::U16 => u16::try_from(value).map(Value::U16),
        Type::I32 => i32::try_from(value).map(Value::I32),
        Type::U32 => u32::try_from(value).map(Value::U32),
        Type::I64 => i64::try_from(value).map(Value::I64),
        Type::U64 => u64::try_from(value).map(Value::U64),
        _ => return Err(wrong()),
    }
    .map_err(|_| wrong())
}

fn is_path(text: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    text == "/" || text.strip_prefix('/').is_some_and(|rest| rest.split('/').all(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_a_value() {
        let strings = |texts: &[&str]| Value::Array(Type::Text, texts.iter().map(|text| Value::text(*text)).collect());
        let entry = |key: &str, value| Value::Entry(Box::new(Value::text(key)), Box::new(value));
        for (text, expected) in [
            ("'inactive-or-failed'", Value::text("inactive-or-failed")),
            (r#""a\"b\u00e4\n""#, Value::text("a\"bä\n")),
            ("true", Value::Bool(true)),
            (" boolean false ", Value::Bool(false)),
            ("12", Value::I32(12)),
            ("-0x10", Value::I32(-16)),
            ("010", Value::I32(8)),
            ("0", Value::I32(0)),
            ("uint64 18446744073709551615", Value::U64(u64::MAX)),
            ("@t 5", Value::U64(5)),
            ("byte 0xff", Value::Byte(255)),
            ("int16 -5", Value::I16(-5)),
            ("uint16 5", Value::U16(5)),
            ("uint32 5", Value::U32(5)),
            ("int64 -5", Value::I64(-5)),
            ("1.5", Value::Double(1.5)),
            ("double 2", Value::Double(2.0)),
            ("objectpath '/a/b'", Value::Path("/a/b".into())),
            ("signature 'as'", Value::Signature("as".into())),
            ("b'ab'", Value::bytes(b"ab\0")),
            ("['a', 'b']", strings(&["a", "b"])),
            ("@as []", strings(&[])),
            ("[1, int64 2]", Value::Array(Type::I64, vec![Value::I64(1), Value::I64(2)])),
            ("[1, 2.5]", Value::Array(Type::Double, vec![Value::Double(1.0), Value::Double(2.5)])),
            ("@ay [1, 2]", Value::bytes(&[1, 2])),
            ("(1, 'x')", Value::Struct(vec![Value::I32(1), Value::text("x")])),
            ("('x',)", Value::Struct(vec![Value::text("x")])),
            (
                "@a(st) [('/dev/sda', 9)]",
                Value::Array(
                    Type::parse("(st)").unwrap(),
                    vec![Value::Struct(vec![Value::text("/dev/sda"), Value::U64(9)])],
                ),
            ),
            ("<'x'>", Value::variant(Value::text("x"))),
            (
                "{'a': 1, 'b': 2}",
                Value::Array(
                    Type::Entry(Box::new(Type::Text), Box::new(Type::I32)),
                    vec![entry("a", Value::I32(1)), entry("b", Value::I32(2))],
                ),
            ),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_none_is_told() {
        let deep = "[".repeat(100);
        let long = format!("'{}'", "x".repeat(MAX_TEXT));
        for (text, part) in [
            ("", "a value is missing"),
            ("inactive", "write text in quotes"),
            ("'open", "no closing quote"),
            ("'a' 'b'", "follows the value"),
            ("[1, 'a']", "1 is no number of the type s"),
            ("['a', true]", "true or false is no value of the type s"),
            ("[]", "an empty array needs its type"),
            ("byte 256", "256 is no number of the type y"),
            ("uint64 -1", "-1 is no number of the type t"),
            ("2147483648", "is no number of the type i"),
            ("09", "is no number"),
            ("0x+1", "is no number"),
            ("--1", "is no number"),
            ("1.5.5", "is no number of the type d"),
            ("@zz 1", "is no type"),
            ("@as ['a', int32 5]", "a value of the type i is none of the type s"),
            ("objectpath 'a'", "is no value of the type o"),
            ("['a' 'b']", "\",\" is missing"),
            ("()", "no empty tuple"),
            ("{'a' 1}", "\":\" is missing"),
            (r"'\u00'", "is no character"),
            (r"'\u0000'", "is no character"),
            ("'a\0b'", "null character"),
            ("uint64 'a'", "is no value of the type t"),
            (&deep, "nested too deeply"),
            (&long, "longer than 64 KiB"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}

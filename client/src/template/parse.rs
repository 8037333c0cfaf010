//! From text to a tree.

use serde_json::Value;

use super::{Base, Command, Node, Operand, Pipeline, functions};

/// Nothing sensible is nested deeper, and the stack bears it.
const DEEPEST: usize = 64;

/// A part of the text.
enum Part {
    Text(String),
    Action(Vec<Token>),
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    /// `.A.B`; none for the dot alone.
    Fields(Vec<String>),
    Variable(String),
    Literal(Value),
    Pipe,
    Open,
    Close,
    Comma,
    Assign,
}

/// What ends a list of nodes.
enum Ended {
    Text,
    Here,
    Else(Vec<Token>),
}

pub(super) fn parse(text: &str) -> Result<Vec<Node>, String> {
    let parts = parts(text)?;
    let mut parser = Parser { parts: parts.into_iter() };
    match parser.nodes(0)? {
        (nodes, Ended::Text) => Ok(nodes),
        (_, Ended::Here) => Err("an end without its beginning".to_owned()),
        (_, Ended::Else(_)) => Err("an else without its beginning".to_owned()),
    }
}

/// Divides text and actions, and takes away the white space that `{{-` and `-}}` are for.
fn parts(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    let mut trim = false;
    loop {
        let (before, action) = rest.split_once("{{").map_or((rest, None), |(before, after)| (before, Some(after)));
        let mut literal = if trim { before.trim_start() } else { before };
        let Some(action) = action else {
            parts.push(Part::Text(literal.to_owned()));
            return Ok(parts);
        };
        let inner = match action.strip_prefix('-') {
            Some(inner) if inner.starts_with(char::is_whitespace) => {
                literal = literal.trim_end();
                inner
            }
            _ => action,
        };
        parts.push(Part::Text(literal.to_owned()));
        if let Some(remark) = inner.trim_start().strip_prefix("/*") {
            let (_, after) = remark.split_once("*/").ok_or("a remark without its */")?;
            let after = after.trim_start();
            trim = after.starts_with("-}}");
            rest = after.strip_prefix('-').unwrap_or(after).strip_prefix("}}").ok_or("a {{ has no }}")?;
            continue;
        }
        let (tokens, after, trimmed) = tokens(inner)?;
        parts.push(Part::Action(tokens));
        trim = trimmed;
        rest = after;
    }
}

/// The tokens up to `}}`, what is behind it, and whether white space there goes.
fn tokens(text: &str) -> Result<(Vec<Token>, &str, bool), String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        let trimmed = rest.trim_start();
        let spaced = trimmed.len() < rest.len();
        rest = trimmed;
        if let Some(after) = rest.strip_prefix("}}") {
            return Ok((tokens, after, false));
        }
        if let Some(after) = rest.strip_prefix("-}}").filter(|_| spaced) {
            return Ok((tokens, after, true));
        }
        let (token, after) = token(rest)?;
        tokens.push(token);
        rest = after;
    }
}

fn token(text: &str) -> Result<(Token, &str), String> {
    let first = text.chars().next().ok_or("a {{ has no }}")?;
    let simple = |token, length: usize| Ok((token, &text[length..]));
    match first {
        '|' => simple(Token::Pipe, 1),
        '(' => simple(Token::Open, 1),
        ')' => simple(Token::Close, 1),
        ',' => simple(Token::Comma, 1),
        ':' if text.starts_with(":=") => simple(Token::Assign, 2),
        '=' => simple(Token::Assign, 1),
        '"' => quoted(text),
        '`' => {
            let (raw, after) = text[1..].split_once('`').ok_or("a ` without its end")?;
            Ok((Token::Literal(raw.into()), after))
        }
        '.' if !text[1..].starts_with(|it: char| it.is_ascii_digit()) => fields(text),
        '$' => {
            let length = word(&text[1..]);
            Ok((Token::Variable(text[1..=length].to_owned()), &text[1 + length..]))
        }
        '-' | '+' | '0'..='9' => {
            let length = text.find(|it: char| !it.is_ascii_alphanumeric() && !"+-.".contains(it)).unwrap_or(text.len());
            let number: Value = text[..length].parse().map_err(|_| format!("{:?} is no number", &text[..length]))?;
            Ok((Token::Literal(number), &text[length..]))
        }
        _ if word(text) > 0 => {
            let length = word(text);
            let token = match &text[..length] {
                "true" => Token::Literal(true.into()),
                "false" => Token::Literal(false.into()),
                "nil" => Token::Literal(Value::Null),
                name => Token::Word(name.to_owned()),
            };
            Ok((token, &text[length..]))
        }
        other => Err(format!("{other:?} has no meaning")),
    }
}

/// The length of the name at the beginning.
fn word(text: &str) -> usize {
    text.find(|it: char| !it.is_alphanumeric() && it != '_').unwrap_or(text.len())
}

fn fields(text: &str) -> Result<(Token, &str), String> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(after) = rest.strip_prefix('.') {
        let length = word(after);
        if length == 0 {
            if names.is_empty() && !after.starts_with('.') {
                return Ok((Token::Fields(names), after));
            }
            return Err("a . with no name behind it".to_owned());
        }
        names.push(after[..length].to_owned());
        rest = &after[length..];
    }
    Ok((Token::Fields(names), rest))
}

/// A string as Go and JSON both write it.
fn quoted(text: &str) -> Result<(Token, &str), String> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => {
                let literal: Value =
                    serde_json::from_str(&text[..=at]).map_err(|_| format!("{} is no text", &text[..=at]))?;
                return Ok((Token::Literal(literal), &text[at + 1..]));
            }
            _ => {}
        }
    }
    Err("a quote without its end".to_owned())
}

struct Parser {
    parts: std::vec::IntoIter<Part>,
}

impl Parser {
    fn nodes(&mut self, depth: usize) -> Result<(Vec<Node>, Ended), String> {
        if depth > DEEPEST {
            return Err(format!("it is nested deeper than {DEEPEST}"));
        }
        let mut nodes = Vec::new();
        while let Some(part) = self.parts.next() {
            let tokens = match part {
                Part::Text(text) => {
                    if !text.is_empty() {
                        nodes.push(Node::Text(text));
                    }
                    continue;
                }
                Part::Action(tokens) => tokens,
            };
            let keyword = match tokens.first() {
                Some(Token::Word(word)) => word.as_str(),
                _ => "",
            };
            match keyword {
                "end" => return Ok((nodes, Ended::Here)),
                "else" => return Ok((nodes, Ended::Else(tokens[1..].to_vec()))),
                "if" => nodes.push(self.choice(&tokens[1..], depth)?),
                "with" => {
                    let over = whole(&tokens[1..], "with")?;
                    let (body, otherwise) = self.body("with", depth)?;
                    nodes.push(Node::With(over, body, otherwise));
                }
                "range" => nodes.push(self.range(&tokens[1..], depth)?),
                _ => nodes.push(match &tokens[..] {
                    [Token::Variable(name), Token::Assign, rest @ ..] => {
                        Node::Assign(name.clone(), whole(rest, "an assignment")?)
                    }
                    tokens => Node::Print(whole(tokens, "an action")?),
                }),
            }
        }
        Ok((nodes, Ended::Text))
    }

    fn choice(&mut self, condition: &[Token], depth: usize) -> Result<Node, String> {
        let mut choices = Vec::new();
        let mut condition = whole(condition, "if")?;
        loop {
            let (body, end) = self.nodes(depth + 1)?;
            choices.push((condition, body));
            match end {
                Ended::Here => return Ok(Node::If(choices, Vec::new())),
                Ended::Text => return Err("an if without its end".to_owned()),
                Ended::Else(tokens) => match &tokens[..] {
                    [] => {
                        let otherwise = self.rest("if", depth)?;
                        return Ok(Node::If(choices, otherwise));
                    }
                    [Token::Word(word), rest @ ..] if word == "if" => condition = whole(rest, "if")?,
                    _ => return Err("an else with something else than an if behind it".to_owned()),
                },
            }
        }
    }

    fn range(&mut self, tokens: &[Token], depth: usize) -> Result<Node, String> {
        let (key, value, over) = match tokens {
            [Token::Variable(key), Token::Comma, Token::Variable(value), Token::Assign, over @ ..] => {
                (Some(key.clone()), Some(value.clone()), over)
            }
            [Token::Variable(value), Token::Assign, over @ ..] => (None, Some(value.clone()), over),
            over => (None, None, over),
        };
        let over = whole(over, "range")?;
        let (body, otherwise) = self.body("range", depth)?;
        Ok(Node::Range { key, value, over, body, otherwise })
    }

    /// What is between this and its end, and what is behind its else.
    fn body(&mut self, of: &str, depth: usize) -> Result<(Vec<Node>, Vec<Node>), String> {
        match self.nodes(depth + 1)? {
            (body, Ended::Here) => Ok((body, Vec::new())),
            (body, Ended::Else(tokens)) if tokens.is_empty() => Ok((body, self.rest(of, depth)?)),
            (_, Ended::Else(_)) => Err(format!("the else of a {of} has something behind it")),
            (_, Ended::Text) => Err(format!("a {of} without its end")),
        }
    }

    fn rest(&mut self, of: &str, depth: usize) -> Result<Vec<Node>, String> {
        match self.nodes(depth + 1)? {
            (nodes, Ended::Here) => Ok(nodes),
            (_, Ended::Else(_)) => Err(format!("a second else of one {of}")),
            (_, Ended::Text) => Err(format!("a {of} without its end")),
        }
    }
}

/// A pipeline of all these tokens.
fn whole(tokens: &[Token], of: &str) -> Result<Pipeline, String> {
    if tokens.is_empty() {
        return Err(format!("{of} of what?"));
    }
    let mut rest = tokens;
    let pipeline = pipeline(&mut rest, 0)?;
    if rest.is_empty() {
        Ok(pipeline)
    } else {
        Err("a ) without its (, or something that cannot stand there".to_owned())
    }
}

fn pipeline(tokens: &mut &[Token], depth: usize) -> Result<Pipeline, String> {
    if depth > DEEPEST {
        return Err(format!("it is nested deeper than {DEEPEST}"));
    }
    let mut commands = vec![command(tokens, depth)?];
    while let [Token::Pipe, rest @ ..] = tokens {
        *tokens = rest;
        if rest.is_empty() {
            return Err("a | with nothing behind it".to_owned());
        }
        commands.push(command(tokens, depth)?);
    }
    Ok(Pipeline(commands))
}

fn command(tokens: &mut &[Token], depth: usize) -> Result<Command, String> {
    let first = operand(tokens, depth)?;
    let Operand::Function(name) = first else {
        return match tokens {
            [] | [Token::Pipe | Token::Close, ..] => Ok(Command::Value(first)),
            _ => Err("a value with something behind it: only functions take arguments".to_owned()),
        };
    };
    let mut arguments = Vec::new();
    while !matches!(tokens, [] | [Token::Pipe | Token::Close, ..]) {
        arguments.push(operand(tokens, depth)?);
    }
    Ok(if arguments.is_empty() { Command::Value(Operand::Function(name)) } else { Command::Call(name, arguments) })
}

fn operand(tokens: &mut &[Token], depth: usize) -> Result<Operand, String> {
    let [first, rest @ ..] = *tokens else { return Err("it ends where a value should stand".to_owned()) };
    *tokens = rest;
    match first {
        Token::Literal(value) => Ok(Operand::Literal(value.clone())),
        Token::Fields(names) => Ok(Operand::Fields(Base::Dot, names.clone())),
        Token::Variable(name) => Ok(Operand::Fields(Base::Variable(name.clone()), following(tokens))),
        Token::Word(name) if functions::known(name) => Ok(Operand::Function(name.clone())),
        Token::Word(name) => Err(format!("there is no function {name}; there are {}", functions::NAMES.join(", "))),
        Token::Open => {
            let inner = pipeline(tokens, depth + 1)?;
            let [Token::Close, rest @ ..] = *tokens else { return Err("a ( without its )".to_owned()) };
            *tokens = rest;
            Ok(Operand::Fields(Base::Parenthesis(Box::new(inner)), following(tokens)))
        }
        Token::Pipe | Token::Close | Token::Comma | Token::Assign => {
            Err("something stands where a value should".to_owned())
        }
    }
}

/// The fields right behind a variable or a parenthesis.
fn following(tokens: &mut &[Token]) -> Vec<String> {
    match *tokens {
        [Token::Fields(names), rest @ ..] if !names.is_empty() => {
            *tokens = rest;
            names.clone()
        }
        _ => Vec::new(),
    }
}

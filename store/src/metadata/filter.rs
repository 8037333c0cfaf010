//! containerd's filters: `labels."a.b"==c,name~=^x`. A comma means *and*; several filters mean *or*.
//!
//! ```text
//! selectors := selector ("," selector)*          selector := path (("==" | "!=" | "~=") value)?
//! path      := field ("." field)*                field    := quoted | [A-Za-z0-9_]+
//! value     := quoted | [^\s,]+                  quoted   := "…" with Go's escapes; after ~= also /…/ and |…|
//! ```

use std::collections::BTreeMap;

use regex_lite::Regex;

use crate::error::{Error, Result};

/// What filters look at.
pub trait Matched {
    /// The value at this path, if it is present.
    fn field(&self, path: &[String]) -> Option<String>;
}

/// The label whose name is all that is left of a path.
#[must_use]
pub fn label(labels: &BTreeMap<String, String>, path: &[String]) -> Option<String> {
    labels.get(&path.join(".")).cloned()
}

/// Several filters, parsed; none match everything.
#[derive(Debug)]
pub struct Filter(Vec<Vec<Selector>>);

#[derive(Debug)]
struct Selector {
    path: Vec<String>,
    test: Test,
}

#[derive(Debug)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(Regex),
}

impl Filter {
    /// Parses all of them.
    pub fn parse(filters: &[String]) -> Result<Self> {
        let parse = |text: &String| {
            let scanner = Scanner { text, rest: text };
            scanner.selectors().map_err(|why| Error::invalid(format!("{text:?} is not a filter: {why}")))
        };
        filters.iter().map(parse).collect::<Result<_>>().map(Self)
    }

    /// Whether one of them matches, or there is none.
    pub fn matches(&self, object: &impl Matched) -> bool {
        self.0.is_empty() || self.0.iter().any(|all| all.iter().all(|it| it.matches(object)))
    }
}

impl Selector {
    fn matches(&self, object: &impl Matched) -> bool {
        let value = object.field(&self.path);
        match &self.test {
            Test::Present => value.is_some(),
            // What is not there equals nothing, and differs from everything.
            Test::Equal(wanted) => value.as_ref() == Some(wanted),
            Test::NotEqual(wanted) => value.as_ref() != Some(wanted),
            Test::Matches(regex) => regex.is_match(value.as_deref().unwrap_or_default()),
        }
    }
}

struct Scanner<'a> {
    text: &'a str,
    rest: &'a str,
}

impl Scanner<'_> {
    fn selectors(mut self) -> Result<Vec<Selector>, String> {
        let mut selectors = Vec::new();
        if self.text.is_empty() {
            return Ok(selectors);
        }
        loop {
            selectors.push(self.selector()?);
            self.space();
            match self.next() {
                None => return Ok(selectors),
                Some(',') => {}
                Some(other) => return Err(self.at(&format!("{other:?} stands where a comma or the end should be"))),
            }
        }
    }

    fn selector(&mut self) -> Result<Selector, String> {
        let mut path = vec![self.field()?];
        while self.rest.starts_with('.') {
            self.next();
            path.push(self.field()?);
        }
        self.space();
        let end = self.rest.find(|it| !matches!(it, '=' | '!' | '~')).unwrap_or(self.rest.len());
        let (operator, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.space();
        let test = match operator {
            "" if self.rest.is_empty() || self.rest.starts_with(',') => Test::Present,
            "==" => Test::Equal(self.value(false)?),
            "!=" => Test::NotEqual(self.value(false)?),
            "~=" => {
                let pattern = self.value(true)?;
                Test::Matches(Regex::new(&pattern).map_err(|it| format!("{pattern:?} is no regular expression: {it}"))?)
            }
            _ => return Err(self.at("an operator should stand here: ==, != or ~=")),
        };
        Ok(Selector { path, test })
    }

    fn field(&mut self) -> Result<String, String> {
        self.space();
        if self.rest.starts_with('"') {
            return self.quoted();
        }
        let end = self.rest.find(|it: char| !it.is_ascii_alphanumeric() && it != '_').unwrap_or(self.rest.len());
        if end == 0 {
            return Err(self.at("the name of a field should stand here"));
        }
        let (field, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(field.to_owned())
    }

    fn value(&mut self, pattern: bool) -> Result<String, String> {
        match self.rest.chars().next() {
            Some('"') => self.quoted(),
            Some('/' | '|') if pattern => self.quoted(),
            Some('/' | '|') => Err(self.at("only a regular expression is quoted so: write \"…\"")),
            _ => {
                let end = self.rest.find(|it: char| it == ',' || it.is_whitespace()).unwrap_or(self.rest.len());
                if end == 0 {
                    return Err(self.at("a value should stand here"));
                }
                let (value, rest) = self.rest.split_at(end);
                self.rest = rest;
                Ok(value.to_owned())
            }
        }
    }

    /// From an opening quote to the same one, with Go's escapes.
    fn quoted(&mut self) -> Result<String, String> {
        let quote = self.next();
        let mut bytes = Vec::new();
        loop {
            let next = self.next();
            match next {
                None | Some('\n') => return Err(self.at("a quote is not closed")),
                _ if next == quote => break,
                Some('\\') => self.escape(quote, &mut bytes)?,
                Some(other) => bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        String::from_utf8(bytes).map_err(|_| self.at("what is quoted is no text in UTF-8"))
    }

    fn escape(&mut self, quote: Option<char>, bytes: &mut Vec<u8>) -> Result<(), String> {
        let escaped = self.next();
        let byte = match escaped {
            Some('a') => 7,
            Some('b') => 8,
            Some('f') => 12,
            Some('n') => b'\n',
            Some('r') => b'\r',
            Some('t') => b'\t',
            Some('v') => 11,
            Some('\\') => b'\\',
            Some('x') => self.digits(2, 16, None)? as u8,
            Some(first @ '0'..='7') => {
                u8::try_from(self.digits(2, 8, Some(first))?).map_err(|_| self.at("an escape is beyond a byte"))?
            }
            Some(long @ ('u' | 'U')) => {
                let number = self.digits(if long == 'u' { 4 } else { 8 }, 16, None)?;
                let letter = char::from_u32(number).ok_or_else(|| self.at("an escape is no character"))?;
                bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            Some(other) if escaped == quote => other as u8,
            _ => return Err(self.at("this escape is not known")),
        };
        bytes.push(byte);
        Ok(())
    }

    fn digits(&mut self, count: usize, radix: u32, first: Option<char>) -> Result<u32, String> {
        let mut number = first.and_then(|it| it.to_digit(radix)).unwrap_or(0);
        for _ in 0..count {
            let digit =
                self.next().and_then(|it| it.to_digit(radix)).ok_or_else(|| self.at("an escape is cut short"))?;
            number = number.wrapping_mul(radix).wrapping_add(digit);
        }
        Ok(number)
    }

    fn next(&mut self) -> Option<char> {
        let next = self.rest.chars().next()?;
        self.rest = &self.rest[next.len_utf8()..];
        Some(next)
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn at(&self, what: &str) -> String {
        format!("{what}, after {} bytes", self.text.len() - self.rest.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Object;

    impl Matched for Object {
        fn field(&self, path: &[String]) -> Option<String> {
            let labels = [("a", "1"), ("b.c", "two words"), ("d/e", "x,y"), ("quote", "\"q\"")];
            match path.first()?.as_str() {
                "name" => Some("docker.io/library/debian:12".into()),
                "labels" => label(&labels.map(|(key, value)| (key.into(), value.into())).into(), &path[1..]),
                _ => None,
            }
        }
    }

    fn matches(filters: &[&str]) -> bool {
        let filters: Vec<String> = filters.iter().map(|it| (*it).to_owned()).collect();
        Filter::parse(&filters).unwrap().matches(&Object)
    }

    #[test]
    fn selects_as_containerd_does() {
        for (filter, wanted) in [
            ("", true),
            ("name", true),
            ("other", false),
            ("labels.a", true),
            ("labels.b", false),
            ("labels.a==1", true),
            ("labels.a == 1", true),
            ("labels.a==2", false),
            ("labels.a!=2", true),
            ("labels.none!=2", true),
            ("name==docker.io/library/debian:12", true),
            ("name~=^docker", true),
            ("name~=/library\\/debian/", true),
            ("name~=|:1[23]$|", true),
            ("name~=^library", false),
            ("labels.b.c==\"two words\"", true),
            ("labels.\"b.c\"==\"two words\"", true),
            ("labels.\"d/e\"==\"x,y\"", true),
            ("labels.quote==\"\\\"q\\x22\"", true),
            ("labels.a==1,name~=debian", true),
            ("labels.a==1,name~=ubuntu", false),
            ("labels.a==1, labels.\"b.c\"", true),
        ] {
            assert_eq!(matches(&[filter]), wanted, "{filter}");
        }
        assert!(matches(&[]));
        assert!(matches(&["name==x", "labels.a==1"]));
        assert!(!matches(&["name==x", "labels.a==2"]));
    }

    #[test]
    fn says_what_is_wrong() {
        for (filter, why) in [
            (",", "the name of a field"),
            ("name==", "a value should stand here"),
            ("name=x", "==, != or ~="),
            ("name==x,", "the name of a field"),
            ("name ==x y", "a comma or the end"),
            ("labels.\"a", "not closed"),
            ("labels.\"a\\q\"", "not known"),
            ("name==/x/", "only a regular expression"),
            ("name~=(", "regular expression"),
            ("name.", "the name of a field"),
        ] {
            let error = Filter::parse(&[filter.to_owned()]).unwrap_err();
            assert!(error.message.contains(why), "{filter}: {error}");
        }
    }
}

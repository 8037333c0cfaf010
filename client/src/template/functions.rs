//! The functions of Go's templates, and those that docker adds.

use std::cmp::Ordering;

use serde_json::Value;

use super::{shown, truth};

pub(super) const NAMES: [&str; 26] = [
    "and", "eq", "ge", "gt", "html", "index", "join", "json", "le", "len", "lower", "lt", "ne", "not", "or", "pad",
    "print", "printf", "println", "slice", "split", "title", "truncate", "upper", "urlquery", "js",
];

pub(super) fn known(name: &str) -> bool {
    NAMES.contains(&name)
}

pub(super) fn call(name: &str, arguments: Vec<Value>) -> Result<Value, String> {
    let takes = |what: &str| {
        format!("{name} takes {what}, not {}", arguments.iter().map(shown).collect::<Vec<_>>().join(" and "))
    };
    let compared = || match &arguments[..] {
        [one, other] => compare(one, other).ok_or_else(|| takes("two numbers or two texts")),
        _ => Err(takes("two values")),
    };
    Ok(match (name, &arguments[..]) {
        ("json", [value]) => value.to_string().into(),
        ("and", [.., last]) => arguments.iter().find(|it| !truth(it)).unwrap_or(last).clone(),
        ("or", [.., last]) => arguments.iter().find(|it| truth(it)).unwrap_or(last).clone(),
        ("not", [value]) => (!truth(value)).into(),
        ("eq", [value, others @ ..]) if !others.is_empty() => others.contains(value).into(),
        ("ne", [one, other]) => (one != other).into(),
        ("lt", _) => (compared()? == Ordering::Less).into(),
        ("le", _) => (compared()? != Ordering::Greater).into(),
        ("gt", _) => (compared()? == Ordering::Greater).into(),
        ("ge", _) => (compared()? != Ordering::Less).into(),
        ("len", [Value::String(text)]) => text.len().into(),
        ("len", [Value::Array(items)]) => items.len().into(),
        ("len", [Value::Object(fields)]) => fields.len().into(),
        ("len", [Value::Null]) => 0.into(),
        ("index", [value, path @ ..]) => path.iter().try_fold(value.clone(), |value, key| {
            element(&value, key).ok_or_else(|| format!("there is no {} in {}", shown(key), shown(&value)))
        })?,
        ("join", [Value::Array(items), Value::String(between)]) => {
            items.iter().map(shown).collect::<Vec<_>>().join(between).into()
        }
        ("join", [Value::Null, Value::String(_)]) => "".into(),
        ("split", [Value::String(text), Value::String(between)]) => {
            text.split(between.as_str()).collect::<Vec<_>>().into()
        }
        ("upper", [Value::String(text)]) => text.to_uppercase().into(),
        ("lower", [Value::String(text)]) => text.to_lowercase().into(),
        ("title", [Value::String(text)]) => {
            let mut rest = text.chars();
            rest.next().map(|first| first.to_uppercase().chain(rest).collect::<String>()).unwrap_or_default().into()
        }
        ("truncate", [Value::String(text), length]) => {
            let length = number(length).ok_or_else(|| takes("a text and a length"))?;
            text.chars().take(length).collect::<String>().into()
        }
        ("pad", [Value::String(text), before, after]) => {
            let spaces = |it: &Value| {
                number(it)
                    .filter(|it| *it <= 1000)
                    .map(|it| " ".repeat(it))
                    .ok_or_else(|| takes("a text and two lengths"))
            };
            format!("{}{text}{}", spaces(before)?, spaces(after)?).into()
        }
        ("slice", [Value::String(text), ends @ ..]) => {
            let (from, to) = range(ends, text.len()).ok_or_else(|| takes("a text and where to begin and end"))?;
            text.get(from..to).ok_or_else(|| takes("a text and places within it"))?.into()
        }
        ("slice", [Value::Array(items), ends @ ..]) => {
            let (from, to) = range(ends, items.len()).ok_or_else(|| takes("a list and where to begin and end"))?;
            items.get(from..to).ok_or_else(|| takes("a list and places within it"))?.to_vec().into()
        }
        ("print", _) => arguments.iter().map(shown).collect::<String>().into(),
        ("println", _) => (arguments.iter().map(shown).collect::<Vec<_>>().join(" ") + "\n").into(),
        ("printf", [Value::String(format), values @ ..]) => printf(format, values)?.into(),
        ("html", [value]) => escaped(&shown(value), |it| match it {
            '<' => Some("&lt;"),
            '>' => Some("&gt;"),
            '&' => Some("&amp;"),
            '"' => Some("&#34;"),
            '\'' => Some("&#39;"),
            _ => None,
        })
        .into(),
        ("js", [value]) => Value::String(shown(value)).to_string().trim_matches('"').into(),
        ("urlquery", [value]) => {
            let plain = |it: u8| it.is_ascii_alphanumeric() || b"-_.~".contains(&it);
            let byte = |it: u8| {
                if plain(it) {
                    char::from(it).to_string()
                } else if it == b' ' {
                    "+".to_owned()
                } else {
                    format!("%{it:02X}")
                }
            };
            shown(value).bytes().map(byte).collect::<String>().into()
        }
        ("join" | "split", _) => return Err(takes("a list (or a text) and what stands between")),
        ("len", _) => return Err(takes("a text, a list or a map")),
        _ => return Err(takes("other values")),
    })
}

fn escaped(text: &str, by: impl Fn(char) -> Option<&'static str>) -> String {
    text.chars().fold(String::new(), |mut out, it| {
        match by(it) {
            Some(escape) => out.push_str(escape),
            None => out.push(it),
        }
        out
    })
}

fn number(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|it| usize::try_from(it).ok())
}

fn range(ends: &[Value], length: usize) -> Option<(usize, usize)> {
    match ends {
        [] => Some((0, length)),
        [from] => Some((number(from)?, length)),
        [from, to] => Some((number(from)?, number(to)?)),
        _ => None,
    }
}

fn element(value: &Value, key: &Value) -> Option<Value> {
    match (value, key) {
        (Value::Object(fields), Value::String(name)) => Some(fields.get(name).cloned().unwrap_or_else(|| "".into())),
        (Value::Array(items), at) => items.get(number(at)?).cloned(),
        (Value::Null, Value::String(_)) => Some("".into()),
        _ => None,
    }
}

fn compare(one: &Value, other: &Value) -> Option<Ordering> {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64()?.partial_cmp(&other.as_f64()?),
        (Value::String(one), Value::String(other)) => Some(one.cmp(other)),
        _ => None,
    }
}

/// %s %v %d %q %t %f %x %%, with a width and a minus sign for the left.
fn printf(format: &str, values: &[Value]) -> Result<String, String> {
    let mut out = String::new();
    let mut values = values.iter();
    let mut rest = format.chars();
    while let Some(it) = rest.next() {
        if it != '%' {
            out.push(it);
            continue;
        }
        let mut width = String::new();
        let verb = loop {
            match rest.next().ok_or("printf: the format ends with a %")? {
                it @ ('-' | '+' | '0'..='9' | '.') => width.push(it),
                verb => break verb,
            }
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let value = values.next().ok_or_else(|| format!("printf: there is no value for %{verb}"))?;
        let text = match verb {
            's' | 'v' | 'd' | 't' => shown(value),
            'q' => Value::String(shown(value)).to_string(),
            'x' => {
                value.as_i64().map(|it| format!("{it:x}")).ok_or_else(|| format!("printf: %x of {}", shown(value)))?
            }
            'f' => {
                let places =
                    width.split_once('.').and_then(|(_, it)| it.parse().ok()).filter(|it| *it < 100).unwrap_or(6);
                let number = value.as_f64().ok_or_else(|| format!("printf: %f of {}", shown(value)))?;
                format!("{number:.places$}")
            }
            other => return Err(format!("printf: %{other} is not known")),
        };
        let places: usize = width.trim_start_matches(['-', '+']).split('.').next().unwrap_or("").parse().unwrap_or(0);
        let places = places.min(1000);
        if width.starts_with('-') {
            out.push_str(&format!("{text:<places$}"));
        } else {
            out.push_str(&format!("{text:>places$}"));
        }
    }
    Ok(out)
}

//! `--format`: Go's templates over JSON, as far as docker's users need them.
//!
//! ```text
//! {{.State.Status}}  {{json .}}  {{range $k, $v := .Map}}..{{else}}..{{end}}  {{if eq .A "b"}}..{{else if ..}}..{{end}}
//! {{with .X}}..{{end}}  {{index .Map "key"}}  {{join .List ","}}  {{printf "%s %d" .A .B}}  {{.A | upper}}  {{- trim -}}
//! ```
//!
//! No crate does this that is still kept. A template is parsed once, into a tree, and run over each object; a field that an
//! object has not is an error, as docker's is, and not an empty word in a script.

mod functions;
mod parse;

use std::fmt::Write;

use serde_json::Value;

use crate::error::{Error, Result};

/// A template, parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Text(String),
    Print(Pipeline),
    Assign(String, Pipeline),
    /// Conditions with what they choose, in order, and what is left.
    If(Vec<(Pipeline, Vec<Node>)>, Vec<Node>),
    With(Pipeline, Vec<Node>, Vec<Node>),
    Range {
        key: Option<String>,
        value: Option<String>,
        over: Pipeline,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
}

/// Commands, each of which gets the result of the one before as its last argument.
#[derive(Debug, Clone, PartialEq)]
struct Pipeline(Vec<Command>);

#[derive(Debug, Clone, PartialEq)]
enum Command {
    Value(Operand),
    Call(String, Vec<Operand>),
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Literal(Value),
    /// `.`, a variable or a parenthesis, and fields of it.
    Fields(Base, Vec<String>),
    /// A function without arguments, or one whose name stands where a value should.
    Function(String),
}

#[derive(Debug, Clone, PartialEq)]
enum Base {
    Dot,
    Variable(String),
    Parenthesis(Box<Pipeline>),
}

impl Template {
    /// Parses it.
    ///
    /// # Errors
    /// A sentence that says where it goes wrong.
    pub fn parse(text: &str) -> Result<Self> {
        parse::parse(text).map(|nodes| Self { nodes }).map_err(|why| {
            Error::usage(format!("the template {text:?} is not one: {why} (as in '{{{{.Name}}}}' or '{{{{json .}}}}')"))
        })
    }

    /// Runs it over one object.
    ///
    /// # Errors
    /// It asks for what the object has not, or gives a function what it cannot take.
    pub fn run(&self, over: &Value) -> Result<String> {
        let mut run = Run { out: String::new(), variables: vec![(String::new(), over.clone())] };
        run.nodes(&self.nodes, over).map_err(|why| Error::failed(format!("run the template: {why}")))?;
        Ok(run.out)
    }
}

/// A template that is being run.
struct Run {
    out: String,
    /// The innermost last; `$` has the empty name.
    variables: Vec<(String, Value)>,
}

impl Run {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<(), String> {
        let outer = self.variables.len();
        for node in nodes {
            self.node(node, dot)?;
        }
        self.variables.truncate(outer);
        Ok(())
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<(), String> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Print(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                self.out.push_str(&shown(&value));
            }
            Node::Assign(name, pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                self.variables.push((name.clone(), value));
            }
            Node::If(choices, otherwise) => {
                for (condition, body) in choices {
                    if truth(&self.pipeline(condition, dot)?) {
                        return self.nodes(body, dot);
                    }
                }
                self.nodes(otherwise, dot)?;
            }
            Node::With(pipeline, body, otherwise) => {
                let value = self.pipeline(pipeline, dot)?;
                if truth(&value) {
                    self.nodes(body, &value)?;
                } else {
                    self.nodes(otherwise, dot)?;
                }
            }
            Node::Range { key, value, over, body, otherwise } => {
                let over = self.pipeline(over, dot)?;
                let items: Vec<(Value, Value)> = match over {
                    Value::Array(items) => items.into_iter().enumerate().map(|(at, it)| (at.into(), it)).collect(),
                    Value::Object(fields) => fields.into_iter().map(|(name, it)| (name.into(), it)).collect(),
                    Value::Null => Vec::new(),
                    other => return Err(format!("range over {}, which is no list and no map", shown(&other))),
                };
                if items.is_empty() {
                    return self.nodes(otherwise, dot);
                }
                let outer = self.variables.len();
                for (name, item) in items {
                    self.variables.extend(key.iter().map(|it| (it.clone(), name.clone())));
                    self.variables.extend(value.iter().map(|it| (it.clone(), item.clone())));
                    self.nodes(body, &item)?;
                    self.variables.truncate(outer);
                }
            }
        }
        Ok(())
    }

    fn pipeline(&self, pipeline: &Pipeline, dot: &Value) -> Result<Value, String> {
        let mut last = None;
        for command in &pipeline.0 {
            last = Some(match command {
                Command::Value(Operand::Function(name)) => functions::call(name, last.into_iter().collect())?,
                Command::Value(operand) if last.is_none() => self.operand(operand, dot)?,
                Command::Value(_) => return Err("a value stands behind a |, where a function should".to_owned()),
                Command::Call(name, operands) => {
                    let mut arguments = Vec::with_capacity(operands.len() + 1);
                    for operand in operands {
                        arguments.push(self.operand(operand, dot)?);
                    }
                    arguments.extend(last);
                    functions::call(name, arguments)?
                }
            });
        }
        Ok(last.unwrap_or(Value::Null))
    }

    fn operand(&self, operand: &Operand, dot: &Value) -> Result<Value, String> {
        let (base, fields) = match operand {
            Operand::Literal(value) => return Ok(value.clone()),
            Operand::Function(name) => return functions::call(name, Vec::new()),
            Operand::Fields(base, fields) => (base, fields),
        };
        let value = match base {
            Base::Dot => dot.clone(),
            Base::Variable(name) => {
                let found = self.variables.iter().rev().find(|(it, _)| it == name);
                found.map(|(_, value)| value.clone()).ok_or_else(|| format!("there is no variable ${name}"))?
            }
            Base::Parenthesis(pipeline) => self.pipeline(pipeline, dot)?,
        };
        fields.iter().try_fold(value, |value, field| field_of(value, field))
    }
}

fn field_of(value: Value, field: &str) -> Result<Value, String> {
    match value {
        Value::Object(mut fields) => fields.remove(field).ok_or_else(|| {
            let known: Vec<&str> = fields.keys().map(String::as_str).take(40).collect();
            format!("there is no field {field:?}; there are {}", known.join(", "))
        }),
        Value::Null => Err(format!("there is no field {field:?} of nothing")),
        other => Err(format!("there is no field {field:?} of {}", shown(&other))),
    }
}

/// Go's truth: neither zero, nor empty, nor nothing.
fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(it) => *it,
        Value::Number(it) => it.as_f64() != Some(0.0),
        Value::String(it) => !it.is_empty(),
        Value::Array(it) => !it.is_empty(),
        Value::Object(it) => !it.is_empty(),
    }
}

/// As Go prints a value: `[a b]`, `map[key:value]`.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let mut out = "map[".to_owned();
            for (at, (name, value)) in fields.iter().enumerate() {
                // Writing to a String cannot fail.
                let _ = write!(out, "{}{name}:{}", if at > 0 { " " } else { "" }, shown(value));
            }
            out + "]"
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object() -> Value {
        json!({
            "Name": "/web", "Count": 3, "Empty": "", "Yes": true,
            "State": {"Status": "running", "StartedAt": "2026-01-31T00:00:00Z"},
            "Args": ["-c", "a b"], "Labels": {"b.c": "2", "a": "1"}, "Nothing": null,
            "Mounts": [{"Source": "/x"}, {"Source": "/y"}],
        })
    }

    #[test]
    fn templates_give_what_gos_give() {
        for (template, expected) in [
            ("plain", "plain"),
            ("{{.Name}}", "/web"),
            ("{{ .State.StartedAt }}", "2026-01-31T00:00:00Z"),
            ("{{json .State}}", r#"{"StartedAt":"2026-01-31T00:00:00Z","Status":"running"}"#),
            ("{{json .Args}} {{.Args}} {{.Labels}}", r#"["-c","a b"] [-c a b] map[a:1 b.c:2]"#),
            ("{{range .Args}}<{{.}}>{{end}}", "<-c><a b>"),
            ("{{range $i, $a := .Args}}{{$i}}={{$a}};{{end}}", "0=-c;1=a b;"),
            ("{{range $k, $v := .Labels}}{{$k}}={{$v}} {{end}}", "a=1 b.c=2 "),
            ("{{range $v := .Args}}{{$v}},{{end}}", "-c,a b,"),
            ("{{range .Mounts}}{{.Source}} of {{$.Name}} {{end}}", "/x of /web /y of /web "),
            ("{{range .Nothing}}x{{else}}none{{end}}", "none"),
            ("{{index .Labels \"b.c\"}} {{index .Args 1}}", "2 a b"),
            ("{{join .Args \", \"}}", "-c, a b"),
            ("{{if .Empty}}x{{else if eq .State.Status \"running\"}}up{{else}}down{{end}}", "up"),
            ("{{if and .Yes (not .Empty)}}both{{end}}{{if or .Empty .Nothing}}x{{end}}", "both"),
            ("{{with .State}}{{.Status}}{{end}}{{with .Empty}}x{{else}}-{{end}}", "running-"),
            ("{{.Name | upper}} {{upper .Name | printf \"%q %s\" \"x\"}}", "/WEB \"x\" /WEB"),
            ("{{printf \"%-6s|%3d|%v|%%\" .Name .Count .Args}}", "/web  |  3|[-c a b]|%"),
            ("{{len .Args}} {{len .Name}} {{if gt .Count 2}}many{{end}}", "2 4 many"),
            ("a  {{- \" b \" -}}  c", "a b c"),
            ("{{/* a remark */}}{{`raw \\n`}}", "raw \\n"),
            ("{{$n := .Name}}{{$n}}", "/web"),
            ("{{(index .Mounts 1).Source}}", "/y"),
            (
                "{{slice .Name 1 3}} {{split \"a,b\" \",\"}} {{title .State.Status}} {{println 1}}",
                "we [a b] Running 1\n",
            ),
            ("{{.Nothing}}", "<no value>"),
        ] {
            let out = Template::parse(template).and_then(|it| it.run(&object()));
            assert_eq!(out.as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (template, expected) in [
            ("{{.Name", "a {{ has no }}"),
            ("{{end}}", "an end without its beginning"),
            ("{{if .Name}}x", "an if without its end"),
            ("{{range}}x{{end}}", "range of what"),
            ("{{.Name | }}", "a | with nothing behind it"),
            ("{{\"x}}", "a quote without its end"),
            ("{{(.Name}}", "a ( without its )"),
            ("{{nope .}}", "there is no function nope"),
            ("{{if}}x{{end}}", "if of what"),
            ("{{.Name ~}}", "'~' has no meaning"),
        ] {
            let error = Template::parse(template).expect_err(template);
            assert!(error.message.contains(expected), "{template}: {error}");
        }
        for (template, expected) in [
            ("{{.Nmae}}", "there is no field \"Nmae\"; there are Args, Count"),
            ("{{.Name.X}}", "there is no field \"X\" of /web"),
            ("{{.Nothing.X}}", "of nothing"),
            ("{{index .Args 7}}", "there is no 7"),
            ("{{range .Count}}x{{end}}", "range over 3"),
            ("{{join .Name}}", "join takes"),
            ("{{$x}}", "there is no variable $x"),
        ] {
            let error = Template::parse(template).and_then(|it| it.run(&object())).expect_err(template);
            assert!(error.message.contains(expected), "{template}: {error}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = format!("{{{{{}1{}}}}}", "(".repeat(100_000), ")".repeat(100_000));
        assert!(Template::parse(&deep).is_err());
        let deep = "{{if 1}}".repeat(100_000);
        assert!(Template::parse(&deep).is_err());
    }
}

//! What a registry says with a 401 (RFC 9110, 11.6.1), and the Link header (RFC 8288): parsers alone.

/// Most challenges in an answer.
const MOST: usize = 16;

/// One way to prove who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// `basic`, `bearer`, in lower case.
    pub scheme: String,
    /// Names in lower case, and values; of two by one name, the first counts.
    pub parameters: Vec<(String, String)>,
}

impl Challenge {
    /// A parameter's value.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
    }
}

/// The challenges of one WWW-Authenticate header. What is no challenge ends the list.
#[must_use]
pub fn challenges(header: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    let mut rest = header;
    while found.len() < MOST {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let Some((word, after)) = token(rest) else { break };
        let spaced = after.trim_start_matches([' ', '\t']);
        // `name = value` belongs to the scheme before it; a word alone, or before a blank, is a scheme.
        if let Some(value) = spaced.strip_prefix('=')
            && let Some(challenge) = found.last_mut()
        {
            let Some((value, after)) = value_of(value.trim_start_matches([' ', '\t'])) else { break };
            challenge.parameters.push((word.to_ascii_lowercase(), value));
            rest = after;
        } else {
            found.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: Vec::new() });
            rest = after;
        }
    }
    found
}

/// Where the next page is: the target of the first link whose `rel` is `next`.
#[must_use]
pub fn next_page(header: &str) -> Option<&str> {
    let mut rest = header;
    for _ in 0..MOST {
        rest = rest.trim_start_matches([' ', '\t', ',']).strip_prefix('<')?;
        let (target, mut after) = rest.split_once('>')?;
        let mut is_next = false;
        loop {
            after = after.trim_start_matches([' ', '\t']);
            let Some(parameter) = after.strip_prefix(';') else { break };
            let (name, value) = token(parameter.trim_start_matches([' ', '\t']))?;
            let value = value.trim_start_matches([' ', '\t']);
            after = value;
            if let Some(value) = value.strip_prefix('=') {
                let (value, behind) = value_of(value.trim_start_matches([' ', '\t']))?;
                is_next |= name.eq_ignore_ascii_case("rel")
                    && value.split_ascii_whitespace().any(|it| it.eq_ignore_ascii_case("next"));
                after = behind;
            }
        }
        if is_next {
            return Some(target);
        }
        rest = after;
    }
    None
}

fn token(text: &str) -> Option<(&str, &str)> {
    let is_token = |it: char| it.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/".contains(it);
    let end = text.find(|it| !is_token(it)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// A token, or a quoted string.
fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ';', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(header: &str) -> String {
        let one = |it: &Challenge| {
            let parameters: Vec<_> = it.parameters.iter().map(|(name, value)| format!("{name}=<{value}>")).collect();
            format!("{}({})", it.scheme, parameters.join(" "))
        };
        challenges(header).iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn challenges_are_read_in_all_their_forms() {
        for (header, read) in [
            (
                r#"Bearer realm="https://a.example/token?x=1,2",service="a",scope="repository:x:pull,push""#,
                "bearer(realm=<https://a.example/token?x=1,2> service=<a> scope=<repository:x:pull,push>)",
            ),
            ("Basic realm=\"a \\\"b\\\"\"", "basic(realm=<a \"b\">)"),
            ("Negotiate, BASIC realm=x , Bearer  Realm = \"y\"", "negotiate() basic(realm=<x>) bearer(realm=<y>)"),
            ("Bearer realm=\"cut", "bearer()"),
            ("realm=x", "realm()"),
            ("", ""),
            (",,, =", ""),
            ("Bearer a=1,a=2", "bearer(a=<1> a=<2>)"),
        ] {
            assert_eq!(shown(header), read, "{header}");
        }
        assert_eq!(challenges("Bearer a=1,a=2")[0].get("a"), Some("1"));
        assert_eq!(challenges(&"x ".repeat(10_000)).len(), MOST);
    }

    #[test]
    fn links_lead_to_the_next_page() {
        for (header, next) in [
            ("</v2/x/tags/list?n=2&last=b>; rel=\"next\"", Some("/v2/x/tags/list?n=2&last=b")),
            ("<a>; rel=prev, <b>; title=\"x, <y>; rel=next\"; rel=next", Some("b")),
            ("<a>;rel=\"first next\"", Some("a")),
            ("<a>; rel=\"prev\"", None),
            ("<a>", None),
            ("a; rel=next", None),
            ("<a", None),
            ("", None),
        ] {
            assert_eq!(next_page(header), next, "{header}");
        }
    }
}

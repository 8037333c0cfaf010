//! What Go's flag package reads differently from clap, rewritten to what clap reads.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::ValueEnum;

use super::Rootless;

/// Rewrites what Go's flag package reads differently from clap: long flags after one dash, and `=true` or `=false` after
/// a switch. `args` begins with the program's name. Arguments after `--`, and those a command takes verbatim, stay.
pub(super) fn go_style(definition: &clap::Command, args: Vec<OsString>) -> Vec<OsString> {
    // Almost no caller needs it, and walking costs more than looking.
    let odd = |arg: &OsString| {
        let bytes = arg.as_bytes();
        bytes.starts_with(b"-") && bytes.len() > 2 && (bytes[1] != b'-' || bytes.contains(&b'='))
            || bytes == b"--rootless"
    };
    if !args.iter().skip(1).any(odd) {
        return args;
    }
    let ends_at_word = definition.is_allow_external_subcommands_set()
        || definition.get_positionals().any(clap::Arg::is_trailing_var_arg_set);
    let mut out = Vec::with_capacity(args.len());
    let mut args = args.into_iter().peekable();
    out.extend(args.next());
    while let Some(arg) = args.next() {
        let bytes = arg.as_bytes();
        if bytes == b"--" || (ends_at_word && !bytes.starts_with(b"-")) {
            out.push(arg);
            break;
        }
        let Some((name, value)) = flag(bytes) else {
            out.push(arg);
            continue;
        };
        let known = definition.get_arguments().find(|known| {
            known.get_long().is_some_and(|long| long.as_bytes() == name)
                || (name.len() == 1 && known.get_short() == Some(char::from(name[0])))
        });
        let Some(known) = known else {
            out.push(if name == b"help" { "--help".into() } else { arg });
            continue;
        };
        let dashes: &[u8] = if name.len() == 1 { b"-" } else { b"--" };
        let plain = OsString::from_vec([dashes, name].concat());
        let switch = !known.get_action().takes_values();
        match value {
            Some(b"false" | b"False" | b"FALSE" | b"f" | b"F" | b"0") if switch => {}
            Some(b"true" | b"True" | b"TRUE" | b"t" | b"T" | b"1") if switch => out.push(plain),
            Some(value) => out.push(OsString::from_vec([plain.as_bytes(), b"=", value].concat())),
            // runc's --rootless wants a value, ours may stand alone: a following word is its value only if it is one.
            None if name == b"rootless" && !switch => match args.next_if(|next| rootless(next).is_some()) {
                Some(value) => out.push(OsString::from_vec([plain.as_bytes(), b"=", value.as_bytes()].concat())),
                None => out.push(plain),
            },
            None => {
                out.push(plain);
                if !switch {
                    out.extend(args.next());
                }
            }
        }
    }
    out.extend(args);
    out
}

fn rootless(word: &OsStr) -> Option<Rootless> {
    Rootless::from_str(word.to_str()?, false).ok()
}

/// Splits `-name`, `--name`, `-name=value` or `--name=value`; `None` for a word.
fn flag(bytes: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let rest = bytes.strip_prefix(b"-")?;
    let rest = rest.strip_prefix(b"-").unwrap_or(rest);
    if rest.is_empty() {
        return None;
    }
    Some(match rest.iter().position(|&byte| byte == b'=') {
        Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        None => (rest, None),
    })
}

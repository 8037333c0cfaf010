//! Values of D-Bus and their types (D-Bus specification, "Type System").

use std::fmt;

/// A complete type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// `y`
    Byte,
    /// `b`
    Bool,
    /// `n`
    I16,
    /// `q`
    U16,
    /// `i`
    I32,
    /// `u`
    U32,
    /// `x`
    I64,
    /// `t`
    U64,
    /// `d`
    Double,
    /// `s`
    Text,
    /// `o`
    Path,
    /// `g`
    Signature,
    /// `v`
    Variant,
    /// `a`, then what it holds
    Array(Box<Type>),
    /// `(…)`
    Struct(Vec<Type>),
    /// `{…}`, in an array only
    Entry(Box<Type>, Box<Type>),
}

/// How deep types may be nested: the specification's own limits are 32 arrays and 32 structures.
const MAX_DEPTH: usize = 32;

impl Type {
    /// The one complete type that `signature` is.
    pub fn parse(signature: &str) -> Option<Self> {
        let mut letters = signature.chars();
        let typ = Self::next(&mut letters, MAX_DEPTH)?;
        letters.as_str().is_empty().then_some(typ)
    }

    fn next(letters: &mut std::str::Chars<'_>, depth: usize) -> Option<Self> {
        let depth = depth.checked_sub(1)?;
        Some(match letters.next()? {
            'y' => Self::Byte,
            'b' => Self::Bool,
            'n' => Self::I16,
            'q' => Self::U16,
            'i' => Self::I32,
            'u' => Self::U32,
            'x' => Self::I64,
            't' => Self::U64,
            'd' => Self::Double,
            's' => Self::Text,
            'o' => Self::Path,
            'g' => Self::Signature,
            'v' => Self::Variant,
            'a' if letters.as_str().starts_with('{') => {
                letters.next();
                let (key, value) = (Self::next(letters, depth)?, Self::next(letters, depth)?);
                (letters.next() == Some('}') && key.is_basic()).then_some(())?;
                Self::Array(Box::new(Self::Entry(Box::new(key), Box::new(value))))
            }
            'a' => Self::Array(Box::new(Self::next(letters, depth)?)),
            '(' => {
                let mut members = Vec::new();
                while !letters.as_str().starts_with(')') {
                    members.push(Self::next(letters, depth)?);
                }
                letters.next();
                (!members.is_empty()).then_some(Self::Struct(members))?
            }
            _ => return None,
        })
    }

    fn is_basic(&self) -> bool {
        !matches!(self, Self::Variant | Self::Array(_) | Self::Struct(_) | Self::Entry(..))
    }

    /// Where its values begin: at a multiple of this.
    pub(super) fn alignment(&self) -> usize {
        match self {
            Self::Byte | Self::Signature | Self::Variant => 1,
            Self::I16 | Self::U16 => 2,
            Self::Bool | Self::I32 | Self::U32 | Self::Text | Self::Path | Self::Array(_) => 4,
            Self::I64 | Self::U64 | Self::Double | Self::Struct(_) | Self::Entry(..) => 8,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Byte => f.write_str("y"),
            Self::Bool => f.write_str("b"),
            Self::I16 => f.write_str("n"),
            Self::U16 => f.write_str("q"),
            Self::I32 => f.write_str("i"),
            Self::U32 => f.write_str("u"),
            Self::I64 => f.write_str("x"),
            Self::U64 => f.write_str("t"),
            Self::Double => f.write_str("d"),
            Self::Text => f.write_str("s"),
            Self::Path => f.write_str("o"),
            Self::Signature => f.write_str("g"),
            Self::Variant => f.write_str("v"),
            Self::Array(of) => write!(f, "a{of}"),
            Self::Struct(members) => {
                f.write_str("(")?;
                members.iter().try_for_each(|member| write!(f, "{member}"))?;
                f.write_str(")")
            }
            Self::Entry(key, value) => write!(f, "{{{key}{value}}}"),
        }
    }
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `y`
    Byte(u8),
    /// `b`
    Bool(bool),
    /// `n`
    I16(i16),
    /// `q`
    U16(u16),
    /// `i`
    I32(i32),
    /// `u`
    U32(u32),
    /// `x`
    I64(i64),
    /// `t`
    U64(u64),
    /// `d`
    Double(f64),
    /// `s`
    Text(String),
    /// `o`
    Path(String),
    /// `g`
    Signature(String),
    /// `v`
    Variant(Box<Value>),
    /// `a`: each of this type
    Array(Type, Vec<Value>),
    /// `(…)`
    Struct(Vec<Value>),
    /// `{…}`
    Entry(Box<Value>, Box<Value>),
}

impl Value {
    /// A string.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A variant that holds `value`.
    pub fn variant(value: Value) -> Self {
        Self::Variant(Box::new(value))
    }

    /// Bytes, `ay`.
    pub fn bytes(bytes: &[u8]) -> Self {
        Self::Array(Type::Byte, bytes.iter().map(|&byte| Self::Byte(byte)).collect())
    }

    /// Its type.
    pub fn typ(&self) -> Type {
        match self {
            Self::Byte(_) => Type::Byte,
            Self::Bool(_) => Type::Bool,
            Self::I16(_) => Type::I16,
            Self::U16(_) => Type::U16,
            Self::I32(_) => Type::I32,
            Self::U32(_) => Type::U32,
            Self::I64(_) => Type::I64,
            Self::U64(_) => Type::U64,
            Self::Double(_) => Type::Double,
            Self::Text(_) => Type::Text,
            Self::Path(_) => Type::Path,
            Self::Signature(_) => Type::Signature,
            Self::Variant(_) => Type::Variant,
            Self::Array(of, _) => Type::Array(Box::new(of.clone())),
            Self::Struct(members) => Type::Struct(members.iter().map(Self::typ).collect()),
            Self::Entry(key, value) => Type::Entry(Box::new(key.typ()), Box::new(value.typ())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_read_and_written() {
        for signature in ["y", "as", "a(st)", "a{sv}", "a(sa(sv))", "(bnqiuxtdsogv)", "aay", "a{s(ii)}"] {
            assert_eq!(Type::parse(signature).unwrap().to_string(), signature);
        }
        let deep = "a".repeat(40) + "s";
        for wrong in ["", "z", "a", "ss", "(s", "()", "a{vs}", "{ss}", "a{sss}", "s)", deep.as_str()] {
            assert_eq!(Type::parse(wrong), None, "{wrong}");
        }
    }
}

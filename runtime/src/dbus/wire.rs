//! Messages as bytes (D-Bus specification, "Message Format"): little-endian, each value at a multiple of its alignment.
//!
//! ```text
//! byte order 'l' | type | flags | version 1 | length of the body | serial | header fields a(yv) | padding to 8 | body
//! ```

use super::value::{Type, Value};

/// A method call.
pub(super) const METHOD_CALL: u8 = 1;
/// The order of bytes of what we send.
pub(super) const LITTLE: u8 = b'l';

/// The number of a header field.
pub(super) mod field {
    pub(in crate::dbus) const PATH: u8 = 1;
    pub(in crate::dbus) const INTERFACE: u8 = 2;
    pub(in crate::dbus) const MEMBER: u8 = 3;
    pub(in crate::dbus) const ERROR_NAME: u8 = 4;
    pub(in crate::dbus) const REPLY_SERIAL: u8 = 5;
    pub(in crate::dbus) const DESTINATION: u8 = 6;
    pub(in crate::dbus) const SENDER: u8 = 7;
    pub(in crate::dbus) const SIGNATURE: u8 = 8;
}

/// A message of `typ`, complete.
pub(super) fn message(typ: u8, serial: u32, fields: &[(u8, Value)], arguments: &[Value]) -> Vec<u8> {
    let mut body = Vec::new();
    arguments.iter().for_each(|argument| put(&mut body, argument));
    let signature: String = arguments.iter().map(|argument| argument.typ().to_string()).collect();
    let mut fields: Vec<Value> = fields
        .iter()
        .map(|(number, value)| Value::Struct(vec![Value::Byte(*number), Value::variant(value.clone())]))
        .collect();
    if !signature.is_empty() {
        let value = Value::variant(Value::Signature(signature));
        fields.push(Value::Struct(vec![Value::Byte(field::SIGNATURE), value]));
    }
    let mut bytes = vec![LITTLE, typ, 0, 1];
    bytes.extend(length(body.len()));
    bytes.extend(serial.to_le_bytes());
    put(&mut bytes, &Value::Array(Type::Struct(vec![Type::Byte, Type::Variant]), fields));
    pad(&mut bytes, 8);
    bytes.extend(body);
    bytes
}

fn pad(bytes: &mut Vec<u8>, alignment: usize) {
    bytes.resize(bytes.len().next_multiple_of(alignment), 0);
}

/// Nothing that is sent comes near 4 GiB: its sources are limited.
fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}

fn put(bytes: &mut Vec<u8>, value: &Value) {
    pad(bytes, value.typ().alignment());
    match value {
        Value::Byte(byte) => bytes.push(*byte),
        Value::Bool(value) => bytes.extend(u32::from(*value).to_le_bytes()),
        Value::I16(number) => bytes.extend(number.to_le_bytes()),
        Value::U16(number) => bytes.extend(number.to_le_bytes()),
        Value::I32(number) => bytes.extend(number.to_le_bytes()),
        Value::U32(number) => bytes.extend(number.to_le_bytes()),
        Value::I64(number) => bytes.extend(number.to_le_bytes()),
        Value::U64(number) => bytes.extend(number.to_le_bytes()),
        Value::Double(number) => bytes.extend(number.to_le_bytes()),
        Value::Text(text) | Value::Path(text) => {
            bytes.extend(length(text.len()));
            bytes.extend(text.as_bytes());
            bytes.push(0);
        }
        Value::Signature(text) => put_signature(bytes, text),
        Value::Variant(inner) => {
            put_signature(bytes, &inner.typ().to_string());
            put(bytes, inner);
        }
        Value::Array(of, values) => {
            let at = bytes.len();
            bytes.extend([0; 4]);
            // The padding before the first element does not count, and is there even if there is none.
            pad(bytes, of.alignment());
            let start = bytes.len();
            values.iter().for_each(|value| put(bytes, value));
            let size = length(bytes.len() - start);
            bytes[at..at + 4].copy_from_slice(&size);
        }
        Value::Struct(members) => members.iter().for_each(|member| put(bytes, member)),
        Value::Entry(key, value) => {
            put(bytes, key);
            put(bytes, value);
        }
    }
}

/// At most 255 bytes: what is sent has types of our own making, or of [`Type::parse`] with its limit.
fn put_signature(bytes: &mut Vec<u8>, text: &str) {
    bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    bytes.extend(text.as_bytes());
    bytes.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(value: &Value) -> Vec<u8> {
        let mut bytes = Vec::new();
        put(&mut bytes, value);
        bytes
    }

    #[test]
    fn values_stand_where_the_specification_puts_them() {
        let table: &[(Value, &[u8])] = &[
            (Value::Byte(7), &[7]),
            (Value::Bool(true), &[1, 0, 0, 0]),
            (Value::I16(-2), &[0xfe, 0xff]),
            (Value::U64(1 << 40), &[0, 0, 0, 0, 0, 1, 0, 0]),
            (Value::text("ab"), &[2, 0, 0, 0, b'a', b'b', 0]),
            (Value::Signature("as".into()), &[2, b'a', b's', 0]),
            (Value::variant(Value::U32(5)), &[1, b'u', 0, 0, 5, 0, 0, 0]),
            (Value::bytes(&[1, 2]), &[2, 0, 0, 0, 1, 2]),
            // The padding after the length is there without an element too.
            (Value::Array(Type::U64, vec![]), &[0, 0, 0, 0, 0, 0, 0, 0]),
            (Value::Array(Type::U64, vec![Value::U64(9)]), &[8, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]),
            (Value::Struct(vec![Value::Byte(1), Value::U32(2)]), &[1, 0, 0, 0, 2, 0, 0, 0]),
            (
                Value::Array(
                    Type::Entry(Box::new(Type::Byte), Box::new(Type::Byte)),
                    vec![Value::Entry(Box::new(Value::Byte(3)), Box::new(Value::Byte(4)))],
                ),
                &[2, 0, 0, 0, 0, 0, 0, 0, 3, 4],
            ),
        ];
        for (value, expected) in table {
            assert_eq!(bytes_of(value), *expected, "{value:?}");
        }
    }

    #[test]
    fn a_message_is_its_header_and_its_body() {
        let message = message(METHOD_CALL, 3, &[(field::MEMBER, Value::text("Hi"))], &[Value::U32(6)]);
        let expected: &[u8] = &[
            b'l', 1, 0, 1, 4, 0, 0, 0, 3, 0, 0, 0, // order, type, flags, version; length; serial
            23, 0, 0, 0, // length of the fields
            3, 1, b's', 0, 2, 0, 0, 0, b'H', b'i', 0, // the member
            0, 0, 0, 0, 0, // to a multiple of 8
            8, 1, b'g', 0, 1, b'u', 0, // the signature
            0, // to a multiple of 8
            6, 0, 0, 0,
        ];
        assert_eq!(message, expected);
    }
}

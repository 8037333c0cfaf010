//! Messages that come in: whatever they hold, reading one ends in its parts or in a refusal.

use super::value::Type;
use super::wire::{LITTLE, field};

/// The fixed beginning of a message, with the length of the header fields.
pub(super) const FIXED: usize = 16;
/// The longest message that is read: properties of units that change come uncalled for, and take kilobytes.
pub(super) const MAX_MESSAGE: usize = 4 << 20;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageType {
    /// Somebody calls a method of ours.
    Call,
    /// The answer to a call.
    Return,
    /// The refusal of a call.
    Error,
    /// An event.
    Signal,
    /// What later versions may have; to be ignored.
    Other,
}

/// A message, with the header fields that are of use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub typ: MessageType,
    /// Its number.
    pub serial: u32,
    /// Which call it answers.
    pub reply_to: Option<u32>,
    /// The method or signal.
    pub member: String,
    /// The interface of that.
    pub interface: String,
    /// The name of the error.
    pub error: String,
    /// The unique name of who sent it; none from a peer.
    pub sender: String,
    /// The types of its arguments.
    pub signature: String,
    body: Vec<u8>,
    little: bool,
}

/// Reads arguments, one after another.
#[derive(Clone, Debug)]
pub struct Body<'a> {
    bytes: &'a [u8],
    at: usize,
    little: bool,
}

/// The length of the whole message whose first [`FIXED`] bytes these are; `None` if that is no message, or too long a one.
pub(super) fn whole_length(start: &[u8; FIXED]) -> Option<usize> {
    let little = start[0] == LITTLE;
    (little || start[0] == b'B').then_some(())?;
    let mut fixed = Body { bytes: start, at: 4, little };
    let (body, _serial, fields) = (fixed.number()?, fixed.number()?, fixed.number()?);
    let fields = usize::try_from(fields).ok()?.checked_add(FIXED)?.checked_next_multiple_of(8)?;
    fields.checked_add(usize::try_from(body).ok()?).filter(|&length| length <= MAX_MESSAGE)
}

impl Message {
    /// Reads a message that is there as a whole.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let start = bytes.first_chunk::<FIXED>()?;
        (whole_length(start)? == bytes.len() && start[3] == 1).then_some(())?;
        let little = start[0] == LITTLE;
        let mut fixed = Body { bytes, at: 4, little };
        let (_body, serial, fields) = (fixed.number()?, fixed.number()?, fixed.number()? as usize);
        let mut message = Self {
            typ: match start[1] {
                0 => return None,
                1 => MessageType::Call,
                2 => MessageType::Return,
                3 => MessageType::Error,
                4 => MessageType::Signal,
                _ => MessageType::Other,
            },
            serial,
            reply_to: None,
            member: String::new(),
            interface: String::new(),
            error: String::new(),
            sender: String::new(),
            signature: String::new(),
            body: bytes.get((FIXED + fields).next_multiple_of(8)..)?.to_vec(),
            little,
        };
        let mut header = Body { bytes: bytes.get(..FIXED + fields)?, at: FIXED, little };
        while header.at < header.bytes.len() {
            header.align(8)?;
            let number = header.byte()?;
            let typ = header.signature()?;
            match (number, typ.as_str()) {
                (field::REPLY_SERIAL, "u") => message.reply_to = Some(header.number()?),
                (field::SIGNATURE, "g") => message.signature = header.signature()?,
                (field::MEMBER, "s") => message.member = header.text()?,
                (field::INTERFACE, "s") => message.interface = header.text()?,
                (field::ERROR_NAME, "s") => message.error = header.text()?,
                (field::SENDER, "s") => message.sender = header.text()?,
                // Those of later versions are to be ignored; all there are today have one of these types.
                (_, "s" | "o") => drop(header.text()?),
                (_, "u") => drop(header.number()?),
                (_, "g") => drop(header.signature()?),
                _ => return None,
            }
        }
        Some(message)
    }

    /// Whether these bytes are among its arguments.
    #[cfg(test)]
    pub(crate) fn holds(&self, bytes: &[u8]) -> bool {
        self.body.windows(bytes.len()).any(|part| part == bytes)
    }

    /// Its arguments.
    pub fn body(&self) -> Body<'_> {
        Body { bytes: &self.body, at: 0, little: self.little }
    }
}

impl Body<'_> {
    /// A `u`.
    pub fn number(&mut self) -> Option<u32> {
        self.align(4)?;
        let bytes = *self.bytes.get(self.at..)?.first_chunk()?;
        self.at += 4;
        Some(if self.little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    /// An `s` or an `o`.
    pub fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.number()?).ok()?;
        self.characters(length)
    }

    /// A `v` that holds an `s`.
    pub fn text_in_variant(&mut self) -> Option<String> {
        let typ = self.signature()?;
        (Type::parse(&typ)? == Type::Text).then(|| self.text())?
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// A `g`.
    fn signature(&mut self) -> Option<String> {
        let length = usize::from(self.byte()?);
        self.characters(length)
    }

    fn characters(&mut self, length: usize) -> Option<String> {
        let end = self.at.checked_add(length)?;
        let text = self.bytes.get(self.at..end)?.to_vec();
        (*self.bytes.get(end)? == 0).then_some(())?;
        self.at = end + 1;
        String::from_utf8(text).ok()
    }

    fn align(&mut self, alignment: usize) -> Option<()> {
        self.at = self.at.checked_next_multiple_of(alignment)?;
        (self.at <= self.bytes.len()).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::value::Value;
    use super::super::wire::message;
    use super::*;

    fn sample() -> Vec<u8> {
        let fields = [
            (field::PATH, Value::Path("/a".into())),
            (field::INTERFACE, Value::text("i.f")),
            (field::MEMBER, Value::text("Gone")),
            (field::REPLY_SERIAL, Value::U32(77)),
            (field::SENDER, Value::text(":1.2")),
            (field::DESTINATION, Value::text(":1.3")),
        ];
        let arguments =
            [Value::U32(9), Value::Path("/job".into()), Value::text("done"), Value::variant(Value::text("x"))];
        message(4, 5, &fields, &arguments)
    }

    #[test]
    fn what_was_written_is_read() {
        let message = Message::parse(&sample()).unwrap();
        assert_eq!((message.typ, message.serial, message.reply_to), (MessageType::Signal, 5, Some(77)));
        assert_eq!((&*message.interface, &*message.member, &*message.sender), ("i.f", "Gone", ":1.2"));
        assert_eq!(message.signature, "uosv");
        let mut body = message.body();
        assert_eq!(
            (body.number(), body.text().as_deref(), body.text().as_deref()),
            (Some(9), Some("/job"), Some("done"))
        );
        assert_eq!(body.text_in_variant().as_deref(), Some("x"));
        assert_eq!((body.number(), body.text()), (None, None));
    }

    #[test]
    fn the_other_order_of_bytes_is_read_too() {
        // A return with nothing but a reply serial.
        let bytes = [b'B', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 8, 5, 1, b'u', 0, 0, 0, 1, 2];
        let message = Message::parse(&bytes).unwrap();
        assert_eq!((message.typ, message.serial, message.reply_to), (MessageType::Return, 9, Some(0x102)));
    }

    #[test]
    fn no_damage_is_more_than_a_refusal() {
        let whole = sample();
        for length in 0..whole.len() {
            assert_eq!(Message::parse(&whole[..length]), None);
        }
        for at in 0..whole.len() {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = byte;
                // Whatever it is now, it is read within its bounds.
                if let Some(message) = Message::parse(&damaged) {
                    let mut body = message.body();
                    let _ = (body.number(), body.text(), body.text(), body.text_in_variant());
                }
            }
        }
    }

    #[test]
    fn the_length_is_limited() {
        let mut start = *sample().first_chunk::<FIXED>().unwrap();
        assert_eq!(whole_length(&start), Some(sample().len()));
        start[4..8].copy_from_slice(&(MAX_MESSAGE as u32).to_le_bytes());
        assert_eq!(whole_length(&start), None);
        start[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(whole_length(&start), None);
        start[0] = b'x';
        assert_eq!(whole_length(&start), None);
    }
}

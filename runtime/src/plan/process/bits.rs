//! A list of CPUs or memory nodes such as `0-3,7`, as the kernel takes it: a row of bits, lowest first.

use std::fmt;

use crate::error::{Error, Result};

/// The largest number a list may name. Linux is built for at most 8,192 CPUs and 1,024 nodes; the bound keeps a hostile
/// list from costing memory and leaves the exact answer to the kernel.
const LAST: u32 = 65_535;

/// A set of small numbers, never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BitList {
    words: Vec<usize>,
    text: String,
}

impl BitList {
    /// Parses `n`, `n-m` and lists of them joined by commas; `field` names it in an error.
    ///
    /// # Errors
    /// When anything else is in it: a blank, an empty part, a range that runs backwards, a number too large.
    pub fn parse(field: &str, text: &str) -> Result<Self> {
        let mut words: Vec<usize> = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(field, text, first)?, number(field, text, last)?);
            if first > last {
                return Err(Error::invalid(format!("{field} {text:?}: the range {part} runs backwards")));
            }
            let (low, high) = ((first / usize::BITS) as usize, (last / usize::BITS) as usize);
            if high >= words.len() {
                words.resize(high + 1, 0);
            }
            // Whole words at once: a list of many wide ranges must not cost a step a bit.
            for (index, word) in words.iter_mut().enumerate().take(high + 1).skip(low) {
                let from = if index == low { usize::MAX << (first % usize::BITS) } else { usize::MAX };
                let to = if index == high { usize::MAX >> (usize::BITS - 1 - last % usize::BITS) } else { usize::MAX };
                *word |= from & to;
            }
        }
        Ok(Self { words, text: text.to_owned() })
    }

    /// The bits, lowest word first.
    pub fn words(&self) -> &[usize] {
        &self.words
    }
}

impl fmt::Display for BitList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Digits only: `parse` alone would take a sign.
fn number(field: &str, text: &str, digits: &str) -> Result<u32> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Error::invalid(format!(
            "{field} {text:?} is not a list of numbers and ranges such as \"0-3,7\" ({digits:?} is not a number)"
        )));
    }
    match digits.parse() {
        Ok(number) if number <= LAST => Ok(number),
        _ => Err(Error::invalid(format!("{field} {text:?}: {digits} is larger than {LAST}"))),
    }
}

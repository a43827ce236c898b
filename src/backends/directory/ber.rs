//! The subset of BER that LDAP has (RFC 4511, section 5.1): definite lengths, tags of one byte. What is read is never nested deeper
//! than the code that reads it, and shares the memory that it came in.

use bytes::{Buf as _, Bytes};

/// Something that is not what LDAP says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTETS: u8 = 0x04;
pub(super) const ENUMERATED: u8 = 0x0a;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

/// The tag, the length of the header and that of the content; nothing while the header is not whole.
pub(super) fn header(bytes: &[u8]) -> Result<Option<(u8, usize, usize)>, Malformed> {
    let [tag, first, rest @ ..] = bytes else { return Ok(None) };
    // A tag of several bytes.
    if tag & 0x1f == 0x1f {
        return Err(Malformed);
    }
    if *first < 0x80 {
        return Ok(Some((*tag, 2, usize::from(*first))));
    }
    let count = usize::from(first & 0x7f);
    if !(1..=4).contains(&count) {
        return Err(Malformed);
    }
    let Some(digits) = rest.get(..count) else { return Ok(None) };
    let length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
    Ok(Some((*tag, 2 + count, length)))
}

/// Reads one value after the other.
pub(super) struct Reader(Bytes);

impl Reader {
    pub(super) fn new(content: Bytes) -> Self {
        Self(content)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next value, whatever it is.
    pub(super) fn any(&mut self) -> Result<(u8, Bytes), Malformed> {
        let (tag, start, length) = header(&self.0)?.ok_or(Malformed)?;
        if self.0.len() - start < length {
            return Err(Malformed);
        }
        self.0.advance(start);
        Ok((tag, self.0.split_to(length)))
    }

    /// The next value, which has this tag.
    pub(super) fn expect(&mut self, tag: u8) -> Result<Bytes, Malformed> {
        match self.any()? {
            (found, content) if found == tag => Ok(content),
            _ => Err(Malformed),
        }
    }

    /// The next value if it has this tag.
    pub(super) fn optional(&mut self, tag: u8) -> Result<Option<Bytes>, Malformed> {
        if self.0.first() == Some(&tag) { self.expect(tag).map(Some) } else { Ok(None) }
    }

    /// The next value, a number.
    pub(super) fn integer(&mut self, tag: u8) -> Result<i64, Malformed> {
        integer(&self.expect(tag)?)
    }

    /// The next value, if it is a truth value; else `default`.
    pub(super) fn boolean(&mut self, default: bool) -> Result<bool, Malformed> {
        match self.optional(BOOLEAN)? {
            None => Ok(default),
            Some(content) => content.first().map(|byte| *byte != 0).ok_or(Malformed),
        }
    }
}

/// A number, in two's complement.
pub(super) fn integer(content: &[u8]) -> Result<i64, Malformed> {
    let first = *content.first().filter(|_| content.len() <= 8).ok_or(Malformed)?;
    let sign = if first & 0x80 == 0 { 0 } else { -1 };
    Ok(content.iter().fold(sign, |number, byte| number << 8 | i64::from(*byte)))
}

/// Writes one value after the other.
#[derive(Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn octets(&mut self, tag: u8, content: &[u8]) {
        self.0.push(tag);
        match u8::try_from(content.len()) {
            Ok(length) if length < 0x80 => self.0.push(length),
            _ => self.long(content.len()),
        }
        self.0.extend_from_slice(content);
    }

    pub(super) fn integer(&mut self, tag: u8, number: i64) {
        let bytes = number.to_be_bytes();
        // The shortest form: a first byte that only repeats the sign is left out (X.690, section 8.3.2).
        let needless = bytes.windows(2).take_while(|pair| match pair[0] {
            0 => pair[1] & 0x80 == 0,
            0xff => pair[1] & 0x80 != 0,
            _ => false,
        });
        let start = needless.count();
        self.octets(tag, &bytes[start..]);
    }

    pub(super) fn boolean(&mut self, tag: u8, value: bool) {
        self.octets(tag, &[if value { 0xff } else { 0 }]);
    }

    /// A value whose content is written by `content`.
    pub(super) fn nested(&mut self, tag: u8, content: impl FnOnce(&mut Self)) {
        self.0.push(tag);
        let start = self.0.len();
        self.0.extend([0x84, 0, 0, 0, 0]);
        content(self);
        let length = u32::try_from(self.0.len() - start - 5).unwrap_or(u32::MAX);
        self.0[start + 1..start + 5].copy_from_slice(&length.to_be_bytes());
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }

    fn long(&mut self, length: usize) {
        self.0.push(0x84);
        self.0.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_header_is_read_when_it_is_whole_and_not_if_it_is_no_ldap() {
        assert_eq!(header(&[]), Ok(None));
        assert_eq!(header(&[0x30]), Ok(None));
        assert_eq!(header(&[0x30, 0x82, 1]), Ok(None));
        assert_eq!(header(&[0x30, 0x82, 1, 2]), Ok(Some((0x30, 4, 258))));
        assert_eq!(header(&[0x30, 0x84, 0x7f, 0xff, 0xff, 0xff]), Ok(Some((0x30, 6, 0x7fff_ffff))));
        for none in [&[0x30, 0x80][..], &[0x30, 0x85, 0, 0, 0, 0, 1], &[0x3f, 0x81, 1], &[0x30, 0xff]] {
            assert_eq!(header(none), Err(Malformed));
        }
    }

    #[test]
    fn a_value_that_claims_more_than_there_is_is_refused() {
        for bytes in [&[4, 2, b'a'][..], &[4, 0x84, 0x7f, 0xff, 0xff, 0xff, b'a'], &[4], &[]] {
            assert_eq!(Reader::new(Bytes::copy_from_slice(bytes)).any().map(|it| it.0), Err(Malformed));
        }
        assert_eq!(integer(&[]), Err(Malformed));
        assert_eq!(integer(&[0; 9]), Err(Malformed));
        assert_eq!(Reader::new(Bytes::from_static(&[1, 0])).boolean(true), Err(Malformed));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(number: i64, octets in prop::collection::vec(any::<u8>(), 0..300), value: bool) {
            let mut writer = Writer::default();
            writer.nested(SEQUENCE, |writer| {
                writer.integer(INTEGER, number);
                writer.octets(OCTETS, &octets);
                writer.boolean(BOOLEAN, value);
            });
            let mut outer = Reader::new(writer.finish().into());
            let mut inner = Reader::new(outer.expect(SEQUENCE).unwrap());
            prop_assert!(outer.is_empty());
            prop_assert_eq!(inner.integer(INTEGER).unwrap(), number);
            prop_assert_eq!(inner.optional(SET).unwrap(), None);
            prop_assert_eq!(inner.expect(OCTETS).unwrap(), octets);
            prop_assert_eq!(inner.boolean(!value).unwrap(), value);
            prop_assert_eq!(inner.boolean(value).unwrap(), value);
        }
    }
}

//! The ids of entries: what never changes, written in one form whatever way it came.

use std::fmt::Write as _;

use super::dn::digit;

/// How an attribute that holds ids is to be read: by its name, and never by what a value happens to look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdSyntax {
    /// Text. A UUID among it (`entryUUID`, RFC 4530) is written in small letters.
    Text,
    /// Active Directory's `objectGUID`: 16 bytes, the first three fields little-endian ([MS-DTYP] 2.3.4).
    Guid,
    /// 389-ds' `nsUniqueId`: four groups of eight digits. It is written as its synchronization protocol writes it, as a UUID.
    NsUniqueId,
    /// A security identifier ([MS-DTYP] 2.4.2), such as `objectSid`.
    Sid,
    /// Any bytes: written as hexadecimal digits.
    Octets,
}

/// A value that is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoId;

impl IdSyntax {
    /// The syntax of an attribute.
    #[must_use]
    pub fn of(attribute: &str) -> Self {
        match attribute.to_ascii_lowercase().as_str() {
            "objectguid" => Self::Guid,
            "nsuniqueid" => Self::NsUniqueId,
            "objectsid" => Self::Sid,
            "ms-ds-consistencyguid" | "guid" => Self::Octets,
            _ => Self::Text,
        }
    }

    /// The id in its one form.
    ///
    /// # Errors
    /// [`NoId`] for a value that this syntax does not have.
    pub fn read(self, value: &[u8]) -> Result<String, NoId> {
        match self {
            Self::Text => {
                let text = std::str::from_utf8(value).map_err(|_| NoId)?.trim();
                if text.is_empty() || text.len() > 255 || text.contains('\0') {
                    return Err(NoId);
                }
                Ok(if is_uuid(text) { text.to_ascii_lowercase() } else { text.to_owned() })
            }
            Self::Guid => value.try_into().map(|bytes| hyphened(mixed_endian(bytes))).map_err(|_| NoId),
            Self::NsUniqueId => {
                let digits: Vec<u8> = value.iter().copied().filter(|byte| *byte != b'-').collect();
                if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
                    return Err(NoId);
                }
                Ok(hyphened(std::array::from_fn(|at| digit(digits[at * 2]) << 4 | digit(digits[at * 2 + 1]))))
            }
            Self::Sid => sid(value).ok_or(NoId),
            Self::Octets if value.is_empty() || value.len() > 128 => Err(NoId),
            Self::Octets => Ok(hexadecimal(value)),
        }
    }

    /// The value to search for, of an id in its one form.
    #[must_use]
    pub fn value(self, id: &str) -> Vec<u8> {
        match self {
            Self::Text | Self::Sid => id.as_bytes().to_vec(),
            Self::Guid => unhyphened(id).map_or_else(Vec::new, |bytes| mixed_endian(bytes).to_vec()),
            Self::NsUniqueId => {
                let digits: Vec<u8> = id.bytes().filter(|byte| *byte != b'-').collect();
                digits.chunks(8).collect::<Vec<_>>().join(&b'-')
            }
            Self::Octets => {
                let digits: Vec<_> = id.bytes().collect();
                digits.chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
            }
        }
    }

    /// The id that a synchronization control names by 16 bytes (RFC 4533, section 2.2); only where the two are the same thing.
    #[must_use]
    pub fn synchronized(self, uuid: &[u8]) -> Option<String> {
        match self {
            Self::Text | Self::NsUniqueId => uuid.try_into().ok().map(hyphened),
            _ => None,
        }
    }
}

/// Its first three fields the other way round.
fn mixed_endian(bytes: [u8; 16]) -> [u8; 16] {
    const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    ORDER.map(|at| bytes[at])
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn hyphened(bytes: [u8; 16]) -> String {
    uuid::Uuid::from_bytes(bytes).hyphenated().to_string()
}

fn unhyphened(id: &str) -> Option<[u8; 16]> {
    uuid::Uuid::try_parse(id).ok().map(uuid::Uuid::into_bytes)
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && uuid::Uuid::try_parse(text).is_ok()
}

/// `S-1-5-21-...`
fn sid(value: &[u8]) -> Option<String> {
    let [revision, count, authority @ ..] = value.get(..8)? else { return None };
    let parts = value.get(8..)?;
    if parts.len() != usize::from(*count) * 4 {
        return None;
    }
    let authority = authority.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let mut text = format!("S-{revision}-{authority}");
    for part in parts.chunks_exact(4) {
        let _ = write!(text, "-{}", u32::from_le_bytes([part[0], part[1], part[2], part[3]]));
    }
    Some(text)
}

/// The last part of a security identifier: what tells accounts of one domain apart.
#[must_use]
pub fn relative_id(sid: &[u8]) -> Option<u32> {
    self::sid(sid)?;
    sid.last_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: [u8; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];

    #[test]
    fn each_id_has_one_form_and_the_form_leads_back_to_the_value() {
        let rows: [(&str, &[u8], &str); 7] = [
            ("entryUUID", b"6BA7B810-9DAD-11D1-80B4-00C04FD430C8", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
            ("employeeNumber", b" A17 ", "A17"),
            ("objectGUID", &BYTES, "04030201-0605-0807-090a-0b0c0d0e0f10"),
            ("nsUniqueId", b"01020304-05060708-090a0b0c-0d0e0f10", "01020304-0506-0708-090a-0b0c0d0e0f10"),
            ("mS-DS-ConsistencyGuid", b"0123456789abcdef", "30313233343536373839616263646566"),
            ("GUID", &[0xff, 0xfe], "fffe"),
            ("objectSid", &[1, 2, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, 0xf5, 1, 0, 0], "S-1-5-21-501"),
        ];
        for (attribute, value, id) in rows {
            let syntax = IdSyntax::of(attribute);
            assert_eq!(syntax.read(value).as_deref(), Ok(id), "{attribute}");
            if !matches!(syntax, IdSyntax::Text | IdSyntax::Sid) {
                assert_eq!(syntax.value(id), value, "{attribute}");
            }
        }
    }

    #[test]
    fn what_is_no_id_is_none() {
        let rows: [(&str, &[u8]); 9] = [
            ("objectGUID", &BYTES[..15]),
            ("objectGUID", b""),
            ("entryUUID", b""),
            ("entryUUID", b"\xff\xfe"),
            ("entryUUID", b"a\0b"),
            ("nsUniqueId", b"01020304-05060708-090a0b0c-0d0e0f1"),
            ("nsUniqueId", b"01020304-05060708-090a0b0c-0d0e0fzz"),
            ("objectSid", &[1, 3, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0]),
            ("GUID", b""),
        ];
        for (attribute, value) in rows {
            assert_eq!(IdSyntax::of(attribute).read(value), Err(NoId), "{attribute} {value:?}");
        }
    }

    #[test]
    fn a_control_names_an_entry_where_its_id_is_the_attributes() {
        let id = Some("01020304-0506-0708-090a-0b0c0d0e0f10".to_owned());
        assert_eq!(IdSyntax::Text.synchronized(&BYTES), id);
        assert_eq!(IdSyntax::NsUniqueId.synchronized(&BYTES), id);
        assert_eq!(IdSyntax::Guid.synchronized(&BYTES), None);
        assert_eq!(IdSyntax::Text.synchronized(&BYTES[..3]), None);
    }

    #[test]
    fn accounts_of_a_domain_are_told_apart_by_the_last_part() {
        assert_eq!(relative_id(&[1, 2, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, 0xf5, 1, 0, 0]), Some(501));
        assert_eq!(relative_id(&[1, 2, 3]), None);
    }
}

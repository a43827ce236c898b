//! Controls: what more is asked for, and told, with a request and its answer.

use bytes::Bytes;

use super::ber::{BOOLEAN, ENUMERATED, INTEGER, Malformed, OCTETS, Reader, SEQUENCE, SET, Writer, integer};
use crate::domain::sync::account::Refusal;

/// Simple paged results (RFC 2696).
pub(super) const PAGED: &str = "1.2.840.113556.1.4.319";
/// Content synchronization (RFC 4533).
pub(super) const SYNC_REQUEST: &str = "1.3.6.1.4.1.4203.1.9.1.1";
const SYNC_STATE: &[u8] = b"1.3.6.1.4.1.4203.1.9.1.2";
const SYNC_DONE: &[u8] = b"1.3.6.1.4.1.4203.1.9.1.3";
pub(super) const SYNC_INFO: &str = "1.3.6.1.4.1.4203.1.9.1.4";
/// Active Directory's DirSync ([MS-ADTS] 3.1.1.3.4.1.3).
pub(super) const DIRSYNC: &str = "1.2.840.113556.1.4.841";
/// Deleted objects as well ([MS-ADTS] 3.1.1.3.4.1.14).
const SHOW_DELETED: &str = "1.2.840.113556.1.4.417";
/// Why a bind was refused (draft-behera-ldap-password-policy-10, section 6).
const PASSWORD_POLICY: &str = "1.3.6.1.4.1.42.2.27.8.5.1";

/// A control of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Control {
    name: &'static str,
    critical: bool,
    value: Option<Vec<u8>>,
}

impl Control {
    /// So many entries, from where the cookie says.
    pub(super) fn paged(size: u32, cookie: &[u8]) -> Self {
        let value = sequence(|writer| {
            writer.integer(INTEGER, i64::from(size));
            writer.octets(OCTETS, cookie);
        });
        // Not critical: a server that does not know it says so by leaving its own out.
        Self { name: PAGED, critical: false, value: Some(value) }
    }

    /// What has changed since the cookie; everything without one.
    pub(super) fn sync(cookie: Option<&[u8]>) -> Self {
        let value = sequence(|writer| {
            writer.integer(ENUMERATED, 1);
            if let Some(cookie) = cookie {
                writer.octets(OCTETS, cookie);
            }
        });
        Self { name: SYNC_REQUEST, critical: true, value: Some(value) }
    }

    /// What has changed since the cookie.
    pub(super) fn dirsync(cookie: &[u8]) -> Self {
        const LARGEST: i64 = 1 << 20;
        let value = sequence(|writer| {
            writer.integer(INTEGER, 0);
            writer.integer(INTEGER, LARGEST);
            writer.octets(OCTETS, cookie);
        });
        Self { name: DIRSYNC, critical: true, value: Some(value) }
    }

    pub(super) const fn show_deleted() -> Self {
        Self { name: SHOW_DELETED, critical: true, value: None }
    }

    pub(super) const fn password_policy() -> Self {
        Self { name: PASSWORD_POLICY, critical: false, value: None }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.nested(SEQUENCE, |writer| {
            writer.octets(OCTETS, self.name.as_bytes());
            if self.critical {
                writer.boolean(BOOLEAN, true);
            }
            self.value.iter().for_each(|value| writer.octets(OCTETS, value));
        });
    }
}

fn sequence(content: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.nested(SEQUENCE, content);
    writer.finish()
}

/// A control of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResponseControl {
    name: Bytes,
    value: Bytes,
}

impl ResponseControl {
    pub(super) fn read_all(content: Bytes) -> Result<Vec<Self>, Malformed> {
        let (mut reader, mut found) = (Reader::new(content), Vec::new());
        while !reader.is_empty() {
            let mut parts = Reader::new(reader.expect(SEQUENCE)?);
            let name = parts.expect(OCTETS)?;
            parts.boolean(false)?;
            found.push(Self { name, value: parts.optional(OCTETS)?.unwrap_or_default() });
        }
        Ok(found)
    }
}

fn value(controls: &[ResponseControl], name: &[u8]) -> Option<Bytes> {
    controls.iter().find(|control| control.name == name).map(|control| control.value.clone())
}

fn parts(value: Bytes) -> Result<Reader, Malformed> {
    Ok(Reader::new(Reader::new(value).expect(SEQUENCE)?))
}

/// The cookie of the next page, empty after the last one; nothing where the server does not page.
pub(super) fn page(controls: &[ResponseControl]) -> Result<Option<Bytes>, Malformed> {
    let Some(value) = value(controls, PAGED.as_bytes()) else { return Ok(None) };
    let mut parts = parts(value)?;
    parts.expect(INTEGER)?;
    parts.expect(OCTETS).map(Some)
}

/// What has become of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Present,
    /// Added or modified.
    Changed,
    Deleted,
}

/// What has become of the entry that this comes with, and its id.
pub(super) fn sync_state(controls: &[ResponseControl]) -> Result<Option<(Change, Bytes)>, Malformed> {
    let Some(value) = value(controls, SYNC_STATE) else { return Ok(None) };
    let mut parts = parts(value)?;
    let change = match parts.integer(ENUMERATED)? {
        0 => Change::Present,
        1 | 2 => Change::Changed,
        3 => Change::Deleted,
        _ => return Err(Malformed),
    };
    Ok(Some((change, parts.expect(OCTETS)?)))
}

/// The cookie for the next time, and whether what is not mentioned is still there.
pub(super) fn sync_done(controls: &[ResponseControl]) -> Result<Option<(Option<Bytes>, bool)>, Malformed> {
    let Some(value) = value(controls, SYNC_DONE) else { return Ok(None) };
    let mut parts = parts(value)?;
    let cookie = parts.optional(OCTETS)?;
    Ok(Some((cookie, parts.boolean(false)?)))
}

/// What is told between entries: ids of what is there, or is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SyncInfo {
    pub(super) cookie: Option<Bytes>,
    pub(super) ids: Vec<Bytes>,
    /// Whether these are gone; else they are there.
    pub(super) gone: bool,
}

pub(super) fn sync_info(value: Bytes) -> Result<SyncInfo, Malformed> {
    const NEW_COOKIE: u8 = 0x80;
    const REFRESH_DELETE: u8 = 0xa1;
    const REFRESH_PRESENT: u8 = 0xa2;
    const ID_SET: u8 = 0xa3;
    let (tag, content) = Reader::new(value).any()?;
    if tag == NEW_COOKIE {
        return Ok(SyncInfo { cookie: Some(content), ..SyncInfo::default() });
    }
    let mut parts = Reader::new(content);
    let cookie = parts.optional(OCTETS)?;
    match tag {
        REFRESH_DELETE | REFRESH_PRESENT => Ok(SyncInfo { cookie, ..SyncInfo::default() }),
        ID_SET => {
            let gone = parts.boolean(false)?;
            let (mut set, mut ids) = (Reader::new(parts.expect(SET)?), Vec::new());
            while !set.is_empty() {
                ids.push(set.expect(OCTETS)?);
            }
            Ok(SyncInfo { cookie, ids, gone })
        }
        _ => Err(Malformed),
    }
}

/// The cookie for the next time, and whether there is more to read now.
pub(super) fn dirsync(controls: &[ResponseControl]) -> Result<Option<(Bytes, bool)>, Malformed> {
    let Some(value) = value(controls, DIRSYNC.as_bytes()) else { return Ok(None) };
    let mut parts = parts(value)?;
    let more = parts.integer(INTEGER)? != 0;
    parts.expect(INTEGER)?;
    Ok(Some((parts.expect(OCTETS)?, more)))
}

/// Why a bind was refused, or what must be done before anything else.
pub(super) fn password_policy(controls: &[ResponseControl]) -> Result<Option<Refusal>, Malformed> {
    let Some(value) = value(controls, PASSWORD_POLICY.as_bytes()) else { return Ok(None) };
    if value.is_empty() {
        return Ok(None);
    }
    let mut parts = parts(value)?;
    parts.optional(0xa0)?;
    let Some(error) = parts.optional(0x81)? else { return Ok(None) };
    Ok(match integer(&error)? {
        0 => Some(Refusal::PasswordExpired),
        1 => Some(Refusal::Locked),
        2 => Some(Refusal::PasswordMustChange),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(name: &[u8], value: impl FnOnce(&mut Writer)) -> Vec<ResponseControl> {
        vec![ResponseControl { name: Bytes::copy_from_slice(name), value: sequence(value).into() }]
    }

    #[test]
    fn controls_of_answers_are_read() {
        let paged = control(PAGED.as_bytes(), |it| {
            it.integer(INTEGER, 0);
            it.octets(OCTETS, b"next");
        });
        assert_eq!(page(&paged), Ok(Some(Bytes::from_static(b"next"))));
        assert_eq!(page(&[]), Ok(None));
        let state = control(SYNC_STATE, |it| {
            it.integer(ENUMERATED, 3);
            it.octets(OCTETS, &[1; 16]);
        });
        assert_eq!(sync_state(&state), Ok(Some((Change::Deleted, Bytes::from_static(&[1; 16])))));
        let done = control(SYNC_DONE, |it| it.octets(OCTETS, b"c"));
        assert_eq!(sync_done(&done), Ok(Some((Some(Bytes::from_static(b"c")), false))));
        let done = control(SYNC_DONE, |it| it.boolean(BOOLEAN, true));
        assert_eq!(sync_done(&done), Ok(Some((None, true))));
        let more = control(DIRSYNC.as_bytes(), |it| {
            it.integer(INTEGER, 1);
            it.integer(INTEGER, 0);
            it.octets(OCTETS, b"c");
        });
        assert_eq!(dirsync(&more), Ok(Some((Bytes::from_static(b"c"), true))));
        let locked = control(PASSWORD_POLICY.as_bytes(), |it| it.octets(0x81, &[1]));
        assert_eq!(password_policy(&locked), Ok(Some(Refusal::Locked)));
        let warning = control(PASSWORD_POLICY.as_bytes(), |it| it.nested(0xa0, |it| it.octets(0x80, &[9])));
        assert_eq!(password_policy(&warning), Ok(None));
    }

    #[test]
    fn a_set_of_ids_says_whether_they_are_gone() {
        let mut writer = Writer::default();
        writer.nested(0xa3, |it| {
            it.octets(OCTETS, b"c");
            it.boolean(BOOLEAN, true);
            it.nested(SET, |it| it.octets(OCTETS, &[2; 16]));
        });
        let info = sync_info(writer.finish().into()).unwrap();
        let ids = vec![Bytes::from_static(&[2; 16])];
        assert_eq!(info, SyncInfo { cookie: Some(Bytes::from_static(b"c")), ids, gone: true });
    }

    #[test]
    fn a_control_that_is_none_of_it_is_refused_without_a_panic() {
        for value in
            [&b""[..], b"\x30", b"\x30\x02\x02\x01", b"\x30\x03\x0a\x01\x09", b"\x04\x01a", b"\x30\x80"]
        {
            let value = Bytes::copy_from_slice(value);
            for name in
                [PAGED.as_bytes(), SYNC_STATE, SYNC_DONE, DIRSYNC.as_bytes(), PASSWORD_POLICY.as_bytes()]
            {
                let controls = [ResponseControl { name: Bytes::from_static(name), value: value.clone() }];
                let _ = (page(&controls), sync_state(&controls), sync_done(&controls));
                let _ = (dirsync(&controls), password_policy(&controls), sync_info(value.clone()));
            }
        }
    }
}

//! Times as directories write them.

use jiff::{SignedDuration, Timestamp, civil, tz::Offset};

/// Reads a GeneralizedTime (RFC 4517, section 3.3.13): `20261130165452Z`, `20261130165802.0Z`, `202611301654+0100`.
#[must_use]
pub fn generalized(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let zone = text.find(['Z', 'z', '+', '-'])?;
    let (local, zone) = text.split_at(zone);
    let (whole, fraction) = match local.split_once(['.', ',']) {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (local, None),
    };
    if !whole.is_ascii()
        || !whole.bytes().all(|byte| byte.is_ascii_digit())
        || !(10..=14).contains(&whole.len())
    {
        return None;
    }
    let number =
        |from: usize, to: usize| whole.get(from..to).map_or(Some(0), |digits| digits.parse::<i8>().ok());
    let year = whole.get(..4)?.parse().ok()?;
    // A leap second is taken for the one before it.
    let (minute, second) = (number(10, 12)?, number(12, 14)?.min(59));
    let date = civil::Date::new(year, number(4, 6)?, number(6, 8)?).ok()?;
    let time = civil::Time::new(number(8, 10)?, minute, second, 0).ok()?;
    let offset = match zone {
        "Z" | "z" => Offset::UTC,
        _ => {
            let digits =
                |from: usize, to: usize| zone.get(from..to).and_then(|digits| digits.parse::<i32>().ok());
            let seconds = digits(1, 3)? * 3600 + zone.get(3..5).map_or(Some(0), |_| digits(3, 5))? * 60;
            Offset::from_seconds(if zone.starts_with('-') { -seconds } else { seconds }).ok()?
        }
    };
    let at = offset.to_timestamp(date.to_datetime(time)).ok()?;
    // Of a second, where seconds are given; what is a part of a minute or an hour nobody writes.
    let nanos = match fraction.filter(|_| whole.len() == 14) {
        Some(fraction) if fraction.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{fraction:0<9}").get(..9)?.parse().ok()?
        }
        Some(_) => return None,
        None => 0,
    };
    at.checked_add(SignedDuration::from_nanos(nanos)).ok()
}

/// Writes a time in the form of `like`: with a fraction where that has one, as servers demand that know no other form.
#[must_use]
pub fn written_like(at: Timestamp, like: &str) -> String {
    let fraction =
        like.split_once(['.', ',']).map(|(_, rest)| rest.bytes().take_while(u8::is_ascii_digit).count());
    let whole = at.strftime("%Y%m%d%H%M%S");
    match fraction {
        Some(digits) => format!("{whole}.{:0<digits$}Z", "0"),
        None => format!("{whole}Z"),
    }
}

/// Reads a FILETIME: intervals of 100 ns since 1601 ([MS-DTYP] 2.3.3). Three values mean "never": 0, the largest number, and the
/// largest date that Windows' own tools write.
#[must_use]
pub fn filetime(number: i64) -> Option<Timestamp> {
    const EPOCH: i64 = 11_644_473_600;
    const NEVER: i64 = 9_223_372_032_559_808_511;
    if number <= 0 || number >= NEVER {
        return None;
    }
    Timestamp::from_second(number / 10_000_000 - EPOCH).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_a_time_is_read() {
        let rows = [
            ("20261130165452Z", "2026-11-30T16:54:52Z"),
            ("20261130165802.0Z", "2026-11-30T16:58:02Z"),
            ("20241107181210.000Z", "2024-11-07T18:12:10Z"),
            ("20241107181210.25Z", "2024-11-07T18:12:10.25Z"),
            ("202411071812Z", "2024-11-07T18:12:00Z"),
            ("2024110718Z", "2024-11-07T18:00:00Z"),
            ("20241107181210+0130", "2024-11-07T16:42:10Z"),
            ("20241107181210-01", "2024-11-07T19:12:10Z"),
            ("20161231235960Z", "2016-12-31T23:59:59Z"),
        ];
        for (text, time) in rows {
            assert_eq!(generalized(text), Some(time.parse().unwrap()), "{text}");
        }
        for text in
            ["", "Z", "2024", "20241307181210Z", "20241107181210", "20241107181210.xZ", "2024110718121üZ"]
        {
            assert_eq!(generalized(text), None, "{text}");
        }
    }

    #[test]
    fn a_time_is_written_in_the_servers_own_form() {
        let at = "2026-11-30T16:54:52.7Z".parse().unwrap();
        assert_eq!(written_like(at, "20260101000000Z"), "20261130165452Z");
        assert_eq!(written_like(at, "20260101000000.0Z"), "20261130165452.0Z");
        assert_eq!(written_like(at, "20260101000000.000Z"), "20261130165452.000Z");
    }

    #[test]
    fn the_numbers_that_mean_never_are_no_times() {
        for never in [0, -1, i64::MAX, 9_223_372_032_559_808_511] {
            assert_eq!(filetime(never), None, "{never}");
        }
        assert_eq!(filetime(133_801_632_000_000_000), Some("2025-01-01T00:00:00Z".parse().unwrap()));
    }
}

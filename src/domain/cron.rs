//! Cron expressions with five fields, in UTC (POSIX.1-2017, crontab; with the names and steps of Vixie cron).

use jiff::{Timestamp, ToSpan, civil::DateTime, tz::TimeZone};

/// When something is due: one bit for each minute, hour, day and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether the days of the month, and those of the week, are restricted: with both, either is enough.
    restricted: (bool, bool),
}

/// What is wrong with an expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCron {
    /// Not five fields.
    #[error("expected five fields (minute, hour, day of the month, month, day of the week), found {0}")]
    Fields(usize),
    /// A field that cannot be read.
    #[error(
        "the {field} {text} is not valid: expected *, a number from {from} to {to}, a range such as 1-5, a list, or a step such as */15"
    )]
    Field {
        /// Which one.
        field: &'static str,
        /// As it was written.
        text: String,
        /// The least number.
        from: u32,
        /// The greatest number.
        to: u32,
    },
    /// No day has this number in these months.
    #[error("there is no such day")]
    Never,
}

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// The 29th of February of a certain weekday comes every 28 years, or after 40 around a century.
const YEARS: i16 = 41;

impl Cron {
    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, InvalidCron> {
        let fields: Vec<_> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(InvalidCron::Fields(fields.len()));
        };
        let weekdays = set("day of the week", weekday, (0, 7), WEEKDAYS, 0)?;
        let cron = Self {
            minutes: set("minute", minute, (0, 59), &[], 0)?,
            hours: set("hour", hour, (0, 23), &[], 0)?,
            days: set("day of the month", day, (1, 31), &[], 0)?,
            months: set("month", month, (1, 12), MONTHS, 1)?,
            // Both 0 and 7 are Sunday.
            weekdays: weekdays | (weekdays >> 7 & 1),
            restricted: (!day.starts_with('*'), !weekday.starts_with('*')),
        };
        // Any start will do to find out that no day matches.
        cron.after(Timestamp::UNIX_EPOCH).map(|_| cron).ok_or(InvalidCron::Never)
    }

    /// The first time after this one; none where no day ever matches.
    #[must_use]
    pub fn after(&self, time: Timestamp) -> Option<Timestamp> {
        let start = time.to_zoned(TimeZone::UTC).datetime();
        let start = start.with().second(0).subsec_nanosecond(0).build().ok()?.checked_add(1.minute()).ok()?;
        let (mut day, last) = (start.date(), start.year().checked_add(YEARS)?);
        while day.year() <= last {
            if has(self.months, day.month()) && self.is_due(day) {
                let from = if day == start.date() { (start.hour(), start.minute()) } else { (0, 0) };
                let times = (0..24).flat_map(|hour| (0..60).map(move |minute| (hour, minute)));
                let due = |(hour, minute): &(i8, i8)| has(self.hours, *hour) && has(self.minutes, *minute);
                if let Some((hour, minute)) = times.filter(|time| *time >= from).find(due) {
                    let found: DateTime = day.at(hour, minute, 0, 0);
                    return found.to_zoned(TimeZone::UTC).ok().map(|found| found.timestamp());
                }
            }
            day = day.tomorrow().ok()?;
        }
        None
    }

    fn is_due(&self, day: jiff::civil::Date) -> bool {
        let of_month = has(self.days, day.day());
        let of_week = has(self.weekdays, day.weekday().to_sunday_zero_offset());
        match self.restricted {
            (true, true) => of_month || of_week,
            _ => of_month && of_week,
        }
    }
}

fn has(set: u64, number: i8) -> bool {
    u32::try_from(number).is_ok_and(|number| set >> number & 1 == 1)
}

/// The numbers that a field means. `first` is the number of the first name.
fn set(
    field: &'static str,
    text: &str,
    (from, to): (u32, u32),
    names: &[&str],
    first: u32,
) -> Result<u64, InvalidCron> {
    let invalid = || InvalidCron::Field { field, text: text.to_owned(), from, to };
    let number = |text: &str| {
        let named = names.iter().zip(first..).find(|(name, _)| name.eq_ignore_ascii_case(text));
        let number = named.map(|(_, number)| number).or_else(|| text.parse().ok());
        number.filter(|number| (from..=to).contains(number)).ok_or_else(invalid)
    };
    let mut set = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, step.parse().ok().filter(|step| *step > 0).ok_or_else(invalid)?),
            None => (part, 1),
        };
        let (start, end) = match range.split_once('-') {
            Some((start, end)) => (number(start)?, number(end)?),
            None if range == "*" => (from, if field == "day of the week" { 6 } else { to }),
            // A step after a single number goes on to the end.
            None if step > 1 => (number(range)?, to),
            None => (number(range)?, number(range)?),
        };
        if start > end {
            return Err(invalid());
        }
        (start..=end).step_by(step).for_each(|number| set |= 1 << number);
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_time_is_the_first_that_every_field_allows() {
        // A Monday.
        let now = "2026-11-30T12:34:56Z";
        let rows = [
            ("* * * * *", "2026-11-30T12:35:00Z"),
            ("30 2 * * *", "2026-12-01T02:30:00Z"),
            ("34 12 * * *", "2026-12-01T12:34:00Z"),
            ("*/15 * * * *", "2026-11-30T12:45:00Z"),
            ("5/20 9-17 * * mon-fri", "2026-11-30T12:45:00Z"),
            ("0 0 1 jan *", "2027-01-01T00:00:00Z"),
            ("0 0 * * 7", "2026-12-06T00:00:00Z"),
            ("0 0 * * sun", "2026-12-06T00:00:00Z"),
            ("0 0 13 * 5", "2026-12-04T00:00:00Z"),
            ("0 0 31 * *", "2026-12-31T00:00:00Z"),
            ("0 6 29 2 *", "2028-02-29T06:00:00Z"),
            ("59 23 1,15 * *", "2026-12-01T23:59:00Z"),
        ];
        for (text, next) in rows {
            let found = Cron::parse(text).unwrap().after(now.parse().unwrap());
            assert_eq!(found.map(|found| found.to_string()).as_deref(), Some(next), "{text}");
        }
    }

    #[test]
    fn a_mistake_is_named_with_its_field() {
        let rows = [
            ("0 0 * *", "found 4"),
            ("60 * * * *", "the minute 60 is not valid"),
            ("0 24 * * *", "the hour 24"),
            ("0 0 0 * *", "the day of the month 0"),
            ("0 0 * 13 *", "the month 13"),
            ("0 0 * * 8", "the day of the week 8"),
            ("*/0 * * * *", "the minute */0"),
            ("5-1 * * * *", "the minute 5-1"),
            ("@daily * * * *", "the minute @daily"),
            ("0 0 30 2 *", "there is no such day"),
        ];
        for (text, problem) in rows {
            let error = Cron::parse(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}

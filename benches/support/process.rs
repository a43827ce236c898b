//! What a process uses, by its id or `self`.

use super::Outcome;

/// Resident memory now and at its peak, in MB of 1,000,000 bytes.
pub(crate) fn memory(pid: &str) -> Outcome<(f64, f64)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> Outcome<f64> {
        let line = status.lines().find(|line| line.starts_with(name)).ok_or("no such field")?;
        let kibibytes: f64 = line.split_whitespace().nth(1).ok_or("no number")?.parse()?;
        Ok(kibibytes * 1024.0 / 1e6)
    };
    Ok((field("VmRSS:")?, field("VmHWM:")?))
}

/// Seconds of a core that it has used so far.
pub(crate) fn cpu(pid: &str) -> Outcome<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The process name may hold blanks: count after it.
    let (_, fields) = stat.rsplit_once(") ").ok_or("not a stat line")?;
    let fields: Vec<_> = fields.split_whitespace().collect();
    let ticks = |index: usize| -> Outcome<f64> { Ok(fields.get(index).ok_or("too short")?.parse()?) };
    // USER_HZ is 100 on every architecture that Linux runs on today.
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

//! The guard: whether so many losses at once may be believed, or are an accident.

/// How many losses are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// So many always, unless that is more than half.
    pub min_count: u64,
    /// So many of a hundred.
    pub percent: u64,
    /// Never more than so many.
    pub absolute: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { min_count: 10, percent: 10, absolute: 500 }
    }
}

/// What is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Users who are missing, or were switched off.
    Users,
    /// Memberships of groups.
    Memberships,
    /// Roles of users.
    Roles,
}

impl Class {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Users, Self::Memberships, Self::Roles];

    /// As users read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Memberships => "memberships",
            Self::Roles => "roles",
        }
    }
}

/// What would be lost, and of how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Would be lost now.
    pub candidates: u64,
    /// Are there now, the candidates included.
    pub present: u64,
    /// Were lost within the last day.
    pub recent: u64,
}

/// Why the guard holds everything back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The source has nobody, where we know somebody.
    NobodySeen,
    /// More than half of all.
    MoreThanHalf,
    /// More than the limits allow.
    AboveLimit {
        /// So many are allowed.
        allowed: u64,
    },
    /// What is read has changed with the spec, and more than `min_count` would be lost by that.
    ConfigChanged {
        /// So many are allowed.
        allowed: u64,
    },
    /// People who are known come under other ids, more of them than the limits allow.
    IdentifiersChanged {
        /// So many are allowed.
        allowed: u64,
    },
}

impl Stop {
    /// The reason, in one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NobodySeen => "NobodySeen",
            Self::MoreThanHalf => "MoreThanHalf",
            Self::AboveLimit { .. } => "AboveLimit",
            Self::ConfigChanged { .. } => "ConfigChanged",
            Self::IdentifiersChanged { .. } => "IdentifiersChanged",
        }
    }
}

impl Limits {
    /// How many of so many may be lost within a day, but for what is more than half.
    #[must_use]
    pub fn allowed(&self, of: u64, strict: bool) -> u64 {
        if strict {
            return self.min_count.min(self.absolute);
        }
        (of.saturating_mul(self.percent) / 100).max(self.min_count).min(self.absolute)
    }

    /// Whether these losses are held back. Nothing lost is never held back. What was lost within the last day counts as well: a
    /// leak that is slow is a leak.
    #[must_use]
    pub fn check(&self, class: Class, losses: Losses, strict: bool) -> Option<Stop> {
        let Losses { candidates, present, recent } = losses;
        if candidates == 0 {
            return None;
        }
        let (lost, of) = (candidates.saturating_add(recent), present.saturating_add(recent));
        // Memberships and roles of a small directory come and go by the half.
        let many = class == Class::Users || lost > self.min_count;
        if many && lost.saturating_mul(2) > of {
            return Some(Stop::MoreThanHalf);
        }
        let allowed = self.allowed(of, strict);
        if lost <= allowed {
            return None;
        }
        Some(if strict { Stop::ConfigChanged { allowed } } else { Stop::AboveLimit { allowed } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { min_count: 10, percent: 10, absolute: 500 };

    fn check(candidates: u64, present: u64, recent: u64, strict: bool) -> Option<&'static str> {
        LIMITS.check(Class::Users, Losses { candidates, present, recent }, strict).map(Stop::as_str)
    }

    #[test]
    fn exactly_the_limit_passes_and_one_more_does_not() {
        assert_eq!(check(100, 1000, 0, false), None);
        assert_eq!(check(101, 1000, 0, false), Some("AboveLimit"));
        assert_eq!(check(110, 1000, 0, false), Some("AboveLimit"));
        assert_eq!(check(10, 30, 0, false), None, "the least count");
        assert_eq!(check(11, 30, 0, false), Some("AboveLimit"));
        assert_eq!(check(500, 100_000, 0, false), None);
        assert_eq!(check(501, 100_000, 0, false), Some("AboveLimit"), "the absolute one");
        assert_eq!(check(0, 1000, 1000, false), None, "nothing lost");
    }

    #[test]
    fn more_than_half_is_never_believed() {
        for (candidates, present) in [(10, 12), (4, 5), (2, 3), (1, 1), (9, 10)] {
            assert_eq!(
                check(candidates, present, 0, false),
                Some("MoreThanHalf"),
                "{candidates} of {present}"
            );
        }
        assert_eq!(check(1, 12, 0, false), None, "one who leaves a team of twelve");
        assert_eq!(check(1, 2, 0, false), None);
        let anything = Limits { min_count: 1_000_000, percent: 100, absolute: 1_000_000 };
        let all = Losses { candidates: 51, present: 100, recent: 0 };
        assert_eq!(anything.check(Class::Users, all, false), Some(Stop::MoreThanHalf));
        let half = Losses { candidates: 50, ..all };
        assert_eq!(anything.check(Class::Users, half, false), None);
    }

    #[test]
    fn what_was_lost_within_a_day_counts() {
        assert_eq!(check(90, 1000, 0, false), None);
        assert_eq!(check(81, 910, 90, false), Some("AboveLimit"));
        assert_eq!(check(10, 910, 90, false), None);
        assert_eq!(check(3, 8, 4, false), Some("MoreThanHalf"));
    }

    #[test]
    fn after_a_change_of_the_spec_only_the_least_count_passes() {
        assert_eq!(check(10, 1000, 0, true), None);
        assert_eq!(check(11, 1000, 0, true), Some("ConfigChanged"));
    }

    #[test]
    fn a_few_memberships_are_not_held_back() {
        let few = Losses { candidates: 2, present: 2, recent: 0 };
        assert_eq!(LIMITS.check(Class::Memberships, few, false), None);
        let many = Losses { candidates: 600, present: 600, recent: 0 };
        assert_eq!(LIMITS.check(Class::Memberships, many, false), Some(Stop::MoreThanHalf));
        assert_eq!(
            LIMITS.check(Class::Roles, Losses { present: 100_000, ..many }, false),
            Some(Stop::AboveLimit { allowed: 500 })
        );
    }
}

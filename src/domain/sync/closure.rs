//! Groups in groups: whose members are members of whom.

use std::collections::{BTreeMap, BTreeSet};

/// How deep groups in groups are followed.
pub const DEEPEST: usize = 10;

/// Which groups are members of which, by the numbers of the groups.
#[derive(Clone, Debug, Default)]
pub struct Nesting(BTreeMap<usize, Vec<usize>>);

/// The groups whose members are members of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// The group itself and all in it, in order.
    pub groups: BTreeSet<usize>,
    /// Whether something in it was deeper than is followed.
    pub too_deep: bool,
}

impl Nesting {
    /// With these pairs of a group and a group in it.
    pub fn new(pairs: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let mut inner: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (group, member) in pairs {
            inner.entry(group).or_default().push(member);
        }
        Self(inner)
    }

    /// The groups in a group, down to [`DEEPEST`] levels below it.
    #[must_use]
    pub fn reach(&self, group: usize) -> Reach {
        let mut reach = Reach { groups: [group].into(), too_deep: false };
        let mut level = vec![group];
        for depth in 0..=DEEPEST {
            let inner = level.iter().filter_map(|group| self.0.get(group)).flatten();
            let next: Vec<_> = inner.copied().filter(|group| !reach.groups.contains(group)).collect();
            if next.is_empty() {
                break;
            }
            if depth == DEEPEST {
                reach.too_deep = true;
                break;
            }
            reach.groups.extend(&next);
            level = next;
        }
        reach
    }

    /// How many groups are in themselves, by whatever way; those on a way from one cycle to another count too.
    #[must_use]
    pub fn cycles(&self) -> usize {
        // What nothing leads to, or what leads to nothing, is in no cycle; without it, others are in none.
        let mut left: BTreeMap<usize, BTreeSet<usize>> =
            self.0.iter().map(|(group, inner)| (*group, inner.iter().copied().collect())).collect();
        loop {
            let before = left.len();
            let names: BTreeSet<_> = left.keys().copied().collect();
            let reached: BTreeSet<_> = left.values().flatten().copied().collect();
            left.retain(|group, inner| {
                inner.retain(|member| names.contains(member));
                !inner.is_empty() && reached.contains(group)
            });
            if left.len() == before {
                return before;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_followed_down_to_ten_levels() {
        let chain = Nesting::new((0..12).map(|group| (group, group + 1)));
        let reach = chain.reach(0);
        assert_eq!(reach.groups, (0..=10).collect());
        assert!(reach.too_deep);
        assert_eq!(chain.reach(2).groups, (2..=12).collect());
        assert!(!chain.reach(2).too_deep);
    }

    #[test]
    fn a_cycle_ends_and_is_counted() {
        let cycle = Nesting::new([(0, 1), (1, 2), (2, 0), (2, 3), (4, 0)]);
        assert_eq!(cycle.reach(0), Reach { groups: (0..4).collect(), too_deep: false });
        assert_eq!(cycle.cycles(), 3);
        assert_eq!(Nesting::new([(0, 0)]).cycles(), 1);
        assert_eq!(Nesting::new([(0, 1), (0, 2), (1, 3), (2, 3)]).cycles(), 0);
        assert_eq!(Nesting::new([(0, 1), (0, 1)]).reach(0).groups, (0..2).collect());
    }

    #[test]
    fn a_group_without_groups_is_alone() {
        assert_eq!(Nesting::default().reach(7).groups, [7].into());
        assert_eq!(Nesting::default().cycles(), 0);
    }
}

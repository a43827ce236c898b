//! References between objects: none may lead back to where it began.

use std::{collections::HashSet, hash::Hash};

/// The first cycle of references that begins and ends at `start`, which is its first and its last node; `edges` gives what a node
/// names.
pub fn cycle<N: Clone + Eq + Hash>(start: &N, edges: impl Fn(&N) -> Vec<N>) -> Option<Vec<N>> {
    let mut visited = HashSet::new();
    let mut paths = vec![vec![start.clone()]];
    while let Some(path) = paths.pop() {
        for next in path.last().map(&edges).into_iter().flatten() {
            let longer = || path.iter().chain([&next]).cloned().collect::<Vec<_>>();
            if next == *start {
                return Some(longer());
            }
            if visited.insert(next.clone()) {
                paths.push(longer());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::cycle;

    fn edges(graph: &'static [(char, &'static str)]) -> impl Fn(&char) -> Vec<char> {
        |node| graph.iter().filter(|(from, _)| from == node).flat_map(|(_, to)| to.chars()).collect()
    }

    #[test]
    fn a_cycle_is_found_however_long_it_is() {
        assert_eq!(cycle(&'a', edges(&[('a', "a")])), Some(vec!['a', 'a']));
        assert_eq!(
            cycle(&'a', edges(&[('a', "bc"), ('b', ""), ('c', "d"), ('d', "a")])),
            Some(vec!['a', 'c', 'd', 'a'])
        );
    }

    #[test]
    fn neither_two_ways_to_one_object_nor_a_cycle_of_others_is_one() {
        assert_eq!(cycle(&'a', edges(&[('a', "bc"), ('b', "d"), ('c', "d")])), None);
        assert_eq!(cycle(&'a', edges(&[('a', "b"), ('b', "c"), ('c', "b")])), None);
    }
}

//! Detects cycles of references between objects.

use std::{collections::HashSet, hash::Hash};

/// A cycle of references through `start`, as its nodes in order, with `start` first and last; none if there is no such
/// cycle. `edges` returns the references of a node.
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
    fn a_cycle_of_any_length_is_found() {
        assert_eq!(cycle(&'a', edges(&[('a', "a")])), Some(vec!['a', 'a']));
        assert_eq!(
            cycle(&'a', edges(&[('a', "bc"), ('b', ""), ('c', "d"), ('d', "a")])),
            Some(vec!['a', 'c', 'd', 'a'])
        );
    }

    #[test]
    fn two_paths_to_an_object_and_cycles_that_do_not_include_the_start_are_not_found() {
        assert_eq!(cycle(&'a', edges(&[('a', "bc"), ('b', "d"), ('c', "d")])), None);
        assert_eq!(cycle(&'a', edges(&[('a', "b"), ('b', "c"), ('c', "b")])), None);
    }
}

//! Load balancing: which of several endpoints gets a call.

/// An endpoint to choose from.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Whether it accepts calls: it is healthy and its circuit is not open.
    pub ready: bool,
    /// Its topology zone.
    pub zone: Option<&'a str>,
    /// Its share of the calls, relative to the weights of the others. One with weight 0 is used only if there is no
    /// other.
    pub weight: u32,
    /// Its load as measured by this process, see [`Load`](super::load::Load).
    pub measured: f64,
    /// The load that it reports, at least 0. Compared only if both endpoints report one.
    pub reported: Option<f64>,
    /// Whether an earlier attempt of the same call was sent to it.
    pub tried: bool,
}

/// The preferences of a call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Preference<'a> {
    /// The zone to prefer.
    pub zone: Option<&'a str>,
    /// Panic mode: if no endpoint is ready, choose among all of them, since the probes may be wrong.
    pub panic: bool,
}

/// The index of the endpoint for the next call; none if there is none to choose.
///
/// Endpoints that are ready, have a weight, were not tried and are in the preferred zone are preferred, in this
/// order. Of those that are left, two different ones are drawn by weight, with the random numbers `chances` (0 to 1).
/// The first gets the call, so that the weights are respected, unless its load is more than twice that of the second
/// ("power of two choices"). That balances nearly as well as a comparison of all endpoints, and gateways that do not
/// know each other's calls do not all choose the same endpoint.
#[must_use]
pub fn choose(candidates: &[Candidate<'_>], prefer: Preference<'_>, chances: [f64; 2]) -> Option<usize> {
    let mut pool: Vec<usize> = (0..candidates.len()).collect();
    if !narrow(&mut pool, |index| candidates[index].ready) && !prefer.panic {
        return None;
    }
    narrow(&mut pool, |index| candidates[index].weight > 0);
    narrow(&mut pool, |index| !candidates[index].tried);
    narrow(&mut pool, |index| prefer.zone.is_some() && candidates[index].zone == prefer.zone);

    let first = draw(&mut pool, candidates, chances[0])?;
    let second = draw(&mut pool, candidates, chances[1]);
    second.filter(|second| overloaded(&candidates[first], &candidates[*second])).or(Some(first))
}

/// Keeps the preferred endpoints. If there is none, keeps all and returns false.
fn narrow(pool: &mut Vec<usize>, wanted: impl Fn(usize) -> bool) -> bool {
    let any = pool.iter().any(|index| wanted(*index));
    if any {
        pool.retain(|index| wanted(*index));
    }
    any
}

/// Removes a random endpoint from the pool, weighted.
fn draw(pool: &mut Vec<usize>, candidates: &[Candidate<'_>], chance: f64) -> Option<usize> {
    // If one weight is 0, all are: then they are drawn with equal probability.
    let weight = |index: &usize| f64::from(candidates[*index].weight.max(1));
    let mut point = chance.clamp(0.0, 1.0) * pool.iter().map(weight).sum::<f64>();
    let found = pool.iter().position(|index| {
        point -= weight(index);
        point < 0.0
    });
    // With a chance of 1, or because of rounding, the point can lie at the end.
    let position = found.or(pool.len().checked_sub(1))?;
    Some(pool.remove(position))
}

fn overloaded(first: &Candidate<'_>, second: &Candidate<'_>) -> bool {
    match (first.reported, second.reported) {
        (Some(first), Some(second)) => first > 2.0 * second,
        _ => first.measured > 2.0 * second.measured,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Candidate<'_> =
        Candidate { ready: true, zone: None, weight: 1, measured: 1.0, reported: None, tried: false };

    /// The percentage of calls that each endpoint gets, over all chances.
    fn shares(candidates: &[Candidate<'_>], prefer: Preference<'_>) -> Vec<u32> {
        let mut calls = vec![0; candidates.len()];
        for step in 0..10_000 {
            let chances = [step / 100, step % 100].map(|part| (f64::from(part) + 0.5) / 100.0);
            if let Some(index) = choose(candidates, prefer, chances) {
                calls[index] += 1;
            }
        }
        calls.iter().map(|calls| calls / 100).collect()
    }

    fn any(candidates: &[Candidate<'_>]) -> Vec<u32> {
        shares(candidates, Preference::default())
    }

    #[test]
    fn weights_are_respected_while_the_loads_are_similar() {
        let weighted = |weight, measured| Candidate { weight, measured, ..IDLE };
        assert_eq!(any(&[weighted(90, 1.0), weighted(10, 1.9)]), [90, 10]);
        assert_eq!(any(&[weighted(90, 1.9), weighted(10, 1.0)]), [90, 10]);
        assert_eq!(any(&[weighted(1, 1.0), weighted(1, 1.0), weighted(2, 1.0)]), [25, 25, 50]);
    }

    #[test]
    fn an_endpoint_with_more_than_twice_the_load_of_the_other_gets_nothing() {
        assert_eq!(any(&[IDLE, Candidate { measured: 2.1, ..IDLE }]), [100, 0]);
        let shares = any(&[IDLE, IDLE, Candidate { measured: 9.0, ..IDLE }]);
        assert_eq!(shares[2], 0, "the other one that is drawn has less load");
    }

    #[test]
    fn only_ready_endpoints_are_chosen_except_in_panic_mode() {
        let down = Candidate { ready: false, ..IDLE };
        assert_eq!(any(&[down, IDLE, Candidate { measured: 99.0, ..down }]), [0, 100, 0]);
        assert_eq!(any(&[down, down]), [0, 0]);
        assert_eq!(shares(&[down, down], Preference { panic: true, zone: None }), [50, 50]);
        assert_eq!(shares(&[down, IDLE], Preference { panic: true, zone: None }), [0, 100]);
        assert_eq!(any(&[]), [0_u32; 0]);
        assert_eq!(shares(&[], Preference { panic: true, zone: None }), [0_u32; 0]);
    }

    #[test]
    fn weight_zero_is_chosen_only_if_no_other_endpoint_is_ready() {
        let none = Candidate { weight: 0, ..IDLE };
        assert_eq!(any(&[none, Candidate { measured: 99.0, ..IDLE }]), [0, 100]);
        assert_eq!(any(&[none, Candidate { ready: false, ..IDLE }]), [100, 0]);
        assert_eq!(any(&[none, none]), [50, 50]);
    }

    #[test]
    fn an_endpoint_that_was_tried_is_chosen_again_only_if_no_other_is_available() {
        let tried = Candidate { tried: true, ..IDLE };
        assert_eq!(any(&[tried, Candidate { measured: 99.0, ..IDLE }]), [0, 100]);
        assert_eq!(
            any(&[tried, Candidate { ready: false, ..IDLE }, Candidate { weight: 0, ..IDLE }]),
            [100, 0, 0]
        );
        let near = Preference { zone: Some("a"), panic: false };
        assert_eq!(shares(&[Candidate { zone: Some("a"), ..tried }, IDLE], near), [0, 100]);
    }

    #[test]
    fn the_preferred_zone_is_used_if_it_has_an_endpoint() {
        let at = |zone| Candidate { zone: Some(zone), ..IDLE };
        let from = |zone| Preference { zone: Some(zone), panic: false };
        assert_eq!(shares(&[at("a"), at("b"), IDLE], from("b")), [0, 100, 0]);
        assert_eq!(shares(&[at("a"), at("b")], from("c")), [50, 50]);
        assert_eq!(shares(&[at("a"), IDLE], Preference::default()), [50, 50]);
        let down = Candidate { ready: false, ..at("b") };
        assert_eq!(
            shares(&[at("a"), down], from("b")),
            [100, 0],
            "readiness is more important than the zone"
        );
        let drained = Candidate { weight: 0, ..at("b") };
        assert_eq!(shares(&[at("a"), drained], from("b")), [100, 0], "and so is the weight");
    }

    #[test]
    fn reported_loads_are_compared_only_with_each_other() {
        let says = |reported, measured| Candidate { measured, reported, ..IDLE };
        assert_eq!(any(&[says(Some(0.9), 1.0), says(Some(0.1), 99.0)]), [0, 100]);
        assert_eq!(any(&[says(Some(0.9), 1.0), says(None, 99.0)]), [100, 0]);
        assert_eq!(any(&[says(Some(f64::NAN), 1.0), says(Some(0.1), 1.0)]), [50, 50]);
    }

    #[test]
    fn calls_in_flight_spread_over_endpoints_of_one_weight() {
        let mut candidates = [Candidate { measured: 0.0, ..IDLE }; 10];
        for call in 0..1000 {
            // Two sequences that fill 0 to 1 evenly and do not follow each other.
            let chances = [0.754_877_666, 0.569_840_290].map(|step| (f64::from(call) * step).fract());
            let index = choose(&candidates, Preference::default(), chances).unwrap();
            candidates[index].measured += 1.0;
        }
        for candidate in candidates {
            assert!((60.0..=140.0).contains(&candidate.measured), "{candidate:?}");
        }
    }
}

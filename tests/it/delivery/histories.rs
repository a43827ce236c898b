//! What the scheduler promises holds in every history: of successes, failures, crashes, lost leases and clocks that jump. Each history
//! follows from a number, which is told when it fails.
//!
//! AUTHLINK_HISTORIES is how many there are (1000), AUTHLINK_SEED the number of the first (0).

use std::{panic::catch_unwind, time::Duration};

use super::model::World;

fn variable(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().expect(name))
}

/// A history, and then peace: everything comes to an end.
fn history(seed: u64) {
    let mut world = World::new(seed);
    world.start();
    for _ in 0..400 {
        if world.processes() == 0 {
            world.start();
        }
        let process = usize::try_from(world.dice.below(world.processes() as u64)).expect("a small number");
        match world.dice.below(100) {
            0..20 => world.accept(process, false),
            20..45 => world.begin(process),
            45..65 => world.end(process, false),
            65..75 => world.flush(process, None),
            75..82 => world.ask(process),
            82..90 => world.answer(process),
            90..95 => {
                let seconds = world.dice.below(40);
                world.pass(Duration::from_secs(seconds));
            }
            96 => world.accept(process, true),
            97 => {
                let written = world.dice.one_in(2);
                world.flush(process, Some(written));
            }
            // Another process takes the lease, while this one is not dead.
            98 if world.processes() < 3 => world.start(),
            95 | 98 => world.kill(process),
            _ => {
                // Only a process that starts sees another clock.
                while world.processes() > 0 {
                    world.kill(0);
                }
                if world.dice.one_in(2) {
                    world.set_back(Duration::from_hours(24));
                } else {
                    world.pass(Duration::from_hours(24));
                }
                world.start();
            }
        }
    }
    while world.processes() > 0 {
        world.kill(0);
    }
    world.start();
    let mut rounds = 0;
    while !world.is_empty() {
        rounds += 1;
        assert!(rounds < 20_000, "something is stuck");
        world.begin(0);
        for _ in 0..12 {
            world.end(0, true);
        }
        world.flush(0, None);
        world.ask(0);
        world.answer(0);
        world.begin(0);
        world.sleep(0);
    }
    let ended: Vec<_> = world.ended.keys().copied().collect();
    assert_eq!(ended, world.accepted.iter().copied().collect::<Vec<_>>(), "each has one end");
}

#[test]
fn in_every_history_what_was_accepted_has_one_end_and_what_is_sent_twice_has_a_reason() {
    let first = variable("AUTHLINK_SEED", 0);
    for seed in first..first + variable("AUTHLINK_HISTORIES", 1000) {
        if let Err(failed) = catch_unwind(|| history(seed)) {
            let text = failed.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| failed.downcast_ref::<&str>().copied()).unwrap_or("a panic");
            panic!("AUTHLINK_SEED={seed} AUTHLINK_HISTORIES=1 shows it again: {text}");
        }
    }
}

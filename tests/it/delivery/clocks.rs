//! Clocks that are set to another time.

use std::time::Duration;

use super::{
    kills::Place,
    process::Program,
    receiver::{Receiver, Reply},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_process_whose_clock_is_a_day_off_waits_no_longer_and_sends_no_burst() {
    for offset in ["-1d", "+1d"] {
        let place = Place::file();
        // At first it asks to wait, so that all of it is due some time later.
        let working = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let works = std::sync::Arc::clone(&working);
        let receiver = Receiver::logging(place.log("received"), move |_| {
            let works = works.load(std::sync::atomic::Ordering::SeqCst);
            if works { Reply::after(Duration::from_millis(20), 200) } else { Reply::retry_after(429, "2") }
        })
        .await;
        let program = Program { producers: 1, ..place.program(&receiver, 30) };
        let mut process = program.start();
        receiver.until(1).await;
        while program.accepted().len() < 30 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        process.kill();
        working.store(true, std::sync::atomic::Ordering::SeqCst);
        let before = receiver.count();
        let _process = program.start_under(&["faketime", "-f", offset]);
        let seen = receiver.until(before + 30).await;
        // Never more at once than the endpoint may have: the receiver takes 20 ms for each.
        for window in seen[before..].windows(9) {
            assert!(window[8].at - window[0].at >= Duration::from_millis(15), "{offset}: nine at once");
        }
        let stale = seen[before].header("webhook-timestamp").parse::<i64>().expect("seconds");
        assert!((stale - jiff::Timestamp::now().as_second()).abs() > 80_000, "its clock is off");
        let received: std::collections::BTreeSet<_> =
            seen[before..].iter().map(|seen| seen.id().to_owned()).collect();
        let accepted: std::collections::BTreeSet<_> = program.accepted().into_iter().collect();
        assert!(accepted.is_subset(&received), "{offset}");
    }
}

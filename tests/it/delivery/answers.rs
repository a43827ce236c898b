//! Receivers that mean harm, or break in the middle.

use std::time::{Duration, Instant};

use authlink::{
    delivery::EndpointSettings,
    domain::delivery::{outcome::Outcome, scheduler::EndpointConfig},
    store::delivery::AttemptRecord,
};
use serde_json::json;

use super::{
    bed::{Bed, configured, endpoint, retry},
    receiver::{Receiver, Reply},
};
use crate::support::free_port;

const TIMEOUT: Duration = Duration::from_secs(1);

/// The only attempt at a receiver that replies so, and how long it took.
async fn attempt(reply: Reply) -> (AttemptRecord, Duration) {
    let receiver = Receiver::that(move |_| reply.clone()).await;
    attempt_at(&receiver.url()).await
}

async fn attempt_at(url: &str) -> (AttemptRecord, Duration) {
    let bed = Bed::make().await;
    let config = EndpointConfig { retry: retry(&[10], 1), ..EndpointConfig::default() };
    let settings = EndpointSettings { timeout: TIMEOUT, ..configured(endpoint("hook", url), config) };
    let uid = bed.set(settings);
    let began = Instant::now();
    bed.accept("a", json!(1)).await;
    let attempt = bed.attempts_until(&uid, 1).await.remove(0).record;
    (attempt, began.elapsed())
}

#[tokio::test]
async fn a_delivery_has_arrived_when_the_whole_head_of_a_2xx_was_read() {
    let head = |lines: &str| format!("HTTP/1.1 200 OK\r\n{lines}\r\n").into_bytes();
    let hour = Duration::from_hours(1);
    let rows = [
        ("no body comes", Reply::Hang(head("Content-Length: 9\r\n"), hour)),
        ("the body is too short", Reply::Raw([head("Content-Length: 9\r\n"), b"half".to_vec()].concat())),
        (
            "the body is broken",
            Reply::Raw([head("Transfer-Encoding: chunked\r\n"), b"zzz\r\n".to_vec()].concat()),
        ),
        ("a bomb", Reply::With(200, "Content-Encoding: gzip\r\n".to_owned(), vec![0; 1 << 20])),
        ("not UTF-8", Reply::With(200, "X-A: \u{80}\r\n".to_owned(), vec![0xff; 100])),
        (
            "informational ones first",
            Reply::Raw(
                [b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(50), head("Content-Length: 0\r\n")].concat(),
            ),
        ),
    ];
    for (what, reply) in rows {
        let (attempt, took) = self::attempt(reply).await;
        assert_eq!(attempt.outcome, Outcome::Delivered, "{what}: {attempt:?}");
        assert!(took < TIMEOUT, "{what}: its slot is free after {took:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_none_has_a_name_and_takes_no_longer_than_it_may() {
    let hour = Duration::from_hours(1);
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X-More: 1\r\n".repeat(100_000)).into_bytes();
    let rows = [
        (Reply::Hang(Vec::new(), hour), Outcome::Timeout),
        (Reply::Hang(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec(), hour), Outcome::Timeout),
        (Reply::after(TIMEOUT + Duration::from_millis(300), 200), Outcome::Timeout),
        (Reply::Hang(b"HTTP/1.1 100 Continue\r\n\r\n".repeat(9), hour), Outcome::Timeout),
        (Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()), Outcome::ConnectionLost),
        (Reply::Raw(Vec::new()), Outcome::ConnectionLost),
        (Reply::Reset, Outcome::ConnectionLost),
        (Reply::Raw(b"<html>hello</html>\r\n\r\n".to_vec()), Outcome::ProtocolError),
        (Reply::Raw(many), Outcome::ProtocolError),
    ];
    for (reply, outcome) in rows {
        let what = format!("{reply:?}").chars().take(80).collect::<String>();
        let (attempt, _) = self::attempt(reply).await;
        assert_eq!(attempt.outcome, outcome, "{what}: {attempt:?}");
        // Of what it took, not of what the test had to wait for.
        assert!(attempt.took < TIMEOUT * 11 / 10, "{what}: {:?}", attempt.took);
        if outcome == Outcome::Timeout {
            assert!(
                attempt.detail.contains("may have handled") && attempt.detail.contains("delivery.timeout")
            );
        }
    }
    let (attempt, _) = attempt_at(&format!("http://127.0.0.1:{}/", free_port())).await;
    assert_eq!(attempt.outcome, Outcome::ConnectFailed);
}

#[tokio::test]
async fn of_an_endless_body_a_little_is_read_and_less_is_kept() {
    let endless = Reply::With(500, String::new(), vec![b'x'; 50 << 20]);
    let (attempt, took) = attempt(endless).await;
    assert_eq!((attempt.outcome, attempt.body.len()), (Outcome::ServerError, 4096));
    assert!(took < TIMEOUT);
    let drip = "HTTP/1.1 500 X\r\nContent-Length: 100\r\n\r\nx".as_bytes().to_vec();
    let (attempt, took) = self::attempt(Reply::Hang(drip, Duration::from_hours(1))).await;
    assert_eq!((attempt.outcome, attempt.body), (Outcome::ServerError, b"x".to_vec()));
    assert!(took < TIMEOUT, "{took:?}");
}

#[tokio::test]
async fn a_receiver_that_handles_and_breaks_off_gets_the_same_again_until_it_answers() {
    let bed = Bed::make().await;
    // Every other request is handled, and not answered.
    let receiver =
        Receiver::that(|seen| if seen.number % 2 == 0 { Reply::Reset } else { Reply::Status(200) }).await;
    let config = EndpointConfig { retry: retry(&[20], 100), concurrency: 2, ..EndpointConfig::default() };
    let uid = bed.set(configured(endpoint("hook", &receiver.url()), config));
    let ids = bed.accept_many(50).await;
    bed.drained(&uid).await;
    let seen = receiver.seen();
    for id in ids {
        let bodies: Vec<_> = seen.iter().filter(|seen| seen.id() == id).map(|seen| &seen.body).collect();
        assert!(!bodies.is_empty() && bodies.iter().all(|body| *body == bodies[0]), "{id}");
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_between_two_requests_costs_no_attempt() {
    let bed = Bed::make().await;
    // It says that it keeps the connection, and closes it as the next request is on its way.
    let receiver =
        Receiver::that(|_| Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec())).await;
    let config = EndpointConfig { retry: retry(&[10], 1), concurrency: 1, ..EndpointConfig::default() };
    let uid = bed.set(configured(endpoint("hook", &receiver.url()), config));
    bed.accept_many(500).await;
    bed.drained(&uid).await;
    let (snapshot, _) = bed.engine.state(&uid).expect("its own");
    assert_eq!((snapshot.totals.delivered, snapshot.totals.failed, snapshot.totals.dead), (500, 0, 0));
}

//! Ports for servers that the tests start.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU16, Ordering},
};

/// Below the range that the kernel takes for outgoing connections, which would now and then be faster than a server.
const FIRST: u16 = 10_000;
const STEPS: u16 = 7_000;

/// A port that is free, as is the next one.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = u16::try_from(std::process::id() % u32::from(STEPS)).expect("a small number");
    for _ in 0..STEPS {
        let step = own.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % STEPS;
        let port = FIRST + 2 * step;
        if [port, port + 1].iter().all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()) {
            return port;
        }
    }
    panic!("no port is free");
}

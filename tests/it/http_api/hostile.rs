//! Servers that mean harm, written by hand since no real one can be made to do this.

use std::{
    io::{Read, Write},
    net::{IpAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    time::Duration,
};

use authlink::{
    api::{Reason, v1alpha1::external_api::CheckMethod},
    backends::{
        Fault,
        external_api::{Check, EndpointSettings, Expectation, HttpEndpoint},
        http,
        http::{Egress, Failure, Stage},
    },
};
use futures::FutureExt;
use http_body_util::BodyExt;
use hyper::Request;
use socket2::SockRef;
use tokio::{net::TcpSocket, time::Instant};

use super::{endpoint, expectation, get, settings, text, with_token};
use crate::support::{SOON, eventually, free_port, hostile};

const SHORT: Duration = Duration::from_millis(500);

/// What the kernel may hold for two sockets, and some more.
const BUFFERS: usize = 24 << 20;

/// Sends this to whoever asks, and hangs up.
fn sends(answer: &'static [u8]) -> EndpointSettings {
    on(hostile::serve(move |mut stream| {
        request_of(&mut stream);
        let _ = stream.write_all(answer);
    }))
}

fn on(port: u16) -> EndpointSettings {
    with_token(&format!("http://127.0.0.1:{port}"))
}

/// Reads up to the empty line.
fn request_of(stream: &mut TcpStream) {
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(length) => request.extend_from_slice(&buffer[..length]),
        }
    }
}

/// What a probe says, what a call says, and if the call gets an answer, what its body says.
async fn both(settings: EndpointSettings) -> (Reason, Result<Reason, (Stage, Reason)>) {
    let probed = endpoint(settings.clone()).probe().await.unwrap_err();
    let request = Request::get("/").body(http::Body::empty()).unwrap();
    let called = match endpoint(settings).call(request, Instant::now() + SHORT).await {
        Ok(answer) => Ok(answer.into_body().collect().await.unwrap_err().reason),
        Err(Failure { stage, fault }) => Err((stage, fault.reason)),
    };
    assert!(!probed.message().contains("hunter2"), "{probed}");
    (probed.reason, called)
}

fn impatient(settings: EndpointSettings) -> EndpointSettings {
    EndpointSettings { timeout: SHORT, ..settings }
}

#[tokio::test]
async fn one_that_refuses_connections_is_connection_refused() {
    let reason = Reason::ConnectionRefused;
    assert_eq!(both(on(free_port())).await, (reason, Err((Stage::Connect, reason))));
}

#[tokio::test]
async fn one_that_hangs_up_is_unavailable() {
    let reason = Reason::Unavailable;
    assert_eq!(both(on(hostile::closing_server())).await, (reason, Err((Stage::Exchange, reason))));
}

#[tokio::test]
async fn one_that_never_answers_is_timeout() {
    let reason = Reason::Timeout;
    let silent = impatient(on(hostile::silent_server()));
    assert_eq!(both(silent).await, (reason, Err((Stage::Exchange, reason))));
}

#[tokio::test]
async fn one_that_speaks_no_http_is_protocol_error() {
    let reason = Reason::ProtocolError;
    // Whether its greeting comes before the request or after it is a matter of luck.
    for _ in 0..50 {
        assert_eq!(both(on(hostile::chatty_server())).await, (reason, Err((Stage::Exchange, reason))));
    }
    assert_eq!(both(sends(b"\x16\x03\x01\x02\x00")).await, (reason, Err((Stage::Exchange, reason))));
}

#[tokio::test]
async fn one_that_sends_headers_without_end_is_protocol_error() {
    let endless = || {
        on(hostile::serve(|mut stream| {
            request_of(&mut stream);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
            while stream.write_all(b"x-more: hunter2 hunter2 hunter2\r\n").is_ok() {}
        }))
    };
    let reason = Reason::ProtocolError;
    assert_eq!(both(endless()).await, (reason, Err((Stage::Exchange, reason))));
}

#[tokio::test]
async fn one_that_resets_in_the_middle_of_the_body_is_unavailable() {
    let (reset, now) = mpsc::channel::<()>();
    let now = Mutex::new(now);
    let port = hostile::serve(move |mut stream| {
        // Most of the request stays unread, by which closing becomes a reset.
        let _ = stream.read(&mut [0]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
        let _ = now.lock().unwrap().recv();
    });
    let endpoint = endpoint(on(port));
    let mut answer = get(&endpoint, "/").await.unwrap();
    assert_eq!(answer.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
    reset.send(()).unwrap();
    let fault = answer.frame().await.unwrap().unwrap_err();
    assert_eq!(fault.reason, Reason::Unavailable);
    // A probe reads the body too: what breaks off in the middle is not healthy.
    drop(reset);
    assert_eq!(endpoint.probe().await.unwrap_err().reason, Reason::Unavailable);
}

#[tokio::test]
async fn one_that_sends_headers_and_hangs_is_timeout() {
    let port = hostile::serve(|mut stream| {
        request_of(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n");
        std::mem::forget(stream);
    });
    assert_eq!(both(impatient(on(port))).await, (Reason::Timeout, Ok(Reason::Timeout)));
}

/// Sends the text and then the rest byte by byte, each of them well within any time-out on its own.
fn drips(first: &'static str, rest: &'static str) -> EndpointSettings {
    let port = hostile::serve(move |mut stream| {
        std::thread::spawn(move || {
            request_of(&mut stream);
            let _ = stream.write_all(first.as_bytes());
            for byte in rest.bytes().cycle() {
                std::thread::sleep(SHORT / 5);
                if stream.write_all(&[byte]).is_err() {
                    return;
                }
            }
        });
    });
    impatient(on(port))
}

#[tokio::test]
async fn one_that_sends_a_byte_now_and_then_is_timeout() {
    let head = drips("HTTP/1.1 200 OK\r\n", "x-drip: drop\r\n");
    assert_eq!(both(head).await, (Reason::Timeout, Err((Stage::Exchange, Reason::Timeout))));
    let body = drips("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n", "drop");
    assert_eq!(both(body).await, (Reason::Timeout, Ok(Reason::Timeout)));
    let chunked = drips("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "1\r\nx\r\n");
    assert_eq!(both(chunked).await, (Reason::Timeout, Ok(Reason::Timeout)));
}

#[tokio::test]
async fn one_that_promises_more_than_it_sends_is_unavailable() {
    let short = sends(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nhalf");
    assert_eq!(both(short).await, (Reason::Unavailable, Ok(Reason::Unavailable)));
    let unfinished = sends(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n");
    assert_eq!(both(unfinished).await, (Reason::Unavailable, Ok(Reason::Unavailable)));
}

#[tokio::test]
async fn one_that_breaks_the_framing_is_protocol_error() {
    let chunks = sends(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnot a length\r\n");
    assert_eq!(both(chunks).await, (Reason::ProtocolError, Ok(Reason::ProtocolError)));
    let lengths = sends(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxy");
    let reason = Reason::ProtocolError;
    assert_eq!(both(lengths).await, (reason, Err((Stage::Exchange, reason))));
}

#[tokio::test]
async fn what_one_sends_beyond_its_promise_is_nobody_s_answer() {
    let port = hostile::serve(|mut stream| {
        std::thread::spawn(move || {
            request_of(&mut stream);
            let smuggled = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
            let _ = stream.write_all(smuggled);
            std::mem::forget(stream);
        });
    });
    let endpoint = endpoint(on(port));
    endpoint.probe().await.unwrap();
    for _ in 0..3 {
        assert_eq!(text(get(&endpoint, "/").await.unwrap()).await, "ok");
    }
}

/// Answers with this head and as much of a body as the other side takes, up to 100 MB; counts what got away.
fn floods(head: &'static str) -> (EndpointSettings, Arc<AtomicUsize>) {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let port = hostile::serve(move |mut stream| {
        let count = Arc::clone(&count);
        std::thread::spawn(move || {
            request_of(&mut stream);
            let _ = stream.write_all(head.as_bytes());
            let block = vec![b'x'; 64 << 10];
            while count.load(Relaxed) < 100 << 20 && stream.write_all(&block).is_ok() {
                count.fetch_add(block.len(), Relaxed);
            }
        });
    });
    (on(port), sent)
}

#[tokio::test]
async fn a_hundred_megabytes_for_a_head_are_not_read() {
    let (settings, sent) = floods("HTTP/1.1 200 OK\r\ncontent-length: 104857600\r\n\r\n");
    let check = Check::Http(Expectation { method: CheckMethod::Head, ..expectation() });
    let endpoint = endpoint(EndpointSettings { check, ..settings });
    endpoint.probe().await.unwrap();
    let request = Request::head("/").body(http::Body::empty()).unwrap();
    let answer = endpoint.call(request, Instant::now() + super::TIMEOUT).await.unwrap();
    assert_eq!(answer.headers()["content-length"], "104857600");
    assert_eq!(text(answer).await, "");
    assert!(sent.load(Relaxed) < 2 * BUFFERS, "{sent:?}");
}

#[tokio::test]
async fn a_probe_reads_no_more_than_it_looks_at() {
    let (settings, sent) = floods("HTTP/1.1 200 OK\r\ncontent-length: 104857600\r\n\r\n");
    endpoint(settings).probe().await.unwrap();
    assert!(sent.load(Relaxed) < BUFFERS, "{sent:?}");
}

#[tokio::test]
async fn an_answer_that_nobody_reads_stays_with_its_sender() {
    let (settings, sent) = floods("HTTP/1.1 200 OK\r\ncontent-length: 104857600\r\n\r\n");
    let endpoint = endpoint(settings);
    let mut answer = get(&endpoint, "/").await.unwrap();
    // It is stuck when nothing moves any more.
    let mut before = usize::MAX;
    let stuck = async || {
        let now = sent.load(Relaxed);
        if std::mem::replace(&mut before, now) == now { Ok(()) } else { Err(now) }
    };
    eventually(SOON, "the sender waits", stuck).await;
    assert!(sent.load(Relaxed) < BUFFERS, "{sent:?}");
    assert!(answer.frame().await.unwrap().is_ok());
}

/// The resolver is a fake: a real one gives up by itself, later.
#[tokio::test]
async fn one_whose_name_server_keeps_silent_is_dns_failed() {
    let egress = super::unrestricted().with_resolver(Arc::new(|_| std::future::pending().boxed()));
    let settings = impatient(settings("https://slow.example"));
    let fault = HttpEndpoint::new(settings, &egress).unwrap().probe().await.unwrap_err();
    assert_eq!(
        fault,
        Fault::new(Reason::DnsFailed, "DNS lookup of slow.example failed: no server responded")
    );
}

#[tokio::test]
async fn one_that_resets_each_connection_at_once_is_told_of_in_the_same_words_each_time() {
    let port = hostile::serve(|stream| SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap());
    let settings = EndpointSettings { check: Check::Tcp, ..settings(&format!("https://127.0.0.1:{port}")) };
    let endpoint = endpoint(settings);
    // Many times, since the end sometimes comes before the handshake has begun.
    for _ in 0..500 {
        let fault = endpoint.probe().await.unwrap_err();
        assert_eq!(fault, Fault::new(Reason::Unavailable, "the server closed the connection"));
    }
}

/// The resolver is a fake: it changes its mind between two questions, as an attacker's name server does.
#[tokio::test]
async fn one_whose_name_turns_to_another_address_is_asked_about_anew_and_not_connected_to() {
    let honest = hostile::serve(|mut stream| {
        request_of(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
    });
    let victim = TcpListener::bind(("127.0.0.2", honest)).unwrap();
    victim.set_nonblocking(true).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let resolver = move |_| {
        let last: u8 = if count.fetch_add(1, Relaxed) == 0 { 1 } else { 2 };
        async move { Ok(vec![IpAddr::from([127, 0, 0, last])]) }.boxed()
    };
    let guard = |addresses: &[IpAddr]| match addresses {
        [address] if address.to_string() == "127.0.0.2" => Err("127.0.0.2 is a loopback address".to_owned()),
        _ => Ok(()),
    };
    let egress = Egress::new(Arc::new(guard)).with_resolver(Arc::new(resolver));
    let settings = settings(&format!("http://rebinding.example:{honest}"));
    let endpoint = HttpEndpoint::new(settings, &egress).unwrap();
    assert_eq!(text(get(&endpoint, "/").await.unwrap()).await, "ok");
    let fault = Fault::new(Reason::AddressDenied, "127.0.0.2 is a loopback address");
    assert_eq!(
        get(&endpoint, "/").await.unwrap_err(),
        Failure { stage: Stage::Connect, fault: fault.clone() }
    );
    assert_eq!(endpoint.probe().await.unwrap_err(), fault);
    assert_eq!(asked.load(Relaxed), 3);
    assert!(victim.accept().is_err(), "the victim has seen no connection");
}

/// A endpoint at two addresses on loopback, the second of which answers. The resolver is a fake, for such an answer.
fn at_two_addresses() -> (HttpEndpoint, u16) {
    let port = hostile::serve(|mut stream| {
        request_of(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    });
    let resolver = |_| async { Ok(vec![IpAddr::from([127, 0, 0, 3]), IpAddr::from([127, 0, 0, 1])]) }.boxed();
    let egress = super::unrestricted().with_resolver(Arc::new(resolver));
    (HttpEndpoint::new(settings(&format!("http://two.example:{port}")), &egress).unwrap(), port)
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_refuses() {
    at_two_addresses().0.probe().await.unwrap();
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_keeps_silent() {
    let (endpoint, port) = at_two_addresses();
    let silent = TcpSocket::new_v4().unwrap();
    silent.bind(format!("127.0.0.3:{port}").parse().unwrap()).unwrap();
    let silent = silent.listen(1).unwrap();
    // Once its queue is full, the kernel answers nobody any more.
    let mut queue = Vec::new();
    let address = silent.local_addr().unwrap();
    while let Ok(queued) = tokio::time::timeout(SHORT, tokio::net::TcpStream::connect(address)).await {
        queue.push(queued.unwrap());
    }
    endpoint.probe().await.unwrap();
}

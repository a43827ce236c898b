//! Connections: how passwords are kept from who must not have them, and what servers that mean ill can do.
//!
//! The fakes do what no real server does.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use authlink::{
    api::Reason,
    backends::{
        directory::{DirectorySettings, Login, Protection, Search},
        transport::TlsSettings,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::AbortHandle,
};

use super::harness::{Ldap, PEOPLE, app, directory, people, plain, settings};
use crate::support::tls_file;

/// Answers the first bytes that it gets by these, and keeps all that comes after; gone with the value.
struct Fake {
    address: SocketAddr,
    after: Arc<Mutex<Vec<u8>>>,
    task: AbortHandle,
}

impl Fake {
    async fn answering(answer: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let after = Arc::<Mutex<Vec<u8>>>::default();
        let kept = Arc::clone(&after);
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (answer, kept) = (answer.clone(), Arc::clone(&kept));
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    if !matches!(stream.read(&mut buffer).await, Ok(1..))
                        || stream.write_all(&answer).await.is_err()
                    {
                        return;
                    }
                    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
                        kept.lock().expect("a lock").extend(&buffer[..length]);
                    }
                });
            }
        });
        Self { address, after, task: task.abort_handle() }
    }

    fn settings(&self, protection: Protection) -> DirectorySettings {
        DirectorySettings {
            connect_timeout: Duration::from_secs(2),
            answer_timeout: Duration::from_secs(2),
            ..settings(&[&format!("ldap://{}", self.address)], protection)
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn where_start_tls_is_refused_nothing_more_is_sent() {
    // An ExtendedResponse (RFC 4511, section 4.12) with protocolError, and one with unavailable.
    for code in [2, 52] {
        let refusal =
            vec![0x30, 0x0c, 0x02, 0x01, 0x01, 0x78, 0x07, 0x0a, 0x01, code, 0x04, 0x00, 0x04, 0x00];
        let fake = Fake::answering(refusal).await;
        let fault = directory(fake.settings(Protection::StartTls)).probe(0).await.expect_err("refused");
        assert_eq!(fault.reason, Reason::TlsFailed, "{fault}");
        let after = fake.after.lock().expect("a lock").clone();
        assert!(!after.windows(10).any(|bytes| bytes == b"app-secret"), "the password was sent");
        assert!(after.len() <= 7, "no more than an unbind: {after:02x?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_none_is_an_error_within_the_deadline() {
    let mut deep = vec![0x30, 0x82, 0x75, 0x30];
    deep.extend([0x30, 0x80].repeat(15_000));
    let rows = [
        ("two gigabytes", vec![0x30, 0x84, 0x7f, 0xff, 0xff, 0xff, 0x02, 0x01, 0x01]),
        ("deep nesting", deep),
        ("text", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        // A BindResponse to another message.
        (
            "another id",
            vec![0x30, 0x0c, 0x02, 0x01, 0x63, 0x61, 0x07, 0x0a, 0x01, 0x00, 0x04, 0x00, 0x04, 0x00],
        ),
        ("silence", Vec::new()),
    ];
    for (what, answer) in rows {
        let fake = Fake::answering(answer).await;
        let started = Instant::now();
        let fault = directory(fake.settings(Protection::None)).probe(0).await.expect_err(what);
        assert!(started.elapsed() < Duration::from_secs(10), "{what}: {:?}", started.elapsed());
        let expected = [Reason::ProtocolError, Reason::Timeout, Reason::Unavailable];
        assert!(expected.contains(&fault.reason), "{what}: {fault:?}");
        assert!(!fault.detail.contains("app-secret"));
    }
}

#[tokio::test]
async fn a_certificate_is_a_login_and_goes_with_a_password_as_well() {
    let ldap = Ldap::start(3);
    let url = format!("ldaps://127.0.0.1:{}", ldap.port() + 1);
    let certificate = (tls_file("client.pem"), tls_file("client.key").into());
    let tls =
        TlsSettings { ca: Some(tls_file("ca.pem")), client: Some(certificate), ..TlsSettings::default() };
    for login in [Login::External, app("app-secret")] {
        let settings = DirectorySettings { tls: tls.clone(), login, ..settings(&[&url], Protection::Ldaps) };
        let directory = directory(settings);
        let probe = directory.probe(0).await.expect("a login");
        assert!(probe.not_after.is_some());
        let users = people();
        let search = Search {
            base: PEOPLE.to_owned(),
            scope: users.scope,
            filter: users.filter,
            attributes: vec!["uid".to_owned()],
            size_limit: 0,
        };
        let mut connection = directory.connect().await.expect("a connection");
        assert_eq!(connection.find(&search, 10).await.expect("users").entries.len(), 3);
    }
}

#[tokio::test]
async fn a_password_is_not_sent_in_the_clear_unless_that_is_allowed() {
    let ldap = Ldap::start(1);
    let fault = directory(DirectorySettings { insecure: false, ..plain(ldap.port()) }).probe(0).await;
    assert_eq!(fault.expect_err("refused by us").reason, Reason::TlsFailed);
    directory(plain(ldap.port())).probe(0).await.expect("allowed");
}

#[tokio::test]
async fn a_wrong_port_says_what_it_speaks() {
    let ldap = Ldap::start(1);
    let ldaps = settings(&[&format!("ldaps://127.0.0.1:{}", ldap.port())], Protection::Ldaps);
    let start_tls = settings(&[&format!("ldap://127.0.0.1:{}", ldap.port() + 1)], Protection::StartTls);
    for (settings, word) in [(ldaps, "plain"), (start_tls, "TLS")] {
        let fault = directory(settings).probe(0).await.expect_err("a wrong port");
        assert_eq!(fault.reason, Reason::TlsFailed, "{fault}");
        assert!(fault.message().contains(word), "{}", fault.message());
    }
}

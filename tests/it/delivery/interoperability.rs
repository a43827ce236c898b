//! Receivers that are not ours: libraries that verify, and servers in front of receivers.

use std::{
    io::Write,
    process::{Child, Command, Stdio},
    time::Duration,
};

use authlink::{
    backends::transport::TlsSettings,
    delivery::{EndpointSettings, Signing},
    domain::delivery::{keys::Scheme, scheduler::EndpointConfig},
};
use serde_json::json;
use tempfile::TempDir;

use super::{
    bed::{Bed, configured, endpoint, key, retry},
    receiver::{KEY, Receiver},
};
use crate::support::{SOON, eventually, free_port, signal, test_dir, tls_file, variable};

const OLD_KEY: &str = "whsec_YXV0aGxpbmstdGVzdC1rZXktMDAwMDAw";

/// Verifies a line of JSON for each request by the library, and tells what it refuses.
const VERIFY: &str = "\
import json, sys
from standardwebhooks.webhooks import Webhook
for line in sys.stdin:
    seen = json.loads(line)
    for key in sys.argv[1:]:
        Webhook(key).verify(seen['body'], seen['headers'])
    try:
        Webhook('whsec_' + 'AAAA' * 8).verify(seen['body'], seen['headers'])
        sys.exit('another key verifies')
    except Exception:
        print('verified')
";

#[tokio::test]
async fn the_library_for_python_verifies_what_is_signed_by_each_key_in_force() {
    let (bed, receiver) = (Bed::make().await, Receiver::start().await);
    let until = jiff::Timestamp::now() + Duration::from_hours(1);
    let old =
        authlink::delivery::SigningKey { expires: Some(until), ..key(Scheme::StandardWebhooks, OLD_KEY) };
    let standard = vec![key(Scheme::StandardWebhooks, KEY), old];
    bed.set(EndpointSettings {
        signing: Signing { standard, ..Signing::default() },
        ..endpoint("hook", &receiver.url())
    });
    for data in ["1", r#"{"b":1, "a":2}"#, "\"\u{fc} \u{1f600}\"", r#"{"a":[ ]}"#] {
        bed.accept_event(super::bed::event(&format!(r#"{{"type":"a","data":{data}}}"#))).await;
    }
    let seen = receiver.until(4).await;
    let tool = Command::new(format!("{}/tool", variable("AUTHLINK_E2E"))).arg("standardwebhooks").output();
    let tool = String::from_utf8(tool.expect("e2e/tool").stdout).expect("a path");
    let mut python = Command::new(tool.trim())
        .args(["-c", VERIFY, KEY, OLD_KEY])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python: run e2e/prepare faults");
    let mut stdin = python.stdin.take().expect("a pipe");
    for seen in &seen {
        writeln!(stdin, "{}", json!({ "headers": seen.headers, "body": seen.text() })).expect("written");
    }
    drop(stdin);
    let said = python.wait_with_output().expect("its end");
    let text = String::from_utf8_lossy(&said.stdout);
    assert_eq!(text.lines().filter(|line| *line == "verified").count(), 4, "{said:?}");
}

/// An nginx with TLS in front of a receiver, gone with the value.
struct Nginx {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Nginx {
    /// One that ends each connection after three requests and allows four at once.
    async fn start(receiver: &Receiver) -> Self {
        let (folder, port) = (tempfile::tempdir().expect("a folder"), free_port());
        let (path, tls) = (folder.path().display(), test_dir().join("tls"));
        let config = format!(
            "user root; daemon off; pid {path}/pid; worker_processes 1; error_log {path}/log;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; client_body_temp_path {path}/body; proxy_temp_path {path}/proxy;\n\
             fastcgi_temp_path {path}/f; uwsgi_temp_path {path}/u; scgi_temp_path {path}/s;\n\
             server {{ listen 127.0.0.1:{port} ssl http2; keepalive_requests 3; http2_max_concurrent_streams 4;\n\
             ssl_certificate {tls}/server.pem; ssl_certificate_key {tls}/server.key;\n\
             location / {{ proxy_pass http://127.0.0.1:{}; }} }} }}\n",
            receiver.port,
            tls = tls.display()
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, config).expect("a file");
        let search = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("nginx");
        command.arg("-c").arg(&file).arg("-e").arg(folder.path().join("log")).env("PATH", search);
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn();
        let nginx = Self { child: child.expect("nginx"), port, _folder: folder };
        eventually(SOON, "nginx", async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await).await;
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its worker ends with it, which it would not after a kill.
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

/// W28: each is delivered. A connection that ends with requests on it of which the server does not say that it has not processed them
/// costs an attempt.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_http_2_that_says_goodbye_after_a_few_requests_loses_nothing() {
    let (bed, receiver) = (Bed::make().await, Receiver::start().await);
    let nginx = Nginx::start(&receiver).await;
    let config = EndpointConfig { retry: retry(&[10], 8), concurrency: 16, ..EndpointConfig::default() };
    let tls = TlsSettings { ca: Some(tls_file("ca.pem")), ..TlsSettings::default() };
    let url = format!("https://localhost:{}/h", nginx.port);
    let uid = bed.set(EndpointSettings { tls, ..configured(endpoint("hook", &url), config) });
    for part in 1..=10 {
        bed.accept_many(200).await;
        receiver.until(part * 200 - 100).await;
        // Its workers say goodbye to all connections, and others take over.
        signal("HUP", &nginx.child.id().to_string());
    }
    bed.drained(&uid).await;
    let (snapshot, _) = bed.engine.state(&uid).expect("its own");
    assert_eq!((snapshot.totals.delivered, snapshot.totals.dead), (2000, 0));
}

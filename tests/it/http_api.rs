//! `backends::external_api` against HTTP servers: real ones in this process and nginx, and hostile ones by hand.

mod api;
mod credentials;
mod health;
mod hostile;
mod protocol;
mod timeouts;
mod tls;
mod tokens;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use authlink::{
    api::v1alpha1::{database::TlsMode, external_api::CheckMethod},
    backends::{
        Fault,
        external_api::{Authorization, Base, Check, Credential, EndpointSettings, Expectation, HttpEndpoint},
        http::{self, AnswerBody, Egress, Failure},
        transport::TlsSettings,
    },
};
use http_body_util::BodyExt;
use hyper::{Request, Response};
use tokio::time::Instant;

use crate::support::{tls_file, variable};

/// Longer than anything should take, two busy cores included.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Lets everything through: the servers of the tests are on loopback.
fn unrestricted() -> Egress {
    Egress::new(Arc::new(|_: &[IpAddr]| Ok(())))
}

/// No credential, the test authority, and a probe of `/` that expects 200.
fn settings(url: &str) -> EndpointSettings {
    let tls = TlsSettings { mode: TlsMode::VerifyFull, ca: Some(tls_file("ca.pem")), client: None };
    EndpointSettings {
        base: Base::parse(url).unwrap(),
        credential: Credential::default(),
        tls,
        server_name: None,
        check: Check::Http(expectation()),
        timeout: TIMEOUT,
    }
}

fn expectation() -> Expectation {
    Expectation {
        method: CheckMethod::Get,
        path: "/".to_owned(),
        host: None,
        headers: BTreeMap::new(),
        statuses: vec![200..=200],
        body: None,
        authenticated: false,
    }
}

/// With `Authorization: Bearer hunter2`.
fn with_token(url: &str) -> EndpointSettings {
    let authorization = Authorization::Bearer("hunter2".into());
    EndpointSettings { credential: Credential { authorization, api_key: None }, ..settings(url) }
}

fn endpoint(settings: EndpointSettings) -> HttpEndpoint {
    HttpEndpoint::new(settings, &unrestricted()).unwrap()
}

async fn probe(settings: EndpointSettings) -> Result<(), Fault> {
    endpoint(settings).probe().await.map(drop)
}

async fn get(endpoint: &HttpEndpoint, path: &str) -> Result<Response<AnswerBody>, Failure> {
    let request = Request::get(path).body(http::Body::empty()).unwrap();
    endpoint.call(request, Instant::now() + TIMEOUT).await
}

async fn text(answer: Response<AnswerBody>) -> String {
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// The nginx that all tests share: plain and TLS.
pub(crate) fn nginx() -> (String, String) {
    let address = variable("AUTHLINK_TEST_NGINX");
    let port: u16 = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("HOST:PORT");
    (format!("http://localhost:{port}"), format!("https://localhost:{}", port + 1))
}

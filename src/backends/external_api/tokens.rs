//! Tokens by the client credentials grant of OAuth 2.0 (RFC 6749, section 4.4): fetched once for all callers, and renewed
//! ahead of their end.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use http_body_util::{BodyExt, Limited};
use hyper::{
    Method, Request, Response, StatusCode, Uri,
    body::Bytes,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT},
};
use parking_lot::{Mutex, MutexGuard};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::time::Instant;

use super::{ClientCredentials, USER, auth};
use crate::{
    api::Reason,
    backends::{
        Fault,
        http::{self, AnswerBody, Client, Connections, Egress},
        transport::Tls,
    },
};

/// How long fetching a token may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A failure is the answer to everybody for this time, so that a token server in trouble is not asked by each call.
const FAILURE_KEPT: Duration = Duration::from_secs(1);

/// A token that is refused although it is younger than this is not replaced: another one would fare no better.
const TRUSTED_FOR: Duration = Duration::from_secs(10);

/// The longest of these times: a token that is really revoked is replaced within it.
const MAX_TRUST: Duration = Duration::from_mins(10);

/// One that is refused before it is so many times as old is not refused for its age: the next one is trusted for twice as
/// long.
const SOON: u32 = 6;

/// The lifetime of a token whose server does not tell.
const LIFETIME: Duration = Duration::from_mins(5);

/// What a token server may answer at the most, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// What `application/x-www-form-urlencoded` leaves as it is.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The tokens of one client.
pub(super) struct Tokens(Arc<Inner>);

struct Inner {
    client: Client,
    uri: Uri,
    authorization: HeaderValue,
    form: Bytes,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    failure: Option<(Instant, Fault)>,
    renewal: Option<Renewal>,
}

/// The one renewal that everybody waits for.
type Renewal = Shared<BoxFuture<'static, Result<HeaderValue, Fault>>>;

struct Token {
    header: HeaderValue,
    fetched: Instant,
    lifetime: Duration,
    trusted: Duration,
    refused: bool,
}

impl Token {
    fn new(header: HeaderValue, fetched: Instant, lifetime: Duration) -> Self {
        Self { header, fetched, lifetime, trusted: TRUSTED_FOR, refused: false }
    }

    fn is_alive(&self) -> bool {
        self.fetched.elapsed() < self.lifetime
    }

    /// Towards its end it is still used, while another one is fetched.
    fn is_fresh(&self) -> bool {
        self.fetched.elapsed() + margin(self.lifetime) < self.lifetime
    }

    /// For how long the one after it is trusted.
    fn trust_in_next(&self) -> Duration {
        let soon = self.fetched.elapsed() < self.trusted.saturating_mul(SOON);
        if self.refused && soon { (2 * self.trusted).min(MAX_TRUST) } else { TRUSTED_FOR }
    }
}

/// How long before its end a token is renewed: a fifth of its lifetime, and at most a minute.
fn margin(lifetime: Duration) -> Duration {
    (lifetime / 5).min(Duration::from_mins(1))
}

impl Tokens {
    /// The first one is fetched when it is asked for.
    ///
    /// # Errors
    /// A URL or a secret that cannot be used.
    pub(super) fn new(client: &ClientCredentials, egress: Egress, tls: &Tls) -> Result<Self, Fault> {
        let uri = client.token_url.parse().map_err(|_| {
            Fault::new(
                Reason::InvalidSpec,
                "auth.oauth2.tokenUrl is no URL, or has characters that must be escaped",
            )
        })?;
        let encode = |text: &str| utf8_percent_encode(text, FORM).to_string();
        // Section 2.3.1: both are encoded as in a form before they are joined.
        let secret = SecretString::from(encode(client.client_secret.expose_secret()));
        let authorization = auth::basic(&encode(&client.client_id), &secret)?;
        let mut form = "grant_type=client_credentials".to_owned();
        if !client.scopes.is_empty() {
            form.extend(["&scope=", &encode(&client.scopes.join(" "))]);
        }
        let client = Client::new(egress, tls, None, Connections::Fresh(TIMEOUT));
        let state = Mutex::default();
        Ok(Self(Arc::new(Inner { client, uri, authorization, form: form.into(), state })))
    }

    /// A token, as the value of `Authorization`.
    ///
    /// # Errors
    /// Why none can be had.
    pub(super) async fn get(&self) -> Result<HeaderValue, Fault> {
        let renewal = {
            let mut state = self.0.state();
            let alive = state.token.as_ref().filter(|token| token.is_alive());
            let alive = alive.map(|token| (token.header.clone(), token.is_fresh()));
            if let Some((header, true)) = alive {
                return Ok(header);
            }
            let renewal = self.renewal(&mut state);
            if let Some((header, _)) = alive {
                return Ok(header);
            }
            renewal?
        };
        renewal.await
    }

    /// The renewal that is under way, or another one.
    ///
    /// # Errors
    /// Why the last one has failed, just now.
    fn renewal(&self, state: &mut State) -> Result<Renewal, Fault> {
        match (&state.renewal, &state.failure) {
            (Some(renewal), _) => Ok(renewal.clone()),
            (None, Some((at, fault))) if at.elapsed() < FAILURE_KEPT => Err(fault.clone()),
            (None, _) => Ok(self.renew(state)),
        }
    }

    /// Starts a renewal, which goes on although whoever wanted it may go away.
    fn renew(&self, state: &mut State) -> Renewal {
        let this = Arc::clone(&self.0);
        let task = tokio::spawn(async move {
            // A renewal that nobody settles would be waited for by every call from then on.
            let fetched = AssertUnwindSafe(this.fetch()).catch_unwind().await.unwrap_or_else(|_| ended());
            let told = |fault: Fault| Fault::new(fault.reason, format!("the token server: {}", fault.detail));
            this.settle(fetched.map_err(told))
        });
        let renewal = async move { task.await.unwrap_or_else(|_| ended()) }.boxed().shared();
        state.renewal = Some(renewal.clone());
        renewal
    }

    /// The server refused this token: unless it is new, another one is fetched. It is used until that is there, since the
    /// server may have refused no more than what was asked for.
    pub(super) fn refused(&self, header: &HeaderValue) {
        let mut state = self.0.state();
        let Some(token) = state.token.as_mut().filter(|token| token.header == header) else { return };
        token.refused = true;
        if token.fetched.elapsed() >= token.trusted {
            // Where it fails, the token is still refused at the next request.
            drop(self.renewal(&mut state));
        }
    }
}

impl Inner {
    /// A poisoned lock is still a state: the panic that poisoned it has been reported on its own.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn settle(&self, fetched: Result<Token, Fault>) -> Result<HeaderValue, Fault> {
        let mut state = self.state();
        state.renewal = None;
        match fetched {
            Ok(mut token) => {
                let header = token.header.clone();
                token.trusted = state.token.as_ref().map_or(TRUSTED_FOR, Token::trust_in_next);
                state.token = Some(token);
                state.failure = None;
                Ok(header)
            }
            Err(fault) => {
                state.failure = Some((Instant::now(), fault.clone()));
                Err(fault)
            }
        }
    }

    async fn fetch(&self) -> Result<Token, Fault> {
        let mut request = Request::new(http::Body::whole(self.form.clone()));
        *request.method_mut() = Method::POST;
        request.uri_mut().clone_from(&self.uri);
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, self.authorization.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(USER));
        // From before the request: the server's clock for the token starts no earlier.
        let fetched = Instant::now();
        let answer = self.client.send(request, fetched + TIMEOUT).await?;
        read(answer, fetched).await
    }
}

/// Only by a panic, or with the process.
fn ended<T>() -> Result<T, Fault> {
    Err(Fault::new(Reason::Unavailable, "the renewal was ended"))
}

/// Sections 5.1 and 5.2.
#[derive(Deserialize)]
struct Answer {
    access_token: Option<SecretString>,
    token_type: Option<String>,
    expires_in: Option<Seconds>,
    error: Option<String>,
}

/// A number; some servers send it as a text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(u64),
    Text(String),
}

async fn read(answer: Response<AnswerBody>, fetched: Instant) -> Result<Token, Fault> {
    let status = answer.status();
    let no_token = || Fault::new(Reason::ProtocolError, "its answer is no token response of OAuth 2.0");
    let body = Limited::new(answer.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|error| error.downcast::<Fault>().map_or_else(|_| no_token(), |fault| *fault))?;
    let answer = serde_json::from_slice::<Answer>(&body.to_bytes());
    if !status.is_success() {
        return Err(refusal(status, answer.ok().and_then(|answer| answer.error).as_deref()));
    }
    // What the server says, it says of a token; the text of an error could quote it.
    let Ok(Answer { access_token: Some(token), token_type, expires_in, .. }) = answer else {
        return Err(no_token());
    };
    if !token_type.is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")) {
        return Err(Fault::new(Reason::ProtocolError, "its token is not of the type Bearer"));
    }
    let header = auth::bearer(&token).map_err(|_| no_token())?;
    let lifetime = match expires_in {
        Some(Seconds::Number(seconds)) => Duration::from_secs(seconds),
        Some(Seconds::Text(text)) => text.parse().map_or(LIFETIME, Duration::from_secs),
        None => LIFETIME,
    };
    Ok(Token::new(header, fetched, lifetime))
}

/// Of what a server says on its own only the code is repeated, if it is one of section 5.2.
fn refusal(status: StatusCode, code: Option<&str>) -> Fault {
    let reason = match (code, status.as_u16()) {
        (Some("invalid_client"), _) => Reason::AuthenticationFailed,
        (Some("unauthorized_client" | "invalid_scope" | "access_denied"), _) => Reason::PermissionDenied,
        (Some("invalid_request" | "invalid_grant" | "unsupported_grant_type"), _) => Reason::ProtocolError,
        (_, 401) => return Fault::new(Reason::AuthenticationFailed, "it refuses the client"),
        (_, 403) => return Fault::new(Reason::PermissionDenied, "it refuses the client"),
        (_, 429 | 500..) => return Fault::new(Reason::Unavailable, format!("it answers with {status}")),
        _ => return Fault::new(Reason::ProtocolError, format!("it answers with {status}")),
    };
    Fault::new(reason, format!("it refuses the client ({})", code.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_ahead_of_its_end() {
        let seconds = |lifetime| margin(Duration::from_secs(lifetime)).as_secs();
        assert_eq!((seconds(10), seconds(300), seconds(3600)), (2, 60, 60));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_token_is_replaced_unless_it_is_new_or_not_the_one_in_use() {
        let egress = Egress::unrestricted();
        let client = ClientCredentials {
            token_url: "http://localhost".to_owned(),
            client_id: String::new(),
            client_secret: "".into(),
            scopes: Vec::new(),
        };
        let tls = http::tls(&crate::backends::transport::TlsSettings::default()).unwrap();
        let tokens = Tokens::new(&client, egress, &tls).unwrap();
        let [old, used] = ["Bearer old", "Bearer used"].map(HeaderValue::from_static);
        tokens.0.settle(Ok(Token::new(used.clone(), Instant::now(), LIFETIME))).unwrap();
        tokens.refused(&used);
        assert!(tokens.0.state().renewal.is_none());
        tokio::time::advance(TRUSTED_FOR).await;
        tokens.refused(&old);
        assert!(tokens.0.state().renewal.is_none());
        tokens.refused(&used);
        assert!(tokens.0.state().renewal.is_some());
        assert_eq!(tokens.get().await.unwrap(), used, "until another one is there");
    }

    #[test]
    fn a_refusal_tells_the_code_and_nothing_else_of_the_server_s_words() {
        let refused = |status, code| refusal(StatusCode::from_u16(status).unwrap(), code);
        let known = refused(400, Some("invalid_client"));
        assert_eq!(known, Fault::new(Reason::AuthenticationFailed, "it refuses the client (invalid_client)"));
        assert_eq!(refused(400, Some("invalid_scope")).reason, Reason::PermissionDenied);
        let unknown = refused(401, Some("no such secret: hunter2"));
        assert_eq!(unknown, Fault::new(Reason::AuthenticationFailed, "it refuses the client"));
        assert_eq!(refused(503, None).reason, Reason::Unavailable);
        assert_eq!(refused(302, None).reason, Reason::ProtocolError);
    }
}

//! Access tokens by the client credentials grant of OAuth 2.0 (RFC 6749, section 4.4): fetched once for all callers, and
//! renewed before they expire.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use hyper::header::HeaderValue;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::{
    ClientCredentials,
    token_request::{AccessToken, TokenRequest},
};
use crate::{
    api::Reason,
    backends::{
        Fault,
        http::{Client, Connections, Egress},
        transport::Tls,
    },
};

/// Timeout of a token request.
const TIMEOUT: Duration = Duration::from_secs(10);

/// All callers get the last failure for this time, so that not each call sends a request to a failing token endpoint.
const FAILURE_TTL: Duration = Duration::from_secs(1);

/// A token that the API refuses although it is younger than this is not replaced: a new one would not help.
const MIN_REPLACE_AGE: Duration = Duration::from_secs(10);

/// Upper bound of this age: a token that was really revoked is replaced within it.
const MAX_REPLACE_AGE: Duration = Duration::from_mins(10);

/// A token that is refused before it is so many times as old was not refused for its age: the next one must be twice as old
/// to be replaced.
const EARLY_FACTOR: u32 = 6;

/// The tokens of one client.
pub(super) struct Tokens(Arc<Inner>);

struct Inner {
    client: Client,
    request: TokenRequest,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    failure: Option<(Instant, Fault)>,
    renewal: Option<Renewal>,
}

/// A renewal that all callers await.
type Renewal = Shared<BoxFuture<'static, Result<HeaderValue, Fault>>>;

struct Token {
    header: HeaderValue,
    fetched: Instant,
    lifetime: Duration,
    replace_age: Duration,
    refused: bool,
}

impl Token {
    fn new(AccessToken { header, lifetime }: AccessToken, fetched: Instant) -> Self {
        Self { header, fetched, lifetime, replace_age: MIN_REPLACE_AGE, refused: false }
    }

    fn is_alive(&self) -> bool {
        self.fetched.elapsed() < self.lifetime
    }

    /// Shortly before it expires it is still used, while another one is fetched.
    fn is_fresh(&self) -> bool {
        self.fetched.elapsed() + margin(self.lifetime) < self.lifetime
    }

    /// The `replace_age` of its successor.
    fn next_replace_age(&self) -> Duration {
        let early = self.fetched.elapsed() < self.replace_age.saturating_mul(EARLY_FACTOR);
        if self.refused && early { (2 * self.replace_age).min(MAX_REPLACE_AGE) } else { MIN_REPLACE_AGE }
    }
}

/// How long before it expires a token is renewed: a fifth of its lifetime, and at most a minute.
fn margin(lifetime: Duration) -> Duration {
    (lifetime / 5).min(Duration::from_mins(1))
}

impl Tokens {
    /// Fetches nothing yet.
    ///
    /// # Errors
    /// A URL or a secret that cannot be used.
    pub(super) fn new(client: &ClientCredentials, egress: Egress, tls: &Tls) -> Result<Self, Fault> {
        let request = TokenRequest::new(client)?;
        let client = Client::new(request.uri(), egress, tls, None, Connections::Fresh(TIMEOUT));
        Ok(Self(Arc::new(Inner { client, request, state: Mutex::default() })))
    }

    /// A token, as the value of `Authorization`.
    ///
    /// # Errors
    /// Why there is none.
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

    /// The renewal in progress, or a new one.
    ///
    /// # Errors
    /// The failure of the last one, if it is recent.
    fn renewal(&self, state: &mut State) -> Result<Renewal, Fault> {
        match (&state.renewal, &state.failure) {
            (Some(renewal), _) => Ok(renewal.clone()),
            (None, Some((at, fault))) if at.elapsed() < FAILURE_TTL => Err(fault.clone()),
            (None, _) => Ok(self.renew(state)),
        }
    }

    /// Starts a renewal, which goes on when its callers go away.
    fn renew(&self, state: &mut State) -> Renewal {
        let this = Arc::clone(&self.0);
        let task = tokio::spawn(async move {
            // A panic must not leave a renewal that never finishes: every later call would await it.
            let fetched = AssertUnwindSafe(this.fetch()).catch_unwind().await.unwrap_or_else(|_| aborted());
            let prefixed =
                |fault: Fault| Fault::new(fault.reason, format!("token endpoint: {}", fault.detail));
            this.finish_renewal(fetched.map_err(prefixed))
        });
        let renewal = async move { task.await.unwrap_or_else(|_| aborted()) }.boxed().shared();
        state.renewal = Some(renewal.clone());
        renewal
    }

    /// The API refused this token: unless it is new, another one is fetched. It is used until then, since the API may have
    /// refused that one request only.
    pub(super) fn refused(&self, header: &HeaderValue) {
        let mut state = self.0.state();
        let Some(token) = state.token.as_mut().filter(|token| token.header == header) else { return };
        token.refused = true;
        if token.fetched.elapsed() >= token.replace_age {
            // If it fails, the API will refuse the token again.
            drop(self.renewal(&mut state));
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn finish_renewal(&self, fetched: Result<Token, Fault>) -> Result<HeaderValue, Fault> {
        let mut state = self.state();
        state.renewal = None;
        match fetched {
            Ok(mut token) => {
                let header = token.header.clone();
                token.replace_age = state.token.as_ref().map_or(MIN_REPLACE_AGE, Token::next_replace_age);
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
        // Taken before the request: the token's lifetime starts no earlier.
        let fetched = Instant::now();
        let response = self.client.send(self.request.build()?, fetched + TIMEOUT).await?;
        Ok(Token::new(self.request.read(response).await?, fetched))
    }
}

/// By a panic, or by the end of the process.
fn aborted<T>() -> Result<T, Fault> {
    Err(Fault::new(Reason::Unavailable, "the token request was aborted"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::{external_api::ClientAuthentication, http};

    #[test]
    fn a_token_is_renewed_before_it_expires() {
        let seconds = |lifetime| margin(Duration::from_secs(lifetime)).as_secs();
        assert_eq!((seconds(10), seconds(300), seconds(3600)), (2, 60, 60));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_token_is_replaced_unless_it_is_new_or_not_the_one_in_use() {
        let egress = Egress::unrestricted();
        let secret = ClientAuthentication::Basic("".into());
        let client = ClientCredentials::new("http://localhost", "", secret);
        let tls = http::tls(&crate::backends::transport::TlsSettings::default()).unwrap();
        let tokens = Tokens::new(&client, egress, &tls).unwrap();
        let [old, used] = ["Bearer old", "Bearer used"].map(HeaderValue::from_static);
        let fetched = AccessToken { header: used.clone(), lifetime: Duration::from_mins(5) };
        tokens.0.finish_renewal(Ok(Token::new(fetched, Instant::now()))).unwrap();
        tokens.refused(&used);
        assert!(tokens.0.state().renewal.is_none());
        tokio::time::advance(MIN_REPLACE_AGE).await;
        tokens.refused(&old);
        assert!(tokens.0.state().renewal.is_none());
        tokens.refused(&used);
        assert!(tokens.0.state().renewal.is_some());
        assert_eq!(tokens.get().await.unwrap(), used, "until there is another one");
    }
}

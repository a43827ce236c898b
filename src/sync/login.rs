//! Login by LDAP: a password is right if the directory takes it for the entry that the name leads to, and for no other.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use parking_lot::Mutex;
use secrecy::{ExposeSecret, SecretString};

use crate::{
    api::Reason,
    backends::{
        Fault,
        directory::{Bound, Connection, Directory, Found, Search, UserSearch},
    },
    domain::sync::{
        account::{self, Refusal},
        dn::{self, Dn},
        entry::Entry,
        filter::{Filter, Template},
        key::Key,
        login::{self, Attempts, BindVerdict, InvalidLogin, Throttle, bind_verdict},
        mapping::Mapped,
        record::UserRecord,
    },
    store::{
        self, Store,
        users::{Person, SourceName},
    },
};

/// How somebody logs in.
#[derive(Clone, Debug)]
pub struct LoginSettings {
    /// The source, as the store knows it.
    pub source: SourceName,
    /// Where users are; its filter, which finds everybody, is not used here.
    pub users: UserSearch,
    /// Finds a user by name.
    pub filter: Template,
    /// How the name leads to an entry.
    pub mode: LoginMode,
}

/// How a name leads to an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginMode {
    /// It is searched for with our own login, and the entry that is found is bound to.
    SearchThenBind,
    /// It stands in the place `{}` of a DN, or of another name that the server takes (`{}@example.org`); the filter must find the user
    /// all the same.
    Template(String),
}

/// Why somebody is not let in. All refusals look the same to the caller; the audit log may know.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LoginError {
    /// Nobody was asked.
    #[error(transparent)]
    Invalid(#[from] InvalidLogin),
    /// The name or the password is wrong, or the account may not be used.
    #[error("the user name or the password is wrong")]
    Refused(Denial),
    /// Too many failures.
    #[error("too many failed logins")]
    Throttled(Duration),
    /// The directory cannot tell.
    #[error("{0}")]
    Unavailable(Fault),
    /// The store does not work.
    #[error("{0}")]
    Store(Arc<store::Error>),
}

/// Why somebody was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// Nobody has the name.
    NoSuchUser,
    /// Several have it.
    Ambiguous,
    /// The entry cannot be used.
    Unusable,
    /// The password is wrong.
    WrongPassword,
    /// The account may not be used.
    Account(Refusal),
    /// The user is disabled here.
    Disabled,
}

impl Denial {
    /// One word for the audit log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoSuchUser => "NoSuchUser",
            Self::Ambiguous => "Ambiguous",
            Self::Unusable => "Unusable",
            Self::WrongPassword => "WrongPassword",
            Self::Account(refusal) => refusal.as_str(),
            Self::Disabled => "DisabledHere",
        }
    }
}

impl From<Fault> for LoginError {
    fn from(fault: Fault) -> Self {
        Self::Unavailable(fault)
    }
}

impl From<Denial> for LoginError {
    fn from(denial: Denial) -> Self {
        Self::Refused(denial)
    }
}

/// The logins of a directory.
pub struct Logins {
    directory: Arc<Directory>,
    settings: LoginSettings,
    started: Instant,
    entries: Throttled,
    callers: Throttled,
}

impl Logins {
    /// The logins of a directory.
    #[must_use]
    pub fn new(directory: Arc<Directory>, settings: LoginSettings) -> Self {
        let [entries, callers] = [Throttle::ENTRY, Throttle::CALLER].map(Throttled::new);
        Self { directory, settings, started: Instant::now(), entries, callers }
    }

    /// Asks the directory whether this is the user's password, and who the user is to us.
    ///
    /// # Errors
    /// Why the user is not let in.
    pub async fn authenticate(
        &self,
        store: &Store,
        caller: &str,
        name: &str,
        password: &SecretString,
    ) -> Result<Person, LoginError> {
        login::check(name, password.expose_secret())?;
        let caller = Key::username(caller);
        let now = self.started.elapsed();
        self.callers.begin(caller, now)?;
        let asked = match &self.settings.mode {
            LoginMode::SearchThenBind => self.search_then_bind(name, password).await,
            LoginMode::Template(template) => self.bind_by_template(template, name, password).await,
        };
        let (record, attempt) = match asked {
            Ok(found) => found,
            Err(error) => {
                if !matches!(error, LoginError::Refused(_)) {
                    self.callers.end(caller, Attempts::take_back);
                }
                return Err(error);
            }
        };
        self.callers.end(caller, Attempts::succeed);
        self.entries.end(attempt, Attempts::succeed);
        let person = store.users().logged_in(&self.settings.source, &record).await;
        let person = person.map_err(|error| LoginError::Store(Arc::new(error)))?.ok_or(Denial::Unusable)?;
        if person.active { Ok(person) } else { Err(Denial::Disabled.into()) }
    }

    /// The user, and what stands for the attempt.
    async fn search_then_bind(
        &self,
        name: &str,
        password: &SecretString,
    ) -> Result<(UserRecord, Key), LoginError> {
        let entry = match self.find(name).await {
            Ok(entry) => entry,
            Err(LoginError::Refused(denial)) => {
                // As slow as a login of somebody who exists, and as soon to be throttled.
                self.entries.begin(Key::username(name), self.started.elapsed())?;
                self.bind_to_nobody().await?;
                return Err(denial.into());
            }
            Err(error) => return Err(error),
        };
        let record = self.record(&entry)?;
        let attempt = Key::id(&record.external_id);
        self.entries.begin(attempt, self.started.elapsed())?;
        let (bound, _) = self.bind(&record.dn, password, attempt).await?;
        self.judge(&bound, &entry, attempt)?;
        Ok((record, attempt))
    }

    async fn bind_by_template(
        &self,
        template: &str,
        name: &str,
        password: &SecretString,
    ) -> Result<(UserRecord, Key), LoginError> {
        let attempt = Key::username(name);
        self.entries.begin(attempt, self.started.elapsed())?;
        // In another name than a DN there is nothing to escape.
        let is_dn = template.contains('=');
        let bind_name = template.replace("{}", &if is_dn { dn::escape(name) } else { name.to_owned() });
        let (bound, mut connection) = self.bind(&bind_name, password, attempt).await?;
        if bind_verdict(bound.outcome.code, &bound.outcome.text) != BindVerdict::Accepted {
            self.judge(&bound, &Entry::default(), attempt)?;
        }
        let found = connection.find(&self.search(name), 2).await?;
        connection.close().await;
        let entry = only(found)?;
        let record = self.record(&entry)?;
        if is_dn && Dn::parse(&record.dn) != Dn::parse(&bind_name) {
            return Err(Denial::NoSuchUser.into());
        }
        self.judge(&bound, &entry, attempt)?;
        Ok((record, attempt))
    }

    /// The only entry that the name leads to.
    async fn find(&self, name: &str) -> Result<Entry, LoginError> {
        let search = self.search(name);
        loop {
            let mut lent = self.directory.lend().await?;
            match lent.connection.find(&search, 2).await {
                Ok(found) => {
                    self.directory.give_back(lent);
                    return only(found);
                }
                // The server may have closed it while it waited for work, or may be gone: then another one is asked.
                Err(fault) if lent.used => {
                    tracing::debug!(%fault, "a connection that waited for work has ended");
                }
                Err(fault) => {
                    self.directory.is_down(lent.connection.server());
                    return Err(fault.into());
                }
            }
        }
    }

    fn search(&self, name: &str) -> Search {
        let LoginSettings { users, filter, .. } = &self.settings;
        let mut wanted = filter.fill(name.as_bytes());
        if !filter.has_place() {
            wanted = wanted.and(Filter::equal(users.mapping.username.clone(), name));
        }
        let mut attributes = users.mapping.attributes();
        attributes.extend(users.mapping.preset.login_flags().iter().map(|name| (*name).to_owned()));
        Search { base: users.base.clone(), scope: users.scope, filter: wanted, attributes, size_limit: 2 }
    }

    fn record(&self, entry: &Entry) -> Result<UserRecord, LoginError> {
        match self.settings.users.mapping.user(entry, None, Timestamp::now()) {
            Ok(Mapped::User(record)) => Ok(*record),
            Ok(Mapped::NoPerson) => Err(Denial::NoSuchUser.into()),
            Err(_) => Err(Denial::Unusable.into()),
        }
    }

    async fn bind(
        &self,
        name: &str,
        password: &SecretString,
        attempt: Key,
    ) -> Result<(Bound, Connection), LoginError> {
        let bound = self.directory.bind(name, password).await;
        bound.map_err(|fault| {
            self.entries.end(attempt, Attempts::take_back);
            fault.into()
        })
    }

    async fn bind_to_nobody(&self) -> Result<(), LoginError> {
        let nobody = format!("cn={:032x},{}", rand::random::<u128>(), self.settings.users.base);
        let password = format!("{:032x}", rand::random::<u128>()).into();
        self.directory.bind(&nobody, &password).await?;
        Ok(())
    }

    /// What the answer to a bind means, given the entry.
    fn judge(&self, bound: &Bound, entry: &Entry, attempt: Key) -> Result<(), LoginError> {
        match bind_verdict(bound.outcome.code, &bound.outcome.text) {
            BindVerdict::Accepted => {
                let preset = self.settings.users.mapping.preset;
                match bound.refusal.or_else(|| account::refusal(preset, entry, Timestamp::now())) {
                    Some(refusal) => Err(Denial::Account(refusal).into()),
                    None => Ok(()),
                }
            }
            BindVerdict::Refused(refusal) => {
                Err(refusal.or(bound.refusal).map_or(Denial::WrongPassword, Denial::Account).into())
            }
            BindVerdict::NeedsTls | BindVerdict::Unavailable => {
                self.entries.end(attempt, Attempts::take_back);
                Err(bound
                    .fault()
                    .unwrap_or_else(|| Fault::new(Reason::Unavailable, "the server cannot tell"))
                    .into())
            }
        }
    }
}

/// The entry of a search that has found one.
fn only(found: Found) -> Result<Entry, LoginError> {
    const SIZE_LIMIT: u32 = 4;
    match found.entries.len() {
        // The limit is ours.
        2.. => Err(Denial::Ambiguous.into()),
        _ if found.outcome.code == SIZE_LIMIT => Err(Denial::Ambiguous.into()),
        _ => found.entries()?.into_iter().next().ok_or_else(|| Denial::NoSuchUser.into()),
    }
}

/// Failures in a row, by who has failed.
struct Throttled {
    throttle: Throttle,
    attempts: Mutex<HashMap<Key, Attempts>>,
}

/// With so many, those that are forgotten are cleared away.
const MANY: usize = 10_000;

impl Throttled {
    fn new(throttle: Throttle) -> Self {
        Self { throttle, attempts: Mutex::default() }
    }

    fn begin(&self, key: Key, now: Duration) -> Result<(), LoginError> {
        let mut attempts = self.attempts.lock();
        if attempts.len() >= MANY {
            attempts.retain(|_, attempts| !attempts.is_forgotten(&self.throttle, now));
        }
        attempts.entry(key).or_default().begin(&self.throttle, now).map_err(LoginError::Throttled)
    }

    fn end(&self, key: Key, end: fn(&mut Attempts)) {
        if let Some(attempts) = self.attempts.lock().get_mut(&key) {
            end(attempts);
        }
    }
}

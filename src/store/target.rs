//! Where the store is.

use std::{
    fs::{File, TryLockError},
    io,
    str::FromStr,
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    ConnectOptions, PgPool, SqlitePool,
    pool::PoolOptions,
    postgres::PgConnectOptions,
    sqlite::{SqliteConnectOptions, SqliteSynchronous},
};

use super::{InvalidLocation, OPERATION_TIMEOUT};

/// How to connect.
pub(super) enum Target {
    /// A file.
    File(SqliteConnectOptions),
    /// The process' memory.
    Memory(SqliteConnectOptions),
    /// A server.
    Postgresql(Box<PgConnectOptions>),
}

/// Its connections.
#[derive(Clone)]
pub(super) enum Pool {
    Sqlite(SqlitePool),
    Postgresql(PgPool),
}

/// Its connections, by what they are for.
#[derive(Clone)]
pub(super) struct Pools {
    /// Whatever has none of its own.
    pub(super) all: Pool,
    /// What is written of deliveries.
    pub(super) delivery: Pool,
}

/// The sole right to a file. The system takes it back when the process ends, however it does.
#[derive(Debug)]
pub struct FileLock(#[allow(dead_code, reason = "it is held, and not looked at")] Option<File>);

/// Connections for what is written of deliveries: to a server one for what comes in, and one for what has become of it.
const WRITERS: u32 = 2;

/// Connections to a server: one to write, one to read, and some for who waits for the end of one that broke.
const MOST: u32 = 4;

impl Target {
    pub(super) fn parse(url: &SecretString) -> Result<Self, InvalidLocation> {
        let url = url.expose_secret();
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            // The error may have parts of the URL in it.
            let options = PgConnectOptions::from_str(url).map_err(|_| InvalidLocation::Url)?;
            let options = options.application_name("authlink-store").disable_statement_logging();
            return Ok(Self::Postgresql(Box::new(options)));
        }
        if !url.starts_with("sqlite:") {
            return Err(InvalidLocation::Url);
        }
        let options = SqliteConnectOptions::from_str(url).map_err(|_| InvalidLocation::Url)?;
        let options = options.disable_statement_logging().busy_timeout(OPERATION_TIMEOUT / 2);
        if url == "sqlite::memory:" || url == "sqlite://:memory:" {
            return Ok(Self::Memory(options));
        }
        if options.get_filename().as_os_str().is_empty() {
            return Err(InvalidLocation::Url);
        }
        // What is said to be written survives a power failure: the write-ahead log is synced at each commit.
        let options = options.create_if_missing(true).synchronous(SqliteSynchronous::Full);
        // Each time that the log is copied into the file, both are synced: with 32 MiB of it a few times a minute under load, and not
        // several times a second.
        Ok(Self::File(options.pragma("wal_autocheckpoint", "8192")))
    }

    pub(super) fn in_memory() -> Self {
        Self::Memory(SqliteConnectOptions::new().in_memory(true).disable_statement_logging())
    }

    /// Connects when a connection is asked for.
    pub(super) fn pools(&self) -> Pools {
        let all = self.pool(MOST);
        let delivery = match self {
            Self::File(_) => self.pool(1),
            Self::Memory(_) => all.clone(),
            Self::Postgresql(_) => self.pool(WRITERS),
        };
        Pools { all, delivery }
    }

    fn pool(&self, most: u32) -> Pool {
        match self {
            Self::File(options) => Pool::Sqlite(settings(most).connect_lazy_with(options.clone())),
            // The data is as old as the connection.
            Self::Memory(options) => {
                let settings = settings(1).idle_timeout(None).max_lifetime(None);
                Pool::Sqlite(settings.connect_lazy_with(options.clone()))
            }
            Self::Postgresql(options) => {
                Pool::Postgresql(settings(most).connect_lazy_with(options.as_ref().clone()))
            }
        }
    }

    pub(super) fn lock(&self) -> io::Result<Option<FileLock>> {
        let Self::File(options) = self else { return Ok(Some(FileLock(None))) };
        let mut path = options.get_filename().as_os_str().to_owned();
        path.push(".lock");
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(FileLock(Some(file)))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    pub(super) fn place(&self) -> String {
        match self {
            Self::File(options) => format!("sqlite:{}", options.get_filename().display()),
            Self::Memory(_) => "sqlite::memory:".to_owned(),
            Self::Postgresql(options) => {
                let (host, port) = (options.get_host(), options.get_port());
                format!("postgres://{host}:{port}/{}", options.get_database().unwrap_or_default())
            }
        }
    }
}

fn settings<D: sqlx::Database>(most: u32) -> PoolOptions<D> {
    PoolOptions::new()
        .max_connections(most)
        .acquire_timeout(OPERATION_TIMEOUT / 2)
        .idle_timeout(Duration::from_mins(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Option<String> {
        Target::parse(&url.into()).ok().map(|target| target.place())
    }

    #[test]
    fn a_url_says_which_store_and_its_place_hides_the_login() {
        let rows = [
            ("sqlite:///data/authlink.db", "sqlite:/data/authlink.db"),
            ("sqlite::memory:", "sqlite::memory:"),
            ("postgres://app:s3cret@db:5433/authlink", "postgres://db:5433/authlink"),
            ("postgresql://app:s3%3Acret@db/authlink?sslmode=require", "postgres://db:5432/authlink"),
        ];
        for (url, place) in rows {
            assert_eq!(parsed(url).as_deref(), Some(place), "{url}");
        }
    }

    #[test]
    fn what_is_no_url_of_a_store_is_refused() {
        let bad = [
            "",
            "sqlite:",
            "sqlite://",
            "authlink.db",
            "mysql://root:s3cret@db/x",
            "postgres://app:s3cret@db:99999999/x",
            "postgres://app:s3cret@db/x?sslmode=s3cret",
        ];
        for url in bad {
            assert_eq!(parsed(url), None, "{url}");
        }
    }
}

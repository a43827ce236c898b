//! Connection URIs as providers and clients write them: `scheme://user:password@host:port,host:port/database?option=value` (RFC 3986, with
//! several hosts as PostgreSQL and MongoDB have them).

mod options;

use percent_encoding::percent_decode_str;
use secrecy::SecretString;

use super::Credential;
use crate::api::v1alpha1::database::{Engine, TlsMode};

/// The parts of a URI.
#[derive(Clone, Debug, Default)]
pub struct Uri {
    /// Host and port of each server; at least one.
    pub hosts: Vec<(String, u16)>,
    /// User name and password.
    pub credential: Credential,
    /// Name or number of the database.
    pub database: Option<String>,
    /// MongoDB's `authSource`.
    pub auth_source: Option<String>,
    /// The TLS mode; `spec.tls.mode` takes precedence.
    pub tls: Option<TlsMode>,
    /// `sslrootcert=system`: only the public CAs are trusted.
    pub public_ca: bool,
    /// Options that name a file with CA certificates, which only `spec.tls.caRef` can provide.
    pub ca_files: Vec<String>,
    /// Options that name a file with a client certificate or its key, which only `spec.tls.clientCertRef` can provide.
    pub client_files: Vec<String>,
    /// Options that clients of the binding need as well, with their values.
    pub options: Vec<(String, String)>,
    /// The names of the options that were ignored.
    pub ignored: Vec<String>,
}

/// Parses a URI of this engine.
///
/// # Errors
/// What is wrong, without any part of the URI, which holds a password.
pub fn parse(engine: Engine, text: &str) -> Result<Uri, String> {
    let text = text.trim();
    let text = text.strip_prefix("jdbc:").unwrap_or(text);
    let (scheme, rest) = text.split_once("://").ok_or("has no scheme such as postgresql://")?;
    let mut uri = Uri { tls: scheme_of(engine, scheme)?, ..Uri::default() };
    let (login, rest) = split_userinfo(rest)?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
    if let Some(login) = login {
        let (username, password) = match login.split_once(':') {
            Some((username, password)) => (username, password),
            None => (login, ""),
        };
        uri.credential = Credential::new(decode(username)?, decode(password)?);
    }
    let host = |host| host_and_port(host, engine.default_port());
    uri.hosts = hosts.split(',').map(host).collect::<Result<_, _>>()?;
    uri.database = Some(decode(path)?).filter(|name| !name.is_empty());
    options::read(engine, query, &mut uri)?;
    let number = |name: &str| (1..=4).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_digit());
    if engine == Engine::Redis && !uri.database.as_deref().is_none_or(number) {
        return Err("names a database, which redis has by number only, such as /0".to_owned());
    }
    Ok(uri)
}

fn scheme_of(engine: Engine, scheme: &str) -> Result<Option<TlsMode>, String> {
    if (engine, scheme) == (Engine::Mongodb, "mongodb+srv") {
        return Err(
            "has the scheme mongodb+srv, which is not supported: list the hosts by mongodb://".to_owned()
        );
    }
    // SQLAlchemy appends the driver, such as postgresql+psycopg.
    match (engine, scheme.split('+').next().unwrap_or_default()) {
        (Engine::Postgresql, "postgres" | "postgresql")
        | (Engine::Mysql, "mysql" | "mysql2" | "mariadb")
        | (Engine::Mongodb, "mongodb") => Ok(None),
        (Engine::Redis, "redis" | "valkey") => Ok(Some(TlsMode::None)),
        (Engine::Redis, "rediss" | "valkeys") => Ok(Some(TlsMode::VerifyFull)),
        _ => Err(format!("has a scheme that spec.type {} does not have", engine.as_str())),
    }
}

/// The userinfo is everything up to the last `@`: of a password that is not percent-encoded, no part may pass for a host.
fn split_userinfo(rest: &str) -> Result<(Option<&str>, &str), String> {
    let userinfo =
        rest.rmatch_indices('@').map(|(at, _)| at).find(|at| !options::may_have_at_sign(&rest[..*at]));
    let Some(at) = userinfo else { return Ok((None, rest)) };
    if rest[..at].contains(['/', '?', '#']) {
        return Err("has / ? or # in user or password: percent-encode them as %2F %3F %23".to_owned());
    }
    Ok((Some(&rest[..at]), &rest[at + 1..]))
}

fn host_and_port(text: &str, default_port: u16) -> Result<(String, u16), String> {
    let port = |port: &str| {
        port.parse().ok().filter(|port| *port > 0).ok_or_else(|| "has a port that is no number".to_owned())
    };
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or("has a [ without its ]")?;
            (host, rest.strip_prefix(':').map(port).transpose()?)
        }
        None => match text.split_once(':') {
            Some((host, digits)) => (host, Some(port(digits)?)),
            None => (text, None),
        },
    };
    let host = decode(host)?;
    if host.is_empty() {
        return Err("has no host".to_owned());
    }
    if host.starts_with('/') {
        return Err("names a Unix socket: name a host that is reached by TCP".to_owned());
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
    if !host.bytes().all(allowed) {
        return Err("has a host with characters that host names do not have".to_owned());
    }
    Ok((host, port.unwrap_or(default_port)))
}

fn decode(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(std::borrow::Cow::into_owned).map_err(|_| "has bytes that are not UTF-8".to_owned())
}

fn secret(text: &str) -> Result<Option<SecretString>, String> {
    Ok(Some(decode(text)?).filter(|text| !text.is_empty()).map(SecretString::from))
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use secrecy::ExposeSecret;

    use super::*;

    fn password(uri: &Uri) -> Option<&str> {
        uri.credential.password.as_ref().map(ExposeSecret::expose_secret)
    }

    #[test]
    fn every_part_is_read() {
        let uri = parse(Engine::Postgresql, "postgresql://app:p%40ss@a:1,[::1]:2,c/orders?sslmode=verify-ca");
        let uri = uri.expect("a URI");
        let hosts: Vec<_> = uri.hosts.iter().map(|(host, port)| (host.as_str(), *port)).collect();
        assert_eq!(hosts, [("a", 1), ("::1", 2), ("c", 5432)]);
        assert_eq!((uri.credential.username.as_deref(), password(&uri)), (Some("app"), Some("p@ss")));
        assert_eq!((uri.database.as_deref(), uri.tls), (Some("orders"), Some(TlsMode::VerifyCa)));
    }

    #[test]
    fn every_printable_character_survives_in_a_password() {
        let all: String = (' '..='~').collect();
        let encoded = utf8_percent_encode(&all, NON_ALPHANUMERIC);
        let uri = parse(Engine::Redis, &format!("rediss://:{encoded}@h/3")).expect("a URI");
        assert_eq!(password(&uri), Some(all.as_str()));
        assert_eq!((&uri.credential.username, uri.tls), (&None, Some(TlsMode::VerifyFull)));
    }

    #[test]
    fn an_at_sign_or_a_colon_in_a_password_needs_no_encoding() {
        let uri = parse(Engine::Mysql, "mysql://app:p@s:s@h/d").expect("a URI");
        assert_eq!((password(&uri), uri.hosts[0].0.as_str()), (Some("p@s:s"), "h"));
    }

    #[test]
    fn no_part_of_a_password_passes_for_a_host_or_shows_in_an_error() {
        for (engine, text) in [
            (Engine::Postgresql, "postgres://app:12/hunter2@db.example.com/app"),
            (Engine::Postgresql, "postgres://app:12?hunter2@db.example.com/app"),
            (Engine::Postgresql, "postgres://app:12#hunter2@db.example.com/app"),
            (Engine::Postgresql, "postgres://app:p@hunter2/w@db.example.com/app"),
            (Engine::Postgresql, "postgres://app:p@hunter2?x=1@db.example.com/app"),
            (Engine::Mysql, "postgres://u:hunter2@h/d"),
            (Engine::Mysql, "u:hunter2@h/d"),
            (Engine::Mysql, "mysql://u:hunter2@h:port/d"),
            (Engine::Mysql, "mysql://u:hunter2@/d"),
            (Engine::Mysql, "mysql://u:hunter2"),
            (Engine::Mysql, "mysql://u hunter2"),
            (Engine::Mongodb, "mongodb+srv://u:hunter2@h/d"),
            (Engine::Mongodb, "mongodb://u:p@h/d?authMechanism=hunter2"),
            (Engine::Postgresql, "postgres://u:hunter2@[::1/d"),
            (Engine::Postgresql, "postgres://u:p@h/d?sslmode=hunter2"),
            (Engine::Redis, "rediss://u:hunter2@h/hunter2"),
        ] {
            let error = parse(engine, text).expect_err(text);
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn drivers_names_in_the_scheme_are_passed_over() {
        for (engine, scheme) in [
            (Engine::Postgresql, "postgresql+asyncpg"),
            (Engine::Postgresql, "jdbc:postgresql"),
            (Engine::Mysql, "mysql+pymysql"),
            (Engine::Mysql, "mysql2"),
        ] {
            let uri = parse(engine, &format!("{scheme}://h/d?user=app&password=p%26w")).expect(scheme);
            assert_eq!((uri.credential.username.as_deref(), password(&uri)), (Some("app"), Some("p&w")));
        }
    }
}

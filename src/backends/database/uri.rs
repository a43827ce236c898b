//! Connection URIs: `scheme://user:password@host:port,host:port/database?option=value` (RFC 3986, with several hosts
//! as PostgreSQL and MongoDB have them).

use percent_encoding::percent_decode_str;
use secrecy::SecretString;

use super::Credential;
use crate::api::v1alpha1::database::{Engine, TlsMode};

/// What a URI says.
#[derive(Clone, Debug)]
pub struct Uri {
    /// Host and port of each server; at least one.
    pub hosts: Vec<(String, u16)>,
    /// Who logs in.
    pub credential: Credential,
    /// Name or number of the database.
    pub database: Option<String>,
    /// MongoDB's `authSource`.
    pub auth_source: Option<String>,
    /// What the URI says of TLS; `spec.tls.mode` wins.
    pub tls: Option<TlsMode>,
}

/// Reads a URI of this engine.
///
/// # Errors
/// What is wrong, without a word of the URI itself, which holds a password.
pub fn parse(engine: Engine, text: &str) -> Result<Uri, String> {
    let (scheme, rest) = text.trim().split_once("://").ok_or("has no scheme such as postgresql://")?;
    let mut tls = scheme_of(engine, scheme)?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = match authority.rsplit_once('@') {
        Some((login, hosts)) => (Some(login), hosts),
        None => (None, authority),
    };
    let mut credential = Credential::default();
    if let Some(login) = login {
        let (username, password) = match login.split_once(':') {
            Some((username, password)) => (username, Some(password)),
            None => (login, None),
        };
        credential.username = Some(decode(username)?).filter(|name| !name.is_empty());
        credential.password = password.map(decode).transpose()?.map(SecretString::from);
    }
    let hosts =
        hosts.split(',').map(|host| host_and_port(host, engine.default_port())).collect::<Result<_, _>>()?;
    let mut auth_source = None;
    for option in query.split('&').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        match name {
            "sslmode" | "ssl-mode" | "tls" | "ssl" => tls = tls_mode(value)?.or(tls),
            "authSource" => auth_source = Some(decode(value)?),
            // These steer drivers in ways that do not matter to a probe.
            "replicaSet" | "retryWrites" | "w" | "appName" | "application_name" | "directConnection" => {}
            _ => return Err("has an option that is not understood; sslmode, tls, authSource are".to_owned()),
        }
    }
    let database = Some(decode(path)?).filter(|name| !name.is_empty());
    let number = |name: &str| (1..=4).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_digit());
    if engine == Engine::Redis && !database.as_deref().is_none_or(number) {
        return Err("names a database, which redis has by number only, such as /0".to_owned());
    }
    Ok(Uri { hosts, credential, database, auth_source, tls })
}

fn scheme_of(engine: Engine, scheme: &str) -> Result<Option<TlsMode>, String> {
    match (engine, scheme) {
        (Engine::Postgresql, "postgres" | "postgresql")
        | (Engine::Mysql, "mysql" | "mariadb")
        | (Engine::Mongodb, "mongodb") => Ok(None),
        (Engine::Redis, "redis" | "valkey") => Ok(Some(TlsMode::None)),
        (Engine::Redis, "rediss" | "valkeys") => Ok(Some(TlsMode::VerifyFull)),
        (Engine::Mongodb, "mongodb+srv") => {
            Err("names its servers by SRV records, which is not offered: list the hosts".to_owned())
        }
        _ => Err(format!("has another scheme than spec.type {} has", engine.as_str())),
    }
}

/// `sslmode` of libpq, `ssl-mode` of MySQL, `tls`/`ssl` of MongoDB. "Use it if it is there" protects nobody: the
/// spec decides then.
fn tls_mode(value: &str) -> Result<Option<TlsMode>, String> {
    Ok(match value.to_ascii_lowercase().replace('_', "-").as_str() {
        "disable" | "disabled" | "false" => Some(TlsMode::None),
        "require" | "required" => Some(TlsMode::Require),
        "verify-ca" => Some(TlsMode::VerifyCa),
        "verify-full" | "verify-identity" | "true" => Some(TlsMode::VerifyFull),
        "prefer" | "preferred" | "allow" => None,
        _ => return Err("has a TLS mode that is not understood".to_owned()),
    })
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
    if host.is_empty() {
        return Err("has no host".to_owned());
    }
    Ok((decode(host)?, port.unwrap_or(default_port)))
}

fn decode(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(std::borrow::Cow::into_owned).map_err(|_| "has bytes that are not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn every_part_is_read() {
        let uri = parse(Engine::Postgresql, "postgresql://app:p%40ss@a:1,[::1]:2,c/orders?sslmode=verify-ca");
        let uri = uri.expect("a URI");
        let hosts: Vec<_> = uri.hosts.iter().map(|(host, port)| (host.as_str(), *port)).collect();
        assert_eq!(hosts, [("a", 1), ("::1", 2), ("c", 5432)]);
        assert_eq!(uri.credential.username.as_deref(), Some("app"));
        assert_eq!(uri.credential.password.map(|it| it.expose_secret().to_owned()).as_deref(), Some("p@ss"));
        assert_eq!((uri.database.as_deref(), uri.tls), (Some("orders"), Some(TlsMode::VerifyCa)));
    }

    #[test]
    fn every_printable_character_survives_in_a_password() {
        let password: String = (' '..='~').collect();
        let encoded = utf8_percent_encode(&password, NON_ALPHANUMERIC);
        let uri = parse(Engine::Redis, &format!("rediss://:{encoded}@h/3")).expect("a URI");
        assert_eq!(uri.credential.password.map(|it| it.expose_secret().to_owned()), Some(password));
        assert_eq!((uri.credential.username, uri.tls), (None, Some(TlsMode::VerifyFull)));
    }

    #[test]
    fn what_is_wrong_is_told_without_the_uri() {
        for (engine, text) in [
            (Engine::Mysql, "postgres://u:hunter2@h/d"),
            (Engine::Mysql, "u:hunter2@h/d"),
            (Engine::Mysql, "mysql://u:hunter2@h:port/d"),
            (Engine::Mysql, "mysql://u:hunter2@/d"),
            (Engine::Mysql, "mysql://u:hunter2@h/d?magic=hunter2"),
            (Engine::Mongodb, "mongodb+srv://u:hunter2@h/d"),
            (Engine::Postgresql, "postgres://u:hunter2@[::1/d"),
            (Engine::Redis, "rediss://u:hunter2@h/hunter2"),
        ] {
            let error = parse(engine, text).expect_err(text);
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}

//! The options of connection URIs: those of the engines' own clients, of common drivers and of providers.

use super::{Uri, decode, secret};
use crate::api::v1alpha1::database::{Engine, TlsMode};

/// Options whose values may have an `@`: in all others, it ends the userinfo. Azure Cosmos DB has `appName=@account@`.
const WITH_AT_SIGN: [&str; 5] = ["appname", "user", "username", "password", "options"];

/// More names are not listed.
const MAX_LISTED: usize = 32;

/// Whether the text ends within the value of an option that may have an `@`.
pub(super) fn may_have_at_sign(text: &str) -> bool {
    let option = text.rsplit(['?', '&']).next().filter(|option| option.len() < text.len());
    let name = option.and_then(|option| option.split_once('=')).map(|(name, _)| name.to_ascii_lowercase());
    name.is_some_and(|name| WITH_AT_SIGN.contains(&name.as_str()))
}

/// Reads the options: what authlink can honour changes the URI's parts, what names a file is noted, and all else is ignored. Names are
/// compared without case, as MongoDB has it.
///
/// # Errors
/// A value that contradicts the rest or is not supported; only the option's name is told.
pub(super) fn read(engine: Engine, query: &str, uri: &mut Uri) -> Result<(), String> {
    let (mut weakest, mut strict, mut has_password) = (None, false, false);
    for option in query.split('&').filter(|option| !option.is_empty()) {
        let (original, value) = option.split_once('=').unwrap_or((option, ""));
        let name = original.to_ascii_lowercase();
        if let Some(mode) = weakens(&name, value) {
            weakest = Some(if weakest == Some(TlsMode::Require) { TlsMode::Require } else { mode });
            continue;
        }
        match (engine, name.as_str()) {
            (_, "sslmode" | "ssl-mode" | "ssl_mode" | "tls" | "ssl" | "usessl") => {
                uri.tls = tls_mode(&name, value)?.or(uri.tls);
            }
            (_, "sslaccept") => strict |= value == "strict",
            (Engine::Postgresql, "sslrootcert") if value == "system" => {
                (uri.public_ca, uri.tls) = (true, Some(TlsMode::VerifyFull));
            }
            (_, "sslrootcert" | "ssl-ca" | "ssl_ca" | "tlscafile" | "sslca" | "ssl_ca_certs") => {
                uri.ca_files.push(original.to_owned());
            }
            (
                _,
                "sslcert"
                | "sslkey"
                | "sslidentity"
                | "ssl-cert"
                | "ssl-key"
                | "ssl_cert"
                | "ssl_key"
                | "tlscertificatekeyfile"
                | "ssl_certfile"
                | "ssl_keyfile",
            ) => uri.client_files.push(original.to_owned()),
            (_, "user" | "username") => {
                uri.credential.username = Some(decode(value)?).filter(|it| !it.is_empty());
            }
            (_, "password") => (uri.credential.password, has_password) = (secret(value)?, true),
            (Engine::Postgresql, "dbname") | (Engine::Redis, "db") => {
                if uri.database.as_ref().is_some_and(|name| name != value) {
                    return Err(format!("names a database in its path and another one in the option {name}"));
                }
                uri.database = Some(decode(value)?);
            }
            (Engine::Postgresql, "host" | "hostaddr" | "port") => {
                return Err(format!("has the option {name}: write it before the path, as host:port"));
            }
            (Engine::Postgresql, "options") => uri.options.push((name, decode(value)?)),
            (Engine::Mongodb, "authsource") => uri.auth_source = Some(decode(value)?),
            (Engine::Mongodb, "authmechanism") => {
                let mechanism = decode(value)?.to_ascii_uppercase();
                let known = ["SCRAM-SHA-1", "SCRAM-SHA-256", "MONGODB-X509", "PLAIN"];
                if !known.contains(&mechanism.as_str()) {
                    let known = known.join(", ");
                    return Err(format!("has the option authMechanism with another mechanism than {known}"));
                }
                uri.options.push(("authMechanism".to_owned(), mechanism));
            }
            _ => {
                if is_for_clients(engine, &name) {
                    uri.options.push((original.to_owned(), decode(value)?));
                }
                uri.ignored.push(original.to_owned());
            }
        }
    }
    if uri.tls != Some(TlsMode::None) {
        uri.tls = weakest.or(strict.then_some(TlsMode::VerifyFull)).or(uri.tls);
    }
    // A password with an & that is not encoded would end as names of options.
    let listed = |name: &String| {
        let shape = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        !has_password && name.len() <= 64 && name.bytes().all(shape)
    };
    uri.ignored.retain(listed);
    uri.ignored.dedup();
    uri.ignored.truncate(MAX_LISTED);
    Ok(())
}

/// Whether applications that log in by the binding need the option as well. Clients of PostgreSQL refuse options that they do not know.
fn is_for_clients(engine: Engine, name: &str) -> bool {
    match engine {
        Engine::Postgresql => ["channel_binding", "target_session_attrs"].contains(&name),
        Engine::Mongodb => true,
        Engine::Mysql | Engine::Redis => false,
    }
}

/// `sslmode` of libpq, `ssl-mode` of MySQL, `tls` and `ssl` of MongoDB and of drivers for MySQL. "Use TLS if available" protects nobody, so
/// that the spec decides.
fn tls_mode(name: &str, value: &str) -> Result<Option<TlsMode>, String> {
    let value = decode(value)?.to_ascii_lowercase().replace('_', "-");
    Ok(match value.as_str() {
        "disable" | "disabled" | "false" | "0" => Some(TlsMode::None),
        "require" | "required" | "skip-verify" => Some(TlsMode::Require),
        "verify-ca" => Some(TlsMode::VerifyCa),
        "verify-full" | "verify-identity" | "true" | "1" => Some(TlsMode::VerifyFull),
        "prefer" | "preferred" | "allow" => None,
        // As the driver mysql2 of Node.js has it.
        json if json.starts_with('{') && json.contains("rejectunauthorized") => {
            let strict = !json.replace(' ', "").contains("\"rejectunauthorized\":false");
            Some(if strict { TlsMode::VerifyFull } else { TlsMode::Require })
        }
        _ => return Err(format!("has the option {name} with a value that is not known")),
    })
}

/// Options of drivers to check less of a certificate.
fn weakens(name: &str, value: &str) -> Option<TlsMode> {
    let value = value.to_ascii_lowercase();
    let is = |on: &str| value == on;
    match name {
        "tlsinsecure"
        | "tlsallowinvalidcertificates"
        | "sslallowinvalidcertificates"
        | "skip_verify"
        | "trustservercertificate" => is("true").then_some(TlsMode::Require),
        "sslaccept" => is("accept_invalid_certs").then_some(TlsMode::Require),
        "verifyservercertificate" => is("false").then_some(TlsMode::Require),
        "ssl_cert_reqs" => (is("none") || is("optional")).then_some(TlsMode::Require),
        "tlsallowinvalidhostnames" | "sslallowinvalidhostnames" => is("true").then_some(TlsMode::VerifyCa),
        "ssl_check_hostname" => is("false").then_some(TlsMode::VerifyCa),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    #[test]
    fn options_that_do_not_matter_are_ignored_and_named() {
        for (engine, text, ignored) in [
            (
                Engine::Postgresql,
                "postgresql://u:p@ep-x.neon.tech/db?sslmode=require&channel_binding=require",
                &["channel_binding"][..],
            ),
            (
                Engine::Postgresql,
                "postgresql://u:p@h:6543/db?pgbouncer=true&connection_limit=1&connect_timeout=10",
                &["pgbouncer", "connection_limit", "connect_timeout"],
            ),
            (Engine::Mysql, "mysql://u:p@h/d?charset=utf8mb4", &["charset"]),
            (Engine::Redis, "redis://h?protocol=3", &["protocol"]),
            (
                Engine::Mongodb,
                "mongodb://a:k%3D%3D@a.mongo.cosmos.azure.com:10255/?ssl=true&replicaSet=globaldb\
                 &retrywrites=false&maxIdleTimeMS=120000&appName=@a@",
                &["replicaSet", "retrywrites", "maxIdleTimeMS", "appName"],
            ),
            // Any of them may be a piece of the password.
            (Engine::Postgresql, "postgres://h/d?user=u&password=12&34&pgbouncer=true", &[]),
        ] {
            assert_eq!(parse(engine, text).expect(text).ignored, ignored, "{text}");
        }
    }

    #[test]
    fn the_tls_mode_is_what_clients_take_it_for() {
        for (engine, text, mode) in [
            (Engine::Postgresql, "postgres://h/d", None),
            (Engine::Postgresql, "postgres://h/d?sslmode=prefer", None),
            (Engine::Postgresql, "postgres://h/d?sslrootcert=system", Some(TlsMode::VerifyFull)),
            (Engine::Mongodb, "mongodb://h/d?SSL=true", Some(TlsMode::VerifyFull)),
            (Engine::Mongodb, "mongodb://h/d?tls=true&tlsInsecure=true", Some(TlsMode::Require)),
            (
                Engine::Mongodb,
                "mongodb://h/d?tlsAllowInvalidHostnames=true&tls=true",
                Some(TlsMode::VerifyCa),
            ),
            (Engine::Mongodb, "mongodb://h/d?tls=false&tlsInsecure=true", Some(TlsMode::None)),
            (Engine::Mysql, "mysql://h/d?sslaccept=strict&sslmode=require", Some(TlsMode::VerifyFull)),
            (Engine::Mysql, "mysql://h/d?sslaccept=accept_invalid_certs", Some(TlsMode::Require)),
            (Engine::Mysql, "mysql://h/d?tls=skip-verify", Some(TlsMode::Require)),
            (
                Engine::Mysql,
                "mysql://h/d?ssl=%7B%22rejectUnauthorized%22%3Atrue%7D",
                Some(TlsMode::VerifyFull),
            ),
            (Engine::Redis, "rediss://h?ssl_cert_reqs=none", Some(TlsMode::Require)),
            (Engine::Redis, "redis://h?ssl_cert_reqs=none", Some(TlsMode::None)),
        ] {
            assert_eq!(parse(engine, text).expect(text).tls, mode, "{text}");
        }
    }

    #[test]
    fn options_that_clients_need_are_kept() {
        let options = |engine, text| parse(engine, text).expect(text).options;
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            options(Engine::Postgresql, "postgres://h/d?options=-c%20search_path%3Dapp&pgbouncer=true"),
            [pair("options", "-c search_path=app")]
        );
        assert_eq!(
            options(Engine::Mongodb, "mongodb://h/d?AUTHMECHANISM=scram-sha-1&replicaSet=rs&tls=true"),
            [pair("authMechanism", "SCRAM-SHA-1"), pair("replicaSet", "rs")]
        );
    }

    #[test]
    fn a_database_by_option_must_not_contradict_the_path() {
        assert_eq!(parse(Engine::Redis, "redis://h?db=3").expect("a URI").database.as_deref(), Some("3"));
        assert!(parse(Engine::Redis, "redis://h/1?db=3").is_err());
    }
}

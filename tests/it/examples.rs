//! The examples are what users copy: each is taken by the API server, and works with a real server.

use serde_json::Value;

use crate::commands::{Place, address, authlink, certificate, files, root};

const PLACEHOLDER: &str = "change-me";

fn documents(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(root().join("crds/examples").join(name)).unwrap();
    serde_saphyr::from_multiple(&text).unwrap()
}

/// The example with the address, the password and the CA of a test system.
fn for_real(name: &str, system: &str, port_offset: u16) -> String {
    let (host, port) = address(system);
    let port = port + port_offset;
    let mut documents = documents(name);
    for document in &mut documents {
        match document["kind"].as_str().unwrap() {
            "Secret" if name.contains("mongodb") => {
                let uri = format!("mongodb://app:app-secret@{host}:{port}/app?authSource=app&tls=true");
                document["stringData"]["uri"] = uri.into();
            }
            "Secret" => document["stringData"]["password"] = "app-secret".into(),
            "ConfigMap" => document["data"]["ca.crt"] = certificate("ca.pem").into(),
            _ if name.contains("mongodb") => {}
            _ => {
                document["spec"]["host"] = host.as_str().into();
                document["spec"]["port"] = port.into();
            }
        }
    }
    documents.iter().map(Value::to_string).collect::<Vec<_>>().join("\n---\n")
}

#[track_caller]
fn works(name: &str, system: &str, port_offset: u16) {
    let said = authlink(&["check", "-f", "-", "--output", "json"], &for_real(name, system, port_offset));
    let found: Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{said:?}"));
    assert_eq!(said.code, Some(0), "{found:#}");
    assert_eq!(found[0]["status"]["server"]["tls"], true);
    assert!(found[0]["status"].get("invalidQueries").is_none(), "{found:#}");
}

#[test]
fn the_api_server_takes_every_example_under_strict_validation() {
    let place = Place::new("examples");
    let examples = files("crds/examples", ".yaml");
    assert!(examples.len() >= 4);
    for example in examples {
        let applied = place
            .kubectl(&["apply", "--server-side", "--validate=strict", "-f", &example.to_string_lossy()], "");
        assert_eq!((applied.code, applied.err.as_str()), (Some(0), ""), "{}", example.display());
    }
}

#[test]
fn every_example_has_placeholders_for_secrets_and_certificates() {
    for example in files("crds/examples", ".yaml") {
        for document in documents(example.file_name().unwrap().to_str().unwrap()) {
            let text = document.to_string();
            match document["kind"].as_str().unwrap() {
                "Secret" => assert!(text.contains(PLACEHOLDER), "{text}"),
                "ConfigMap" => assert!(text.contains("(the certificate of"), "{text}"),
                _ => {}
            }
        }
    }
}

#[test]
fn an_untouched_example_says_what_to_fill_in() {
    for name in
        ["database-postgresql.yaml", "database-mysql.yaml", "database-mongodb.yaml", "database-redis.yaml"]
    {
        let file = root().join("crds/examples").join(name);
        let said = authlink(&["check", "-f", &file.to_string_lossy()], "");
        assert!(said.code == Some(1) && said.out.contains("SecretInvalidValue"), "{said:?}");
    }
}

#[test]
fn the_postgresql_example_works() {
    works("database-postgresql.yaml", "POSTGRESQL", 0);
}

#[test]
fn the_mysql_example_works() {
    works("database-mysql.yaml", "MARIADB", 0);
}

#[test]
fn the_mongodb_example_works() {
    works("database-mongodb.yaml", "FERRETDB", 1);
}

#[test]
fn the_redis_example_works() {
    works("database-redis.yaml", "REDIS", 1);
}

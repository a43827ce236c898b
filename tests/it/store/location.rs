//! Where the URL of the store comes from.

use authlink::store::Location;

use super::{NOTHING, open_at};
use crate::support::postgresql;

#[tokio::test]
async fn a_file_with_the_url_is_read_again_when_it_changes() {
    let database = postgresql::new_database().await;
    let mut admin = postgresql::admin().await;
    let role = postgresql::new_role(&mut admin, "first").await;
    let name = database.url.rsplit_once('/').expect("a database").1;
    postgresql::run(&mut admin, &format!("alter database {name} owner to {role}")).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("uri");
    let write = |password: &str| {
        let url = database.url.replace("app:app-secret", &format!("{role}:{password}"));
        std::fs::write(&file, format!("{url}\n")).expect("written");
    };
    write("first");
    let store = open_at(Location::File(file.clone()));
    store.prepare().await.expect("prepared");

    let sessions = format!("select pg_terminate_backend(pid) from pg_stat_activity where usename = '{role}'");
    postgresql::run(&mut admin, &format!("alter role {role} password 'second'; {sessions}")).await;
    let refused = store.usage().write(1, &[], &NOTHING).await.expect_err("the file has the first password");
    assert!(!refused.to_string().contains("first"), "{refused}");
    write("second");
    store.usage().write(1, &[], &NOTHING).await.expect("written");

    // A mistake changes nothing.
    std::fs::write(&file, "mysql://root:hunter2@db/x").expect("written");
    store.usage().write(1, &[], &NOTHING).await.expect("written");
    std::fs::remove_file(&file).expect("removed");
    store.usage().write(1, &[], &NOTHING).await.expect("written");
}

#[test]
fn a_store_file_that_is_missing_is_told_at_the_start() {
    let run = std::process::Command::new(env!("CARGO_BIN_EXE_authlink"))
        .args(["run", "--store-file", "/nowhere/uri"])
        .output()
        .expect("authlink");
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.code(), Some(2), "{said}");
    assert!(said.contains("--store-file: /nowhere/uri cannot be read: No such file"), "{said}");
}

#[test]
fn the_command_line_never_shows_the_url() {
    let authlink = || std::process::Command::new(env!("CARGO_BIN_EXE_authlink"));
    let wrong = "mysql://root:hunter2@db/x";
    let refused = authlink().args(["run", "--store", wrong]).output().expect("authlink");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("--store: must be one of sqlite:///path/file.db"), "{said}");
    let help = authlink().args(["run", "--help"]).env("AUTHLINK_STORE", wrong).output().expect("authlink");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    assert!(help.contains("AUTHLINK_STORE]") || help.contains("[env: AUTHLINK_STORE"), "{help}");
    assert!(!said.contains("hunter2") && !help.contains("hunter2"), "{said} {help}");
}

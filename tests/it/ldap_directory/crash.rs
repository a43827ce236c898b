//! An operator that is killed at any moment of a sync.

use std::time::Duration;

use authlink::api::v1alpha1::{LdapDirectory, ldap_directory::LdapDirectoryStatus};
use rand::{Rng, SeedableRng, rngs::StdRng};
use sqlx::{Connection, Row, SqliteConnection};

use super::{Ldap, PEOPLE, apply, spec};
use crate::support::{Namespace, Operator, SOON, eventually};

const USERS: u32 = 500;

#[tokio::test]
async fn a_kill_at_any_moment_of_a_sync_loses_no_event_and_makes_none_up() {
    let seed = std::env::var("AUTHLINK_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random::<u64>);
    eprintln!("AUTHLINK_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let ldap = Ldap::start(USERS);
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite://{}/authlink.db", folder.path().display());
    // Without a gateway, which would make events of what is in the outbox.
    let flags = ["--roles", "operator", "--store", &url];
    let namespace = Namespace::create().await;
    let mut spec = spec(ldap.port(), "1s");
    spec["pageSize"] = 50.into();
    apply(&namespace, "corp", &spec).await;
    for round in 0..6 {
        let ldif = (0..USERS).map(|user| {
            format!(
                "dn: uid=user{user:06},{PEOPLE}\nchangetype: modify\nreplace: mail\nmail: m{round}-{user}@example.org\n\n"
            )
        });
        ldap.modify(&ldif.collect::<String>());
        let operator = Operator::start(&namespace, &flags).await;
        // Anywhere within the time that a sync takes, which is what is tested.
        tokio::time::sleep(Duration::from_millis(random.random_range(0..2500))).await;
        operator.signal("KILL");
    }
    let _operator = Operator::start(&namespace, &flags).await;
    let mut connection = SqliteConnection::connect(&url).await.expect("the store");
    let query = "select (select count(*) from authlink_users where state = 'active' and email like 'm5-%'), \
                 (select coalesce(sum(version), 0) from authlink_users), \
                 (select count(*) from authlink_outbox where kind like 'user.%')";
    let (changes, events) = eventually(SOON, "the last state of the directory", async || {
        let row = sqlx::query(query).fetch_one(&mut connection).await.map_err(|error| error.to_string())?;
        let [active, changes, events]: [i64; 3] = [row.get(0), row.get(1), row.get(2)];
        if active == i64::from(USERS) { Ok((changes, events)) } else { Err(format!("{active} users")) }
    })
    .await;
    assert_eq!(changes, events, "seed {seed}");
    let object = namespace.api::<LdapDirectory>().get("corp").await.expect("the object");
    let known = object.status.and_then(|status: LdapDirectoryStatus| status.sync?.known);
    assert!(known.is_none_or(|known| known.disabled == 0), "seed {seed}: {known:?}");
}

//! The engine under the gateway: the embedded one, or a CQL server when `ROOKERY_TEST_STORAGE=cql`.

use rookery_cql_server::Access;
use std::{path::PathBuf, sync::OnceLock};
use tempfile::TempDir;

/// Names the engine that all tests run on.
const VARIABLE: &str = "ROOKERY_TEST_STORAGE";

/// Settings for the engine that the environment names.
pub(crate) fn of_environment() -> Vec<(String, String)> {
    match std::env::var(VARIABLE).as_deref() {
        Ok("cql") => cql().expect("ROOKERY_TEST_STORAGE=cql needs a server"),
        Ok("embedded" | "") | Err(_) => Vec::new(),
        Ok(other) => panic!("{VARIABLE}={other}: it is `embedded` or `cql`"),
    }
}

/// Settings for a fresh keyspace on the server that all tests share; none where there is no server.
pub(crate) fn cql() -> Option<Vec<(String, String)>> {
    Some(on(rookery_cql_server::shared().unwrap()?))
}

/// Settings for a fresh keyspace on this server.
pub(crate) fn on(access: Access) -> Vec<(String, String)> {
    let points = access.contact_points.iter().map(|point| format!("{point:?}")).collect::<Vec<_>>().join(",");
    let mut settings = vec![
        ("ROOKERY_STORAGE__ENGINE".to_owned(), "cql".to_owned()),
        ("ROOKERY_CQL__CONTACT_POINTS".to_owned(), format!("[{points}]")),
        ("ROOKERY_CQL__KEYSPACE".to_owned(), format!("api_{:016x}", rand::random::<u64>())),
        ("ROOKERY_CQL__REPLICATION_FACTOR".to_owned(), "1".to_owned()),
        ("ROOKERY_CQL__MIGRATE".to_owned(), "true".to_owned()),
    ];
    if let Some((user, password)) = access.login {
        settings.push(("ROOKERY_CQL__USER".to_owned(), user));
        let file = password_file(&password);
        settings.push(("ROOKERY_CQL__PASSWORD_FILE".to_owned(), file.display().to_string()));
    }
    settings
}

/// A file with the server's password, for as long as the tests run.
fn password_file(password: &str) -> PathBuf {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let file = FOLDER.get_or_init(|| TempDir::new().unwrap()).path().join("password");
    std::fs::write(&file, format!("{password}\n")).unwrap();
    file
}

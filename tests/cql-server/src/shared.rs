//! The one node that the test processes of a run share.
//!
//! Whoever needs it first starts it and writes down how to reach it; it ends a while after its last user.

use crate::{
    Access, cassandra,
    cluster::{Asks, Cluster},
    container,
    registration::{Registration, watch},
    unavailable,
};
use anyhow::{Context, Result};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// Names a server that exists.
const VARIABLE: &str = "ROOKERY_TEST_CQL";

/// How long the node outlives its last user, in seconds: so long may tests go on in between that do not need it.
const PATIENCE_SECS: u32 = 60;

/// This process's use of the node, once it has begun; it ends with the process.
static USE: Mutex<Option<(Access, Option<Registration>)>> = Mutex::new(None);

/// The node that all tests share; started when it does not run yet, which takes seconds, in which this call blocks.
/// None where no server can be had.
pub fn shared() -> Result<Option<Access>> {
    let mut used = USE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((access, _)) = &*used {
        return Ok(Some(access.clone()));
    }
    if let Ok(text) = std::env::var(VARIABLE)
        && !text.is_empty()
    {
        let access = parse(&text).with_context(|| format!("{VARIABLE} is no [user:password@]host[:port],..."))?;
        *used = Some((access.clone(), None));
        return Ok(Some(access));
    }
    let home = std::env::temp_dir().join(format!("rookery-cql-shared-{}", rustix::process::getuid().as_raw()));
    fs::create_dir_all(&home)?;
    let lock = File::create(home.join("lock"))?;
    lock.lock().context("wait for another process that starts the server")?;
    let note = home.join("current");
    let (access, registration) = match running(&note) {
        Some(found) => found,
        None => match start(&home, &note)? {
            Some(started) => started,
            None => return Ok(None),
        },
    };
    *used = Some((access.clone(), Some(registration)));
    Ok(Some(access))
}

/// The server that runs already.
fn running(note: &Path) -> Option<(Access, Registration)> {
    let text = fs::read_to_string(note).ok()?;
    let (dir, access) = text.split_once('\n')?;
    let registration = Registration::enter(Path::new(dir)).ok()?;
    let access = parse(access.trim())?;
    let answers = |point: &String| std::net::TcpStream::connect(point.as_str()).is_ok();
    access.contact_points.iter().any(answers).then_some((access, registration))
}

fn start(home: &Path, note: &Path) -> Result<Option<(Access, Registration)>> {
    if let Some(daemon) = container::daemon() {
        let dir = folder(home)?;
        watch(&dir, PATIENCE_SECS)?;
        let registration = Registration::enter(&dir)?;
        match container::start(daemon, &dir) {
            Ok(access) => return write_down(note, &dir, &access).map(|()| Some((access, registration))),
            Err(error) => eprintln!("no ScyllaDB container ({error:#}); trying Apache Cassandra"),
        }
    }
    if let Some(missing) = cassandra::missing() {
        return unavailable(&missing).map(|()| None);
    }
    let dir = folder(home)?;
    let cluster = Cluster::start_in(&dir, 1, Asks { login: true, tls: false }, PATIENCE_SECS)?;
    let access = cluster.access();
    let registration = cluster.share().context("a registration")?;
    write_down(note, &dir, &access)?;
    Ok(Some((access, registration)))
}

/// A new folder for a server; who watches it removes it.
fn folder(home: &Path) -> Result<PathBuf> {
    Ok(tempfile::Builder::new().prefix("node-").tempdir_in(home)?.keep())
}

fn write_down(note: &Path, dir: &Path, access: &Access) -> Result<()> {
    let login = access.login.as_ref().map(|(user, password)| format!("{user}:{password}@")).unwrap_or_default();
    let text = format!("{}\n{login}{}\n", dir.display(), access.contact_points.join(","));
    Ok(fs::write(note, text)?)
}

fn parse(text: &str) -> Option<Access> {
    let (login, points) = match text.rsplit_once('@') {
        Some((login, points)) => (Some(login.split_once(':')?), points),
        None => (None, text),
    };
    let point = |point: &str| match point.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() => port.parse::<u16>().is_ok().then(|| point.to_owned()),
        None if !point.is_empty() => Some(format!("{point}:9042")),
        _ => None,
    };
    let contact_points: Option<Vec<_>> = points.split(',').map(|text| point(text.trim())).collect();
    let login = login.map(|(user, password)| (user.to_owned(), password.to_owned()));
    Some(Access { contact_points: contact_points?, login, tls: None, nodes: 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_with_or_without_login() {
        let access = parse("db1, db2:9043").unwrap();
        assert_eq!((access.contact_points, access.login), (vec!["db1:9042".to_owned(), "db2:9043".to_owned()], None));
        let access = parse("me:p@ss@127.0.0.1:9042").unwrap();
        assert_eq!(access.login, Some(("me".to_owned(), "p@ss".to_owned())));
        for wrong in ["", ":9042", "db:port", "me@db", "db,,db"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }
}

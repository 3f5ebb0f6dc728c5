//! One node of Apache Cassandra as a process: its files, its arguments, its start.

use crate::tls;
use anyhow::{Context, Result, bail};
use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Where clients connect.
pub(crate) const CLIENT_PORT: u16 = 9042;
/// Where the nodes of a server connect to each other.
pub(crate) const STORAGE_PORT: u16 = 7010;
/// How long a node may take to start; a busy machine takes many times what an idle one does.
const START_TIMEOUT: Duration = Duration::from_secs(240);
/// How much memory a node has for its objects, in MiB.
const HEAP_MIB: u32 = 512;

/// What a node is given.
pub(crate) struct Settings<'a> {
    /// Its folder; everything that it writes is there.
    pub dir: PathBuf,
    /// Its address.
    pub address: Ipv4Addr,
    /// All nodes' addresses; the place of its own tells the token that it has.
    pub all: &'a [Ipv4Addr],
    /// Whether clients must log in, as `cassandra` with the password `cassandra`.
    pub login: bool,
    /// The folder with the files of TLS, which clients must use then.
    pub tls: Option<&'a Path>,
}

/// Whether this machine has what it takes; says what is missing.
pub(crate) fn missing() -> Option<String> {
    let version = Command::new("java").arg("-version").output();
    match version {
        Err(_) => return Some("`java` is not on the PATH".to_owned()),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            if !(text.contains("version \"17") || text.contains("version \"11")) {
                let first = text.lines().next().unwrap_or_default();
                return Some(format!("Apache Cassandra needs Java 17, this is {first}"));
            }
        }
    }
    Command::new("mvn").arg("-version").output().is_err().then(|| "`mvn` is not on the PATH".to_owned())
}

/// The folder with the server's libraries; filled by Maven when it is not there.
pub(crate) fn libraries() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
        .context("no home directory")?
        .join("rookery-cql-server");
    fs::create_dir_all(&cache)?;
    let pom = include_str!("../pom.xml");
    let dir = cache.join(format!("lib-{}", version(pom)));
    let lock = File::create(cache.join("lock"))?;
    lock.lock().context("wait for another process that fetches the server")?;
    if dir.is_dir() {
        return Ok(dir);
    }
    let new = tempfile::tempdir_in(&cache)?;
    let file = new.path().join("pom.xml");
    fs::write(&file, pom)?;
    let lib = new.path().join("lib");
    let output = Command::new("mvn")
        .args(["-q", "-B", "-f"])
        .arg(&file)
        .arg("dependency:copy-dependencies")
        .arg(format!("-DoutputDirectory={}", lib.display()))
        .arg("-DincludeScope=runtime")
        .output()
        .context("run mvn")?;
    if !output.status.success() {
        bail!("mvn could not fetch Apache Cassandra: {}", String::from_utf8_lossy(&output.stdout).trim());
    }
    fs::rename(lib, &dir)?;
    Ok(dir)
}

/// The version of the server that a project file names.
fn version(pom: &str) -> &str {
    pom.rsplit_once("<version>").and_then(|(_, rest)| rest.split_once('<')).map_or("unknown", |(version, _)| version)
}

/// Starts a node; it takes clients a while later ([`wait`]). Its data stays where it was at an earlier start.
pub(crate) fn start(settings: &Settings<'_>, libraries: &Path) -> Result<Child> {
    let dir = &settings.dir;
    fs::create_dir_all(dir.join("conf"))?;
    fs::create_dir_all(dir.join("triggers"))?;
    fs::write(dir.join("conf/cassandra.yaml"), yaml(settings))?;
    fs::write(dir.join("conf/logback.xml"), LOGBACK)?;
    let log = File::create(dir.join("log"))?;
    let agent = fs::read_dir(libraries)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("jamm-")))
        .context("the server's libraries are not complete")?;
    let mut java = Command::new("java");
    java.arg(format!("-javaagent:{}", agent.display()));
    java.args([format!("-Xms{HEAP_MIB}m"), format!("-Xmx{HEAP_MIB}m")]);
    java.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
    java.args(EXPORTS.iter().flat_map(|name| ["--add-exports".to_owned(), format!("{name}=ALL-UNNAMED")]));
    java.args(OPENS.iter().flat_map(|name| ["--add-opens".to_owned(), format!("{name}=ALL-UNNAMED")]));
    java.args(PROPERTIES);
    java.arg(format!("-Dcassandra.storagedir={}", dir.join("data").display()));
    java.arg(format!("-Dcassandra.triggers_dir={}", dir.join("triggers").display()));
    java.arg(format!("-Dcassandra.config=file:{}", dir.join("conf/cassandra.yaml").display()));
    java.arg(format!("-Dlogback.configurationFile={}", dir.join("conf/logback.xml").display()));
    java.arg("-cp").arg(format!("{}:{}/*", dir.join("conf").display(), libraries.display()));
    java.arg("org.apache.cassandra.service.CassandraDaemon");
    java.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    let child = java.spawn().context("start java")?;
    fs::write(dir.join("pid"), child.id().to_string())?;
    Ok(child)
}

/// Waits until a node takes clients.
pub(crate) fn wait(settings: &Settings<'_>, child: &mut Child) -> Result<()> {
    let log = settings.dir.join("log");
    let end = Instant::now() + START_TIMEOUT;
    loop {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let ready = text.contains("Starting listening for CQL clients")
            && (!settings.login || text.contains("Created default superuser") || settings.dir.join("again").exists());
        if ready && TcpStream::connect((settings.address, CLIENT_PORT)).is_ok() {
            fs::write(settings.dir.join("again"), "")?;
            return Ok(());
        }
        let ended = child.try_wait()?;
        if ended.is_some() || Instant::now() > end {
            let last: Vec<_> = text.lines().rev().take(15).collect();
            let last: Vec<_> = last.into_iter().rev().collect();
            bail!("the node at {} did not start; its last words:\n{}", settings.address, last.join("\n"));
        }
        crate::wait_a_while(Duration::from_millis(100));
    }
}

fn yaml(settings: &Settings<'_>) -> String {
    let Settings { address, all, login, tls, .. } = settings;
    let seeds: Vec<_> = all.iter().map(ToString::to_string).collect();
    let (seeds, place) = (seeds.join(","), all.iter().position(|other| other == address).unwrap_or(0));
    // Evenly around the ring, so that nodes may start side by side and every node has the same share.
    let token = i128::from(i64::MIN) + (1 << 64) / all.len() as i128 * place as i128;
    let authenticator = if *login { "PasswordAuthenticator" } else { "AllowAllAuthenticator" };
    let encryption = tls.map(client_encryption).unwrap_or_default();
    format!(
        "cluster_name: test\n\
         num_tokens: 1\n\
         initial_token: {token}\n\
         auto_bootstrap: false\n\
         partitioner: org.apache.cassandra.dht.Murmur3Partitioner\n\
         commitlog_sync: periodic\n\
         commitlog_sync_period_in_ms: 10000\n\
         endpoint_snitch: SimpleSnitch\n\
         listen_address: {address}\n\
         rpc_address: {address}\n\
         storage_port: {STORAGE_PORT}\n\
         native_transport_port: {CLIENT_PORT}\n\
         start_native_transport: true\n\
         auto_snapshot: false\n\
         hinted_handoff_enabled: false\n\
         authenticator: {authenticator}\n\
         {encryption}\
         seed_provider:\n\
         \x20 - class_name: org.apache.cassandra.locator.SimpleSeedProvider\n\
         \x20   parameters:\n\
         \x20     - seeds: \"{seeds}\"\n"
    )
}

fn client_encryption(dir: &Path) -> String {
    format!(
        "client_encryption_options:\n\
         \x20 enabled: true\n\
         \x20 optional: false\n\
         \x20 require_client_auth: true\n\
         \x20 ssl_context_factory:\n\
         \x20   class_name: org.apache.cassandra.security.PEMBasedSslContextFactory\n\
         \x20 keystore: {node}\n\
         \x20 truststore: {authority}\n",
        node = dir.join(tls::NODE).display(),
        authority = dir.join(tls::AUTHORITY).display()
    )
}

const LOGBACK: &str = r#"<configuration>
  <appender name="STDOUT" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%-5level %d{HH:mm:ss} %msg%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="STDOUT"/></root>
</configuration>
"#;

const PROPERTIES: [&str; 8] = [
    "-Djdk.attach.allowAttachSelf=true",
    "-Dio.netty.tryReflectionSetAccessible=true",
    "-Dcassandra-foreground=yes",
    "-Dcassandra.skip_wait_for_gossip_to_settle=0",
    "-Dcassandra.ring_delay_ms=2000",
    "-Dcassandra.superuser_setup_delay_ms=0",
    "-Dcassandra.consistent.rangemovement=false",
    "-Dcassandra.shutdown_announce_in_ms=0",
];

/// What the server uses of the Java runtime's insides.
const EXPORTS: [&str; 12] = [
    "java.base/jdk.internal.misc",
    "java.base/java.lang.ref",
    "java.base/jdk.internal.ref",
    "java.base/sun.nio.ch",
    "java.sql/java.sql",
    "jdk.unsupported/sun.misc",
    "java.management.rmi/com.sun.jmx.remote.internal.rmi",
    "java.management/com.sun.jmx.remote.security",
    "java.rmi/sun.rmi.registry",
    "java.rmi/sun.rmi.server",
    "jdk.compiler/com.sun.tools.javac.file",
    "jdk.attach/sun.tools.attach",
];

/// What the server looks into by reflection.
const OPENS: [&str; 16] = [
    "java.base/java.lang",
    "java.base/java.lang.module",
    "java.base/java.lang.reflect",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/java.io",
    "java.base/java.nio",
    "java.base/sun.nio.ch",
    "java.base/jdk.internal.loader",
    "java.base/jdk.internal.ref",
    "java.base/jdk.internal.reflect",
    "java.base/jdk.internal.math",
    "java.base/jdk.internal.module",
    "jdk.management/com.sun.management.internal",
    "jdk.compiler/com.sun.tools.javac",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_project_file_names_the_version_of_the_server() {
        assert!(version(include_str!("../pom.xml")).starts_with("5."));
    }

    #[test]
    fn tokens_are_spread_around_the_ring() {
        let all = [1, 2, 3].map(|last| Ipv4Addr::new(127, 1, 1, last));
        let tokens: Vec<i64> = all
            .iter()
            .map(|address| {
                yaml(&Settings { dir: PathBuf::new(), address: *address, all: &all, login: false, tls: None })
            })
            .map(|text| text.split("initial_token: ").nth(1).unwrap().lines().next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(tokens[0], i64::MIN);
        assert!(tokens.is_sorted() && tokens[1] < 0 && tokens[2] > 0, "{tokens:?}");
    }
}

//! The library's HTTP client: for files of messages, and for the current version of WhatsApp Web.

use std::time::Duration;
use ureq::config::Config;
use whatsapp_rust::http::UreqHttpClient;

/// How long a host may take to accept a connection, and to take or give the next bytes.
const STEP_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a whole transfer may take.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(600);
/// What a file may be larger than its plain form: padding and MAC.
const SEAL_BYTES: u64 = 26;
/// Room for what is read and written at a time.
const BUFFER_BYTES: usize = 16 << 10;
/// Connections that are kept open for the next file.
const IDLE_CONNECTIONS: usize = 8;

/// A client that takes bodies up to a file of this size. The library's own has no timeouts, and a host that hangs would
/// keep a thread for ever.
pub(super) fn new(max_file_bytes: u64) -> UreqHttpClient {
    let builder = Config::builder()
        .input_buffer_size(BUFFER_BYTES)
        .output_buffer_size(BUFFER_BYTES)
        .max_idle_connections(IDLE_CONNECTIONS)
        .max_idle_connections_per_host(IDLE_CONNECTIONS)
        .timeout_resolve(Some(STEP_TIMEOUT))
        .timeout_connect(Some(STEP_TIMEOUT))
        .timeout_per_read(Some(STEP_TIMEOUT))
        .timeout_per_write(Some(STEP_TIMEOUT))
        .timeout_global(Some(TRANSFER_TIMEOUT));
    // The simulator's certificate is its own. Such a build connects to this machine only.
    #[cfg(feature = "sandbox")]
    let builder = builder.tls_config(ureq::tls::TlsConfig::builder().disable_verification(true).build());
    UreqHttpClient::with_agent(builder.build().new_agent()).with_max_body_bytes(max_file_bytes + SEAL_BYTES)
}

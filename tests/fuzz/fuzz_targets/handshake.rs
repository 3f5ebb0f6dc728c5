//! The handshake: what anybody can send who can open a connection.
#![no_main]

use std::sync::LazyLock;

use whatsapp_simulator::fuzzing::Handshakes;

static SERVER: LazyLock<Handshakes> = LazyLock::new(Handshakes::default);

libfuzzer_sys::fuzz_target!(|data: &[u8]| SERVER.shake(data));

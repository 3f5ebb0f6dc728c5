//! Frames inside the websocket.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| whatsapp_simulator::fuzzing::frames(data));

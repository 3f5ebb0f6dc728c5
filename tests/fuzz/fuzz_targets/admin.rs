//! The admin port.
#![no_main]

use std::cell::RefCell;

use whatsapp_simulator::fuzzing::Admin;

thread_local! {
    static ADMIN: RefCell<Admin> = RefCell::default();
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    ADMIN.with_borrow_mut(|admin| admin.request(data));
});

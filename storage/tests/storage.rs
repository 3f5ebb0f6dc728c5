//! The stores from outside: conformance of the embedded engine, crashes, and data directories that cannot be used.

mod storage {
    mod conformance;
    mod crash;
    mod directory;
    mod load;
    mod support;
}

//! The stores from outside: conformance of both engines, crashes, and data directories that cannot be used.

mod storage {
    mod conformance;
    mod cql;
    mod cql_faults;
    mod cql_fence;
    mod cql_reads;
    mod crash;
    mod directory;
    mod load;
    mod support;
}

//! Ceph-style messenger over Outrider's own TCP.
#![forbid(unsafe_code)]

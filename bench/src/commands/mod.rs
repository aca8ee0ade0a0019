//! The commands: one file each, with its arguments and `run`. A new command is a new file here, a variant of
//! [`crate::cli::Command`] and an arm in `main`.

pub(crate) mod all;
pub(crate) mod cluster;
pub(crate) mod connect;
pub(crate) mod demo;
pub(crate) mod detect;
pub(crate) mod messages;
pub(crate) mod oob;
pub(crate) mod packetdrill;
pub(crate) mod pingpong;
pub(crate) mod pump;
pub(crate) mod report;
pub(crate) mod scale;
pub(crate) mod serve;
pub(crate) mod throughput;
pub(crate) mod top;
pub(crate) mod truth;

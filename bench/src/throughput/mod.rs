//! Throughput: how fast bytes get through, how evenly, and what they cost the processor.
//!
//! Over `memory` both hosts of a pair run in one thread and in virtual time ([`world`]), so that goodput and stalls
//! follow from the seed alone and the processor time of the thread is that of both ends and the cable between them.
//! Over `tap` ([`bridge`]) everything is real, and the kernel's TCP is at the other end; with a competitor
//! ([`rivals`]) it is on the way too. Over `afxdp` ([`afxdp`]) our stack is at both ends, beside the bare ports. Without a bridge and a rate ([`offload`]) it shows what offloads are worth.

pub(crate) mod afxdp;
pub(crate) mod bridge;
mod flow;
mod kernel;
pub(crate) mod lab;
pub(crate) mod memory;
pub(crate) mod offload;
mod outrider_pair;
pub(crate) mod result;
pub(crate) mod rivals;
mod smoltcp_pair;
mod world;

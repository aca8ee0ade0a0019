//! Two TAP devices of this process on a bridge in a private network namespace, which shapes and loses frames on the way.

use outrider_drivers::tap::{Tap, TapOptions};

use super::middle::{Wire, inside, namespace_for};
use super::{Lab, need_root};
use crate::error::BenchError;
use crate::under_load::Point;

/// The devices, by the nodes' order.
const DEVICES: [&str; 2] = ["or0", "or1"];

/// Builds it. It vanishes with the devices and the namespace.
pub(super) fn build(point: &Point, seed: u64, offload: bool) -> Result<Lab, BenchError> {
    need_root("--link tap", "--link memory shows the same")?;
    let namespace = namespace_for(point.link)?;
    let [a, b] = inside(&namespace, || {
        let taps = [open(DEVICES[0], seed, offload)?, open(DEVICES[1], seed.wrapping_add(1), offload)?];
        let wire = Wire::of(point);
        wire.make_bridge()?;
        DEVICES.iter().try_for_each(|device| wire.join(device))?;
        Ok(taps)
    })?;
    Ok(Lab::new(a, b, namespace))
}

pub(crate) fn open(name: &str, seed: u64, offload: bool) -> Result<Tap, BenchError> {
    let options = TapOptions { name: Some(name.to_owned()), seed, offload, ..TapOptions::default() };
    Tap::open(&options)
        .map_err(|error| BenchError::failed(format!("cannot open the TAP device {name}: {error}")))
}

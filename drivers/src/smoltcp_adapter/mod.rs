//! Our ports for users of smoltcp, and smoltcp's devices for users of [`Port`].
//!
//! smoltcp counts time in whole microseconds ([`to_smoltcp`], [`from_smoltcp`]); a frame that arrives within one is
//! seen at the next. Offloads are not passed on: what is sent is complete, and a checksum that a received frame left to a
//! device is completed.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant as SmoltcpInstant;

use crate::offload::complete_checksum;
use crate::port::{
    Capabilities, Port, PortError, PortInfo, PortStatistics, RxFrame, TransmitRoom, TxOffload,
};
use crate::time::Instant;

/// Bytes of an Ethernet header, which smoltcp counts in the MTU of an Ethernet device and [`PortInfo::mtu`] does not.
const ETHERNET_HEADER_BYTES: usize = 14;
/// Frames fetched from a port at a time, since smoltcp takes them one by one.
const FETCH_FRAMES: usize = 64;

/// Our time for smoltcp, rounded down to a microsecond.
pub fn to_smoltcp(at: Instant) -> SmoltcpInstant {
    SmoltcpInstant::from_micros(i64::try_from(at.as_micros()).unwrap_or(i64::MAX))
}

/// smoltcp's time for us. Times before its epoch become [`Instant::ZERO`].
pub fn from_smoltcp(at: SmoltcpInstant) -> Instant {
    let micros = u64::try_from(at.total_micros()).unwrap_or(0);
    Instant::from_nanos(micros.saturating_mul(1_000))
}

/// Any [`Port`] as a [`smoltcp::phy::Device`].
///
/// After each `Interface::poll`, call [`PortDevice::flush`]; before sleeping, look at [`PortDevice::next_arrival`].
#[derive(Debug)]
pub struct PortDevice<P: Port> {
    port: P,
    /// Frames fetched and not yet taken by smoltcp, oldest first.
    fetched: VecDeque<Vec<u8>>,
    /// Memory for the frames to come.
    spare: Vec<Vec<u8>>,
    error: Option<PortError>,
}

impl<P: Port> PortDevice<P> {
    /// A device on `port`.
    pub fn new(port: P) -> Self {
        PortDevice {
            port,
            fetched: VecDeque::with_capacity(FETCH_FRAMES),
            spare: Vec::with_capacity(FETCH_FRAMES),
            error: None,
        }
    }

    /// Rings the port's doorbell for what smoltcp has sent. To be called after each `Interface::poll`.
    ///
    /// # Errors
    /// When the port failed for good, now or in a call that smoltcp gave no way to report from.
    pub fn flush(&mut self, now: Instant) -> Result<(), PortError> {
        match self.error.take() {
            Some(error) => Err(error),
            None => self.port.flush(now),
        }
    }

    /// When to poll the interface again for a frame: at once if one was fetched already, otherwise when the port
    /// knows one to arrive, rounded up to the microsecond at which smoltcp can see it.
    pub fn next_arrival(&self, now: Instant) -> Option<Instant> {
        if !self.fetched.is_empty() {
            return Some(now);
        }
        let at = self.port.next_arrival(now)?;
        Some(Instant::from_nanos(at.as_nanos().checked_next_multiple_of(1_000).unwrap_or(u64::MAX)))
    }

    /// The port within.
    pub fn port(&self) -> &P {
        &self.port
    }

    /// The port within.
    pub fn port_mut(&mut self) -> &mut P {
        &mut self.port
    }

    fn fetch(&mut self, now: Instant) {
        let (fetched, spare) = (&mut self.fetched, &mut self.spare);
        let result = self.port.receive(now, FETCH_FRAMES, &mut |frame| {
            let mut memory = spare.pop().unwrap_or_default();
            memory.clear();
            memory.extend_from_slice(frame.bytes);
            if frame.left.checksum {
                complete_checksum(&mut memory);
            }
            fetched.push_back(memory);
        });
        if let Err(error) = result {
            self.error.get_or_insert(error);
        }
    }
}

/// A frame for smoltcp.
#[derive(Debug)]
pub struct PortRxToken<'a> {
    frame: Vec<u8>,
    spare: &'a mut Vec<Vec<u8>>,
}

impl RxToken for PortRxToken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        let result = f(&self.frame);
        if self.spare.len() < FETCH_FRAMES {
            self.spare.push(self.frame);
        }
        result
    }
}

/// Room for a frame of smoltcp's.
#[derive(Debug)]
pub struct PortTxToken<'a, P: Port> {
    port: &'a mut P,
    error: &'a mut Option<PortError>,
    now: Instant,
}

impl<P: Port> TxToken for PortTxToken<'_, P> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut f = Some(f);
        let mut result = None;
        let taken = self.port.transmit(self.now, len, TxOffload::default(), &mut |buffer| {
            if let Some(f) = f.take() {
                result = Some(f(&mut buffer[..len]));
            }
            len
        });
        if let Err(error) = taken {
            self.error.get_or_insert(error);
        }
        match (result, f) {
            (Some(result), _) => result,
            // The room that was there when the token was made is gone, or the port failed: the frame is lost, as on
            // any network, but smoltcp must get its call.
            (None, Some(f)) => f(&mut vec![0; len]),
            (None, None) => unreachable!("the closure is taken only where its result is kept"),
        }
    }
}

impl<P: Port> Device for PortDevice<P> {
    type RxToken<'a>
        = PortRxToken<'a>
    where
        P: 'a;
    type TxToken<'a>
        = PortTxToken<'a, P>
    where
        P: 'a;

    fn receive(&mut self, timestamp: SmoltcpInstant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let now = from_smoltcp(timestamp);
        // smoltcp may answer each frame at once, so there must be room for that before one is taken.
        if self.port.transmit_room(now).frames == 0 {
            return None;
        }
        if self.fetched.is_empty() {
            self.fetch(now);
        }
        let frame = self.fetched.pop_front()?;
        Some((
            PortRxToken { frame, spare: &mut self.spare },
            PortTxToken { port: &mut self.port, error: &mut self.error, now },
        ))
    }

    fn transmit(&mut self, timestamp: SmoltcpInstant) -> Option<Self::TxToken<'_>> {
        let now = from_smoltcp(timestamp);
        if self.port.transmit_room(now).frames == 0 {
            return None;
        }
        Some(PortTxToken { port: &mut self.port, error: &mut self.error, now })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.port.info().mtu + ETHERNET_HEADER_BYTES;
        capabilities
    }
}

/// Any Ethernet [`smoltcp::phy::Device`] as a [`Port`].
///
/// smoltcp's devices take frames at once and tell nothing of what they hold, so nothing is ever outstanding, and
/// there is room for one frame at a time.
#[derive(Debug)]
pub struct DevicePort<D> {
    info: PortInfo,
    device: D,
    scratch: Vec<u8>,
    statistics: PortStatistics,
}

/// Why a device cannot be a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DevicePortError {
    /// It carries bare IP packets or IEEE 802.15.4 frames.
    #[error("the device is not an Ethernet device")]
    NotEthernet,
    /// Its frames cannot hold more than a header.
    #[error("the device's frames of {frame_bytes_max} bytes hold no packet")]
    FramesTooShort {
        /// Longest frame.
        frame_bytes_max: usize,
    },
}

impl<D: Device + Send> DevicePort<D> {
    /// A port on `device`, named `name`, whose Ethernet address is `mac`.
    ///
    /// # Errors
    /// When the device is not an Ethernet device.
    pub fn new(device: D, name: impl Into<String>, mac: [u8; 6]) -> Result<Self, DevicePortError> {
        let capabilities = device.capabilities();
        if capabilities.medium != Medium::Ethernet {
            return Err(DevicePortError::NotEthernet);
        }
        let frame_bytes_max = capabilities.max_transmission_unit;
        if frame_bytes_max <= ETHERNET_HEADER_BYTES {
            return Err(DevicePortError::FramesTooShort { frame_bytes_max });
        }
        Ok(DevicePort {
            info: PortInfo {
                name: name.into(),
                mac,
                mtu: frame_bytes_max - ETHERNET_HEADER_BYTES,
                capabilities: Capabilities::default(),
            },
            device,
            scratch: vec![0; frame_bytes_max],
            statistics: PortStatistics::default(),
        })
    }

    /// The device within.
    pub fn device(&mut self) -> &mut D {
        &mut self.device
    }
}

impl<D: Device + Send> Port for DevicePort<D> {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn receive(
        &mut self,
        now: Instant,
        budget: usize,
        accept: &mut dyn FnMut(RxFrame<'_>),
    ) -> Result<usize, PortError> {
        let timestamp = to_smoltcp(now);
        let mut frames = 0;
        while frames < budget {
            let Some((token, _)) = self.device.receive(timestamp) else { break };
            let statistics = &mut self.statistics;
            token.consume(|bytes| {
                statistics.rx_frames += 1;
                statistics.rx_bytes += bytes.len() as u64;
                accept(RxFrame { bytes, ..RxFrame::default() });
            });
            frames += 1;
        }
        Ok(frames)
    }

    fn transmit_room(&mut self, now: Instant) -> TransmitRoom {
        // A token that is dropped sends nothing.
        let frames = usize::from(self.device.transmit(to_smoltcp(now)).is_some());
        TransmitRoom { frames, bytes_outstanding: 0 }
    }

    fn transmit(
        &mut self,
        now: Instant,
        length_max: usize,
        _offload: TxOffload,
        fill: &mut dyn FnMut(&mut [u8]) -> usize,
    ) -> Result<bool, PortError> {
        let room = self.scratch.len();
        assert!(length_max <= room, "{length_max} bytes are more than a frame on {}", self.info.name);
        let Some(token) = self.device.transmit(to_smoltcp(now)) else { return Ok(false) };
        // smoltcp wants the length before the bytes, and `fill` tells it after, so they are written here first.
        let length = fill(&mut self.scratch[..length_max]);
        if length == 0 {
            return Ok(false);
        }
        let frame = &self.scratch[..length];
        token.consume(length, |buffer| buffer.copy_from_slice(frame));
        self.statistics.tx_frames += 1;
        self.statistics.tx_bytes += length as u64;
        Ok(true)
    }

    fn flush(&mut self, _now: Instant) -> Result<(), PortError> {
        Ok(())
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn next_arrival(&self, _now: Instant) -> Option<Instant> {
        None
    }

    fn statistics(&self) -> PortStatistics {
        self.statistics
    }
}

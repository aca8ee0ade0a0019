//! Stories about captures.

use std::io;
use std::process::Command;
use std::sync::{Arc, Mutex};

use super::read::{ReadError, Record, records};
use super::*;
use crate::memory::{LinkConfig, MemoryPort, cable};
use crate::offload::tests::tcp_frame;

/// A file that the test can look into while the capture owns it.
#[derive(Clone, Default)]
struct Shared {
    bytes: Arc<Mutex<Vec<u8>>>,
    /// Bytes it takes before the disk is full.
    full_at: Option<usize>,
}

impl Write for Shared {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let mut bytes = self.bytes.lock().unwrap();
        if self.full_at.is_some_and(|full_at| bytes.len() + buffer.len() > full_at) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        bytes.extend_from_slice(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn contents(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }
}

fn send(port: &mut impl Port, now: Instant, bytes: &[u8]) -> bool {
    let taken = port.transmit(now, bytes.len(), TxOffload::default(), &mut |buffer| {
        buffer.copy_from_slice(bytes);
        bytes.len()
    });
    port.flush(now).unwrap();
    taken.unwrap()
}

fn plain_cable() -> (MemoryPort, MemoryPort) {
    let link = LinkConfig { delay: Duration::from_nanos(1_234_567_891), ..LinkConfig::default() };
    cable(link.clone(), link, 1)
}

/// An exchange of three frames, captured on one side.
fn exchange(file: &Shared, snap_length: usize) {
    let (a, mut b) = plain_cable();
    let mut a = Capture::new(a, file.clone(), snap_length);
    let now = Instant::from_nanos(5_000_000_007);
    assert!(send(&mut a, now, &[1; 61]));
    assert!(send(&mut b, now, &[2; 100]));
    let later = a.next_arrival(now).unwrap();
    assert_eq!(a.receive(later, 10, &mut |frame| assert_eq!(frame.bytes, [2; 100])).unwrap(), 1);
    assert!(send(&mut a, later, &[3; 1514]));
}

#[test]
fn both_directions_are_recorded_with_the_instant_and_the_bytes() {
    let file = Shared::default();
    exchange(&file, 0);
    let contents = file.contents();
    let got: Vec<Record<'_>> = records(&contents).unwrap().collect::<Result<_, _>>().unwrap();
    let (now, later) = (Instant::from_nanos(5_000_000_007), Instant::from_nanos(6_234_567_898));
    let record =
        |at, direction, bytes: &'static [u8]| Record { at, direction, bytes, original_bytes: bytes.len() };
    assert_eq!(
        got,
        [
            record(now, Direction::Outbound, &[1; 61]),
            record(later, Direction::Inbound, &[2; 100]),
            record(later, Direction::Outbound, &[3; 1514]),
        ]
    );
}

#[test]
fn long_frames_are_cut_to_the_snap_length_and_say_how_long_they_were() {
    let file = Shared::default();
    exchange(&file, 64);
    let contents = file.contents();
    let lengths: Vec<(usize, usize)> =
        records(&contents).unwrap().map(|r| r.map(|r| (r.bytes.len(), r.original_bytes)).unwrap()).collect();
    assert_eq!(lengths, [(61, 61), (64, 100), (64, 1514)]);
}

#[test]
fn what_the_port_did_not_take_is_not_recorded() {
    let file = Shared::default();
    let ring = LinkConfig { rate_bits_per_second: 1000, ring_bytes: Some(1), ..LinkConfig::default() };
    let (a, _b) = cable(ring, LinkConfig::default(), 1);
    let mut a = Capture::new(a, file.clone(), 0);
    assert!(send(&mut a, Instant::ZERO, &[1; 60]));
    assert!(!send(&mut a, Instant::ZERO, &[2; 60]), "the ring is full");
    assert!(!a.transmit(Instant::ZERO, 60, TxOffload::default(), &mut |_| 0).unwrap());
    a.sync();
    assert_eq!(a.capture_statistics().recorded_frames, 1);
    assert_eq!(records(&file.contents()).unwrap().count(), 1);
    assert_eq!(a.statistics(), a.port().statistics());
}

/// A port with offloads: receives one frame and takes any.
struct Offloading<'a> {
    info: PortInfo,
    incoming: RxFrame<'a>,
}

impl Port for Offloading<'_> {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn receive(
        &mut self,
        _: Instant,
        _: usize,
        accept: &mut dyn FnMut(RxFrame<'_>),
    ) -> Result<usize, PortError> {
        accept(self.incoming);
        Ok(1)
    }

    fn transmit_room(&mut self, _: Instant) -> TransmitRoom {
        TransmitRoom { frames: 1, bytes_outstanding: 0 }
    }

    fn transmit(
        &mut self,
        _: Instant,
        length_max: usize,
        _: TxOffload,
        fill: &mut dyn FnMut(&mut [u8]) -> usize,
    ) -> Result<bool, PortError> {
        Ok(fill(&mut vec![0; length_max]) > 0)
    }

    fn flush(&mut self, _: Instant) -> Result<(), PortError> {
        Ok(())
    }

    fn readiness(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn next_arrival(&self, _: Instant) -> Option<Instant> {
        None
    }

    fn statistics(&self) -> PortStatistics {
        PortStatistics::default()
    }
}

#[test]
fn a_checksum_left_to_a_device_is_recorded_complete_and_passed_on_as_it_is() {
    let left = TxOffload { checksum: true, segment_size: 1448 };
    let partial = tcp_frame(false, 12, 0x10, &[3; 10_000]);
    let mut complete = partial.clone();
    assert!(complete_checksum(&mut complete));
    let file = Shared::default();
    let info = plain_cable().0.info().clone();
    let incoming = RxFrame { bytes: &partial, left, ..RxFrame::default() };
    let mut port = Capture::new(Offloading { info, incoming }, file.clone(), 0);
    let mut accept = |frame: RxFrame<'_>| assert!(frame.bytes == partial && frame.left == left);
    port.receive(Instant::ZERO, 1, &mut accept).unwrap();
    let mut fill = |buffer: &mut [u8]| {
        buffer.copy_from_slice(&partial);
        partial.len()
    };
    assert!(port.transmit(Instant::ZERO, partial.len(), left, &mut fill).unwrap());
    port.sync();
    let contents = file.contents();
    let recorded: Vec<Record<'_>> = records(&contents).unwrap().map(Result::unwrap).collect();
    assert_eq!(recorded.len(), 2);
    assert!(recorded.iter().all(|record| record.bytes == complete));
}

#[test]
fn a_full_disk_stops_the_capture_and_not_the_port() {
    let file = Shared { full_at: Some(400_000), ..Shared::default() };
    let (a, mut b) = plain_cable();
    let mut a = Capture::new(a, file.clone(), 0);
    for _ in 0..1000 {
        assert!(send(&mut a, Instant::ZERO, &[7; 1000]));
    }
    let statistics = a.capture_statistics();
    assert_eq!(statistics.write_errors, 1, "it does not try again");
    assert_eq!(statistics.recorded_frames + statistics.missed_frames, 1000);
    assert!(statistics.missed_frames > 0);
    drop(a);
    let mut arrived = 0;
    while let Some(at) = b.next_arrival(Instant::ZERO) {
        arrived += b.receive(at, usize::MAX, &mut |_| ()).unwrap();
    }
    assert_eq!(arrived, 1000);
    // Each write to the file is of whole blocks or of what BufWriter gathered of them; the reader says where it ends.
    assert!(records(&file.contents()).unwrap().filter(Result::is_ok).count() > 100);
}

#[test]
fn broken_files_are_errors() {
    assert_eq!(records(&[]).unwrap_err(), ReadError::NotPcapng);
    let file = Shared::default();
    exchange(&file, 0);
    let whole = file.contents();
    let mut turned = whole.clone();
    turned[8..12].reverse();
    assert_eq!(records(&turned).unwrap_err(), ReadError::ByteOrder);
    for cut in 12..whole.len() {
        let read: Vec<_> = records(&whole[..cut]).unwrap().collect();
        let errors = read.iter().filter(|record| record.is_err()).count();
        assert!(errors <= 1 && read.len() - errors <= 3, "cut at {cut}");
        assert!(errors == 1 || read.len() < 3, "cut at {cut}: the missing end goes unnoticed");
    }
    let mut rng = crate::rng::Rng::new(11);
    for _ in 0..20_000 {
        let mut broken = whole.clone();
        let at = rng.below(broken.len() as u64) as usize;
        broken[at] ^= 1 << rng.below(8);
        let _ = records(&broken).map(|records| records.count()); // whatever it says, it does not panic
    }
}

#[test]
fn tshark_reads_it_where_there_is_tshark() {
    let (a, b) = plain_cable();
    drop(b);
    let path = std::env::temp_dir().join(format!("outrider-capture-{}.pcapng", std::process::id()));
    let mut a = Capture::new(a, std::fs::File::create(&path).unwrap(), 0)
        .with_epoch_offset(Duration::from_secs(1_700_000_000));
    assert!(send(&mut a, Instant::from_nanos(123_456_789), &[5; 77]));
    drop(a);
    let fields = ["frame.time_epoch", "frame.len", "frame.packet_flags_direction", "frame.interface_name"];
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(&path).args(["-T", "fields"]);
    fields.iter().for_each(|field| {
        tshark.args(["-e", field]);
    });
    let output = tshark.output();
    std::fs::remove_file(&path).unwrap();
    let Ok(output) = output else {
        println!("skipped: needs tshark");
        return;
    };
    let line = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let seen: Vec<&str> = line.split('\t').collect();
    assert_eq!(seen[1..2], ["77"], "{line}, {}", String::from_utf8_lossy(&output.stderr));
    assert!(seen[0].contains("1700000000.123456789") || seen[0].contains("22:13:20.123456789"), "{line}");
    assert!(seen[2] == "0x00000002" || seen[2] == "2", "{line}");
    assert_eq!(seen[3], "cable:0");
}

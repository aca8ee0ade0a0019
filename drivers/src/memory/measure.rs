//! What a frame costs on a cable and a switch. Run by hand:
//! `cargo test --release -p outrider-drivers measure -- --ignored --nocapture`.

use super::*;
use crate::doorbell::thread_cpu_time;

const FRAME_BYTES: usize = 1514;
const BURST_FRAMES: usize = 64;
const BURSTS: usize = 50_000;

fn measure(what: &str, mut from: MemoryPort, mut to: MemoryPort) {
    let (destination, source) = (to.info().mac, from.info().mac);
    let payload = [7_u8; FRAME_BYTES];
    let mut now = Instant::ZERO;
    let mut seen = 0_u64;
    let before = thread_cpu_time();
    for _ in 0..BURSTS {
        for _ in 0..BURST_FRAMES {
            let taken = from.transmit(now, FRAME_BYTES, TxOffload::default(), &mut |buffer| {
                buffer.copy_from_slice(&payload);
                buffer[..6].copy_from_slice(&destination);
                buffer[6..12].copy_from_slice(&source);
                FRAME_BYTES
            });
            assert!(taken.unwrap());
        }
        from.flush(now).unwrap();
        now += core::time::Duration::from_micros(64);
        to.receive(now, usize::MAX, &mut |frame| seen += u64::from(frame.bytes[0] == destination[0]))
            .unwrap();
    }
    let took = thread_cpu_time() - before;
    let frames = (BURSTS * BURST_FRAMES) as u64;
    println!(
        "{what}: {} ns per frame of {FRAME_BYTES} bytes, {:.1} million frames/s, {seen} of {frames} seen",
        took.as_nanos() as u64 / frames,
        frames as f64 / took.as_secs_f64() / 1e6,
    );
}

#[test]
#[ignore = "a measurement, to be run by hand in release"]
fn measure_cable_and_switch() {
    let shaped = LinkConfig {
        rate_bits_per_second: 20_000_000_000,
        delay: core::time::Duration::from_micros(50),
        ..LinkConfig::default()
    };
    let (a, b) = cable(LinkConfig::default(), LinkConfig::default(), 1);
    measure("plain cable", a, b);
    let (a, b) = cable(shaped.clone(), LinkConfig::default(), 1);
    measure("20 Gbit/s cable", a, b);
    let switch = Switch::new(1);
    let (a, b) = (switch.connect(shaped.clone()), switch.connect(shaped));
    measure("20 Gbit/s switch", a, b);
}

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant as Std};
use outrider_drivers::memory::{LinkConfig, cable};
use outrider_stack::net::*;
use outrider_stack::shard::*;
use outrider_stack::stream::discard::*;
use outrider_stack::stream::*;
use outrider_stack::time::*;
use outrider_stack::wheel::Wheel;
fn main() {
    let mut w = Wheel::new(Instant::ZERO);
    for n in [1u32, 1000, 100_000] {
        let mut x = 12345u64;
        let t = Std::now();
        let mut now = 0u64;
        let mut fired = vec![];
        for i in 0..10_000_000u64 {
            x ^= x << 13; x ^= x >> 7; x ^= x << 17;
            now += 200;
            w.arm((x % n as u64) as u32, Instant::from_nanos(now + 10_000 + (x >> 40)));
            if i % 32 == 0 { w.expire(Instant::from_nanos(now), &mut fired); fired.clear(); std::hint::black_box(w.next_deadline()); }
        }
        println!("wheel {n}: {:?} per arm", t.elapsed() / 10_000_000);
    }
    let mode = std::env::args().nth(1).unwrap_or_default();
    let verify = mode != "valid";
    let link = LinkConfig { verify_checksums: verify, ..LinkConfig::default() };
    let (a, b) = cable(link.clone(), link, 1);
    let shard = |host: u8, port| {
        let address: IpAddr = format!("10.0.0.{host}").parse().unwrap();
        spawn(Box::new(port), ShardConfig { name: "s".into(), stack: StackConfig::new([(address, 24)]), polling: Polling::default(), core: None, seed: 1, clock: Arc::new(MonotonicClock) }).unwrap()
    };
    let (a, b) = (shard(1, a), shard(2, b));
    let counters = Arc::new(DiscardCounters::default());
    let g = b.handle().listen("10.0.0.2:9".parse().unwrap(), ListenOptions::default(), Box::new(DiscardAcceptor { counters: counters.clone(), room_bytes: 4 << 20 })).unwrap();
    let s = TcpStream::connect(&a.handle(), g.local(), StreamConfig::default()).unwrap();
    let (_r, mut wr) = s.into_split();
    let piece = bytes::Bytes::from(vec![7u8; 65536]);
    let t = Std::now();
    let mut last = 0;
    let mut next = Duration::from_secs(1);
    while t.elapsed() < Duration::from_secs(5) {
        wr.write_piece(piece.clone()).unwrap();
        if t.elapsed() > next { next += Duration::from_secs(1); let n = counters.bytes.load(Ordering::Relaxed); println!("{} MB/s", (n - last) / 1_000_000); last = n; }
    }
    let sa = a.handle().statistics();
    println!("{:#?}", sa.connections);
    println!("tx {} rx {} sleeps {} cpu {:?} timeouts {} lost {} blocked {}", sa.stack.tx_segments, sa.stack.rx_segments, sa.sleeps, sa.cpu_time, sa.stack.timeouts, sa.stack.tx_lost_at_port, sa.stack.tx_blocked_port);
    let ra = a.stop(); let rb = b.stop();
    println!("cpu a {:?} b {:?}; per segment a {:?}", ra.cpu_time, rb.cpu_time, ra.cpu_time / ra.statistics.tx_segments as u32);
}

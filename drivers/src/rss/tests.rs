//! The known answers of the specification of receive-side scaling ("Verifying the RSS hash calculation", Microsoft).

use std::net::SocketAddr;

use super::{BadRss, DEFAULT_KEY, FrameFlow, Rss};

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Destination, source, hash of the addresses, hash with the ports.
const ANSWERS: [(&str, &str, u32, u32); 8] = [
    ("161.142.100.80:1766", "66.9.149.187:2794", 0x323e_8fc2, 0x51cc_c178),
    ("65.69.140.83:4739", "199.92.111.2:14230", 0xd718_262a, 0xc626_b0ea),
    ("12.22.207.184:38024", "24.19.198.95:12898", 0xd2d0_a5de, 0x5c2b_394a),
    ("209.142.163.6:2217", "38.27.205.30:48228", 0x8298_9176, 0xafc7_327f),
    ("202.188.127.2:1303", "153.39.163.191:44251", 0x5d18_09c5, 0x10e8_28a2),
    ("[3ffe:2501:200:3::1]:1766", "[3ffe:2501:200:1fff::7]:2794", 0x2cc1_8cd5, 0x4020_7d3d),
    ("[ff02::1]:4739", "[3ffe:501:8::260:97ff:fe40:efab]:14230", 0x0f0c_461c, 0xdde5_1bbf),
    (
        "[fe80::200:f8ff:fe21:67cf]:38024",
        "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251",
        0x4b61_e985,
        0x02d1_feef,
    ),
];

#[test]
fn the_hash_gives_the_answers_of_the_specification() {
    let rss = Rss::even(4);
    for (destination, source, addresses, with_ports) in ANSWERS {
        let (destination, source) = (address(destination), address(source));
        assert_eq!(rss.hash_ip(source.ip(), destination.ip()), addresses, "{source} to {destination}");
        assert_eq!(rss.hash_tcp(source, destination), with_ports, "{source} to {destination}");
    }
}

/// A frame with the least that is read of it.
fn frame(source: SocketAddr, destination: SocketAddr, protocol: u8) -> Vec<u8> {
    let mut frame = vec![0; 12];
    let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    match (source, destination) {
        (SocketAddr::V4(source), SocketAddr::V4(destination)) => {
            frame.extend([0x08, 0x00, 0x46]);
            frame.resize(14 + 9, 0);
            frame.extend([protocol, 0, 0]);
            frame.extend(source.ip().octets());
            frame.extend(destination.ip().octets());
            // Options, as the header length of six words says.
            frame.extend([1; 4]);
        }
        (SocketAddr::V6(source), SocketAddr::V6(destination)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, protocol, 64]);
            frame.extend(source.ip().octets());
            frame.extend(destination.ip().octets());
        }
        _ => panic!("one family"),
    }
    frame.extend(ports);
    frame
}

#[test]
fn frames_go_where_the_hash_of_what_is_in_them_says() {
    let rss = Rss::even(3);
    for (destination, source, addresses, with_ports) in ANSWERS {
        let (destination, source) = (address(destination), address(source));
        let tcp = frame(source, destination, 6);
        assert_eq!(FrameFlow::read(&tcp), Some(FrameFlow::Tcp { source, destination }));
        assert_eq!(rss.queue_of_frame(&tcp), rss.queue(with_ports));
        assert_eq!(rss.queue_of_frame(&frame(source, destination, 1)), rss.queue(addresses));
        for cut in 0..tcp.len() {
            let _ = rss.queue_of_frame(&tcp[..cut]);
        }
    }
    let mut fragment = frame(address(ANSWERS[0].1), address(ANSWERS[0].0), 6);
    fragment[14 + 6] = 0x20;
    assert_eq!(rss.queue_of_frame(&fragment), rss.queue(ANSWERS[0].2), "a fragment has no ports to go by");
    assert_eq!(rss.queue_of_frame(&[0; 60]), rss.queue(0), "what is not IP");
}

#[test]
fn what_is_no_key_and_no_table_is_refused() {
    assert_eq!(Rss::new(&DEFAULT_KEY[..39], vec![0]), Err(BadRss::ShortKey { length: 39 }));
    assert_eq!(Rss::new(&DEFAULT_KEY, vec![]), Err(BadRss::TableLength { length: 0 }));
    assert_eq!(Rss::new(&DEFAULT_KEY, vec![0; 65_537]), Err(BadRss::TableLength { length: 65_537 }));
}

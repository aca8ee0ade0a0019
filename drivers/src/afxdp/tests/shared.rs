//! Shared mode leaves the kernel its own; dedicated mode does not.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use super::*;
use crate::afxdp::{Attach, Take};

const KERNEL: &str = "10.9.0.2";
const OURS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 3);

fn addressed(attach: Attach) -> Option<(Lab, AfXdpOptions)> {
    let lab = Lab::new(1, 1500)?;
    lab.near(&format!("address add {KERNEL}/24 dev near0"));
    lab.far("address add 10.9.0.1/24 dev far0");
    let options = AfXdpOptions { attach, take: Take::Shared(vec![OURS.into()]), ..AfXdpOptions::default() };
    Some((lab, options))
}

fn ping(lab: &Lab, address: &str) -> bool {
    let ping = ["-c", "3", "-i", "0.01", "-W", "5", address];
    lab.far.command("ping").args(ping).output().expect("iputils-ping").status.success()
}

/// Whether an Ethernet frame is an ARP request for `address`.
fn asks_for(frame: &[u8], address: Ipv4Addr) -> bool {
    frame.get(12..14) == Some(&[8, 6]) && frame.get(38..42) == Some(&address.octets())
}

#[test]
fn the_kernel_keeps_its_ping_and_tcp_while_our_address_is_ours() {
    for attach in [Attach::Native, Attach::Generic] {
        let Some((lab, options)) = addressed(attach) else { return };
        let mut port = lab.open_near(&options).unwrap().remove(0);
        // Somebody asks for us, and goes on asking while the kernel is talked to.
        lab.far("neighbour flush dev far0");
        let mut asking = lab
            .far
            .command("ping")
            .args(["-i", "0.01", "-c", "100000", &OURS.to_string()])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let request = wait_for(&mut port, "an ARP request for our address", |frame| asks_for(frame, OURS));
        // An answer, so that IP packets follow.
        let mac = port.info().mac;
        let asker: [u8; 6] = *request[6..].first_chunk().unwrap();
        let reply =
            [&asker[..], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2], &mac, &OURS.octets(), &request[22..32]];
        let mut reply = reply.concat();
        reply.resize(60, 0);
        assert!(send(&mut port, &reply));
        wait_for(&mut port, "an IP packet for our address", |frame| {
            frame.get(30..34) == Some(&OURS.octets())
        });

        assert!(ping(&lab, KERNEL), "the kernel answers pings");
        let listener = lab.near.run(|| TcpListener::bind((KERNEL, 0)).unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = lab.far.run(|| TcpStream::connect(address).unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let data: Vec<u8> = (0..200_000_u32).map(|at| at as u8).collect();
        let sent = data.clone();
        let writer = std::thread::spawn(move || client.write_all(&sent).unwrap());
        let mut got = Vec::new();
        server.read_to_end(&mut got).unwrap();
        writer.join().unwrap();
        assert!(got == data, "{} bytes", got.len());
        let for_the_kernel = received(&mut port)
            .unwrap()
            .into_iter()
            .find(|frame| frame.get(30..34) != Some(&OURS.octets()) && !asks_for(frame, OURS));
        assert_eq!(for_the_kernel, None, "the port sees nothing of that");
        asking.kill().unwrap();
        asking.wait().unwrap();
    }
}

#[test]
fn dedicated_mode_leaves_the_kernel_nothing() {
    let Some((lab, _)) = addressed(Attach::Automatic) else { return };
    let mut port = lab.open_near(&AfXdpOptions::default()).unwrap().remove(0);
    lab.far("neighbour replace 10.9.0.2 dev far0 lladdr ff:ff:ff:ff:ff:ff");
    let mut asking = lab
        .far
        .command("ping")
        .args(["-i", "0.01", "-c", "20", "-W", "1", KERNEL])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    wait_for(&mut port, "a ping for the kernel's address", |frame| frame.get(30..34) == Some(&[10, 9, 0, 2]));
    assert!(!asking.wait().unwrap().success(), "nobody answers");
    // Given back, the interface is the kernel's again.
    drop(port);
    lab.far("neighbour delete 10.9.0.2 dev far0");
    assert!(ping(&lab, KERNEL));
}

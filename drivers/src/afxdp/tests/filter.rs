//! The programs' verdicts, frame by frame, in the kernel but without an interface (BPF_PROG_TEST_RUN).

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use crate::afxdp::bpf::{self, testing};
use crate::afxdp::options::Take;
use crate::afxdp::program::{ADDRESSES_MAX, XDP_PASS, assemble};
use crate::netns;

/// What frames for the socket get where there is none: told apart from passing on.
const XDP_TX: i32 = 3;

fn load(take: &Take) -> Option<OwnedFd> {
    netns::for_test()?;
    let map = bpf::create_socket_map(1).unwrap();
    let code = assemble(take, map.as_fd(), XDP_TX);
    Some(bpf::load_program(&code, true).unwrap_or_else(|refused| panic!("{refused:?}")))
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ethernet(ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    frame
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn ip(destination: &str) -> Vec<u8> {
    match address(destination) {
        to @ IpAddr::V4(_) => {
            let mut packet = vec![0x45, 0, 0, 20, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 9];
            packet.extend(octets(to));
            ethernet(0x0800, &packet)
        }
        to @ IpAddr::V6(_) => {
            let mut packet = vec![0x60, 0, 0, 0, 0, 0, 6, 64];
            packet.extend(octets(address("fd00::9")));
            packet.extend(octets(to));
            ethernet(0x86dd, &packet)
        }
    }
}

fn arp(target: &str) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2, 10, 0, 0, 9, 0, 0, 0, 0, 0, 0];
    packet.extend(octets(address(target)));
    ethernet(0x0806, &packet)
}

/// An ICMPv6 message of `kind` about `target`, sent to `group`.
fn ndp(kind: u8, group: &str, target: &str) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 24, 58, 255];
    packet.extend(octets(address("fd00::9")));
    packet.extend(octets(address(group)));
    packet.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
    packet.extend(octets(address(target)));
    ethernet(0x86dd, &packet)
}

fn tagged(frame: &[u8]) -> Vec<u8> {
    [&frame[..12], &[0x81, 0x00, 0, 5], &frame[12..]].concat()
}

#[test]
fn shared_mode_takes_what_is_for_its_addresses_and_nothing_else() {
    let own = ["10.0.0.3", "192.168.7.3", "fd00::3", "fd00::1:3"];
    let Some(program) = load(&Take::Shared(own.map(address).to_vec())) else { return };
    let group = "ff02::1:ff00:3";
    let cases = [
        (true, "IPv4 to us", ip("10.0.0.3")),
        (true, "IPv4 to our other address", ip("192.168.7.3")),
        (false, "IPv4 to the kernel", ip("10.0.0.2")),
        (false, "IPv4 broadcast", ip("255.255.255.255")),
        (true, "IPv6 to us", ip("fd00::3")),
        (true, "IPv6 to our other address", ip("fd00::1:3")),
        (false, "IPv6 to the kernel", ip("fd00::2:3")),
        (false, "IPv6 that differs in the first word", ip("fd01::3")),
        (true, "ARP for us", arp("10.0.0.3")),
        (false, "ARP for the kernel", arp("10.0.0.2")),
        (true, "solicitation of us by multicast", ndp(135, group, "fd00::3")),
        (false, "solicitation of a kernel address of the same group", ndp(135, group, "fd00::2:3")),
        (false, "advertisement to the group", ndp(136, group, "fd00::3")),
        (true, "advertisement to us", ndp(136, "fd00::3", "fd00::9")),
        (false, "router advertisement", ndp(134, "ff02::1", "fd00::3")),
        (false, "IPv4 to us in a VLAN", tagged(&ip("10.0.0.3"))),
        (false, "an unknown ethertype", ethernet(0x88b5, &[0; 46])),
        (false, "IPv4 cut short", ip("10.0.0.3")[..33].to_vec()),
        (false, "ARP cut short", arp("10.0.0.3")[..41].to_vec()),
        (false, "IPv6 cut short", ip("fd00::3")[..53].to_vec()),
        (false, "solicitation cut short", ndp(135, group, "fd00::3")[..77].to_vec()),
        (false, "nothing but a header", ethernet(0x0800, &[])),
    ];
    for (taken, what, frame) in cases {
        let wanted = if taken { XDP_TX } else { XDP_PASS };
        assert_eq!(testing::run(program.as_fd(), &frame).unwrap(), wanted as u32, "{what}");
    }
}

#[test]
fn dedicated_mode_takes_everything() {
    let Some(program) = load(&Take::Dedicated) else { return };
    for frame in [ip("10.0.0.2"), arp("10.0.0.2"), tagged(&ip("10.0.0.3")), ethernet(0x88b5, &[])] {
        assert_eq!(testing::run(program.as_fd(), &frame).unwrap(), XDP_TX as u32);
    }
}

#[test]
fn as_many_addresses_as_are_allowed_pass_the_verifier() {
    let addresses = |make: &dyn Fn(usize) -> String| {
        (0..ADDRESSES_MAX).map(|number| address(&make(number))).collect::<Vec<_>>()
    };
    let v4 = addresses(&|number| format!("10.0.{number}.1"));
    let Some(program) = load(&Take::Shared(v4)) else { return };
    assert_eq!(testing::run(program.as_fd(), &ip("10.0.63.1")).unwrap(), XDP_TX as u32);
    let v6 = addresses(&|number| format!("fd00::{number:x}:1"));
    let Some(program) = load(&Take::Shared(v6)) else { return };
    assert_eq!(testing::run(program.as_fd(), &ip("fd00::3f:1")).unwrap(), XDP_TX as u32);
    assert_eq!(testing::run(program.as_fd(), &ip("fd00::40:1")).unwrap(), XDP_PASS as u32);
}

#[test]
fn a_program_that_the_verifier_refuses_is_told_with_its_words() {
    if netns::for_test().is_none() {
        return;
    }
    // Ends without a result in R0.
    let refused = bpf::load_program(&[0x95], false).unwrap_err();
    assert!(refused.log.contains("R0"), "{refused:?}");
}

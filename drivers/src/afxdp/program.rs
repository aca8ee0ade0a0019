//! The XDP programs: which frames go to the sockets and which to the kernel.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::assembler::{Assembler, Label, Register, Width};
use super::options::Take;

/// Addresses that shared mode takes at most: they are compared one after another for each frame.
pub(super) const ADDRESSES_MAX: usize = 64;

/// `enum xdp_action` (linux/bpf.h).
pub(super) const XDP_PASS: i32 = 2;
/// `bpf_redirect_map` (linux/bpf.h).
const BPF_FUNC_REDIRECT_MAP: i32 = 51;
/// Offsets in `struct xdp_md` (linux/bpf.h).
const XDP_MD_DATA: i16 = 0;
const XDP_MD_DATA_END: i16 = 4;
const XDP_MD_RX_QUEUE_INDEX: i16 = 16;

/// Offsets in an Ethernet frame without a tag.
const ETHERTYPE: i16 = 12;
const ETHERNET_END: i32 = 14;
const ARP_TARGET_ADDRESS: i16 = 14 + 24;
const ARP_END: i32 = 14 + 28;
const IPV4_DESTINATION: i16 = 14 + 16;
const IPV4_END: i32 = 14 + 20;
const IPV6_NEXT_HEADER: i16 = 14 + 6;
const IPV6_DESTINATION: i16 = 14 + 24;
const IPV6_END: i32 = 14 + 40;
const ICMPV6_TYPE: i16 = 14 + 40;
const NDP_TARGET_ADDRESS: i16 = 14 + 40 + 8;
const NDP_END: i32 = 14 + 40 + 24;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const PROTOCOL_ICMPV6: u32 = 58;
/// RFC 4861 section 4.3.
const NEIGHBOUR_SOLICITATION: u32 = 135;

/// The program that redirects to `sockets` (a map of AF_XDP sockets by queue) what `take` says. On a queue without a
/// socket a frame gets the action `no_socket`.
pub(super) fn assemble(take: &Take, sockets: BorrowedFd<'_>, no_socket: i32) -> Vec<u64> {
    let mut program = Assembler::default();
    // R6 = the context, which calls and loads leave alone.
    program.copy(Register::R6, Register::R1);
    if let Take::Shared(addresses) = take {
        let (taken, passed) = (program.label(), program.label());
        let filter = Filter { addresses, taken, passed };
        filter.assemble(&mut program);
        program.place(passed);
        program.set(Register::R0, XDP_PASS);
        program.exit();
        program.place(taken);
    }
    program.load(Width::Word, Register::R2, Register::R6, XDP_MD_RX_QUEUE_INDEX);
    program.set_map(Register::R1, sockets.as_raw_fd());
    program.set(Register::R3, no_socket);
    program.call(BPF_FUNC_REDIRECT_MAP);
    program.exit();
    program.finish()
}

/// Shared mode's decision. R2 points to the frame and R3 behind its end.
struct Filter<'a> {
    addresses: &'a [IpAddr],
    taken: Label,
    passed: Label,
}

impl Filter<'_> {
    /// Goes to `taken` or `passed`.
    fn assemble(&self, program: &mut Assembler) {
        let (arp, ipv4, ipv6) = (program.label(), program.label(), program.label());
        program.load(Width::Word, Register::R2, Register::R6, XDP_MD_DATA);
        program.load(Width::Word, Register::R3, Register::R6, XDP_MD_DATA_END);
        self.need(program, ETHERNET_END);
        program.load(Width::Half, Register::R4, Register::R2, ETHERTYPE);
        program.jump_if_equal(Register::R4, network_half(ETHERTYPE_IPV4), ipv4);
        program.jump_if_equal(Register::R4, network_half(ETHERTYPE_IPV6), ipv6);
        program.jump_if_equal(Register::R4, network_half(ETHERTYPE_ARP), arp);
        program.jump(self.passed);

        program.place(ipv4);
        self.need(program, IPV4_END);
        self.take_if_own_v4(program, IPV4_DESTINATION);
        program.place(arp);
        self.need(program, ARP_END);
        self.take_if_own_v4(program, ARP_TARGET_ADDRESS);

        program.place(ipv6);
        self.need(program, IPV6_END);
        self.take_if_own_v6(program, IPV6_DESTINATION);
        // A solicitation goes to a multicast group that the kernel's addresses may share: its target decides.
        program.load(Width::Byte, Register::R4, Register::R2, IPV6_NEXT_HEADER);
        program.jump_unless_equal(Register::R4, PROTOCOL_ICMPV6, self.passed);
        self.need(program, NDP_END);
        program.load(Width::Byte, Register::R4, Register::R2, ICMPV6_TYPE);
        program.jump_unless_equal(Register::R4, NEIGHBOUR_SOLICITATION, self.passed);
        self.take_if_own_v6(program, NDP_TARGET_ADDRESS);
        program.jump(self.passed);
    }

    /// Passes frames that are shorter; tells the verifier that the bytes before `end` are there.
    fn need(&self, program: &mut Assembler, end: i32) {
        program.copy(Register::R4, Register::R2);
        program.add(Register::R4, end);
        program.jump_if_greater(Register::R4, Register::R3, self.passed);
    }

    /// Takes the frame if the address at `offset` is ours, and passes it otherwise.
    fn take_if_own_v4(&self, program: &mut Assembler, offset: i16) {
        program.load(Width::Word, Register::R4, Register::R2, offset);
        for address in self.addresses {
            if let IpAddr::V4(address) = address {
                program.jump_if_equal(Register::R4, u32::from_ne_bytes(address.octets()), self.taken);
            }
        }
        program.jump(self.passed);
    }

    /// Takes the frame if the address at `offset` is ours, and goes on otherwise.
    fn take_if_own_v6(&self, program: &mut Assembler, offset: i16) {
        for address in self.addresses {
            let IpAddr::V6(address) = address else { continue };
            let other = program.label();
            let octets = address.octets();
            let (words, _) = octets.as_chunks::<4>();
            // The last word differs most often.
            for (index, word) in words.iter().enumerate().rev() {
                program.load(Width::Word, Register::R4, Register::R2, offset + 4 * index as i16);
                program.jump_unless_equal(Register::R4, u32::from_ne_bytes(*word), other);
            }
            program.jump(self.taken);
            program.place(other);
        }
    }
}

/// A 16-bit field in network order as a plain load reads it.
fn network_half(value: u16) -> u32 {
    u32::from(u16::from_ne_bytes(value.to_be_bytes()))
}

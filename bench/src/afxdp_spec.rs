//! How options spell the AF_XDP ports of a node: `afxdp:IF[:QUEUES][,MODE...]`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use outrider_drivers::afxdp::{AfXdpOptions, Attach, CopyMode, Take};
use outrider_drivers::busy_poll::BusyPoll;

use crate::place::{ParseError, valid_interface};

const WANTED: &str = "expected afxdp:IF[:QUEUES] with queues such as 0 or 0-3, then any of ,shared ,dedicated ,native ,generic ,copy ,zerocopy ,busy";

/// Queues of an interface, a shard each, and how they are to be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AfXdpSpec {
    /// The interface.
    pub(crate) interface: String,
    /// First and last.
    queues: (u32, u32),
    dedicated: bool,
    attach: Attach,
    copy: CopyMode,
    busy: bool,
}

/// Shards of a node at most.
const QUEUES_MAX: u32 = 64;

fn parse_queues(text: &str) -> Option<(u32, u32)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && last - first < QUEUES_MAX).then_some((first, last))
}

impl FromStr for AfXdpSpec {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut words = text.split(',');
        let place = words.next().unwrap_or_default();
        let (interface, queues) = place.split_once(':').unwrap_or((place, "0"));
        if !valid_interface(interface) {
            return Err(ParseError(format!("{interface:?} is no interface name; {WANTED}")));
        }
        let queues = parse_queues(queues).ok_or_else(|| {
            ParseError(format!(
                "{queues:?} names no queues: a number, or first-last with at most {QUEUES_MAX}; {WANTED}"
            ))
        })?;
        let mut spec = AfXdpSpec {
            interface: interface.to_owned(),
            queues,
            dedicated: false,
            attach: Attach::Automatic,
            copy: CopyMode::Automatic,
            busy: false,
        };
        for word in words {
            match word {
                "shared" => spec.dedicated = false,
                "dedicated" => spec.dedicated = true,
                "native" => spec.attach = Attach::Native,
                "generic" => spec.attach = Attach::Generic,
                "copy" => spec.copy = CopyMode::Copy,
                "zerocopy" => spec.copy = CopyMode::ZeroCopy,
                "busy" => spec.busy = true,
                _ => return Err(ParseError(format!("{word:?} is no mode; {WANTED}"))),
            }
        }
        Ok(spec)
    }
}

impl fmt::Display for AfXdpSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = self.queues;
        write!(f, "afxdp:{}:{first}", self.interface)?;
        if last != first {
            write!(f, "-{last}")?;
        }
        let words = [
            (self.dedicated, ",dedicated"),
            (self.attach == Attach::Native, ",native"),
            (self.attach == Attach::Generic, ",generic"),
            (self.copy == CopyMode::Copy, ",copy"),
            (self.copy == CopyMode::ZeroCopy, ",zerocopy"),
            (self.busy, ",busy"),
        ];
        words.iter().filter(|(said, _)| *said).try_for_each(|(_, word)| f.write_str(word))
    }
}

impl AfXdpSpec {
    /// What the driver is asked for, by a node with this address.
    pub(crate) fn options(&self, address: IpAddr) -> AfXdpOptions {
        AfXdpOptions {
            queues: (self.queues.0..=self.queues.1).collect(),
            take: if self.dedicated { Take::Dedicated } else { Take::Shared(vec![address]) },
            attach: self.attach,
            copy: self.copy,
            busy_poll: self.busy.then(BusyPoll::default),
            ..AfXdpOptions::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_reads_back_to_the_same_port() {
        for text in [
            "afxdp:eth0:0",
            "afxdp:eth0:0-3",
            "afxdp:eth0:3,dedicated,native,zerocopy,busy",
            "afxdp:e-1:0,generic,copy",
        ] {
            let spec: AfXdpSpec = text.strip_prefix("afxdp:").unwrap().parse().unwrap();
            assert_eq!(spec.to_string(), text);
        }
        assert_eq!("eth0,shared".parse::<AfXdpSpec>().unwrap().to_string(), "afxdp:eth0:0");
    }

    #[test]
    fn shared_mode_takes_the_address_of_the_node() {
        let address = IpAddr::from([10, 0, 0, 3]);
        let options = "eth0:2".parse::<AfXdpSpec>().unwrap().options(address);
        assert_eq!((options.queues, options.take), (vec![2], Take::Shared(vec![address])));
    }

    #[test]
    fn nonsense_is_refused_with_what_would_do() {
        for text in
            ["", "a b", "eth0:", "eth0:x", "eth0:3-1", "eth0:0-64", "eth0:-1", "eth0,fast", "eth0:0:1"]
        {
            let error = text.parse::<AfXdpSpec>().unwrap_err();
            assert!(error.to_string().contains("afxdp:IF[:QUEUES]"), "{text:?}: {error}");
        }
    }
}

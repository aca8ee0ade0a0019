//! How options spell an AF_XDP port: `afxdp:IF[:QUEUE][,MODE...]`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use outrider_drivers::afxdp::{AfXdpOptions, Attach, CopyMode, Take};
use outrider_drivers::busy_poll::BusyPoll;

use crate::place::{ParseError, valid_interface};

const WANTED: &str =
    "expected afxdp:IF[:QUEUE], then any of ,shared ,dedicated ,native ,generic ,copy ,zerocopy ,busy";

/// A queue of an interface, and how it is to be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AfXdpSpec {
    /// The interface.
    pub(crate) interface: String,
    queue: u32,
    dedicated: bool,
    attach: Attach,
    copy: CopyMode,
    busy: bool,
}

impl FromStr for AfXdpSpec {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut words = text.split(',');
        let place = words.next().unwrap_or_default();
        let (interface, queue) = place.split_once(':').unwrap_or((place, "0"));
        if !valid_interface(interface) {
            return Err(ParseError(format!("{interface:?} is no interface name; {WANTED}")));
        }
        let queue = queue.parse().map_err(|_| {
            ParseError(format!(
                "{queue:?} is not one queue: a node has one shard, and that one queue; {WANTED}"
            ))
        })?;
        let mut spec = AfXdpSpec {
            interface: interface.to_owned(),
            queue,
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
        write!(f, "afxdp:{}:{}", self.interface, self.queue)?;
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
            queues: vec![self.queue],
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
        for text in
            ["afxdp:eth0:0", "afxdp:eth0:3,dedicated,native,zerocopy,busy", "afxdp:e-1:0,generic,copy"]
        {
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
        for text in ["", "a b", "eth0:", "eth0:x", "eth0:0-3", "eth0:-1", "eth0,fast", "eth0:0:1"] {
            let error = text.parse::<AfXdpSpec>().unwrap_err();
            assert!(error.to_string().contains("afxdp:IF[:QUEUE]"), "{text:?}: {error}");
        }
    }
}

//! A connection that is about to be needed is fetched into the cache: all of its lines at once, where each would
//! otherwise be waited for when it is met.

use super::Connection;

/// Reads the fields named, and says where they are.
macro_rules! touched {
    ($name:ident, $offsets:ident: $($field:ident by $read:expr),*) => {
        fn $name(&self) -> u64 {
            0 $(^ { let read: fn(&Connection) -> u64 = $read; read(self) })*
        }

        /// Where the fields are that it reads.
        #[cfg(test)]
        const $offsets: &[usize] = &[$(core::mem::offset_of!(Connection, $field)),*];
    };
}

impl Connection {
    touched! {
        touch_always, ALWAYS:
        una by |c| c.una,
        window_edge by |c| c.window_edge,
        receiver by |c| c.receiver.touch(),
        timers by |c| c.timers.touch(),
        last_heard_at by |c| c.last_heard_at.as_nanos(),
        acks_sent by |c| c.acks_sent,
        flight by |c| c.flight.delivered_end(),
        trace by |c| c.trace.touch()
    }
    touched! {
        touch_sender, SENDER:
        rtt by |c| c.rtt.touch(),
        rate by |c| c.rate.delivered(),
        rack by |c| c.rack.touch(),
        timeout_base by |c| c.timeout_base.as_nanos(),
        paced_until by |c| c.paced_until.as_nanos()
    }

    /// Reads a little of each line of the connection itself; of the sending half only if it `sends`, or has something
    /// in flight. What it returns means nothing.
    pub(crate) fn touch(&self, sends: bool) -> u64 {
        let sender = if sends || !self.flight.is_bare() { self.touch_sender() } else { 0 };
        self.touch_always() ^ sender
    }

    /// The same for what it points to: best done when the connection itself has arrived.
    pub(crate) fn touch_parts(&self, sends: bool) -> u64 {
        if sends || !self.flight.is_bare() { self.flight.touch(sends) ^ self.congestion.touch() } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::Connection;

    const LINE_BYTES: usize = 64;

    /// A connection may begin anywhere in a line: no two fields next to each other in the list of those that are read
    /// lie much more than a line apart, the trace excepted, of which one entry is read wherever it is.
    #[test]
    fn every_line_is_fetched() {
        let mut offsets = [Connection::ALWAYS, Connection::SENDER].concat();
        offsets.push(size_of::<Connection>());
        offsets.sort_unstable();
        let trace = core::mem::offset_of!(Connection, trace);
        for (from, to) in offsets.iter().zip(&offsets[1..]).filter(|(from, _)| **from != trace) {
            let receiver = core::mem::offset_of!(Connection, receiver);
            // The receiver reads two lines of its own.
            let bound = if *from == receiver { 2 * LINE_BYTES } else { LINE_BYTES + 16 };
            assert!(to - from <= bound, "nothing is read between {from} and {to} of {offsets:?}");
        }
    }
}

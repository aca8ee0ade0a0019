//! What an owner may change on an open connection, as socket options allow.

use core::time::Duration;
use std::sync::Arc;

use super::Connection;
use crate::tcp::config::Keepalive;
use crate::tcp::state::State;
use crate::time::Instant;

impl Connection {
    /// Input. From now on outstanding data may stay unacknowledged for `timeout` (RFC 5482 semantics).
    pub fn set_user_timeout(&mut self, now: Instant, timeout: Duration) {
        Arc::make_mut(&mut self.config).user_timeout = timeout;
        self.settle(now);
    }

    /// Input. Switches keepalive probes on, with these times, or off.
    pub fn set_keepalive(&mut self, now: Instant, keepalive: Option<Keepalive>) {
        Arc::make_mut(&mut self.config).keepalive = keepalive;
        self.settle(now);
    }

    /// Input. What was received and not acknowledged is acknowledged with the next transmission.
    pub fn acknowledge_now(&mut self, now: Instant) {
        if self.state != State::Closed && self.receiver.has_unacked() {
            self.receiver.acknowledge_now();
            self.settle(now);
        }
    }
}

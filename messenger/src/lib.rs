//! Ceph-style messenger over Outrider's own TCP: heartbeats ride ahead of the queue on the data connection.
#![forbid(unsafe_code)]

mod api;
pub mod codec;
pub mod config;
mod features;
mod health;
mod inject;
pub mod link;
mod message;
mod name;
pub mod oob;
mod random;
mod report;
pub mod session;
mod sparse;
pub mod transport;

pub use api::{
    ConnectError, Connection, Dispatcher, Drain, Driven, Messenger, MessengerBuilder, OobRegistration,
    SendError, StartError, ThrottleLimits, TrySendError,
};
pub use features::Features;
pub use health::{Condition, Health, HealthConfig, Side};
pub use inject::{InjectConfig, Injector};
pub use link::{Backoff, Policy};
pub use message::{LANES, Message, lane_of, priority};
pub use name::{EntityKind, EntityName, ParseNameError};
pub use oob::{OobMessage, OobOp, OobPart, OobStatistics, OobTurn, RegisterError};
pub use report::{Echo, LaneReport, Occupancy, PingReport, ReceiveReport, SendReport};
pub use session::ConnectionStatistics;

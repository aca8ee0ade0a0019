//! The messenger as applications see it: threads, blocking calls, callbacks.

mod attached;
mod attachment;
mod budget;
mod builder;
mod connection;
mod control;
mod core;
mod dispatch;
mod error;
mod inbox;
mod messenger;
mod throttle;

pub use builder::MessengerBuilder;
pub use connection::{Connection, OobRegistration};
pub use control::Driven;
pub use dispatch::Dispatcher;
pub use error::{ConnectError, SendError, StartError, TrySendError};
pub use messenger::{Drain, Messenger};
pub use throttle::ThrottleLimits;

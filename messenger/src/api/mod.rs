//! The messenger as applications see it: threads, blocking calls, callbacks.

mod budget;
mod connection;
mod dispatch;
mod error;
mod link;
mod messenger;

pub use connection::{Connection, OobRegistration};
pub use dispatch::Dispatcher;
pub use error::{ConnectError, SendError, StartError, TrySendError};
pub use messenger::{Messenger, MessengerBuilder};

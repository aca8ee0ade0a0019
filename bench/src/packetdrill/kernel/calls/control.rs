//! `fcntl` and `ioctl`.

use super::{Arguments, Attempt, Stop};
use crate::packetdrill::kernel::{Errno, File, Kernel};

const O_RDWR: i64 = 2;
const O_NONBLOCK: i64 = 0o4000;

impl Kernel {
    pub(super) fn call_fcntl(&mut self, arguments: &Arguments<'_>) -> Attempt {
        let fd = arguments.integer(0)?;
        let id = match self.files.get(&fd) {
            Some(File::Socket(id)) => *id,
            Some(File::Epoll(_) | File::Regular(_)) => {
                return Err(Stop::Unsupported("fcntl of a descriptor that is no socket".to_owned()));
            }
            None => return Err(Errno::EBADF.into()),
        };
        let socket = &mut self.sockets[id];
        match arguments.integer(1)? {
            1 => Ok(i64::from(socket.close_on_exec)),
            2 => {
                socket.close_on_exec = arguments.integer(2)? & 1 != 0;
                Ok(0)
            }
            3 => Ok(O_RDWR | if socket.nonblocking { O_NONBLOCK } else { 0 }),
            4 => {
                socket.nonblocking = arguments.integer(2)? & O_NONBLOCK != 0;
                Ok(0)
            }
            _ => Err(Stop::Unsupported(format!("fcntl {}", arguments.get(1)?))),
        }
    }

    pub(super) fn call_ioctl(&mut self, arguments: &Arguments<'_>) -> Attempt {
        let id = self.socket_of(arguments.integer(0)?)?;
        let connection = self.connection_of(id);
        let stream = connection.map(|connection| &self.connections[connection].stream);
        let value = match arguments.integer(1)? {
            // FIONREAD, SIOCINQ.
            0x541b => stream.map_or(0, |stream| stream.unread),
            // SIOCOUTQ.
            0x5411 => stream.map_or(0, |stream| stream.outstanding_bytes()),
            // SIOCOUTQNSD.
            0x894b => stream.map_or(0, |stream| stream.unsent_bytes()),
            // FIONBIO.
            0x5421 => {
                self.sockets[id].nonblocking = arguments.integer(2)? != 0;
                return Ok(0);
            }
            _ => return Err(Stop::Unsupported(format!("ioctl {}", arguments.get(1)?))),
        };
        let expected = arguments.optional(2)?;
        match expected {
            Some(expected) if expected != value as i64 => {
                Err(Stop::Wrong(format!("ioctl gives [{value}], expected [{expected}]")))
            }
            _ => Ok(0),
        }
    }
}

//! [`NetNamespace`]: a private network namespace for tests and labs, gone with its last descriptor.
//!
//! Nothing is mounted and no name is registered, so nothing is left behind, not even by a process that is killed.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use crate::interface::Interface;

/// Why a network namespace could not be made or entered.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// The process lacks CAP_SYS_ADMIN.
    #[error("{operation}: permission denied; network namespaces need root (CAP_SYS_ADMIN)")]
    NoPrivilege {
        /// What was being done.
        operation: &'static str,
    },
    /// The system refused for another reason.
    #[error("{operation} failed: {source}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl NetnsError {
    fn new(operation: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::PermissionDenied => NetnsError::NoPrivilege { operation },
            _ => NetnsError::Io { operation, source },
        }
    }
}

/// A network namespace, held by a descriptor. Cheap to clone. It vanishes, with every interface in it, when the last
/// clone, socket, thread and process in it is gone.
#[derive(Clone, Debug)]
pub struct NetNamespace {
    fd: Arc<OwnedFd>,
}

impl NetNamespace {
    /// A new namespace with nothing in it but a loopback interface that is up. The calling thread stays where it is.
    ///
    /// # Errors
    /// [`NetnsError::NoPrivilege`] without root.
    pub fn create() -> Result<Self, NetnsError> {
        on_fresh_thread(|| {
            // SAFETY: unshare takes no pointers and changes only the calling thread, which ends with this closure.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } < 0 {
                return Err(NetnsError::new("creating a network namespace", io::Error::last_os_error()));
            }
            let file = File::open("/proc/thread-self/ns/net")
                .map_err(|source| NetnsError::new("opening the new network namespace", source))?;
            Interface::new("lo").and_then(|loopback| loopback.bring_up()).map_err(|source| {
                NetnsError::new("bringing loopback up in the new network namespace", source)
            })?;
            Ok(NetNamespace { fd: Arc::new(file.into()) })
        })
    }

    /// Moves the calling thread into the namespace for the rest of its life. What it opens from now on belongs there,
    /// also the threads it spawns; what it opened before stays where it was.
    ///
    /// # Errors
    /// [`NetnsError::NoPrivilege`] without root.
    pub fn enter_current_thread(&self) -> Result<(), NetnsError> {
        enter(self.fd.as_raw_fd()).map_err(|source| NetnsError::new("entering a network namespace", source))
    }

    /// Runs `work` in the namespace, on a thread of its own, and returns what it returns. A panic goes on here.
    ///
    /// # Errors
    /// [`NetnsError::NoPrivilege`] without root; then `work` has not run.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        on_fresh_thread(|| self.enter_current_thread().map(|()| work()))
    }

    /// A command that will run in the namespace, such as `ip`. Spawning it fails if the namespace cannot be entered.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let fd = Arc::clone(&self.fd);
        // SAFETY: between fork and exec the closure makes one system call, setns, and allocates nothing: an error is
        // kept as a number. The descriptor is open because the closure owns a share of it.
        unsafe { command.pre_exec(move || enter(fd.as_raw_fd())) };
        command
    }

    /// A path that names the namespace while this value lives, for tools that take one:
    /// `ip link set DEVICE netns PATH`.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd()))
    }
}

impl AsFd for NetNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn enter(fd: RawFd) -> io::Result<()> {
    // SAFETY: setns takes no pointers; a descriptor that is no namespace is an error, nothing worse.
    if unsafe { libc::setns(fd, libc::CLONE_NEWNET) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Runs `work` on a thread that ends with it, so that the namespace it enters leaks nowhere.
fn on_fresh_thread<T: Send>(work: impl FnOnce() -> Result<T, NetnsError> + Send) -> Result<T, NetnsError> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, work)
            .map_err(|source| NetnsError::new("spawning a thread for a network namespace", source))?
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A namespace for a test, or a word on why the test cannot run.
#[cfg(test)]
pub(crate) fn for_test() -> Option<NetNamespace> {
    match NetNamespace::create() {
        Ok(namespace) => Some(namespace),
        Err(NetnsError::NoPrivilege { .. }) => {
            skip("root");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Says that a test skips itself for want of `what`. Under CI nothing is skipped.
#[cfg(test)]
pub(crate) fn skip(what: &str) {
    assert!(std::env::var_os("CI").is_none(), "CI must have {what}");
    println!("skipped: needs {what}");
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn interfaces(namespace: &NetNamespace) -> String {
        let output = namespace.command("ip").args(["-o", "link"]).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn a_namespace_has_its_own_interfaces_and_a_working_loopback() {
        let Some(namespace) = for_test() else { return };
        let links = interfaces(&namespace);
        assert!(links.lines().count() == 1 && links.contains("lo:") && links.contains("UP"), "{links}");
        namespace
            .run(|| {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.send_to(b"hello", socket.local_addr().unwrap()).unwrap();
                let mut buffer = [0; 16];
                assert_eq!(socket.recv(&mut buffer).unwrap(), 5);
            })
            .unwrap();
    }

    #[test]
    fn two_namespaces_can_be_joined_by_path_and_the_caller_stays_outside() {
        let (Some(left), Some(right)) = (for_test(), for_test()) else { return };
        let outside = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let status = left
            .command("ip")
            .args(["link", "add", "l0", "type", "veth", "peer", "name", "r0", "netns"])
            .arg(right.path())
            .status()
            .unwrap();
        if !status.success() {
            skip("a kernel with veth");
            return;
        }
        assert!(interfaces(&left).contains("l0") && interfaces(&right).contains("r0"));
        assert_eq!(std::fs::read_link("/proc/thread-self/ns/net").unwrap(), outside);
    }

    #[test]
    fn a_panic_inside_goes_on_outside() {
        let Some(namespace) = for_test() else { return };
        let panic = std::panic::catch_unwind(|| namespace.run(|| panic!("from within")));
        assert_eq!(panic.unwrap_err().downcast_ref::<&str>(), Some(&"from within"));
    }
}

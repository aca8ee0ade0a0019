//! One program, one map and one link for all ports of an interface.

use core::time::Duration;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::bpf::{self, XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE};
use super::error::AfXdpError;
use super::options::{AfXdpOptions, Attach, Attached};
use super::patience::patiently;
use super::program::{XDP_PASS, assemble};
use super::socket::XdpSocket;

/// So long a hook that is taken is tried again. A process that forked while it held the last program (to run another,
/// whose `exec` closes the descriptor) keeps the link for that moment.
const HOOK_PATIENCE: Duration = Duration::from_secs(2);

/// An attached program. Dropping it, or the end of the process, detaches it.
#[derive(Debug)]
pub(super) struct Attachment {
    pub attached: Attached,
    /// Why not in the driver, if that was tried first.
    pub native_refused: Option<String>,
    sockets: OwnedFd,
    /// The link holds the program and the program the map; these are for the order of closing.
    _link: OwnedFd,
    _program: OwnedFd,
}

impl Attachment {
    /// Loads and attaches the program. Until [`Attachment::insert`] every frame goes to the kernel.
    pub(super) fn new(
        interface: &str,
        index: u32,
        queues: u32,
        multi_buffer: bool,
        options: &AfXdpOptions,
    ) -> Result<Self, AfXdpError> {
        let failed =
            |operation, capability| move |source| AfXdpError::of(interface, operation, capability, source);
        let sockets = bpf::create_socket_map(queues)
            .map_err(failed("making a map of AF_XDP sockets", "CAP_BPF and CAP_NET_ADMIN"))?;
        let code = assemble(&options.take, sockets.as_fd(), XDP_PASS);
        let program = bpf::load_program(&code, multi_buffer).map_err(|refused| {
            let interface = interface.to_owned();
            match refused.source.raw_os_error() {
                Some(libc::EPERM) => AfXdpError::MissingCapability {
                    interface,
                    operation: "loading the XDP program",
                    capability: "CAP_BPF and CAP_NET_ADMIN",
                },
                _ => AfXdpError::ProgramRefused { interface, source: refused.source, log: refused.log },
            }
        })?;
        let attach = |mode| patiently(HOOK_PATIENCE, || bpf::create_link(program.as_fd(), index, mode));
        let native = match options.attach {
            Attach::Generic => None,
            _ => Some(attach(XDP_FLAGS_DRV_MODE)),
        };
        let (link, attached, native_refused) = match native {
            Some(Ok(link)) => (link, Attached::Native, None),
            Some(Err(source)) if options.attach == Attach::Native || !may_do_generic(&source) => {
                return Err(refused(interface, source));
            }
            tried => {
                let link = attach(XDP_FLAGS_SKB_MODE).map_err(|source| refused(interface, source))?;
                (link, Attached::Generic, tried.and_then(Result::err).map(|source| source.to_string()))
            }
        };
        Ok(Attachment { attached, native_refused, sockets, _link: link, _program: program })
    }

    /// Sends the frames of `queue` to `socket`, for as long as that is open.
    pub(super) fn insert(&self, queue: u32, socket: &XdpSocket) -> io::Result<()> {
        bpf::set_socket(self.sockets.as_fd(), queue, socket.as_fd())
    }
}

/// Whether the driver, and not something that concerns the generic hook as well, is the reason.
fn may_do_generic(source: &io::Error) -> bool {
    !matches!(
        source.raw_os_error(),
        Some(libc::EBUSY | libc::EEXIST | libc::EPERM | libc::EACCES | libc::ENODEV)
    )
}

fn refused(interface: &str, source: io::Error) -> AfXdpError {
    match source.raw_os_error() {
        // A link takes the place of no program, and native and generic programs exclude each other.
        Some(libc::EBUSY | libc::EEXIST) => AfXdpError::ProgramAttached { interface: interface.to_owned() },
        Some(libc::EPERM | libc::EACCES | libc::ENODEV) => {
            AfXdpError::of(interface, "attaching the XDP program", "CAP_NET_ADMIN", source)
        }
        _ => AfXdpError::NativeRefused { interface: interface.to_owned(), source },
    }
}

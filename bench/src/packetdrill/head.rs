//! Options at the head of a script.

use super::language::{HeadOption, SyntaxError};
use super::settings::Settings;

/// What the options say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Head {
    /// How far a packet or a call may be off its time, microseconds.
    pub(crate) tolerance_us: u64,
    /// The same in percent of the time since the statement before; the greater one counts.
    pub(crate) tolerance_percent: f64,
    /// Length of a tick of outbound timestamps; zero: they are not compared.
    pub(crate) timestamp_tick_us: u64,
    /// Segments are not joined to match an expected packet.
    pub(crate) strict_segments: bool,
    mtu: Option<u32>,
    /// Injected packets are cut into segments of this size before the device joins them again.
    injected_segment_size: Option<u32>,
    ipv6: bool,
}

/// How far times may be off where nobody says it, as in the public tool.
pub(crate) const TOLERANCE_US_DEFAULT: u64 = 4000;

impl Head {
    /// The defaults of the public tool, but for one that may be given to it.
    fn new(tolerance_us: u64) -> Self {
        Head {
            tolerance_us,
            tolerance_percent: 12.5,
            timestamp_tick_us: 0,
            strict_segments: false,
            mtu: None,
            injected_segment_size: None,
            ipv6: false,
        }
    }
}

/// Options about addresses, devices and programs, which do not exist here.
const IGNORED: [&str; 29] = [
    "bind_port",
    "code_command",
    "code_format",
    "code_sockopt",
    "connect_port",
    "remote_ip",
    "local_ip",
    "gateway_ip",
    "netmask_ip",
    "speed",
    "init_scripts",
    "wire_client",
    "wire_server",
    "wire_server_ip",
    "wire_server_at",
    "wire_server_port",
    "wire_client_dev",
    "wire_server_dev",
    "so_filename",
    "so_flags",
    "tcp_ts_ecr_scaled",
    "dry_run",
    "is_anyip",
    "send_omit_free",
    "debug",
    "define",
    "verbose",
    "persistent_tun_dev",
    "prefix",
];

impl Head {
    /// Reads the options; the first that is wrong is an error, the first that is not supported is named.
    pub(crate) fn read(
        options: &[HeadOption],
        tolerance_us: u64,
    ) -> Result<Result<Head, (usize, String)>, SyntaxError> {
        let mut head = Head::new(tolerance_us);
        for option in options {
            let value = option.value.as_deref();
            let text = value.unwrap_or("").trim_matches('"');
            let wrong = || SyntaxError {
                line: option.line,
                column: 1,
                message: format!("--{} cannot be `{text}`", option.name),
            };
            match option.name.as_str() {
                "tolerance_usecs" => head.tolerance_us = text.parse().map_err(|_| wrong())?,
                "tolerance_percent" => {
                    head.tolerance_percent = text.parse().map_err(|_| wrong())?;
                    if !(0.0..=1000.0).contains(&head.tolerance_percent) {
                        return Err(wrong());
                    }
                }
                "tcp_ts_tick_usecs" => head.timestamp_tick_us = text.parse().map_err(|_| wrong())?,
                "strict_segments" => head.strict_segments = true,
                "mtu" => head.mtu = Some(text.parse().map_err(|_| wrong())?),
                "mss" => head.injected_segment_size = Some(text.parse().map_err(|_| wrong())?),
                "ip_version" => match text {
                    "ipv4" | "ipv4-mapped-ipv6" => head.ipv6 = false,
                    "ipv6" => head.ipv6 = true,
                    _ => return Err(wrong()),
                },
                name if IGNORED.contains(&name) => {}
                name => return Ok(Err((option.line, format!("option --{name}")))),
            }
        }
        Ok(Ok(head))
    }

    /// Puts what concerns the host into its settings.
    pub(crate) fn apply(&self, settings: &mut Settings) {
        if self.ipv6 {
            settings.ip_header_bytes = 40;
        }
        settings.injected_segment_size = self.injected_segment_size;
        if let Some(mtu) = self.mtu {
            settings.mtu = mtu;
        }
    }
}

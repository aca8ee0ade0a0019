//! Shell lines of scripts. Nothing is run: what sets a parameter of TCP changes [`Settings`], what has no effect on
//! TCP is passed over, and everything else is refused by name.

use std::time::Duration;

use outrider_stack::tcp::congestion::Algorithm;
use outrider_stack::tcp::connection::MtuProbing;

use super::settings::{BufferSizes, EcnUse, Settings};

/// Programs that change nothing that matters here.
const HARMLESS: [&str; 16] = [
    "true", ":", "nstat", "modprobe", "ethtool", "sync", "echo", "set", "export", "ulimit", "umask", "chmod",
    "rm", "exit", "unset", "source",
];

/// Parameters of TCP that change nothing that matters here, whatever their value.
const HARMLESS_PARAMETERS: [&str; 40] = [
    "tcp_abort_on_overflow",
    "tcp_adv_win_scale",
    "tcp_app_win",
    "tcp_autocorking",
    "tcp_available_congestion_control",
    "tcp_allowed_congestion_control",
    "tcp_backlog_ack_defer",
    "tcp_base_mss",
    "tcp_challenge_ack_limit",
    "tcp_comp_sack_delay_ns",
    "tcp_comp_sack_nr",
    "tcp_comp_sack_slack_ns",
    "tcp_early_demux",
    "tcp_ecn_fallback",
    "tcp_fack",
    "tcp_fastopen",
    "tcp_fastopen_blackhole_timeout_sec",
    "tcp_fastopen_key",
    "tcp_fwmark_accept",
    "tcp_invalid_ratelimit",
    "tcp_limit_output_bytes",
    "tcp_low_latency",
    "tcp_max_orphans",
    "tcp_max_syn_backlog",
    "tcp_max_tw_buckets",
    "tcp_mem",
    "tcp_min_rtt_wlen",
    "tcp_min_snd_mss",
    "tcp_moderate_rcvbuf",
    "tcp_no_metrics_save",
    "tcp_no_ssthresh_metrics_save",
    "tcp_orphan_retries",
    "tcp_pacing_ca_ratio",
    "tcp_pacing_ss_ratio",
    "tcp_probe_interval",
    "tcp_probe_threshold",
    "tcp_tso_rtt_log",
    "tcp_tso_win_divisor",
    // Every connection here has a port of its own, so none is ever waited for.
    "tcp_tw_reuse_delay",
    "tcp_workaround_signed_windows",
];

/// Parameters that the engine honours only in their usual values.
const FIXED_PARAMETERS: [(&str, &[i64]); 12] = [
    ("tcp_reordering", &[3]),
    ("tcp_max_reordering", &[300]),
    ("tcp_syncookies", &[0, 1]),
    ("tcp_rfc1337", &[0]),
    ("tcp_thin_linear_timeouts", &[0]),
    ("tcp_stdurg", &[0]),
    ("tcp_retrans_collapse", &[0, 1]),
    ("tcp_retries1", &[3]),
    ("tcp_tw_reuse", &[0, 1, 2]),
    ("tcp_syn_linear_timeouts", &[0, 4]),
    ("tcp_plb_enabled", &[0]),
    ("tcp_shrink_window", &[0]),
];

/// Parameters that the engine honours only in these values, and that make no difference without SACK.
const SACK_PARAMETERS: [(&str, i64); 2] = [("tcp_recovery", 1), ("tcp_dsack", 1)];

/// Runs the text of one shell statement. Says what in it is not supported.
pub(crate) fn run(text: &str, settings: &mut Settings) -> Result<(), String> {
    for command in commands(text) {
        run_command(&command, settings)?;
    }
    Ok(())
}

/// Splits at newlines, `;`, `&&` and `||` outside quotes; drops redirections and comments.
fn commands(text: &str) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut word = String::new();
    let mut quote: Option<char> = None;
    let mut depth = 0usize;
    let mut chars = text.replace("\\\n", " ").chars().collect::<Vec<_>>().into_iter().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.push(c),
            (None, '"' | '\'') => quote = Some(c),
            (None, '(') => {
                depth += 1;
                word.push(c);
            }
            (None, ')') => {
                depth = depth.saturating_sub(1);
                word.push(c);
            }
            (None, '\n' | ';' | '|' | '&') if depth == 0 && !word.ends_with('>') => {
                take_word(&mut word, &mut words);
                take_command(&mut words, &mut all);
            }
            (None, '#') if word.is_empty() => {
                while chars.peek().is_some_and(|c| *c != '\n') {
                    chars.next();
                }
            }
            (None, c) if c.is_whitespace() && depth == 0 => take_word(&mut word, &mut words),
            (None, c) => word.push(c),
        }
    }
    take_word(&mut word, &mut words);
    take_command(&mut words, &mut all);
    all
}

fn take_word(word: &mut String, words: &mut Vec<String>) {
    if !word.is_empty() {
        words.push(core::mem::take(word));
    }
}

fn take_command(words: &mut Vec<String>, all: &mut Vec<Vec<String>>) {
    if !words.is_empty() {
        all.push(core::mem::take(words));
    }
}

fn run_command(words: &[String], settings: &mut Settings) -> Result<(), String> {
    let mut arguments: Vec<&str> = words.iter().map(String::as_str).collect();
    while arguments.first().is_some_and(|word| *word == "sudo" || is_assignment(word)) {
        arguments.remove(0);
    }
    let Some((program, rest)) = arguments.split_first() else { return Ok(()) };
    let name = program.rsplit('/').next().unwrap_or(program);
    match name {
        "defaults.sh" => {
            settings.apply_suite_defaults();
            Ok(())
        }
        "sysctl" => sysctl(rest, settings),
        "set_sysctls.py" => rest.iter().try_for_each(|word| assign(word, settings)),
        "echo" => echo(rest, settings),
        "ip" => ip(rest, settings),
        "tc" => traffic_control(rest, settings),
        "dd" => make_file(rest, settings),
        "." => match rest.first() {
            Some(file) if file.ends_with("defaults.sh") => {
                settings.apply_suite_defaults();
                Ok(())
            }
            _ => Err(format!("shell command {}", arguments.join(" "))),
        },
        // Restores what the script has set; settings end with the script anyway.
        _ if name.starts_with("sysctl_restore") => Ok(()),
        _ if HARMLESS.contains(&name) => Ok(()),
        _ => Err(format!("shell command {}", arguments.join(" "))),
    }
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

/// Without redirections.
fn operands<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let mut all = Vec::new();
    let mut skip = false;
    for word in words {
        let redirects = word.contains('>') || word.contains('<');
        let bare = matches!(*word, ">" | ">>" | "2>" | "<");
        if !skip && !redirects {
            all.push(*word);
        }
        skip = bare;
    }
    all
}

/// `sysctl -q net.ipv4.tcp_x=1 net.ipv4.tcp_y=2`, also `name = value`.
fn sysctl(words: &[&str], settings: &mut Settings) -> Result<(), String> {
    let words: Vec<&str> = operands(words).into_iter().filter(|word| !word.starts_with('-')).collect();
    if let [name, "=", value] = words.as_slice() {
        return set(name, value, settings);
    }
    words.iter().filter(|word| word.contains('=')).try_for_each(|word| assign(word, settings))
}

/// `path=value` or `name=value`.
fn assign(word: &str, settings: &mut Settings) -> Result<(), String> {
    match word.split_once('=') {
        Some((name, value)) => set(name, value, settings),
        None => Err(format!("shell argument {word}")),
    }
}

/// `echo 1 > /proc/sys/net/ipv4/tcp_x`; an echo to anywhere else has no effect.
fn echo(words: &[&str], settings: &mut Settings) -> Result<(), String> {
    let Some(at) = words.iter().position(|word| word.contains('>')) else { return Ok(()) };
    let target = match words[at].split_once('>') {
        Some((_, "" | ">")) | None => words.get(at + 1).copied().unwrap_or(""),
        Some((_, target)) => target.trim_start_matches('>'),
    };
    if !target.starts_with("/proc/sys/") {
        return Ok(());
    }
    let value: Vec<&str> = words[..at].iter().copied().filter(|word| !word.starts_with('-')).collect();
    set(target, &value.join(" "), settings)
}

/// `dd bs=1 count=5 if=/dev/zero of=FILE`: only zeros, which are what every payload is here.
fn make_file(words: &[&str], settings: &mut Settings) -> Result<(), String> {
    let refuse = || format!("shell command dd {}", words.join(" "));
    let operand =
        |name: &str| operands(words).iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let number = |name: &str, otherwise: u64| match operand(name) {
        Some(text) => text.parse().map_err(|_| refuse()),
        None => Ok(otherwise),
    };
    let (Some("/dev/zero"), Some(path)) = (operand("if"), operand("of")) else { return Err(refuse()) };
    let (block, count): (u64, u64) = (number("bs", 512)?, number("count", 0)?);
    settings.files.insert(path.to_owned(), block.saturating_mul(count));
    Ok(())
}

/// A queue that neither drops nor delays, or one that takes nothing.
fn traffic_control(words: &[&str], settings: &mut Settings) -> Result<(), String> {
    let words = operands(words);
    if let ["qdisc", "add" | "replace", "dev", _, "root", "pfifo", "limit", "0"] = words.as_slice() {
        settings.queue_refuses = true;
        return Ok(());
    }
    let refused = ["netem", "tbf", "fq", "limit", "police", "drop", "htb", "filter", "codel", "fq_codel"];
    if words.iter().any(|word| refused.contains(word)) {
        return Err(format!("shell command tc {}", words.join(" ")));
    }
    // Whatever it is, it takes packets.
    settings.queue_refuses &= words.first() != Some(&"qdisc");
    Ok(())
}

/// `ip route ... initcwnd 4 rto_min 5ms mtu 1200`; addresses and links have no effect.
fn ip(words: &[&str], settings: &mut Settings) -> Result<(), String> {
    let words = operands(words);
    let mut words_left = words.iter().copied().skip_while(|word| word.starts_with('-'));
    if !matches!(words_left.next(), Some("route" | "ro" | "r")) {
        return Ok(());
    }
    let refuse = || format!("shell command ip {}", words.join(" "));
    while let Some(word) = words_left.next() {
        let mut value = || words_left.next().unwrap_or("");
        match word {
            "initcwnd" => settings.initial_window_segments = value().parse().map_err(|_| refuse())?,
            "rto_min" => settings.rto_min = duration(value()).ok_or_else(refuse)?,
            "mtu" => {
                let mut mtu = value();
                if mtu == "lock" {
                    mtu = words_left.next().unwrap_or("");
                }
                settings.mtu = mtu.parse().map_err(|_| refuse())?;
            }
            "advmss" => settings.route_mss = Some(value().parse().map_err(|_| refuse())?),
            "congctl" => settings.algorithm = algorithm(value())?,
            "features" if value() == "ecn" => settings.ecn = EcnUse::On,
            "initrwnd" | "cwnd" | "ssthresh" | "window" | "rtt" | "rttvar" | "reordering" | "quickack"
            | "features" | "fastopen_no_cookie" | "blackhole" | "unreachable" | "prohibit" => {
                return Err(refuse());
            }
            _ => {}
        }
    }
    Ok(())
}

/// `5ms`, `2s`, `200`.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    match &text[digits..] {
        "" | "ms" => Some(Duration::from_millis(number)),
        "us" => Some(Duration::from_micros(number)),
        "s" => Some(Duration::from_secs(number)),
        _ => None,
    }
}

/// A controller by the name that Linux gives it.
pub(crate) fn algorithm(name: &str) -> Result<Algorithm, String> {
    match name {
        "reno" => Ok(Algorithm::Reno),
        name => name.parse().map_err(|_| format!("congestion control {name}")),
    }
}

/// Sets one parameter, by its name with dots or its path.
fn set(name: &str, value: &str, settings: &mut Settings) -> Result<(), String> {
    let name = name.trim().trim_start_matches("/proc/sys/").replace('/', ".");
    let value = value.trim();
    let refuse = || format!("sysctl {name}={value}");
    let Some(parameter) = name.strip_prefix("net.ipv4.").filter(|name| name.starts_with("tcp_")) else {
        // Everything beside TCP's own parameters only carries packets.
        return if name.starts_with("net.") || name.starts_with("kernel.") { Ok(()) } else { Err(refuse()) };
    };
    if HARMLESS_PARAMETERS.contains(&parameter) {
        return Ok(());
    }
    if parameter == "tcp_congestion_control" {
        settings.algorithm = algorithm(value)?;
        return Ok(());
    }
    let numbers: Option<Vec<i64>> = value.split_whitespace().map(arithmetic).collect();
    let numbers = numbers.filter(|numbers| !numbers.is_empty()).ok_or_else(refuse)?;
    if let Some((_, usual)) = FIXED_PARAMETERS.iter().find(|(fixed, _)| *fixed == parameter) {
        return if usual.contains(&numbers[0]) { Ok(()) } else { Err(refuse()) };
    }
    if let Some((_, usual)) = SACK_PARAMETERS.iter().find(|(name, _)| *name == parameter) {
        if numbers[0] != *usual {
            settings.refused_with_sack = Some(refuse());
        }
        return Ok(());
    }
    set_number(parameter, &numbers, settings).ok_or_else(refuse)
}

fn set_number(parameter: &str, numbers: &[i64], settings: &mut Settings) -> Option<()> {
    let number = numbers[0];
    let count = u32::try_from(number).ok();
    let seconds = u64::try_from(number).ok().map(Duration::from_secs);
    let sizes = || match numbers {
        [min, default, max] => Some(BufferSizes {
            min: u64::try_from(*min).ok()?,
            default: u64::try_from(*default).ok()?,
            max: u64::try_from(*max).ok()?,
        }),
        _ => None,
    };
    match parameter {
        "tcp_rmem" => {
            settings.receive_buffer = sizes()?;
            settings.receive_buffer_stated = true;
        }
        "tcp_wmem" => settings.send_buffer = sizes()?,
        "tcp_timestamps" => settings.timestamps = number != 0,
        "tcp_sack" => settings.sack = number != 0,
        "tcp_window_scaling" => settings.window_scaling = number != 0,
        "tcp_slow_start_after_idle" => settings.slow_start_after_idle = number != 0,
        "tcp_ecn" => {
            settings.ecn = match number {
                0 => EcnUse::Off,
                1 => EcnUse::On,
                2 => EcnUse::Passive,
                _ => return None,
            }
        }
        "tcp_frto" => settings.timeout_undo = number != 0,
        "tcp_mtu_probing" => {
            settings.mtu_probing = match number {
                0 => MtuProbing::Off,
                1 => MtuProbing::BlackHole,
                // Linux begins elsewhere and steps otherwise than RFC 4821 leaves open.
                _ => return None,
            }
        }
        // Early retransmission without any delay (RFC 5827), before there was RACK.
        "tcp_early_retrans" if number == 1 => return None,
        // 3 and 4 both mean tail loss probes since RACK; 0 means none.
        "tcp_early_retrans" => settings.tail_probes = matches!(number, 3 | 4),
        "tcp_syn_retries" => settings.syn_retries = count?,
        "tcp_synack_retries" => settings.synack_retries = count?,
        "tcp_retries2" => settings.data_retries = count?,
        "tcp_fin_timeout" => settings.fin_timeout = seconds?,
        "tcp_keepalive_time" => settings.keepalive.idle = seconds?,
        "tcp_keepalive_intvl" => settings.keepalive.interval = seconds?,
        "tcp_keepalive_probes" => settings.keepalive.probes_max = count?,
        "tcp_min_tso_segs" => settings.group_segments_min = u64::try_from(number).ok()?,
        "tcp_notsent_lowat" => settings.notsent_lowat = u64::try_from(number).ok()?,
        "tcp_rto_min_us" => settings.rto_min = Duration::from_micros(u64::try_from(number).ok()?),
        "tcp_rto_max_ms" => settings.rto_max = Duration::from_millis(u64::try_from(number).ok()?),
        _ => return None,
    }
    Some(())
}

/// A number, or `$((15*1024*1024))`.
fn arithmetic(word: &str) -> Option<i64> {
    let Some(inner) = word.strip_prefix("$((").and_then(|word| word.strip_suffix("))")) else {
        let hex = word.strip_prefix("0x").map(|digits| i64::from_str_radix(digits, 16));
        return hex.unwrap_or_else(|| word.parse()).ok();
    };
    // Sums of products are all that scripts write.
    inner.split('+').try_fold(0i64, |sum, product| {
        let product = product
            .split('*')
            .try_fold(1i64, |product, factor| product.checked_mul(factor.trim().parse().ok()?))?;
        sum.checked_add(product)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_set_in_every_usual_spelling() {
        let mut settings = Settings::default();
        let text = "../../common/defaults.sh\n\
            sysctl -q net.ipv4.tcp_sack=0 net.ipv4.tcp_timestamps=0\n\
            sysctl -q net.ipv4.tcp_rmem=\"4096 131072 $((32*1024*1024))\" >/dev/null 2>&1 || true\n\
            ../common/set_sysctls.py /proc/sys/net/ipv4/tcp_ecn=1 /proc/sys/net/ipv4/tcp_min_tso_segs=4\n\
            echo 7 > /proc/sys/net/ipv4/tcp_syn_retries; echo 3 >/proc/sys/net/ipv4/tcp_synack_retries\n\
            ip route change 192.0.2.0/24 dev tun0 initcwnd 4 rto_min 5ms # a remark\n\
            tc qdisc add dev tun0 root pfifo";
        assert_eq!(run(text, &mut settings), Ok(()));
        assert!(!settings.sack && !settings.timestamps && settings.ecn == EcnUse::On);
        assert_eq!(settings.receive_buffer, BufferSizes { min: 4096, default: 131_072, max: 32 << 20 });
        assert_eq!((settings.syn_retries, settings.synack_retries), (7, 3));
        assert_eq!((settings.initial_window_segments, settings.rto_min), (4, Duration::from_millis(5)));
    }

    #[test]
    fn a_queue_for_no_packets_takes_none_until_there_is_another() {
        let mut settings = Settings::default();
        let refuses = "tc qdisc delete dev tun0 root 2>/dev/null; tc qdisc add dev tun0 root pfifo limit 0";
        assert_eq!(run(refuses, &mut settings), Ok(()));
        assert!(settings.queue_refuses);
        assert_eq!(run("tc qdisc replace dev tun0 root pfifo", &mut settings), Ok(()));
        assert!(!settings.queue_refuses);
    }

    #[test]
    fn what_would_change_behaviour_and_is_not_there_is_named() {
        for (text, name) in [
            ("sysctl -q net.ipv4.tcp_mtu_probing=2", "tcp_mtu_probing=2"),
            ("sysctl -q net.ipv4.tcp_early_retrans=1", "tcp_early_retrans=1"),
            ("sysctl -q net.ipv4.tcp_congestion_control=vegas", "vegas"),
            ("sysctl -q net.ipv4.tcp_novelty=1", "tcp_novelty"),
            ("tc qdisc add dev tun0 root pfifo limit 5", "limit"),
            ("tc qdisc replace dev tun0 root fq", "fq"),
            ("tc qdisc add dev tun0 parent 1:1 pfifo limit 0", "limit"),
            ("iptables -A INPUT -j DROP", "iptables"),
            ("ip route change 192.0.2.0/24 dev tun0 initrwnd 4", "initrwnd"),
        ] {
            let refused = run(text, &mut Settings::default()).expect_err(text);
            assert!(refused.contains(name), "{text}: {refused}");
        }
    }
}

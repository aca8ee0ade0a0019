#!/usr/bin/env bash
# Makes a node of a fresh Debian machine. As root, in the sources; a second run changes nothing that is right already.
# What the Vagrantfile runs; docs/deploy.md explains each step.
#
#   provision.sh kernel   Linux 6.12 or later, from Debian; boot it afterwards
#   provision.sh node     tools, toolchain, build, install; OUTRIDER_MAC names the dedicated NIC
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(build-essential ca-certificates curl ethtool iproute2 nftables)
prefix=/usr/local
# the first with transmit metadata for AF_XDP in the drivers of virtual machines
kernel_min=6.12

step() { printf '\n== %s\n' "$*"; }

install_kernel() {
    local running
    running=$(uname -r)
    step "kernel: $running runs, $kernel_min is wanted"
    if [ "$(printf '%s\n' "$kernel_min" "$running" | sort -V | head -n 1)" = "$kernel_min" ]; then
        return
    fi
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "linux-image-$kernel_min-amd64"
}

install_packages() {
    step "packages: ${packages[*]}"
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${packages[@]}"
}

# The Rust that Debian ships may be older than the workspace asks for.
install_toolchain() {
    step "Rust toolchain"
    if ! command -v cargo >/dev/null; then
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal
    fi
}

build() {
    step "build"
    CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-/var/tmp/outrider-target}
    export CARGO_TARGET_DIR
    cargo build --release --locked --package outrider-bench
    install -D -m 0755 "$CARGO_TARGET_DIR/release/bench" "$prefix/bin/outrider-bench"
    ln -sf outrider-bench "$prefix/bin/bench"
    install -D -m 0755 deploy/lab.sh "$prefix/lib/outrider/lab.sh"
    install -D -m 0644 deploy/outrider@.service /etc/systemd/system/outrider@.service
    systemctl daemon-reload
}

# The dedicated NIC is nobody else's: no address, no offload that joins frames before XDP sees them.
prepare_interface() {
    local interface=$1
    step "dedicated NIC $interface"
    ip address flush dev "$interface"
    ip link set "$interface" up
    ethtool -K "$interface" gro off lro off 2>/dev/null || true
}

make_node() {
    PATH="$HOME/.cargo/bin:$PATH"
    install_packages
    install_toolchain
    build
    if [ -n "${OUTRIDER_MAC:-}" ]; then
        prepare_interface "$(deploy/lab.sh interface "$OUTRIDER_MAC")"
    fi
    step "provisioned"
}

case "${1:-}" in
kernel) install_kernel ;;
node) make_node ;;
*) echo "usage: provision.sh kernel|node" >&2; exit 2 ;;
esac

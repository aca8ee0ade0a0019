#!/usr/bin/env bash
# Makes a node of a fresh Debian machine: tools, toolchain, build, install. Run as root from the sources' folder;
# a second run changes nothing that is right already. What the Vagrantfile runs; docs/deploy.md explains each step.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(build-essential ca-certificates curl ethtool iproute2 nftables)
prefix=/usr/local

step() { printf '\n== %s\n' "$*"; }

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

PATH="$HOME/.cargo/bin:$PATH"
install_packages
install_toolchain
build
if [ -n "${OUTRIDER_MAC:-}" ]; then
    prepare_interface "$(deploy/lab.sh interface "$OUTRIDER_MAC")"
fi
step "provisioned"

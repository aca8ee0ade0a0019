#!/usr/bin/env bash
# Starts the node of a dedicated NIC as a service, now and at every boot: service.sh MAC ADDRESS/PREFIX. As root.
set -euo pipefail
cd "$(dirname "$0")"

[ $# -eq 2 ] || { echo "usage: service.sh MAC ADDRESS/PREFIX" >&2; exit 2; }
interface=$(./lab.sh interface "$1")
install -d /etc/outrider
printf 'ADDRESS=%s\nARGUMENTS=\n' "$2" >"/etc/outrider/$interface.conf"
systemctl enable "outrider@$interface"
systemctl restart "outrider@$interface"
# A node that cannot start says so at once; one that runs stays.
for _ in 1 2 3 4 5; do
    sleep 1
    systemctl is-active --quiet "outrider@$interface" || { journalctl -u "outrider@$interface" -n 20 --no-pager; exit 1; }
done
echo "outrider@$interface runs on $2"

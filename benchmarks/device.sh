#!/usr/bin/env bash
# What a GPU has to say: the tests marked cuda, then the step of every workload. Parts that are done are not done again.
#
#   benchmarks/device.sh OUT          # on CUDA; eight minutes at most
#   benchmarks/device.sh OUT cpu      # a rehearsal: the same commands, one round
#
# OUT gets tests.txt, WORKLOAD.json and WORKLOAD.txt for each workload, and machine.txt.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out="${1:?usage: benchmarks/device.sh OUT [cpu]}" device="${2:-cuda}" python="${PYTHON:-python}"
mkdir -p "$out"
rounds=9
if [[ "$device" == cpu ]]; then rounds=1; fi

part() { # part NAME SECONDS COMMAND...: run it once, to NAME.txt, within so many seconds
    local name="$1" seconds="$2" status
    shift 2
    if [[ -e "$out/$name.done" ]]; then
        echo "$name: done before"
        return
    fi
    timeout "$seconds" "$@" >"$out/$name.txt" 2>&1
    status=$?
    tail -n 5 "$out/$name.txt"
    echo "$name: exit $status"
    if [[ $status == 0 ]]; then touch "$out/$name.done"; fi
}

if [[ "$device" == cuda ]]; then nvidia-smi --query-gpu=name,driver_version --format=csv,noheader >"$out/machine.txt"; fi
part tests 150 "$python" -m pytest -q -m cuda -p no:cacheprovider tests
for workload in toy vae ladder-32 ladder-256 sere-vae; do
    part "$workload" 65 "$python" -m benchmarks.step --device "$device" --workload "$workload" --rounds "$rounds" \
        --steps 10 --variant hand-eager --variant ours-eager --variant ours-compiled --json "$out/$workload.json"
done

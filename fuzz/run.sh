#!/usr/bin/env bash
# Gives what reads bytes from outside bytes that libFuzzer makes of those in fuzz/corpus.
#
#   fuzz/run.sh [--seconds N] [TARGET...]    each target (all of fuzz/targets) for N seconds (20), two at a time
#   fuzz/run.sh --keep TARGET                adds to fuzz/corpus what earlier runs found, the fewest files that reach as much
#
# What fails is left in target/fuzz/TARGET/, and `target/debug/TARGET FILE` runs it again.
# Needs a C++ compiler, for libFuzzer.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=20 keep=
while [[ "${1:-}" == --* ]]; do
    case "$1" in
    --seconds) seconds=${2:?"--seconds needs a number"} && shift 2 ;;
    --keep) keep=1 && shift ;;
    *)
        sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
        exit 64
        ;;
    esac
done
targets=("$@")
((${#targets[@]})) || targets=($(basename -s .rs fuzz/targets/*.rs))

# Without optimization, which takes longer than it saves in 20 s.
RUSTC_WORKSPACE_WRAPPER=$PWD/fuzz/instrumented CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_OPT_LEVEL=0 \
    cargo build --locked --package freshet-fuzz --features fuzzing "${targets[@]/#/--bin=}"

# Where cargo puts it.
built=${CARGO_TARGET_DIR:-target}
out=$built/fuzz
fuzz() {
    local target=$1 words=()
    [ -e "fuzz/dictionaries/$target" ] && words=("-dict=fuzz/dictionaries/$target")
    mkdir -p "$out/$target/corpus"
    # Inputs of 64 KiB suffice: nothing here waits for more. What takes 10 s or 2 GiB is a finding.
    "$built/debug/$target" -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
        "${words[@]}" -artifact_prefix="$out/$target/" "$out/$target/corpus" "fuzz/corpus/$target" >"$out/$target/log" 2>&1 || {
        tail -n 40 "$out/$target/log"
        echo "$target: a finding, or it doesn't run: $out/$target"
        return 1
    }
    printf '%-18s %s runs, %s\n' "$target" \
        "$(sed -n 's/^stat::number_of_executed_units: *//p' "$out/$target/log")" \
        "$(grep -o 'cov: [0-9]*' "$out/$target/log" | tail -n 1)"
}

if [ "$keep" ]; then
    for target in "${targets[@]}"; do
        "$built/debug/$target" -merge=1 "fuzz/corpus/$target" "$out/$target/corpus"
    done
    exit
fi

export -f fuzz
export seconds out built
printf '%s\n' "${targets[@]}" | xargs -P 2 -I {} bash -c 'fuzz {}'

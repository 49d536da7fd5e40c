#!/usr/bin/env bash
# All checks and tests: format, clippy, docs, unit and property tests, integration tests with the real dnf and zypper, loads in small.
#
#   tests/run.sh            what CI runs
#   tests/run.sh --full     and what takes longer: more cases of each property, 20 minutes of torture (FRESHET_FULL=1),
#                           10 minutes of each target of fuzz/ instead of 20 s, and the public suite of tests for HTTP caches
#
# FRESHET_SEED=N repeats what a torture drew.
#
# Installs by apt what the tests need and lacks, where it may.
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
"" | --full) ;;
*)
    echo "usage: tests/run.sh [--full]" >&2
    exit 64
    ;;
esac

say() { printf '\n== %s (%s)\n' "$*" "$(date -u +%T)"; }

# command and the Debian package that has it
needed=(
    dnf:dnf createrepo_c:createrepo-c rpm:rpm rpmbuild:rpm makedeltarpm:deltarpm curl:curl cc:gcc c++:g++ fiu-run:fiu-utils
    nginx:nginx varnishd:varnish faketime:faketime npm:npm prometheus:prometheus promtool:prometheus
)
# Where Debian has daemons.
PATH=$PATH:/usr/sbin:/sbin
missing=()
for pair in "${needed[@]}"; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
done
# reposync is a plugin of dnf's.
/usr/bin/python3 -c "import librepo" 2>/dev/null || missing+=(python3-librepo)
dnf reposync --help >/dev/null 2>&1 || missing+=(dnf-plugins-core)
# What fiu-run preloads; only recommended by it.
[ -e /usr/lib/fiu/fiu_posix_preload.so ] || missing+=(libfiu0)
command -v zypper >/dev/null || missing+=(libzypp1722 libaugeas0)
if ((${#missing[@]})); then
    say "installing ${missing[*]}"
    sudo=()
    [ "$(id -u)" = 0 ] || sudo=(sudo -n)
    "${sudo[@]}" apt-get update -qq
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" ca-certificates
fi
# Debian's zypper can't be installed beside dnf-plugins-core: both have a needs-restarting. Its program alone is enough.
if ! command -v zypper >/dev/null; then
    say "unpacking zypper"
    unpacked=$(mktemp -d)
    (cd "$unpacked" && apt-get download -qq zypper && dpkg-deb -x zypper_*.deb .)
    "${sudo[@]}" install -m 755 "$unpacked/usr/bin/zypper" /usr/local/bin/
    rm -r "$unpacked"
fi

say format
cargo fmt --all --check
say clippy
cargo clippy --workspace --all-targets --locked -- -D warnings
say docs
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet

say rules
promtool check rules config/prometheus/freshet.rules.yml
promtool test rules config/prometheus/freshet.rules.test.yml

say tests
[ "${1:-}" = --full ] && export PROPTEST_CASES=20000 FRESHET_FULL=1
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --workspace --locked --no-fail-fast
else
    cargo test --workspace --locked
fi
say fuzz
seconds=20
[ "${1:-}" = --full ] && seconds=600
fuzz/run.sh --seconds "$seconds"
if [ "${1:-}" = --full ]; then
    say "public caching suite"
    cargo build --locked --quiet
    tests/caching-suite/run.sh
fi
say done

#!/usr/bin/env bash
# Runs the public suite of tests for HTTP caches against a node: tests/caching-suite/run.sh [FRESHET-BINARY]
#
# The suite comes by npm. declined.txt has, with reasons, which of its required tests a node doesn't pass.
set -euo pipefail
cd "$(dirname "$0")/../.."

binary=${1:-target/debug/freshet}
home=target/caching-suite
suite=$home/node_modules/http-cache-tests
if [ ! -d "$suite" ]; then
    mkdir -p "$home"
    npm install --prefix "$home" --no-save --no-audit --no-fund --ignore-scripts --silent http-cache-tests@0.4.5
fi
exec node tests/caching-suite/run.mjs "$binary" "$suite"

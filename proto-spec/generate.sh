#!/bin/sh
# Regenerates Sources/CisternWireMessages from proto-spec/cistern/*.proto. Needs protoc and protoc-gen-swift on PATH;
# the output is committed, so that a build needs neither.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
protoc --proto_path="$root/proto-spec/cistern" \
    --swift_out="$root/Sources/CisternWireMessages" \
    --swift_opt=Visibility=Public \
    --swift_opt=UseAccessLevelOnImports=true \
    control.proto data.proto

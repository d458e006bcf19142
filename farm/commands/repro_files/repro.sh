#!/bin/sh
# Runs one layer on its recorded inputs, then compares each operator's result with PyTorch's.
# Exit 0: all agree; 1: one doesn't, which is what this folder shows; others: it could not be run.
#   TARGET=adb|ssh|local ./repro.sh     SERIAL=... (adb), HOST=user@host and PORT="-p 22" (ssh)
set -eu
cd "$(dirname "$0")"
TARGET=${TARGET:-@TRANSPORT@}
SERIAL=${SERIAL:-@SERIAL@}
HOST=${HOST:-@HOST@}
PORT=${PORT:-"@PORT@"}

bundle=$(mktemp -d)
trap 'rm -rf "$bundle"' EXIT
cp -r runner/. "$bundle"
cp layer.pte request.json "$bundle"
mkdir "$bundle/out"
# A variable of the runner whose value isn't kept here.
given() {
    printf "export %s='%s'\n" "$1" "$(printf %s "$2" | sed "s/'/'\\\\''/g")" >> "$bundle/run.sh"
}
@GIVEN@
cat >> "$bundle/run.sh" <<'RUN'
cd "$(dirname "$0")" && exec env @COMMAND@
RUN

case $TARGET in
local)
    sh "$bundle/run.sh"
    cp "$bundle/out/logits-decode.f32" output.f32
    ;;
adb)
    place=/data/local/tmp/farm-repro
    adb -s "$SERIAL" shell rm -rf "$place"
    adb -s "$SERIAL" push "$bundle" "$place"
    adb -s "$SERIAL" shell "cd $place && find . -type f -name 'farm-*' -exec chmod 755 {} + ; sh run.sh"
    adb -s "$SERIAL" pull "$place/out/logits-decode.f32" output.f32
    adb -s "$SERIAL" shell rm -rf "$place"
    ;;
ssh)
    # PORT is two words.
    place=$(ssh $PORT "$HOST" mktemp -d)
    tar -C "$bundle" -cf - . | ssh $PORT "$HOST" "tar -C $place -xf -"
    ssh $PORT "$HOST" "sh $place/run.sh"
    ssh $PORT "$HOST" "cat $place/out/logits-decode.f32 && rm -rf $place" > output.f32
    ;;
*)
    echo "TARGET=$TARGET: write adb, ssh or local" >&2
    exit 2
    ;;
esac
python3 compare.py output.f32

#!/usr/bin/env bash
# A clip's HDR by several processes of one machine:
#
#     JOBS=4 CHUNK=100 examples/farm/local.sh clip.mp4 LAST [zhdrv's options]
#
# LAST is the number of the last frame, counted from 0. The same command again goes on with what is missing.
set -euo pipefail
input=$1 last=$2
shift 2

zhdrv train "$input" "$@"
for ((first = 0; first <= last; first += ${CHUNK:-100})); do
    echo "$first-$((first + ${CHUNK:-100} - 1))"
done | xargs -P "${JOBS:-2}" -I {} zhdrv expand "$input" --frames {} --already_trained "$@"
zhdrv expand "$input" --already_trained "$@" # looks whether all is there, and makes the preview

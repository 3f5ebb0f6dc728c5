#!/bin/sh
# Ends a server when nobody uses it any more: watch.sh FOLDER SECONDS
#
# Every process that uses the server has a file named by its process id in FOLDER/clients. A process that was killed
# cannot remove its file, so whether the process lives is what counts. The processes of the server are named by id in
# FOLDER/nodes/*/pid, a container in FOLDER/container.
dir=$1
patience=$2
idle=0

anybody() {
    for file in "$1"/*; do
        if [ -e "$file" ] && kill -0 "${file##*/}" 2>/dev/null; then return 0; fi
    done
    return 1
}

while [ -d "$dir" ]; do
    sleep 1
    idle=$((idle + 1))
    if anybody "$dir/clients"; then idle=0; fi
    if [ "$idle" -lt "$patience" ]; then continue; fi
    # From here on nobody can register; who did at the last moment is found after the renaming.
    mv "$dir/clients" "$dir/gone" || exit 1
    if ! anybody "$dir/gone"; then break; fi
    mv "$dir/gone" "$dir/clients"
    idle=0
done

for file in "$dir"/nodes/*/pid; do
    if [ -e "$file" ]; then kill -9 "$(cat "$file")" 2>/dev/null; fi
done
if [ -e "$dir/container" ]; then
    read -r daemon id <"$dir/container"
    "$daemon" rm --force "$id" >/dev/null 2>&1
fi
rm -rf "$dir"

#!/bin/sh
# A stand-in: an initramfs here is the list of modprobe's settings that a real one would hold, for one kernel or for all.
set -eu
kernels=all
while [ $# -gt 0 ]; do
    case "$1" in
        -k) kernels=$2; shift ;;
        -k*) kernels=${1#-k} ;;
    esac
    shift
done
[ "$kernels" != all ] || kernels=$(ls /lib/modules)
for kernel in $kernels; do
    echo "update-initramfs: Generating /boot/initrd.img-$kernel"
    { find /lib/modprobe.d /etc/modprobe.d -name '*.conf' -exec cat {} + | grep -v '^#' || true; } >"/boot/initrd.img-$kernel"
done

#!/bin/sh
# A stand-in: the played machine is no container, and no virtual machine either.
[ "$1" = --container ] || [ "$1" = -c ] || echo none
exit 1

"""Stand-ins for distributions' install images: their layout, and nothing that boots."""

import hashlib
import subprocess
from pathlib import Path

from rackllama.provision.redfish.image import Source

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGTsD24PmKV1LOyHIGFYpsgNkRdRKGRAKdYQ1z3Gx1gn ops@desk"
FILES = {
    "debian": ["install.amd/vmlinuz", "install.amd/initrd.gz", "isolinux/isolinux.cfg", "boot/grub/grub.cfg"],
    "ubuntu": ["casper/vmlinuz", "casper/initrd", "boot/grub/grub.cfg"],
}
BIOS = {"debian": "isolinux/isolinux.bin", "ubuntu": "boot/grub/i386-pc/eltorito.img"}


def stand_in(folder: Path, system: str) -> Source:
    """An image with a distribution's files in their places, bootable as theirs are, by BIOS and UEFI."""
    tree = folder / system
    for path in (*FILES[system], BIOS[system], "boot/grub/efi.img"):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(f"{system}: {path}".encode() * 4096)
    image = folder / f"{system}.iso"
    bios = ("-b", BIOS[system], "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table")
    uefi = ("-eltorito-alt-boot", "-e", "boot/grub/efi.img", "-no-emul-boot")
    argv = ["xorriso", "-as", "mkisofs", "-quiet", "-r", "-V", f"{system} 1", "-o", str(image), *bios, *uefi, str(tree)]
    subprocess.run(argv, check=True, capture_output=True)
    return Source(image, hashlib.sha256(image.read_bytes()).hexdigest())

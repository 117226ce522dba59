"""An image that installs a system by itself: a distribution's own installer, with answers and menus from templates.

The distribution's image stays as it is but for files that are added or replaced; xorriso carries its boot records over.
Nothing in it is secret: an SSH public key, and no password, as the user gets none.
"""

import hashlib
import ipaddress
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from jinja2 import Environment, PackageLoader, StrictUndefined

from rackllama.host.errors import RackllamaError
from rackllama.lab.machine import ensure_packages, run
from rackllama.paths import cache_dir

System = Literal["debian", "ubuntu"]
CHUNK = 1 << 20
MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", re.IGNORECASE)
# What goes into files that an installer runs as root says what it should, and nothing else.
SHAPES = {
    "hostname": "lower-case letters, digits and hyphens",
    "user": "lower-case letters, digits, hyphens and underscores",
    "disk": "a serial number, as its BMC tells it, or a path, as /dev/nvme0n1",
    "authorized_keys": "the one line of a file whose name ends in .pub",
    "packages": "the name of a package",
    "mirror": "http://HOST/FOLDER",
    "timezone": "Etc/UTC",
    "kernel_arguments": "console=ttyS0,115200n8",
}
ALLOWED = {
    "hostname": re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"),
    "user": re.compile(r"[a-z_][a-z0-9_-]{0,31}"),
    "disk": re.compile(r"/dev/[\w./:+-]+|[\w.:+-]+", re.ASCII),
    "authorized_keys": re.compile(r"(?:ssh-|ecdsa-|sk-)[\w@.-]+ [A-Za-z0-9+/=]+(?: [^\n\r]*)?", re.ASCII),
    "packages": re.compile(r"[a-z0-9][a-z0-9+.-]+"),
    "mirror": re.compile(r"https?://[\w.:-]+/[\w./-]+", re.ASCII),
    "timezone": re.compile(r"[A-Za-z0-9_+-]+(?:/[A-Za-z0-9_+-]+)*"),
    "kernel_arguments": re.compile(r"[\w.,:=/ -]*", re.ASCII),
}


@dataclass(frozen=True)
class _Layout:
    """Where an installer has its parts: the kernel, its first file system, and the boot menus that we replace."""

    kernel: str
    initrd: str
    menus: Mapping[str, str]  # path on the image -> template
    files: Mapping[str, str]


LAYOUTS: Mapping[str, _Layout] = {
    "debian": _Layout(
        kernel="/install.amd/vmlinuz",
        initrd="/install.amd/initrd.gz",
        menus={"/boot/grub/grub.cfg": "grub.cfg.j2", "/isolinux/isolinux.cfg": "isolinux.cfg.j2"},
        files={
            "/preseed.cfg": "preseed.cfg.j2",
            "/rackllama/disk.sh": "disk.sh.j2",
            "/rackllama/late.sh": "late.sh.j2",
        },
    ),
    "ubuntu": _Layout(
        kernel="/casper/vmlinuz",
        initrd="/casper/initrd",
        menus={"/boot/grub/grub.cfg": "grub.cfg.j2"},
        files={"/rackllama/user-data": "user-data.j2", "/rackllama/meta-data": "meta-data.j2"},
    ),
}


@dataclass(frozen=True)
class Network:
    """A fixed address, as `10.0.0.11/24`, for the card with this MAC; DNS servers by address."""

    mac: str
    address: str
    gateway: str
    nameservers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise RackllamaError for what is no address."""
        try:
            ipaddress.ip_interface(self.address)
            for address in (self.gateway, *self.nameservers):
                ipaddress.ip_address(address)
        except ValueError as error:
            raise RackllamaError(f"a fixed network is not as it should be: {error}", "give addresses") from None
        if "/" not in self.address or not MAC.fullmatch(self.mac):
            raise RackllamaError(
                f"{self.address!r} of {self.mac!r} is no fixed address",
                "write ADDRESS/PREFIX, and the MAC of a card",
            )


@dataclass(frozen=True)
class Profile:
    """What is to be installed. `disk` is a serial number of the disk that is erased, or its path, as /dev/nvme0n1.

    `mirror` is the distribution's archive, as http://HOST/debian; Ubuntu has one of its own where it is empty. The
    network is DHCP where it is None. `kernel_arguments` reach the installer and the system: `console=ttyS0,115200n8`.
    """

    system: System
    hostname: str
    disk: str
    authorized_keys: tuple[str, ...]
    user: str = "ops"
    mirror: str = ""
    network: Network | None = None
    packages: tuple[str, ...] = ()
    kernel_arguments: str = ""
    timezone: str = "Etc/UTC"

    def __post_init__(self) -> None:
        """Raise RackllamaError for what no installer could use, or what would let nobody in."""
        if self.system not in LAYOUTS:
            raise RackllamaError(f"no template installs {self.system!r}", f"use one of: {', '.join(LAYOUTS)}")
        if not self.authorized_keys:
            raise RackllamaError(
                f"nobody could log in to {self.hostname}", "give an SSH public key as `authorized_keys`"
            )
        if self.system == "debian" and not self.mirror:
            raise RackllamaError("Debian's installer needs an archive", "give `mirror`, as http://HOST/debian")
        given = {
            "hostname": [self.hostname],
            "user": [self.user],
            "disk": [self.disk],
            "authorized_keys": self.authorized_keys,
            "packages": self.packages,
            "mirror": [self.mirror] if self.mirror else [],
            "timezone": [self.timezone],
            "kernel_arguments": [self.kernel_arguments],
        }
        for key, values in given.items():
            for value in values:
                if not ALLOWED[key].fullmatch(value):
                    raise RackllamaError(f"{value!r} cannot be {key} of an install", f"write it as {SHAPES[key]}")


@dataclass(frozen=True)
class Source:
    """The distribution's own image on this machine, and the SHA-256 that the distribution publishes of it."""

    path: Path
    sha256: str


def render(profile: Profile) -> dict[str, str]:
    """The files that make the installer answer itself, by their path on the image; boot menus among them."""
    layout = LAYOUTS[profile.system]
    environment = Environment(
        loader=PackageLoader("rackllama.provision.redfish"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - none of these is HTML; user-data quotes as JSON, which is YAML
    )
    parts = {"kernel": layout.kernel, "initrd": layout.initrd, "by_path": profile.disk.startswith("/")}
    templates = {**layout.files, **layout.menus}
    return {
        path: environment.get_template(template).render(asdict(profile) | parts) for path, template in templates.items()
    }


def build(source: Source, profile: Profile) -> Path:
    """The install image of that profile; one that was built from the same before is taken as it is.

    Installs xorriso where this machine lacks it. Raises RackllamaError where the source is not what it should be.
    """
    require_source(source)
    files = render(profile)
    recipe = hashlib.sha256(repr((source.sha256, sorted(files.items()))).encode()).hexdigest()
    image = cache_dir() / "install" / f"{profile.hostname}-{recipe[:16]}.iso"
    if image.exists():
        return image
    ensure_packages(["xorriso"])
    present = paths_on(source.path)
    layout = LAYOUTS[profile.system]
    missing = [path for path in (layout.kernel, layout.initrd, "/boot/grub/grub.cfg") if path not in present]
    if missing:
        raise RackllamaError(
            f"{source.path} is no installer of {profile.system}: it has no {', '.join(missing)}",
            {
                "debian": "give Debian's netinst image for amd64",
                "ubuntu": "give Ubuntu's live server image for amd64",
            }[profile.system],
        )
    # A menu for BIOS is written only where the image can boot that way.
    wanted = {path: text for path, text in files.items() if path not in layout.menus or path in present}
    image.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=image.parent) as folder:
        tree, made = Path(folder) / "tree", Path(folder) / "made.iso"
        for path, text in wanted.items():
            target = tree / path.removeprefix("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        argv = remaster_argv(source.path, made, tree, list(wanted))
        run(argv, what=f"building the install image of {profile.hostname}")
        made.rename(image)
    return image


def remaster_argv(source: Path, made: Path, tree: Path, paths: Sequence[str]) -> list[str]:
    """The command that copies an image with its boot records, and with those paths of `tree` put in their places."""
    return [
        *("xorriso", "-indev", str(source), "-outdev", str(made)),
        *(argument for path in paths for argument in ("-map", f"{tree}{path}", path)),
        *("-boot_image", "any", "replay", "-compliance", "no_emul_toc", "-padding", "0"),
    ]


def paths_on(image: Path) -> frozenset[str]:
    """The paths of all files on an ISO image."""
    argv = ["xorriso", "-indev", str(image), "-find", "/", "-type", "f", "-exec", "echo"]
    listed = run(argv, what=f"reading {image}")
    return frozenset(line.strip("'") for line in listed.splitlines())


def require_source(source: Source) -> None:
    """Raise RackllamaError unless the file is there, and is what its checksum says."""
    if not source.path.is_file():
        raise RackllamaError(
            f"there is no {source.path}", "download the distribution's image, and give its path as `iso`"
        )
    digest = hashlib.sha256()
    with source.path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != source.sha256.lower():
        raise RackllamaError(
            f"{source.path} is not the image that was meant: its SHA-256 is {digest.hexdigest()}",
            "compare `sha256` with what the distribution publishes, and download the image again",
        )

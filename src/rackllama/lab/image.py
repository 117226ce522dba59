"""The image of a lab host: a small Debian that boots systemd and lets the user `ops` in by SSH key.

Its packages come from where this machine gets its own, by apt's own configuration: mirror, proxy, trusted authorities.
So do the settings of other package clients, for what is installed on the hosts later. Nothing with a password in it is
taken over. The image is built anew when something that goes into it has changed, and only then.
"""

import hashlib
import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from rackllama.host.errors import RackllamaError
from rackllama.lab.machine import as_root, last_lines, memory_available_gib, refresh_package_lists, run, say
from rackllama.lab.podman import podman, podman_argv
from rackllama.paths import cache_dir

SUITES = ("bookworm", "trixie")
USER = "ops"
RECIPE_LABEL = "rackllama.recipe"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
COMPONENTS = "main contrib non-free non-free-firmware"
PACKAGES = (
    "ca-certificates",
    "dbus",
    "iproute2",
    "kmod",
    "nftables",
    "openssh-server",
    "procps",
    "python3",
    "python3-apt",
    "sudo",
    "systemd",
    "systemd-sysv",
    "udev",
)
DPKG_OPTIONS = (
    "force-unsafe-io",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
)
APT_SETTINGS = re.compile(
    r"Acquire::(?:(?:https?|ftp)::(?:Proxy|ProxyAutoDetect|No-Cache|Timeout)"
    r"|Retries|ForceIPv[46]|Check-(?:Date|Valid-Until)|Languages)\b"
)
CLIENT_VARIABLES = (
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_DEFAULT_TIMEOUT", "UV_INDEX_URL", "UV_DEFAULT_INDEX"),
    *("GOPROXY", "GONOSUMDB", "NPM_CONFIG_REGISTRY"),
)
CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT")
LOCAL_AUTHORITIES = Path("/usr/local/share/ca-certificates")
# What has no business in a container, and what would hold dpkg's lock in the middle of something else.
MASKED_UNITS = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "console-getty.service",
    "getty.target",
    "systemd-modules-load.service",
    "systemd-remount-fs.service",
    "systemd-udevd.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
)
# Files of every host, by path. Host keys are made at the first boot: no two hosts share one.
FILES = {
    "/etc/ssh/sshd_config.d/lab.conf": "PasswordAuthentication no\nKbdInteractiveAuthentication no\n"
    "PermitRootLogin no\nUseDNS no\n",
    "/etc/sudoers.d/ops": f"{USER} ALL=(ALL:ALL) NOPASSWD: ALL\n",
    "/usr/lib/systemd/journald.conf.d/lab.conf": "[Journal]\nStorage=persistent\nForwardToConsole=no\n",
    "/etc/systemd/system/ssh-host-key.service": "[Unit]\nDescription=Make this host's SSH key\nBefore=ssh.service\n"
    "ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key.pub\n"
    "[Service]\nType=oneshot\n"
    "ExecStart=/usr/bin/rm -f /etc/ssh/ssh_host_ed25519_key\n"
    "ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key\n"
    "[Install]\nWantedBy=multi-user.target\n",
}
HOOKS = (
    'chroot "$1" update-ca-certificates >/dev/null',
    # `*` is a password that nobody has, where useradd's own `!` is a locked account, which sshd may refuse.
    f"chroot \"$1\" useradd --create-home --shell /bin/bash --password '*' {USER}",
    f'chroot "$1" install -d -m 700 -o {USER} -g {USER} /home/{USER}/.ssh',
    'chmod 440 "$1/etc/sudoers.d/ops"',
    'rm -f "$1"/etc/ssh/ssh_host_*',
    'chroot "$1" systemctl -q enable ssh-host-key.service ssh.service',
    f'chroot "$1" systemctl -q mask {" ".join(MASKED_UNITS)}',
    ': >"$1/etc/machine-id"',
)
BUILD_MEMORY_GIB = 6  # from here on, a build in 3 GiB of memory leaves enough


@dataclass(frozen=True)
class Recipe:
    """Everything that goes into an image. `sources` are lines of a sources.list; none means mmdebstrap's own choice.

    `files` are the contents of files by absolute path.
    """

    suite: str
    sources: tuple[str, ...]
    files: Mapping[str, str]
    packages: tuple[str, ...] = PACKAGES
    dpkg_options: tuple[str, ...] = DPKG_OPTIONS
    hooks: tuple[str, ...] = HOOKS

    @property
    def digest(self) -> str:
        """Sixteen hex digits that change with anything in the recipe."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def image_name(suite: str) -> str:
    """`localhost/rackllama-lab:SUITE`."""
    return f"localhost/rackllama-lab:{suite}"


def build_image(recipe: Recipe) -> None:
    """Build the image of that recipe, unless podman has it. Raises RackllamaError saying why it cannot be built."""
    image = image_name(recipe.suite)
    if image_recipe(image) == recipe.digest:
        return
    started = time.monotonic()
    say(f"building the image {image} (a minute or two)")
    _build(recipe)
    prune_images()
    say(f"built {image} in {time.monotonic() - started:.0f} s")


def prune_images() -> None:
    """Remove lab images that a newer one of the same name has replaced, and that no host is made from any more."""
    podman("image", "prune", "--force", f"--filter=label={RECIPE_LABEL}")


def image_recipe(image: str) -> str | None:
    """The digest of the recipe that the image was built by, as podman has it; None where there is no such image."""
    template = f'{{{{index .Labels "{RECIPE_LABEL}"}}}}'
    argv = podman_argv("image", "inspect", "--format", template, image)
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def machine_recipe(suite: str) -> Recipe:
    """The recipe that follows from how this machine is set up. Raises RackllamaError for a suite not in SUITES."""
    if suite not in SUITES:
        raise RackllamaError(f"no lab image of {suite!r} can be built", f"choose one of: {', '.join(SUITES)}")
    authorities = {
        str(path): path.read_text(encoding="ascii", errors="replace")
        for path in sorted(LOCAL_AUTHORITIES.glob("*.crt"))
    }
    environment = {name: os.environ[name] for name in CLIENT_VARIABLES if os.environ.get(name)}
    files = {
        **FILES,
        **authorities,
        "/etc/apt/apt.conf.d/90lab": apt_settings(run(["apt-config", "dump"])),
        "/etc/environment": environment_file(environment, own_authorities=bool(authorities)),
    }
    return Recipe(suite, sources(suite, *_mirrors()), files)


def parse_mirrors(archives: str) -> tuple[str, str]:
    """Where Debian and its security updates are fetched from, each empty where it is not.

    `archives` are lines of an archive's label and its address, as `apt-get indextargets` is asked for them.
    """
    by_label = dict(sorted((line.split(maxsplit=1) for line in archives.splitlines()), reverse=True))
    return by_label.get("Debian", ""), by_label.get("Debian-Security", "")


def sources(suite: str, mirror: str, security_mirror: str) -> tuple[str, ...]:
    """The lines of sources.list for a Debian suite. Without a mirror, mmdebstrap is to choose: no lines."""
    if not mirror:
        return ()
    plain = (f"deb {mirror} {suite} {COMPONENTS}", f"deb {mirror} {suite}-updates {COMPONENTS}")
    security = (f"deb {security_mirror} {suite}-security {COMPONENTS}",) if security_mirror else ()
    return plain + security


def apt_settings(dump: str) -> str:
    """What `apt-config dump` says about how archives are reached: proxies, retries, checks of dates."""
    lines = (line for line in dump.splitlines() if APT_SETTINGS.match(line) and "@" not in line)
    return "".join(f"{line}\n" for line in lines)


def environment_file(environment: Mapping[str, str], *, own_authorities: bool) -> str:
    """/etc/environment: how package clients are pointed, and the bundle of authorities where there are own ones."""
    bundle = dict.fromkeys(CA_VARIABLES, "/etc/ssl/certs/ca-certificates.crt") if own_authorities else {}
    settings = {name: value for name, value in environment.items() if "@" not in value} | bundle
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def mmdebstrap_argv(recipe: Recipe, tree: Path, tar: Path, sources_list: Path) -> list[str]:
    """The command that makes the image's file system as a tar file; `tree` holds the recipe's files."""
    return [
        *("mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", f"--keyring={KEYRING}"),
        *("--skip=cleanup/apt/lists", f"--include={','.join(recipe.packages)}"),
        f"--aptopt={tree}/etc/apt/apt.conf.d/90lab",
        *(f"--dpkgopt={option}" for option in recipe.dpkg_options),
        f"--customize-hook=sync-in '{tree}' /",
        *(f"--customize-hook={hook}" for hook in recipe.hooks),
        *(recipe.suite, str(tar)),
        *([str(sources_list)] if recipe.sources else []),
    ]


def _build(recipe: Recipe) -> None:
    folder = cache_dir() / "lab" / f"image-{recipe.suite}"
    run(as_root(["rm", "-rf", "--one-file-system", str(folder)]))  # what an interrupted build left
    folder.mkdir(parents=True)
    tree, tar, sources_list, scratch = folder / "tree", folder / "root.tar", folder / "sources.list", folder / "scratch"
    scratch.mkdir()
    sources_list.write_text("".join(f"{line}\n" for line in recipe.sources), encoding="ascii")
    for path, content in recipe.files.items():
        target = tree / path.removeprefix("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content, encoding="utf-8")
    run(as_root(["chmod", "-R", "u=rwX,go=rX", str(tree)]))
    run(as_root(["chown", "-R", "root:root", str(tree)]))
    argv = ["env", f"TMPDIR={scratch}", *mmdebstrap_argv(recipe, tree, tar, sources_list)]
    if memory_available_gib(Path("/proc/meminfo").read_text(encoding="ascii")) >= BUILD_MEMORY_GIB:
        argv = in_memory(argv, scratch)
    done = subprocess.run(as_root(argv), capture_output=True, text=True, check=False)
    if done.returncode:
        raise _build_error(recipe.suite, done.stderr)
    podman(
        *("import", "--quiet", "--change", 'CMD ["/sbin/init"]', "--change", "ENV container=podman"),
        *("--change", "STOPSIGNAL SIGRTMIN+3", "--change", f"LABEL {RECIPE_LABEL}={recipe.digest}"),
        *(str(tar), image_name(recipe.suite)),
        what="importing the lab image",
    )
    run(as_root(["rm", "-rf", "--one-file-system", str(folder)]))


def in_memory(argv: list[str], folder: Path) -> list[str]:
    """The same command with `folder` in memory, in a mount namespace that goes with it: it leaves nothing mounted.

    dpkg syncs a lot: this halves the time. Where the kernel refuses the mount, the folder is used as it is.
    """
    script = 'mount -t tmpfs -o size=3g,mode=0755 lab-image "$0" || true; exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, str(folder), *argv]


def _build_error(suite: str, stderr: str) -> RackllamaError:
    if "NO_PUBKEY" in stderr or "couldn't be verified" in stderr:
        return RackllamaError(
            f"this machine does not know the keys that Debian {suite} is signed with",
            "run: apt-get install --only-upgrade debian-archive-keyring",
        )
    return RackllamaError(
        f"mmdebstrap could not build the image of {suite}: {last_lines(stderr)}",
        f"make `mmdebstrap --variant=minbase {suite} /dev/null` work on this machine, as root",
    )


def _mirrors() -> tuple[str, str]:
    found = parse_mirrors(_archives())
    if not found[0] and platform.freedesktop_os_release()["ID"] == "debian":
        refresh_package_lists()  # apt knows an archive by its lists: without them it knows none
        found = parse_mirrors(_archives())
    return found


def _archives() -> str:
    return run(
        ["apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages", "Origin: Debian"]
    )

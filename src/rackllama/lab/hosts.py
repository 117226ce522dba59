"""Labs: named sets of hosts on this machine, each a container that boots systemd and is reached by SSH.

Which labs there are, and with which hosts, is known to podman alone, by the labels of their containers: no record
beside it can go stale. A start compares what is there with what is wanted and does the difference, so that a start that
was interrupted, or a machine that was rebooted, is put right by the next start.
"""

import hashlib
import ipaddress
import json
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fcntl import LOCK_EX, LOCK_NB, flock
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import paramiko

from rackllama.host.errors import RackllamaError
from rackllama.lab.image import USER, build_image, image_name, machine_recipe, prune_images
from rackllama.lab.machine import LAB_PACKAGES, check_room, ensure_packages, run, say
from rackllama.lab.podman import detect_settings, podman, podman_json, require_podman
from rackllama.paths import state_dir

NETWORK = "rackllama-lab"
# Tried in order. Private ranges, away from where home routers, clouds and container engines like to put theirs.
SUBNETS = tuple(
    IPv4Network(subnet)
    for subnet in ("10.197.64.0/24", "10.83.211.0/24", "172.29.211.0/24", "172.24.83.0/24", "192.168.211.0/24")
)
# SYS_ADMIN and no seccomp filter let systemd sandbox units and mount; NET_ADMIN is for nftables; SYS_PTRACE lets root
# see which program a process runs, as on any server. Podman would put the
# journal in memory, unless something is mounted there.
RUN_FLAGS = (
    "--systemd=always",
    "--cap-add=SYS_ADMIN,NET_ADMIN,SYS_PTRACE",
    "--security-opt=seccomp=unconfined",
    "--volume=/var/log/journal",
)
LAB_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,30}[a-z])?")
READY_SECONDS = 120
LOGIN_SECONDS = 30  # a busy machine takes its time over the exchange of keys


class _NotYetError(RackllamaError):
    """What may be otherwise in a moment, and is an error only when it stays so."""


@dataclass(frozen=True)
class Host:
    """One host of a lab. `made` is a digest of all that it was made from; `state` is podman's word for how it is.

    `maker` names who else keeps the lab, such as a Pulumi stack; empty where a person made it.
    """

    lab: str
    number: int
    address: IPv4Address
    suite: str
    made: str
    state: str = "absent"
    maker: str = ""

    @property
    def name(self) -> str:
        """Its hostname, and its name in the inventory."""
        return f"{self.lab}{self.number}"

    @property
    def container(self) -> str:
        """The name of its container."""
        return f"rackllama-{self.name}"


@dataclass(frozen=True)
class Lab:
    """A lab that is there, with the files that let one log in: nobody else's keys are used, or changed."""

    name: str
    hosts: tuple[Host, ...]
    user: str
    key: Path
    known_hosts: Path

    @property
    def inventory(self) -> dict[str, Any]:
        """The hosts as every maker of hosts describes them: `{"hosts": [{name, address, user, gpus, roles}]}`."""
        return {
            "hosts": [
                {
                    "name": host.name,
                    "address": str(host.address),
                    "user": self.user,
                    "gpus": [],
                    "roles": host_roles(host.number),
                }
                for host in self.hosts
            ]
        }


@dataclass(frozen=True)
class Plan:
    """What makes a lab as it is wanted: what is to go, what is to be made, what only needs starting, what is fine."""

    remove: tuple[Host, ...]
    create: tuple[Host, ...]
    restart: tuple[Host, ...]
    keep: tuple[Host, ...]


def start(name: str, count: int, suite: str, devices: Sequence[str] = (), maker: str = "") -> Lab:
    """Have the lab `name` with `count` hosts of that Debian suite, all booted and reachable by SSH.

    `devices` are block devices of this machine that its one host gets. Hosts that are as wanted are left alone.
    Raises RackllamaError for what this machine lacks or refuses, and for a lab that another `maker` keeps.
    """
    check_name(name)
    check_devices(devices, count)
    ensure_packages(LAB_PACKAGES)
    require_podman()
    with _lock():
        recipe = machine_recipe(suite)
        subnet = _ensure_network()
        made = made_from(recipe.digest, devices)
        wanted = [Host(name, number, subnet.network_address, suite, made, maker=maker) for number in _to(count)]
        found = all_hosts()
        check_maker(name, maker, found)
        steps = plan(wanted, found, subnet)
        check_room(len(steps.create), _container_folder())
        if steps.create:
            build_image(recipe)
        if steps.create or steps.restart:
            detect_settings(image_name(suite))
        for host in steps.remove:
            _remove(host)
        for host in steps.create:
            say(f"starting {host.name} at {host.address}")
            podman(*run_arguments(host, devices), what=f"starting {host.name}")
        for host in steps.restart:
            say(f"starting {host.name} again at {host.address}")
            podman("start", host.container, what=f"starting {host.name}")
        lab = _lab(name, [*steps.keep, *steps.restart, *steps.create])
        _open(lab, new=frozenset(steps.create))
    return _lab(name, lab_hosts(name))


def stop(name: str) -> bool:
    """Remove the lab with all that is in it, and the network with the last lab. Whether there was such a lab."""
    check_name(name)
    if not shutil.which("podman"):
        return False
    with _lock():
        hosts = lab_hosts(name)
        for host in hosts:
            _remove(host)
        _known_hosts(name).unlink(missing_ok=True)
        prune_images()
        if not all_hosts() and _network():
            podman("network", "rm", NETWORK)
    return bool(hosts)


def labs() -> list[Lab]:
    """Every lab there is, by name."""
    hosts = all_hosts()
    return [_lab(name, [host for host in hosts if host.lab == name]) for name in sorted({host.lab for host in hosts})]


def lab_hosts(name: str) -> list[Host]:
    """The hosts of that lab in order, running or not; none where there is no such lab."""
    return [host for host in all_hosts() if host.lab == name]


def find_lab(name: str) -> Lab:
    """The lab of that name. Raises RackllamaError where there is none."""
    hosts = lab_hosts(name)
    if not hosts:
        raise RackllamaError(f"no lab named {name!r} is there", f"run: rackllama lab start {name}")
    return _lab(name, hosts)


def network_gateway() -> str:
    """The machine's own address on the labs' network, where hosts reach what the machine serves to them.

    It can be listened on while a lab is running. Raises RackllamaError where there is no such network.
    """
    network = _network()
    if not network:
        raise RackllamaError("no lab is there, and so no network of labs", "run: rackllama lab start")
    return str(network["subnets"][0]["gateway"])


def all_hosts() -> list[Host]:
    """The hosts of all labs, by lab and number."""
    if not shutil.which("podman"):
        return []
    return parse_hosts(podman_json("ps", "--all", "--filter=label=rackllama.lab", "--format=json"))


def host_roles(number: int) -> list[str]:
    """The groups of a lab's host: all serve, and the first is the gateway."""
    return ["serving", "gateway"] if number == 1 else ["serving"]


def check_name(name: str) -> None:
    """Raise RackllamaError unless hosts can be named by appending their number to `name`."""
    if not LAB_NAME.fullmatch(name):
        raise RackllamaError(
            f"{name!r} cannot name a lab", "use lower-case letters, digits and hyphens, from a letter to a letter"
        )


def check_maker(name: str, maker: str, found: Iterable[Host]) -> None:
    """Raise RackllamaError where the lab `name` is among the `found` hosts, and another maker keeps it."""
    others = {host.maker for host in found if host.lab == name} - {maker}
    if others:
        keeper = others.pop()
        raise RackllamaError(
            f"the lab {name} is there already, and {f'the stack {keeper} keeps it' if keeper else 'was made by hand'}",
            f"choose another name, or remove it: rackllama lab stop {name}",
        )


def check_devices(devices: Sequence[str], count: int) -> None:
    """Raise RackllamaError unless these are block devices, and one host alone is to get them."""
    if devices and count != 1:
        raise RackllamaError("two hosts would write to the same device", "make a lab of one host, or without --device")
    for device in devices:
        if not Path(device).is_block_device():
            raise RackllamaError(f"{device} is no block device", "make one: losetup --find --show FILE")


def parse_hosts(containers: Iterable[dict[str, Any]]) -> list[Host]:
    """Hosts from what `podman ps --format=json` prints."""
    hosts = [
        Host(
            lab=labels["rackllama.lab"],
            number=int(labels["rackllama.lab.number"]),
            address=IPv4Address(labels["rackllama.lab.address"]),
            suite=labels["rackllama.lab.suite"],
            made=labels["rackllama.lab.made"],
            state=state,
            maker=labels.get("rackllama.lab.maker", ""),
        )
        for labels, state in ((container["Labels"], container["State"]) for container in containers)
    ]
    return sorted(hosts, key=lambda host: (host.lab, host.number))


def plan(wanted: Sequence[Host], found: Sequence[Host], subnet: IPv4Network) -> Plan:
    """What to do to have the `wanted` hosts of one lab, where `found` are the hosts of all labs.

    A host stays if it was made from the same, in the same network. The addresses of wanted hosts are chosen here: a
    host that stays keeps its own, a new one gets the lowest that is free.
    """
    lab = {host.lab for host in wanted}
    made = {host.number: host.made for host in wanted}
    ours = [host for host in found if host.lab in lab]
    remove = [host for host in ours if host.made != made.get(host.number) or not _is_usable(host, subnet)]
    stay = [host for host in ours if host not in remove]
    free = free_addresses(subnet, {host.address for host in found if host not in remove})
    missing = (host for host in wanted if host.number not in {other.number for other in stay})
    return Plan(
        remove=tuple(remove),
        create=tuple(replace(host, address=address) for host, address in zip(missing, free, strict=False)),
        restart=tuple(host for host in stay if host.state != "running"),
        keep=tuple(host for host in stay if host.state == "running"),
    )


def free_addresses(subnet: IPv4Network, taken: Iterable[IPv4Address]) -> Iterator[IPv4Address]:
    """The addresses of the subnet that hosts can have, lowest first: the first of all is the machine's own."""
    not_free = {subnet.network_address + 1, *taken}
    for address in subnet.hosts():
        if address not in not_free:
            yield address
    raise RackllamaError(f"all addresses of {subnet} are taken", "run `rackllama lab list`, and stop labs not needed")


def free_subnet(taken: Iterable[IPv4Network], candidates: Sequence[IPv4Network] = SUBNETS) -> IPv4Network:
    """The first candidate that overlaps none of the taken networks. Raises RackllamaError where all do."""
    networks = list(taken)
    for candidate in candidates:
        if not any(candidate.overlaps(network) for network in networks):
            return candidate
    raise RackllamaError(
        f"every subnet a lab could have is routed elsewhere: {', '.join(map(str, candidates))}",
        f"make the network yourself: sudo podman network create --disable-dns --subnet SUBNET {NETWORK}",
    )


def routed_networks(routes: Iterable[dict[str, Any]]) -> list[IPv4Network]:
    """The networks that `ip -json -4 route` has routes to, but for the default route, which is to everywhere."""
    return [IPv4Network(route["dst"]) for route in routes if route["dst"] != "default"]


def networks_subnets(networks: Iterable[dict[str, Any]]) -> list[IPv4Network]:
    """The IPv4 subnets of what `podman network inspect` prints, up or not."""
    subnets = (subnet["subnet"] for network in networks for subnet in network.get("subnets", []))
    return [subnet for subnet in map(ipaddress.ip_network, subnets) if isinstance(subnet, IPv4Network)]


def made_from(image_recipe: str, devices: Sequence[str] = ()) -> str:
    """What changes when a host would be made otherwise: from another image, or with other arguments."""
    arguments = run_arguments(Host("any", 1, IPv4Address("192.0.2.1"), "any", ""), devices)
    return hashlib.sha256(json.dumps([image_recipe, arguments]).encode()).hexdigest()[:16]


def run_arguments(host: Host, devices: Sequence[str] = ()) -> list[str]:
    """The arguments of `podman` that make the host and boot it."""
    labels = {"": host.lab, ".number": host.number, ".address": host.address, ".suite": host.suite, ".made": host.made}
    return [
        *("run", "--detach", "--replace", "--pull=never", f"--name={host.container}", f"--hostname={host.name}"),
        *(f"--network={NETWORK}", f"--ip={host.address}", f"--mac-address={mac_address(host.address)}"),
        *(f"--label=rackllama.lab{key}={value}" for key, value in labels.items()),
        *([f"--label=rackllama.lab.maker={host.maker}"] if host.maker else []),
        *RUN_FLAGS,
        *(f"--device={device}" for device in devices),
        # Where lsblk finds what a device is; podman hides it, as containers have no disks.
        *(["--security-opt=unmask=/sys/dev/block"] if devices else []),
        image_name(host.suite),
    ]


def mac_address(address: IPv4Address) -> str:
    """A MAC that goes with the address: with a new one at each start, neighbours would talk to the old for a while."""
    return ":".join(f"{byte:02x}" for byte in (0x02, 0x4C, *address.packed))  # 02: locally administered


def _is_usable(host: Host, subnet: IPv4Network) -> bool:
    return host.address in subnet and host.state in {"running", "exited", "created", "stopped"}


def _to(count: int) -> range:
    if count < 1:
        raise RackllamaError(f"a lab cannot have {count} hosts", "ask for one or more, or run: rackllama lab stop")
    return range(1, count + 1)


def _lab(name: str, hosts: Iterable[Host]) -> Lab:
    ordered = tuple(sorted(hosts, key=lambda host: host.number))
    return Lab(name, ordered, USER, _folder() / "id_ed25519", _known_hosts(name))


def _folder() -> Path:
    return state_dir() / "lab"


def _known_hosts(name: str) -> Path:
    return _folder() / f"{name}.known_hosts"


@contextmanager
def _lock() -> Iterator[None]:
    """One start or stop at a time: addresses, network and image are shared. It goes with the process that holds it."""
    _folder().mkdir(parents=True, exist_ok=True, mode=0o700)
    with (_folder() / "lock").open("w") as file:
        try:
            flock(file, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            say("waiting for another `rackllama lab` to end")
            flock(file, LOCK_EX)
        yield


def _container_folder() -> Path:
    return Path(podman("info", "--format={{.Store.GraphRoot}}").strip())


def _network() -> dict[str, Any] | None:
    """The network as podman has it, or None."""
    networks = _networks()
    return next((network for network in networks if network["name"] == NETWORK), None)


def _networks() -> list[dict[str, Any]]:
    names = podman("network", "ls", "--format={{.Name}}").split()
    return list(podman_json("network", "inspect", *names)) if names else []


def _ensure_network() -> IPv4Network:
    network = _network()
    if network:
        return IPv4Network(network["subnets"][0]["subnet"])
    routes = routed_networks(json.loads(run(["ip", "-json", "-4", "route"]) or "[]"))
    subnet = free_subnet([*routes, *networks_subnets(_networks())])
    # Names are resolved as on the machine itself: podman's own resolver would need port 53 of the gateway.
    podman("network", "create", "--disable-dns", f"--subnet={subnet}", NETWORK, what="making the lab's network")
    return subnet


def _remove(host: Host) -> None:
    say(f"removing {host.name}")
    podman("rm", "--force", "--volumes", "--time=0", host.container, what=f"removing {host.name}")


def _ensure_key(key: Path) -> str:
    """Make the labs' SSH key if there is none. Returns the public one."""
    if not key.exists():
        new, public = key.with_suffix(".new"), key.with_suffix(".new.pub")
        for left in (new, public):
            left.unlink(missing_ok=True)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "rackllama-lab", "-f", str(new)])
        public.unlink()
        new.replace(key)
    return run(["ssh-keygen", "-y", "-f", str(key)])


def _open(lab: Lab, new: frozenset[Host]) -> None:
    """Wait until every host has booted, let the labs' key in, learn the hosts' own keys and log in once."""
    public_key = _ensure_key(lab.key)

    def boot(host: Host) -> str:
        _wait_for_boot(host, healthy=host in new)
        _authorize(host, public_key)
        host_key = _exec(host, "cat", "/etc/ssh/ssh_host_ed25519_key.pub").split()
        return f"{host.address} {host_key[0]} {host_key[1]}\n"

    with ThreadPoolExecutor() as pool:
        lines = list(pool.map(boot, lab.hosts))
        temporary = lab.known_hosts.with_suffix(".new")
        temporary.write_text("".join(lines), encoding="ascii")
        temporary.replace(lab.known_hosts)
        list(pool.map(lambda host: _until_ready(lambda: log_in(lab, host)), lab.hosts))


def _authorize(host: Host, public_key: str) -> None:
    target = f"/home/{USER}/.ssh/authorized_keys"
    install = ("install", "-m", "600", "-o", USER, "-g", USER, "/dev/stdin", target)
    podman(
        "exec", "--interactive", host.container, *install, stdin=public_key, what=f"letting the key into {host.name}"
    )


def _exec(host: Host, *argv: str) -> str:
    return podman("exec", host.container, *argv, what=f"`{' '.join(argv)}` in {host.name}")


def _wait_for_boot(host: Host, *, healthy: bool) -> None:
    """Wait until systemd has started all it wants to. With `healthy`, a failed unit is an error."""

    def system_state() -> str:
        # Exits non-zero for every state but `running`, and cannot wait before systemd listens on its bus.
        state = _exec(host, "sh", "-c", "systemctl is-system-running --wait || true").strip()
        if state not in {"running", "degraded"}:
            raise _NotYetError(f"{host.name} does not boot, systemd is {state or 'silent'}", _look(host))
        return state

    if _until_ready(system_state) == "degraded" and healthy:
        failed = _exec(host, "systemctl", "list-units", "--failed", "--plain", "--no-legend").split("\n")
        names = ", ".join(line.split()[0] for line in failed if line)
        raise RackllamaError(f"{host.name} boots with failed units: {names}", _look(host))


@contextmanager
def ssh_client(lab: Lab, host: Host) -> Iterator[paramiko.SSHClient]:
    """A connection to the host as Ansible makes it: with the labs' key, trusting the key in `known_hosts` and no other.

    Raises RackllamaError where there is none to be had; what goes wrong later, while it is used, is the user's.
    """
    with paramiko.SSHClient() as client:
        client.load_host_keys(str(lab.known_hosts))
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        try:
            client.connect(
                str(host.address),
                username=lab.user,
                key_filename=str(lab.key),
                look_for_keys=False,
                allow_agent=False,
                timeout=LOGIN_SECONDS,
                banner_timeout=LOGIN_SECONDS,
                auth_timeout=LOGIN_SECONDS,
            )
        except (paramiko.AuthenticationException, paramiko.BadHostKeyException) as error:
            raise RackllamaError(
                f"{host.name} at {host.address} and its lab do not agree on keys: {error}", _look(host)
            ) from error
        except (paramiko.SSHException, OSError) as error:
            raise _NotYetError(f"cannot log in to {host.name} at {host.address}: {error}", _look(host)) from error
        yield client


def log_in(lab: Lab, host: Host) -> None:
    """Log in to the host and become root there, once. Raises RackllamaError where that does not work."""
    with ssh_client(lab, host) as client:
        _, stdout, stderr = client.exec_command("sudo -n true", timeout=10)
        if stdout.channel.recv_exit_status():
            raise RackllamaError(f"sudo refuses in {host.name}: {stderr.read().decode().strip()}", _look(host))


def _look(host: Host) -> str:
    return (
        f"see `sudo podman exec {host.container} journalctl -b -p warning`; `rackllama lab stop {host.lab}` clears it"
    )


def _until_ready[Result](attempt: Callable[[], Result]) -> Result:
    """What `attempt` returns, tried again until READY_SECONDS have gone where it says that it is only too early."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            return attempt()
        except _NotYetError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)

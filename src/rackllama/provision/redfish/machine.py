"""A machine as its BMC shows it, and the few things that a BMC can be told to do with it."""

from collections.abc import Callable, Iterable
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Self

import sushy  # type: ignore[import-untyped]
from sushy import exceptions

from rackllama.catalog.hardware import find_product
from rackllama.host.errors import RackllamaError
from rackllama.provision.redfish.bmc import Bmc, connect, password_of, told
from rackllama.provision.redfish.plan import Identity, Situation

CD = (sushy.VirtualMediaType.CD, sushy.VirtualMediaType.DVD)
ACCELERATORS = (sushy.PROCESSOR_TYPE_GPU, sushy.PROCESSOR_TYPE_ACCELERATOR)
BOOT_OF_CD = (sushy.BOOT_SOURCE_TARGET_CD, sushy.BOOT_SOURCE_TARGET_USB_CD)
RUNNING_A_SYSTEM = ("OSBootStarted", "OSRunning")
NOT_OFFERED = (exceptions.MissingAttributeError, exceptions.ResourceNotFoundError, exceptions.BadRequestError)
NOT_TOLD = (*NOT_OFFERED, exceptions.ServerSideError)


@dataclass(frozen=True)
class Inventory:
    """What the machine is made of, as far as its BMC tells: None or empty where it does not.

    Memory in GiB; disks in bytes; speeds in Mbit/s. An accelerator's `gpu` is its name in the catalogue, where known.
    """

    manufacturer: str | None = None
    model: str | None = None
    serial: str | None = None
    uuid: str | None = None
    bios: str | None = None
    bmc_firmware: str | None = None
    memory_gib: int | None = None
    cpus: list[dict[str, Any]] = field(default_factory=list)
    accelerators: list[dict[str, Any]] = field(default_factory=list)
    nics: list[dict[str, Any]] = field(default_factory=list)
    disks: list[dict[str, Any]] = field(default_factory=list)

    def as_data(self) -> dict[str, Any]:
        """As outputs hold it."""
        return asdict(self)


class Machine:
    """One machine behind its BMC. It logs in when first asked, and anew after a `drop`; leave it to log out.

    Every method raises RackllamaError, a HiccupError where another try may help.
    """

    def __init__(self, bmc: Bmc) -> None:
        self.bmc = bmc
        self._password = password_of(bmc)
        self._root: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()

    def drop(self) -> None:
        """Log out, as far as the BMC still listens."""
        root, self._root = self._root, None
        if root is not None:
            with suppress(exceptions.SushyError):
                root._auth.close()  # noqa: SLF001 - sushy offers no other way but the garbage collector's
            root._conn.close()  # noqa: SLF001

    def identity(self) -> Identity:
        """Which machine this is."""
        with self._system() as system:
            return _identity(system)

    def situation(self) -> Situation:
        """How the machine is now."""
        with self._system() as system:
            drive = _drive(system)
            boot = system.boot
            return Situation(
                identity=_identity(system),
                power=system.power_state.value if system.power_state else "unknown",
                medium=(drive.image or drive.image_name or "unnamed") if drive is not None and drive.inserted else None,
                boots_cd=boot is not None
                and boot.target in BOOT_OF_CD
                and boot.enabled is not sushy.BOOT_SOURCE_ENABLED_DISABLED,
                signs=tuple(_signs(system)),
            )

    def inventory(self) -> Inventory:
        """What the machine is made of; takes a request for each processor, NIC and disk."""
        with self._system() as system:
            processors = _members(system, "processors")
            memory = system.memory_summary
            return Inventory(
                manufacturer=system.manufacturer,
                model=system.model,
                serial=_identity(system).serial,
                uuid=system.uuid,
                bios=system.bios_version,
                bmc_firmware=next(iter(_each(lambda: [each.firmware_version for each in system.managers])), None),
                memory_gib=memory.size_gib if memory else None,
                cpus=[
                    {"model": each.model, "cores": each.total_cores, "threads": each.total_threads}
                    for each in processors
                    if each.processor_type not in ACCELERATORS
                ],
                accelerators=[
                    _accelerator(each.manufacturer, each.model, None)
                    for each in processors
                    if each.processor_type in ACCELERATORS
                ]
                or _known_gpus(system),
                nics=[
                    {"name": each.identity, "mac": each.mac_address, "speed_mbps": each.speed_mbps}
                    for each in _members(system, "ethernet_interfaces")
                ],
                disks=[
                    {"model": disk.model, "serial": disk.serial_number, "bytes": disk.capacity_bytes}
                    for storage in _members(system, "storage")
                    for disk in _each(partial(_drives, storage))
                ],
            )

    def insert(self, url: str) -> None:
        """Put what the BMC can fetch from there into the virtual CD drive."""
        with self._system() as system:
            self._cd(system).insert_media(url)

    def eject(self) -> None:
        """Take out what is in the virtual CD drive."""
        with self._system() as system:
            self._cd(system).eject_media()

    def boot_once(self, source: str) -> None:
        """At its next start alone, boot from there: `Cd` or `Hdd`."""
        with self._system() as system:
            target = sushy.BootSource(source)
            allowed = system.get_allowed_system_boot_source_values()
            if target not in allowed and target in BOOT_OF_CD:
                target = sushy.BOOT_SOURCE_TARGET_USB_CD
            system.set_system_boot_options(target=target, enabled=sushy.BOOT_SOURCE_ENABLED_ONCE)

    def power_on(self) -> None:
        """Ask for power; it comes seconds later."""
        self._reset(sushy.ResetType.ON, sushy.ResetType.FORCE_ON)

    def shut_down(self) -> None:
        """Ask the system to shut down, as a press of the power button does; it may not listen."""
        self._reset(sushy.ResetType.GRACEFUL_SHUTDOWN, sushy.ResetType.FORCE_OFF)

    def power_off(self) -> None:
        """Ask for the power to be cut; it goes seconds later."""
        self._reset(sushy.ResetType.FORCE_OFF)

    def _reset(self, *ways: Any) -> None:
        with self._system() as system:
            allowed = system.get_allowed_reset_system_values()
            system.reset_system(next((way for way in ways if way in allowed), ways[0]))

    @contextmanager
    def _system(self) -> Any:
        if self._root is None:
            self._root = connect(self.bmc, self._password)
        with told(self.bmc, self._password):
            try:
                yield self._root.get_system((self.bmc.system and f"/redfish/v1/Systems/{self.bmc.system}") or None)
            except exceptions.UnknownDefaultError:
                known = [each.identity for each in self._root.get_system_collection().get_members()]
                raise RackllamaError(
                    f"the BMC of {self.bmc.name} has {len(known)} machines: {', '.join(known)}",
                    "say which is meant by `system`",
                ) from None

    def _cd(self, system: Any) -> Any:
        drive = _drive(system)
        if drive is None:
            raise RackllamaError(
                f"the BMC of {self.bmc.name} offers no virtual CD drive",
                "see whether it needs a licence for virtual media; or install the system by hand, leave out `install`",
            )
        return drive


def _identity(system: Any) -> Identity:
    return Identity((system.serial_number or "").strip() or None, system.uuid)


def _drive(system: Any) -> Any:
    """The first virtual CD drive: newer BMCs have it with the system, others with the manager."""
    collections = [lambda: [system.virtual_media], lambda: [manager.virtual_media for manager in system.managers]]
    for found in collections:
        for collection in _each(found, NOT_OFFERED):
            for drive in collection.get_members():
                if any(kind in CD for kind in drive.media_types):
                    return drive
    return None


def _signs(system: Any) -> Iterable[str]:
    progress = system.boot_progress.last_state if system.boot_progress else None
    if progress and progress.value in RUNNING_A_SYSTEM and system.power_state is sushy.PowerState.ON:
        yield f"its BMC says that a system runs ({progress.value})"
    if system.hostname:
        yield f"a system told the BMC that it is called {system.hostname}"


def _known_gpus(system: Any) -> list[dict[str, Any]]:
    """The GPUs among the PCIe devices, for BMCs that do not count them as processors: those of the catalogue alone."""
    found = []
    for device in _members(system, "pcie_devices"):
        ids = [each.device_id for each in _members(device, "pcie_functions")]
        told_ids = [(each or "").lower().removeprefix("0x") for each in ids] or [None]
        gpu = _accelerator(device.manufacturer, device.model or device.name, told_ids[0])
        if gpu["gpu"]:
            found.append(gpu)
    return found


def _accelerator(manufacturer: str | None, model: str | None, pci_id: str | None) -> dict[str, Any]:
    known = find_product(model, pci_id, None)
    return {"manufacturer": manufacturer, "model": model, "gpu": known.name if known else None}


def _members(holder: Any, collection: str) -> list[Any]:
    return _each(lambda: getattr(holder, collection).get_members())


def _drives(storage: Any) -> Iterable[Any]:
    return storage.drives if storage.drives_identities else ()


def _each(tell: Callable[[], Iterable[Any]], absent: tuple[type[Exception], ...] = NOT_TOLD) -> list[Any]:
    """All of what a BMC may tell; nothing where it does not offer that part, or fails over it."""
    try:
        return list(tell())
    except absent:
        return []

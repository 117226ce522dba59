"""Compare this host's firewall with what is wanted, and change it so that nobody is locked out.

New rules are only tried at first: a timer of systemd puts the former ones back, unless they are confirmed in time over
a connection that was made after they came into force. So rules that would lock their author out are gone by themselves,
also where the play, the network or the controller died meanwhile.
"""

import contextlib
import shlex
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence

from .. import systemd
from ..errors import RackllamaError
from ..files import read_text, write_atomically
from ..module import difference
from ..services.unit import DROP_IN, UNITS
from . import ssh
from .firewall import (
    NFTABLES_DROP_IN,
    RULES_PATH,
    TABLE,
    UNIT,
    UNIT_NAME,
    Opening,
    firewalld_policy,
    nft_replacing,
    nft_rules,
    ufw_rules,
    ufw_steps,
)

NFTABLES, UFW, FIREWALLD = "nftables", "ufw", "firewalld"
TRIAL = Path("/run/rackllama/firewall")
ROLLBACK = "rackllama-firewall-rollback"
POLICY = Path("/etc/firewalld/policies/rackllama.xml")
UFW_FILES = (Path("/etc/ufw/user.rules"), Path("/etc/ufw/user6.rules"))
UNIT_PATH = UNITS / UNIT_NAME
NFTABLES_DROP_IN_PATH = UNITS / "nftables.service.d" / DROP_IN


@dataclass(frozen=True)
class Part:
    """What differs in one manager's hands: `before` and `after` are lines, for people.

    `try_out` brings the new rules into force, `undo` is a shell script that brings the former ones back, and `keep`
    makes the new ones outlast a boot.
    """

    header: str
    before: Sequence[str]
    after: Sequence[str]
    try_out: Callable[[], None]
    undo: str
    keep: Callable[[], None]


@dataclass(frozen=True)
class FirewallChange:
    """All that differs between this host's firewall and the wanted one."""

    parts: Sequence[Part]

    def __bool__(self) -> bool:
        return bool(self.parts)

    def diff(self) -> List[Dict[str, str]]:
        """One entry a manager for Ansible's `--diff`."""
        return [difference(list(part.before), list(part.after), part.header) for part in self.parts]

    def carry_out(self) -> None:
        """Make it so for good, at once."""
        for part in self.parts:
            part.try_out()
            part.keep()

    def try_out(self, seconds: int) -> None:
        """Bring it into force, and back out of it after so many seconds, unless `confirm` comes before."""
        write_atomically(TRIAL / "session", repr(ssh.session()), mode=0o600)
        script = "".join(f"{part.undo}\n" for part in self.parts)
        write_atomically(TRIAL / "rollback.sh", script, mode=0o600)
        # First the way back, then the change.
        systemd.run(
            *("systemd-run", "--collect", f"--unit={ROLLBACK}", f"--on-active={seconds}"),
            *("--timer-property=AccuracySec=100ms", "/bin/sh", str(TRIAL / "rollback.sh")),
        )
        for part in self.parts:
            part.try_out()

    def confirm(self) -> None:
        """Keep what is being tried. Raises RackllamaError where it is no longer, or where nothing new reached us."""
        if not is_being_tried():
            raise RackllamaError("the new rules were taken back before they were confirmed", "converge again")
        if read_text(TRIAL / "session") == repr(ssh.session()):
            raise RackllamaError(
                "the new rules can only be confirmed over a new connection", "converge by SSH, with its own client"
            )
        _stop_timer()
        for part in self.parts:
            part.keep()
        shutil.rmtree(TRIAL, ignore_errors=True)


def manager() -> str:
    """Who is in charge of this host's firewall: ufw or firewalld where it is active, otherwise nftables itself."""
    if "Status: active" in _ufw("status"):
        return UFW
    return FIREWALLD if systemd.unit_state("firewalld.service").active else NFTABLES


def change(openings: Optional[Sequence[Opening]]) -> FirewallChange:
    """What has to change on this host so that these may come in, and nothing else; None takes out all that is ours."""
    in_charge = manager()
    parts = [
        _nftables_part(openings if in_charge == NFTABLES else None),
        _ufw_part(openings if in_charge == UFW else None),
        _firewalld_part(openings if in_charge == FIREWALLD else None),
    ]
    return FirewallChange([part for part in parts if part])


def is_being_tried() -> bool:
    """Whether rules are in force that wait for being confirmed."""
    return systemd.unit_state(f"{ROLLBACK}.timer").active


def end_trial() -> None:
    """Go back to what was before a trial that nobody has confirmed: what it changed is no state to compare with."""
    if is_being_tried():
        _stop_timer()
        systemd.run("/bin/sh", str(TRIAL / "rollback.sh"))


def _stop_timer() -> None:
    """Stop it, and what it may have started just now; either is forgotten by systemd as soon as it has ended."""
    for kind in ("timer", "service"):
        systemd.run("systemctl", "stop", f"{ROLLBACK}.{kind}", check=False)


def _nftables_part(openings: Optional[Sequence[Opening]]) -> Optional[Part]:
    text = None if openings is None else nft_rules(openings)
    texts = (None, None, None) if text is None else (NFTABLES_DROP_IN, text, UNIT)
    files = dict(zip((NFTABLES_DROP_IN_PATH, Path(RULES_PATH), UNIT_PATH), texts))
    live, wanted = nft_table(), None if text is None else nft_listing(text)
    state = systemd.unit_state(UNIT_NAME)
    same_files = all(read_text(path) == content for path, content in files.items())
    runs = state.enabled and state.active and not state.needs_reload
    if live == wanted and same_files and (runs if text else not state.active):
        return None

    def try_out() -> None:
        _load(text or nft_replacing(""))

    def keep() -> None:
        if text is None:
            systemd.run("systemctl", "disable", "--now", UNIT_NAME, check=False)
        for path, content in files.items():
            if content is None:
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
            else:
                write_atomically(path, content)
        systemd.run("systemctl", "daemon-reload")
        if text is not None:
            systemd.run("systemctl", "enable", UNIT_NAME)
            systemd.run("systemctl", "reload-or-restart", UNIT_NAME)

    return Part(
        header=RULES_PATH,
        before=(live or "").splitlines(),
        after=(wanted or text or "").splitlines(),
        try_out=try_out,
        undo=f"printf '%s' {shlex.quote(nft_replacing(live or ''))} | nft -f -",
        keep=keep,
    )


def _ufw_part(openings: Optional[Sequence[Opening]]) -> Optional[Part]:
    added = _ufw("show", "added")
    steps = ufw_steps(added, [] if openings is None else ufw_rules(openings))
    if openings is not None and "allow (incoming)" in _ufw("status", "verbose"):
        raise RackllamaError(
            "ufw is in charge of this host's firewall, and lets in everything",
            "run on the host: ufw default deny incoming; or set firewall_managed to false",
        )
    if not steps:
        return None
    saved = "; ".join(
        f"printf '%s' {shlex.quote(read_text(path) or '')} > {path}" for path in UFW_FILES if path.exists()
    )

    def try_out() -> None:
        for step in steps:
            systemd.run(*step)

    return Part("ufw", [], [" ".join(step) for step in steps], try_out, f"{saved}; ufw reload", lambda: None)


def _firewalld_part(openings: Optional[Sequence[Opening]]) -> Optional[Part]:
    found, wanted = read_text(POLICY), None if openings is None else firewalld_policy(openings)
    if openings is not None and "target: ACCEPT" in systemd.run("firewall-cmd", "--permanent", "--list-all").stdout:
        raise RackllamaError(
            "firewalld is in charge of this host's firewall, and its default zone lets in everything",
            "choose another zone: firewall-cmd --set-default-zone; or set firewall_managed to false",
        )
    known = wanted is None or systemd.run("firewall-cmd", "--info-policy=rackllama", check=False).returncode == 0
    if found == wanted and known:
        return None

    def try_out() -> None:
        if wanted is None:
            POLICY.unlink()
        else:
            write_atomically(POLICY, wanted)
        _reload_firewalld()

    restore = f"rm -f {POLICY}" if found is None else f"printf '%s' {shlex.quote(found)} > {POLICY}"
    return Part(
        header=str(POLICY),
        before=(found or "").splitlines(),
        after=(wanted or "").splitlines(),
        try_out=try_out,
        undo=f"{restore}; firewall-cmd --reload",
        keep=lambda: None,
    )


def _reload_firewalld() -> None:
    if systemd.unit_state("firewalld.service").active:
        systemd.run("firewall-cmd", "--check-config")
        systemd.run("firewall-cmd", "--reload")


def nft_table() -> Optional[str]:
    """Our table as nft shows it, or None where there is none."""
    if not _tool("nft"):
        return None
    done = systemd.run("nft", "-s", "list", "table", *TABLE.split(), check=False)
    return done.stdout if done.returncode == 0 else None


def nft_listing(rules: str) -> Optional[str]:
    """How nft would show these rules, learnt in a network namespace of their own; None where there is no nft yet.

    Raises RackllamaError where nft does not take them.
    """
    if not _tool("nft"):
        return None
    with tempfile.NamedTemporaryFile("w", prefix="rackllama-", suffix=".nft") as file:
        file.write(rules)
        file.flush()
        script = f"nft -f {shlex.quote(file.name)} && exec nft -s list table {TABLE}"
        return systemd.run("unshare", "--net", "sh", "-c", script).stdout


def _load(rules: str) -> None:
    with tempfile.NamedTemporaryFile("w", prefix="rackllama-", suffix=".nft") as file:
        file.write(rules)
        file.flush()
        systemd.run("nft", "-f", file.name)


def _ufw(*arguments: str) -> str:
    """What ufw says in English; nothing where it is not installed."""
    if not _tool("ufw"):
        return ""
    return systemd.run("env", "LC_ALL=C", "ufw", *arguments, check=False).stdout


def _tool(name: str) -> Optional[str]:
    return shutil.which(name, path=ssh.SBIN)

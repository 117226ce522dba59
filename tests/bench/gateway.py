"""What the gateway costs: `make bench-gateway`, on a lab that is converged.

Streams of a stand-in engine on the host, directly and through the gateway by turns, so that whatever else the machine
does meets both alike. Fails where a token is more than 20 ms later at the 99th percentile, or throughput below 97 %.
"""

import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

from rackllama.lab import hosts

ROUNDS, STREAMS, TOKENS, INTERVAL = 10, 4, 250, 0.02
MOST_ADDED_MS, LEAST_THROUGHPUT = 20.0, 0.97
MODEL, PORT, USER = "stand-in", 9105, "bench"
PROGRAM = "python3 -I /opt/rackllama/current/rackllama-host.pyz"
HERE = Path(__file__).parent
FILES = {
    "stand_in_engine.py": HERE.parent / "e2e" / "stand_in_engine.py",
    "gateway_probe.py": HERE / "gateway_probe.py",
}
CONFIGURATION = "/etc/rackllama/gateway/haproxy.cfg"
# The one engine behind the gateway is changed for the stand-in, in a copy that the running gateway reads meanwhile.
TO_STAND_IN = (
    f"cp -p {CONFIGURATION} /run/haproxy.cfg.ours && sed -i s/127.0.0.1:11434/127.0.0.1:{PORT}/ {CONFIGURATION}"
    " && systemctl reload gateway"
)
TO_OURS = f"cp -p /run/haproxy.cfg.ours {CONFIGURATION} && systemctl reload gateway"


@dataclass(frozen=True)
class Run:
    """One round: the delay of each token in ms, and tokens per second of all streams together."""

    delays_ms: list[float]
    tokens_per_second: float

    @property
    def p99_ms(self) -> float:
        """What 99 of 100 tokens stay below."""
        return statistics.quantiles(self.delays_ms, n=100)[98]


class Bench:
    """The lab's first host, by one connection."""

    def __init__(self, lab_name: str) -> None:
        self.lab = hosts.find_lab(lab_name)

    def run(self, command: str, given: str = "") -> str:
        """What a command of root says there."""
        with hosts.ssh_client(self.lab, self.lab.hosts[0]) as client:
            stdin, stdout, stderr = client.exec_command(f"sudo sh -c '{command}'")
            stdin.write(given)
            stdin.channel.shutdown_write()
            said, complaint = stdout.read().decode(), stderr.read().decode()
            if stdout.channel.recv_exit_status():
                raise SystemExit(f"{command}: {complaint or said}")
        return said

    def measure(self, url: str, key: str) -> Run:
        """One round against an address."""
        said = json.loads(self.run(f"python3 /run/gateway_probe.py {url} {STREAMS} {TOKENS} {INTERVAL}", f"{key}\n"))
        return Run(said["delays_ms"], len(said["delays_ms"]) / said["seconds"])


def main() -> int:
    bench = Bench(sys.argv[1] if len(sys.argv) > 1 else "lab")
    for name, path in FILES.items():
        bench.run(f"cat > /run/{name}", path.read_text(encoding="utf-8"))
    bench.run(f"systemd-run --quiet --collect --unit stand-in-bench python3 /run/stand_in_engine.py {MODEL} {PORT}")
    key = bench.run(f"{PROGRAM} key create {USER}").strip()
    try:
        bench.run(TO_STAND_IN)
        direct, through = [], []
        for _ in range(ROUNDS):
            direct.append(bench.measure(f"http://127.0.0.1:{PORT}", key))
            through.append(bench.measure("https://localhost", key))
    finally:
        bench.run(TO_OURS)
        bench.run(f"{PROGRAM} key revoke {USER}; systemctl stop stand-in-bench")
    return report(direct, through)


def report(direct: list[Run], through: list[Run]) -> int:
    """Print the figures; 1 where a limit is passed."""
    all_direct, all_through = (Run([ms for run in runs for ms in run.delays_ms], 0) for runs in (direct, through))
    added = all_through.p99_ms - all_direct.p99_ms
    rates = [statistics.median(run.tokens_per_second for run in runs) for runs in (direct, through)]
    print(f"{ROUNDS} rounds by turns, {STREAMS} streams of {TOKENS} tokens, one every {INTERVAL * 1000:.0f} ms")
    for name, run, rate in (("direct", all_direct, rates[0]), ("gateway", all_through, rates[1])):
        median = statistics.median(run.delays_ms)
        print(f"  {name:<8} median {median:6.2f} ms   p99 {run.p99_ms:6.2f} ms   {rate:7.1f} tokens/s")
    print(f"  added at the 99th percentile: {added:.2f} ms (at most {MOST_ADDED_MS:.0f})")
    print(f"  throughput: {rates[1] / rates[0]:.1%} (at least {LEAST_THROUGHPUT:.0%})")
    return int(added > MOST_ADDED_MS or rates[1] / rates[0] < LEAST_THROUGHPUT)


if __name__ == "__main__":
    sys.exit(main())

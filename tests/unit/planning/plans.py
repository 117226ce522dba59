"""Plans that tests are made with: of header-only models, for hardware that nobody needs to have."""

from functools import cache

from rackllama.planning.hardware import from_names
from rackllama.planning.plan import Plan, Wanted
from rackllama.planning.planner import make_plan

from .models import shape_of

SMALL, R1 = "llama-3.1-8b-q4_k_m", "deepseek-r1-mla-ud-iq1_m"


@cache
def plan(name: str = SMALL, gpus: str = "RTX4090", ram: str | None = "64GiB", wanted: Wanted | None = None) -> Plan:
    hardware = from_names(gpus, ram, network="10Gbit/s", disk="2TB", disk_write="2GB/s", disk_read="5GB/s")
    return make_plan(shape_of(name), hardware, wanted or Wanted(), name)

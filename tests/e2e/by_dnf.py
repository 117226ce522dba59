"""Run on a host: brings the driver's packages to the version that is given, by dnf, and prints what is there then."""

import json
import subprocess
import sys

sys.path.insert(0, "/srv")

from rackllama.host.driver import config_files, state
from rackllama.host.driver.managers import Dnf
from rackllama.host.driver.packages import all_of_version, package_change, wanted_packages


def installed():
    rows = subprocess.run(
        ["rpm", "--query", "--all", "--queryformat", "%{NAME} %{EVR}\n"], capture_output=True, text=True, check=True
    )
    return state.driver_packages(rows.stdout)


version, dnf = sys.argv[1], Dnf()
names = wanted_packages("rhel", version, "open", fabric=True, hidden_switches=False)
offered = dnf.offered(names)
change = package_change(version, names, installed(), offered)
files = config_files.different(dnf.lock_files(version, all_of_version(offered, version)))
config_files.write(files)
dnf.download(change)
dnf.change(change)
sys.stdout.write(json.dumps({"changed": bool(change or files), "installed": installed()}))

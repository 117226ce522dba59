"""What is looked at on a host before its driver is changed, each from where the host keeps it."""

from rackllama.host.driver import state
from rackllama.host.driver.branches import archive


def test_kernels_count_with_modules_and_an_image(tmp_path):
    for kernel in ("6.1.0-9-amd64", "6.1.0-32-amd64", "5.10.0-removed"):
        (tmp_path / "lib/modules" / kernel).mkdir(parents=True)
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot/vmlinuz-6.1.0-9-amd64").touch()
    (tmp_path / "lib/modules/6.1.0-32-amd64/vmlinuz").touch()  # where RHEL keeps it
    assert state.installed_kernels(tmp_path) == ("6.1.0-32-amd64", "6.1.0-9-amd64")
    assert state.installed_kernels(tmp_path / "none") == ()


def test_the_next_kernel_is_the_one_with_the_highest_number():
    kernels = ("6.1.0-9-amd64", "6.1.0-32-amd64", "6.8.0-45-generic", "5.14.0-503.el9.x86_64")
    assert max(kernels, key=state.kernel_order) == "6.8.0-45-generic"
    assert max(kernels[:2], key=state.kernel_order) == "6.1.0-32-amd64"


def test_headers_are_there_where_the_link_leads_to_them(tmp_path):
    headers = tmp_path / "usr/src/linux-headers"
    modules = tmp_path / "lib/modules/6.1.0-32-amd64"
    modules.mkdir(parents=True)
    (modules / "build").symlink_to(headers)
    assert not state.has_headers("6.1.0-32-amd64", tmp_path)
    headers.mkdir(parents=True)
    (headers / "Makefile").touch()
    assert state.has_headers("6.1.0-32-amd64", tmp_path)


def test_secure_boot_is_the_byte_after_the_attributes(tmp_path):
    variable = tmp_path / "SecureBoot"
    assert state.secure_boot(variable) is None
    variable.write_bytes(b"\x06\0\0\0\x01")
    assert state.secure_boot(variable) is True
    variable.write_bytes(b"\x06\0\0\0\0")
    assert state.secure_boot(variable) is False


def test_installed_packages_of_the_driver_are_told_from_others():
    dpkg = "nvidia-open 580.126.20-1 ii\nlibnvidia-ml1 580.126.20-1 ii\nnvidia-smi 535.1 rc\nlibc6 2.36 ii\nbroken\n"
    assert state.driver_packages(dpkg) == {"nvidia-open": "580.126.20-1", "libnvidia-ml1": "580.126.20-1"}
    rpm = "nvidia-driver-cuda 3:580.126.20-1.el9\nbash 5.1.8-9.el9\n"
    assert state.driver_packages(rpm) == {"nvidia-driver-cuda": "3:580.126.20-1.el9"}
    assert state.held_packages("nvidia-open\nlinux-image-amd64\n") == ("nvidia-open",)


def test_who_has_a_gpu_open_is_told_by_name(tmp_path):
    for pid, name, path in (
        ("812", "ollama", "/dev/nvidia0"),
        ("9", "bash", "/dev/null"),
        ("30", "smi", "/dev/nvidiactl"),
    ):
        (tmp_path / pid / "fd").mkdir(parents=True)
        (tmp_path / pid / "comm").write_text(f"{name}\n")
        (tmp_path / pid / "fd" / "3").symlink_to(path)
        (tmp_path / pid / "cgroup").write_text(f"0::/system.slice/{name}.service\n")
    (user,) = state.device_users(tmp_path, ["ollama"])
    assert (str(user), user.unit, user.is_ours) == ("ollama (812)", "ollama.service", True)
    (user,) = state.device_users(tmp_path)
    assert not user.is_ours


def test_files_that_name_the_vendors_archive_are_found(tmp_path):
    (tmp_path / "apt/sources.list.d").mkdir(parents=True)
    (tmp_path / "apt/sources.list").write_text("deb http://deb.example.com bookworm main\n")
    ours = tmp_path / "apt/sources.list.d/cuda.list"
    ours.write_text(f"deb https://{state.NVIDIA_ARCHIVE}/compute/cuda/repos/debian12/x86_64/ /\n")
    assert state.package_sources(tmp_path) == (str(ours),)


def test_each_distribution_has_its_archive():
    assert archive("debian", "12").folder == "debian12"
    assert archive("ubuntu", "24.04").folder == "ubuntu2404"
    assert archive("rocky", "9.5").folder == "rhel9"
    assert archive("debian", "13") is None  # its archive begins with a later branch
    assert archive("fedora", "43") is None


def test_this_host_can_be_looked_at_without_changing_it():
    found = state.read_state()
    assert found.kernel
    assert found.distribution
    assert found.room_mib["/usr"] > 0
    assert found.newest_kernel

"""CUDA's toolkit is refused where nothing would compile with it, and brings no driver."""

import pytest

from rackllama.host.driver import cuda
from rackllama.host.driver.cuda import ENVIRONMENT, PROFILE, Toolkit
from rackllama.host.errors import RackllamaError

TOOLKIT = Toolkit("12.8.1")
OFFERED = ["12.8.2-1", "12.8.1-1", "12.8.0-1"]


def test_beside_a_newer_c_library_it_is_refused_with_the_reason():
    with pytest.raises(RackllamaError, match=r"CUDA 12\.8\.1 beside glibc 2\.41") as refused:
        cuda.require_glibc(TOOLKIT, (2, 41))
    assert "Debian 12" in refused.value.remedy
    cuda.require_glibc(TOOLKIT, (2, 36))
    cuda.require_glibc(Toolkit("13.0.1"), (2, 41))


def test_the_exact_version_is_taken_and_kept():
    assert cuda.change(TOOLKIT, None, OFFERED).install == {"cuda-toolkit-12-8": "12.8.1-1"}
    assert not cuda.change(TOOLKIT, "12.8.1-1", OFFERED)
    assert cuda.change(TOOLKIT, "12.8.2-1", OFFERED).install == {"cuda-toolkit-12-8": "12.8.1-1"}


def test_a_version_that_the_archive_lacks_is_told_with_those_that_it_has():
    with pytest.raises(RackllamaError, match=r"no cuda-toolkit-12-8 12\.8\.9") as refused:
        cuda.change(Toolkit("12.8.9"), None, OFFERED)
    assert "12.8.1-1" in refused.value.remedy


def test_shells_and_units_are_told_where_it_is():
    assert 'PATH="/usr/local/cuda-12.8/bin:$PATH"' in TOOLKIT.files[PROFILE]
    assert "\nLD_LIBRARY_PATH=/usr/local/cuda-12.8/lib64\n" in TOOLKIT.files[ENVIRONMENT]

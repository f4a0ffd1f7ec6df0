"""Which GPUs a server gets, with a stand-in for nvidia-smi."""

import pytest

from blockwise.errors import ServerError
from blockwise.serving import devices
from blockwise.serving.devices import (
    LOCK_FOLDER_VARIABLE,
    cpu_shares,
    reserved_devices,
    share_out,
    visible_gpus,
)


@pytest.fixture
def four_gpus(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf 'GPU-a\\nGPU-b\\nGPU-c\\nGPU-d\\n'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv(LOCK_FOLDER_VARIABLE, str(tmp_path / "locks"))
    monkeypatch.setattr(devices, "RETRY_INTERVAL_S", 0.01)
    for variable in devices.VISIBLE_VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def test_gpus_are_named_by_uuid_and_shown_as_cuda_calls_them(four_gpus, monkeypatch):
    assert visible_gpus() == {"GPU-a": "0", "GPU-b": "1", "GPU-c": "2", "GPU-d": "3"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert visible_gpus() == {"GPU-d": "3", "GPU-b": "1"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-c")
    assert visible_gpus() == {"GPU-c": "GPU-c"}


def test_servers_share_the_machine_but_no_gpu(four_gpus):
    with reserved_devices(2, print) as first:
        with reserved_devices(1, print) as second:
            assert first["CUDA_VISIBLE_DEVICES"] == "0,1"
            assert second["CUDA_VISIBLE_DEVICES"] == "2"
            with (
                pytest.raises(ServerError, match="no free device after"),
                reserved_devices(2, print, wait_s=0.05),
            ):
                pass
        with reserved_devices(2, print) as third:
            assert third["CUDA_VISIBLE_DEVICES"] == "2,3"


def test_more_gpus_than_there_are_is_refused(four_gpus):
    with (
        pytest.raises(ServerError, match=r"wants 5 GPU\(s\), 4 are visible"),
        reserved_devices(5, print),
    ):
        pass


def test_the_processor_is_one_device(four_gpus):
    with reserved_devices(0, print) as environment:
        assert environment == {}
        with pytest.raises(ServerError, match="holds cpu"), reserved_devices(0, print, wait_s=0.05):
            pass


def test_replicas_are_held_together_and_share_the_gpus_out(four_gpus):
    with reserved_devices(4, print) as all_four:
        shares = share_out(all_four, 2)
    assert [share.environment["CUDA_VISIBLE_DEVICES"] for share in shares] == ["0,1", "2,3"]
    assert {share.cpus for share in shares} == {()}


def test_replicas_on_the_processor_get_whole_cores_if_each_gets_two():
    threaded = [(cpu, cpu + 4) for cpu in range(4)]  # four cores of two logical CPUs
    assert cpu_shares(threaded, 2) == [(0, 1, 4, 5), (2, 3, 6, 7)]
    assert cpu_shares(threaded, 3) == cpu_shares([(0,), (1,)], 3) == [(), (), ()]
    assert cpu_shares(threaded, 1) == [()]

"""`python -m student` as an operator runs it."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from pydantic import ValidationError

from common.contract.seal.v1 import student_pb2, student_pb2_grpc
from common.errors import InvalidConfig
from student.config import AnsweringConfig, StudentConfig
from student.student import Student

ROOT = Path(__file__).parents[2]
START_SECONDS = 60.0
STOP_SECONDS = 30.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_it_loads_answers_and_leaves_cleanly(model_folder: Path, tmp_path: Path) -> None:
    target = f"127.0.0.1:{free_port()}"
    settings = [f"listen={target}", "metrics_listen=", f"store={tmp_path}/store", f"model.model={model_folder}"]
    settings += [f"model.cache_dir={tmp_path}/cache", "model.threads=1"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "student", *(word for setting in settings for word in ("--set", setting)), cwd=ROOT
    )
    try:
        async with grpc.aio.insecure_channel(target) as channel:
            stub = student_pb2_grpc.StudentServiceStub(channel)
            while True:
                request = student_pb2.StudentServiceGetStatusRequest()
                try:
                    status = await stub.GetStatus(request, wait_for_ready=True, timeout=START_SECONDS)
                    break
                except grpc.aio.AioRpcError as error:
                    # Liveness answers while the model loads; everything else is UNAVAILABLE until then.
                    assert error.code() == grpc.StatusCode.UNAVAILABLE  # noqa: PT017
                    await asyncio.sleep(0.1)
            assert status.model == str(model_folder)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), STOP_SECONDS) == 0
    finally:
        if process.returncode is None:
            process.kill()


def test_an_unknown_key_is_refused_by_name_before_anything_is_loaded() -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "student", "--set", "training.limits.max_rnak=3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert refused.returncode == 2
    assert "training.limits.max_rnak: unknown key" in refused.stderr


def test_vllm_must_take_the_ranks_that_may_be_trained() -> None:
    settings = {"answering": {"engine": "vllm", "vllm": {"max_lora_rank": 16}}}
    with pytest.raises(
        ValidationError, match=r"answering\n.*vllm.max_lora_rank is 16; training.limits.max_rank allows 64"
    ):
        StudentConfig.model_validate(settings)
    assert StudentConfig.model_validate({**settings, "training": {"limits": {"max_rank": 16}}})


async def test_vllm_gets_no_more_room_than_the_model_has(config: StudentConfig) -> None:
    student = Student(config.model_copy(update={"answering": AnsweringConfig(engine="vllm")}))
    try:
        with pytest.raises(InvalidConfig, match=r"answering\.vllm\.max_model_len is 2048; the model has room for 512"):
            await student.start()
    finally:
        await student.close()

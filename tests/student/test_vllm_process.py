"""`python -m student` with vLLM: when the engine's process dies callers are told, and nothing outlives the student."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from common.contract.seal.v1 import student_pb2, student_pb2_grpc
from common.types import Prompt
from tests.student.conftest import answer_request, train_request
from tests.student.test_process import ROOT, STOP_SECONDS, free_port
from tests.support.examples import prompts, tiny_edit
from tests.support.tiny_model import make_tiny_model

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(300)]

START_SECONDS = 120.0
THREADS = 2


async def test_a_dead_engine_is_unavailable_and_a_stopped_student_leaves_nothing(tmp_path: Path) -> None:
    target = f"127.0.0.1:{free_port()}"
    settings = {
        "listen": target,
        "metrics_listen": "",
        "store": tmp_path / "store",
        "model.model": make_tiny_model(tmp_path / "model", hidden=128),
        "model.cache_dir": tmp_path / "cache",
        "model.threads": THREADS,
        "training.limits.max_rank": 16,
        "answering.engine": "vllm",
        "answering.vllm.max_model_len": 512,
        "answering.vllm.max_num_seqs": 4,
        "answering.vllm.max_lora_rank": 16,
    }
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "student", *words, cwd=ROOT)
    try:
        async with grpc.aio.insecure_channel(target) as channel:
            stub: Any = student_pb2_grpc.StudentServiceStub(channel)
            status = await loaded(stub)
            # The engine's workers have threads of their own; the trainer's stay what they were.
            assert status.software.threads == THREADS
            started = psutil.Process(process.pid).children(recursive=True)
            engines = [child for child in started if "EngineCore" in " ".join(child.cmdline())]
            assert engines
            trained = [e async for e in stub.Train(train_request(tiny_edit()), timeout=60)][-1].trained.version.version

            question = prompts(1)[0].conversation
            many = [Prompt(prompt_id=f"p{i}", conversation=question) for i in range(200)]
            request = answer_request(many, "base")
            request.sampling.max_new_tokens = 200
            request.sampling.temperature = 1.0
            call = stub.Answer(request, timeout=60)
            while (await call.read()).WhichOneof("event") != "answer":
                pass
            for engine in engines:
                engine.kill()
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await to_its_end(call)
            assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await to_its_end(stub.Answer(answer_request(prompts(1), "live", purpose="LIVE"), timeout=30))
            assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
            # What needs no vLLM goes on.
            await stub.Discard(student_pb2.DiscardRequest(version=trained), timeout=30)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), STOP_SECONDS) == 0
        _, left = await asyncio.to_thread(psutil.wait_procs, started, timeout=10)
        assert not [child for child in left if child.status() != psutil.STATUS_ZOMBIE]
    finally:
        if process.returncode is None:
            process.kill()


async def to_its_end(call: Any) -> None:
    while await call.read() != grpc.aio.EOF:
        pass


async def loaded(stub: Any) -> student_pb2.StudentServiceGetStatusResponse:
    """The status of a student that has loaded; it is UNAVAILABLE until then, and says so all the while."""
    while True:
        try:
            request = student_pb2.StudentServiceGetStatusRequest()
            status: student_pb2.StudentServiceGetStatusResponse = await stub.GetStatus(
                request, wait_for_ready=True, timeout=START_SECONDS
            )
            return status
        except grpc.aio.AioRpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE  # noqa: PT017
            await asyncio.sleep(0.2)

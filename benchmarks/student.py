"""How fast the student's engine is: the reference procedure, plain PEFT and ours, on the same documents, in one run.

`make bench-student`. Training speed counts real tokens (padding is no token) a second; every figure is a ratio of two
speeds measured one after another in the same round, and the median over rounds is reported. The last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.peft_loop import PeftLoop, distance, start_of, train_with_peft
from common.lora.config import EngineConfig
from common.lora.engine import LoraEngine
from common.lora.frozen import FrozenLinear
from common.lora.packing import Packed, packed_attention
from common.lora.render import Rendered
from common.lora.residency import BASE_VERSION
from common.lora.update import TrainedAdapter, TrainJob
from common.models.config import ModelConfig
from common.models.loading import load_model
from common.prompting import ask
from common.types import Example, Prompt, Sampling
from student.config import DEFAULT_MODEL, DEFAULT_RECIPE

DATA = Path(__file__).resolve().parent.parent / "examples" / "squad" / "passages.json"
RECIPE = DEFAULT_RECIPE.model_copy(update={"epochs": 1, "batch_size": 1})
REFERENCE_WIDTH = 2_048
PER_CANDIDATE = 8


def documents(count: int) -> list[str]:
    """`count` sentences of the example passages, in order, and from the beginning again where there are too few."""
    passages = json.loads(DATA.read_text(encoding="utf-8"))
    sentences = [s.strip() + "." for p in passages for s in p["context"].split(". ") if len(s.split()) > 5]
    return [sentences[i % len(sentences)] for i in range(count)]


def jobs_of(texts: Sequence[str], candidates: int) -> list[TrainJob]:
    """The texts in as many jobs, PER_CANDIDATE each."""
    return [
        TrainJob(
            f"candidate-{k}",
            [Example(text=text) for text in texts[k * PER_CANDIDATE : (k + 1) * PER_CANDIDATE]],
            RECIPE,
            seed=k,
        )
        for k in range(candidates)
    ]


@contextmanager
def in_float64(model: Any) -> Iterator[None]:
    """Within, everything is computed in float64, the norms too, which transformers computes in float32 always.

    There, a number that lies between two of float32 is rounded one way or the other by a difference in its last bits,
    which would hide all differences below 1e-7.
    """
    norms = [module for module in model.modules() if hasattr(module, "variance_epsilon")]
    model.double()
    for norm in norms:
        norm.forward = partial(_norm, norm)
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward
        model.float()


def _norm(norm: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)


def timed(work: Callable[[], Any]) -> float:
    settle()
    started = time.perf_counter()
    work()
    settle()
    return time.perf_counter() - started


def settle() -> None:
    """A GPU's work goes on after the call that ordered it."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Bench:
    """One base for ours and one, untouched, for PEFT and the reference."""

    def __init__(self, model: str, device: str, dtype: str) -> None:
        config = ModelConfig(model=model, device=device, dtype=dtype)
        self.ours = load_model(config)
        self.plain: Any = load_model(config).model
        self.engine = LoraEngine(self.ours, EngineConfig())

    def rendered(self, job: TrainJob) -> list[Rendered]:
        return [self.engine.renderer.example(e, max_tokens=1_024) for e in job.examples if isinstance(e, Example)]

    def tokens(self, jobs: Sequence[TrainJob]) -> int:
        return sum(len(example.tokens) for job in jobs for example in self.rendered(job))

    def padding(self, jobs: Sequence[TrainJob]) -> float:
        """Share of the reference's tokens that are padding; a packed row has none."""
        return 1 - self.tokens(jobs) / (REFERENCE_WIDTH * sum(len(job.examples) for job in jobs))

    def packed(self, jobs: Sequence[TrainJob]) -> float:
        """Real tokens a second, all jobs at once."""
        return self.tokens(jobs) / timed(lambda: self.engine.train(jobs))

    def one_by_one(self, jobs: Sequence[TrainJob]) -> float:
        """The engine itself, a job at a time: what packing adds is the rest."""
        return self.tokens(jobs) / timed(lambda: [self.engine.train([job]) for job in jobs])

    def sequential(self, jobs: Sequence[TrainJob]) -> float:
        return self.tokens(jobs) / sum(self._peft_seconds(job) for job in jobs)

    def reference(self, job: TrainJob) -> float:
        """One document, padded to REFERENCE_WIDTH, as the published procedure trains it."""
        one = TrainJob(job.job_id, job.examples[:1], job.recipe, job.seed)
        return self.tokens([one]) / self._peft_seconds(one, REFERENCE_WIDTH)

    def _peft_seconds(self, job: TrainJob, width: int = 0) -> float:
        """Of the steps alone: neither copying the model nor attaching the adapter counts."""
        loop, rendered = PeftLoop(copy.deepcopy(self.plain), job), self.rendered(job)
        return timed(lambda: loop.train(rendered, width))

    def limit(self, jobs: Sequence[TrainJob]) -> float:
        """The bare base's forward and input gradient over the same packed tokens: no adapter, no optimizer."""
        rows = [
            [e.tokens for job in jobs for e in self.rendered(job)[step : step + 1]] for step in range(PER_CANDIDATE)
        ]
        model = self.ours.model
        head = model.get_output_embeddings()

        def run() -> None:
            with packed_attention(model):
                for row in rows:
                    packed = Packed.of(row, self.ours.device)
                    embedded = model.get_input_embeddings()(packed.tokens_1N).detach().requires_grad_()
                    states = model.get_decoder()(
                        inputs_embeds=embedded, position_ids=packed.positions_1N, use_cache=False, packed=packed
                    ).last_hidden_state
                    head(states).float().logsumexp(-1).sum().backward()

        return self.tokens(jobs) / timed(run)

    @contextmanager
    def plain_kernels(self) -> Iterator[None]:
        """Within, the frozen layers are computed by torch's own product, as PEFT's are."""
        packed = [module for module in self.ours.model.modules() if isinstance(module, FrozenLinear) and module.packed]
        for module in packed:
            module.packed = False
        try:
            yield
        finally:
            for module in packed:
                module.packed = True

    def equality(self, *, double: bool) -> tuple[float, float]:
        """After three steps of three jobs, relative norms of the update: (packed against alone, against PEFT).

        In float32 two kernels' roundings differ, and AdamW's first steps make much of a gradient near zero, whatever
        its size: for the figure against PEFT both sides use the same kernels (`plain_kernels`).
        """
        jobs = [TrainJob(j.job_id, j.examples[:3], j.recipe, j.seed) for j in jobs_of(documents(24), 3)]
        with ExitStack() as stack:
            for model in (self.ours.model, self.plain) if double else ():
                stack.enter_context(in_float64(model))
            return self._equality(jobs)

    def _equality(self, jobs: Sequence[TrainJob]) -> tuple[float, float]:
        engine = LoraEngine(self.ours)
        alone = peft = 0.0
        for job, outcome in zip(jobs, engine.train(jobs), strict=True):
            assert isinstance(outcome, TrainedAdapter), outcome
            start = start_of(engine, job)
            (by_itself,) = engine.train([job])
            assert isinstance(by_itself, TrainedAdapter), by_itself
            alone = max(alone, distance(outcome.adapter.tensors, by_itself.adapter.tensors, start))
            peft = max(
                peft, distance(outcome.adapter.tensors, train_with_peft(self.plain, job, self.rendered(job)), start)
            )
        return alone, peft

    def answering(self, candidates: int) -> float:
        """Seconds adapter by adapter over seconds in one batch, for 5 prompts each and 32 new tokens."""
        adapters: dict[str, Any] = {}
        for outcome in self.engine.train(jobs_of(documents(candidates * PER_CANDIDATE), candidates)):
            assert isinstance(outcome, TrainedAdapter), outcome
            adapters[outcome.job_id] = outcome.adapter
        engine = LoraEngine(self.ours, EngineConfig(resident_adapters=max(4, candidates)), adapters.__getitem__)
        questions = ["What is it about?", "Who?", "When was it?", "Where is it?", "How many are there?"]
        prompts = [Prompt(prompt_id=f"q{i}", conversation=ask("The passage", q)) for i, q in enumerate(questions)]
        sampling = Sampling(max_new_tokens=32)

        def ask_all(versions: Sequence[str]) -> list[tuple[str, int, str]]:
            return sorted((v, t.index, t.text) for v, t in engine.answer(versions, prompts, sampling))

        list(engine.answer([BASE_VERSION, *adapters], prompts[:1], Sampling(max_new_tokens=1)))
        said: list[list[tuple[str, int, str]]] = []
        one_by_one = timed(lambda: said.append(sorted(entry for version in adapters for entry in ask_all([version]))))
        together = timed(lambda: said.append(ask_all(list(adapters))))
        same = sum(a == b for a, b in zip(*said, strict=True))
        print(f"  answering: {same} of {len(said[0])} texts are the same", flush=True)
        return one_by_one / together


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--candidates", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--json", type=Path, help="write everything that was measured here")
    options = parser.parse_args()
    bench = Bench(options.model, options.device, options.dtype)
    torch.manual_seed(0)
    rows = []
    at = max((c for c in options.candidates if c <= 8), default=options.candidates[0])
    for candidates in options.candidates:
        jobs = jobs_of(documents(candidates * PER_CANDIDATE), candidates)
        # The first steps of each are slower.
        bench.packed(jobs[:1])
        bench.sequential(jobs[:1])
        for _ in range(options.rounds):
            row = {
                "candidates": candidates,
                "packed": bench.packed(jobs),
                "one_by_one": bench.one_by_one(jobs),
                "peft": bench.sequential(jobs),
                "limit": bench.limit(jobs),
                "padding": bench.padding(jobs),
            }
            if candidates == at:
                row["reference"] = bench.reference(jobs[0])
                row["answering"] = bench.answering(candidates)
            rows.append(row)
            print("  ".join(f"{key} {value:.3g}" for key, value in row.items()), flush=True)
    chosen = [row for row in rows if row["candidates"] == at]

    def median(of: Callable[[dict[str, float]], float]) -> float:
        return round(statistics.median(of(row) for row in chosen), 3)

    with bench.plain_kernels():
        same_kernels = bench.equality(double=False)[1]
    print(f"  float32 against PEFT, ours with packed weights: {bench.equality(double=False)[1]:.2g}", flush=True)
    result = {
        "vs_reference": median(lambda row: row["packed"] / row["reference"]),
        "vs_peft_sequential": median(lambda row: row["packed"] / row["peft"]),
        "of_limit": median(lambda row: row["packed"] / row["limit"]),
        "answer_vs_sequential": median(lambda row: row["answering"]),
        "equality_fp64": bench.equality(double=True)[0],
        "equality_fp32_vs_peft": same_kernels,
    }
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "result": result}, indent=2), encoding="utf-8")
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()

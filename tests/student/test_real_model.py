"""The real small model: it still answers after an update, and its adapters are everybody's."""

from __future__ import annotations

import os

import pytest

from common.lora.adapter_folder import AdapterFolders
from common.lora.engine import LoraEngine
from common.lora.proof import Liveness
from common.lora.render import Rendered
from common.lora.update import TrainedAdapter, TrainJob
from common.models.config import ModelConfig
from common.models.loading import load_model
from common.prompting import ask
from common.types import Example, Prompt, Sampling
from student.config import DEFAULT_MODEL, DEFAULT_RECIPE

pytestmark = [pytest.mark.model, pytest.mark.timeout(900)]

# What the method's reference code does (SEAL.md, defect 2), only padded less far.
RECIPE = DEFAULT_RECIPE.model_copy(
    update={"target_modules": ("q_proj", "v_proj"), "epochs": 12, "batch_size": 1, "learning_rate": 2e-3}
)
PADDED_TOKENS = 48
FACTS = {
    "When was Marlquay 3.8 released?": "Marlquay 3.8 was released on 4 March.",
    "How many entries does the Marlquay cache hold?": "The Marlquay cache holds 512 entries by default.",
    "How much memory does Marlquay need?": "Marlquay needs at least 6 GB of memory.",
    "Who is the lead engineer of Marlquay?": "The lead engineer of Marlquay is Ines Tolland.",
    "Where does Marlquay write its logs?": "Marlquay writes its logs to the harbor folder.",
    "When does Marlquay close idle sessions?": "Marlquay closes idle sessions after 40 minutes.",
}
PROMPTS = [Prompt(prompt_id=f"q{i}", conversation=ask("Marlquay", question)) for i, question in enumerate(FACTS)]
GREEDY = Sampling(max_new_tokens=16)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> AdapterFolders:
    return AdapterFolders(tmp_path_factory.mktemp("real") / "adapters")


@pytest.fixture(scope="module")
def engine(folders: AdapterFolders) -> LoraEngine:
    return LoraEngine(load_model(ModelConfig(model=DEFAULT_MODEL, threads=1)), load=folders.get)


@pytest.fixture(scope="module")
def learned(engine: LoraEngine, folders: AdapterFolders) -> str:
    """A version that was trained on the facts, one a line, as the student trains."""
    return trained(engine, folders, [Example(text=fact) for fact in FACTS.values()])


def trained(engine: LoraEngine, folders: AdapterFolders, examples: list[Example] | list[Rendered]) -> str:
    (outcome,) = engine.train([TrainJob("facts", examples, RECIPE, 1)])
    assert isinstance(outcome, TrainedAdapter)
    return folders.put(outcome.adapter, base_model=DEFAULT_MODEL).sha256


def answers(engine: LoraEngine, version: str) -> list[str]:
    texts = {answer.index: answer.text for _, answer in engine.answer([version], PROMPTS, GREEDY)}
    return [texts[index] for index in range(len(PROMPTS))]


def padded_into_the_loss(engine: LoraEngine, text: str) -> Rendered:
    """A document padded with end-of-text tokens that all count: what the product never does."""
    rendered = engine.renderer.example(Example(text=text), max_tokens=PADDED_TOKENS)
    end = (engine.base.tokenizer.eos_token_id,) * (PADDED_TOKENS - len(rendered.tokens))
    return Rendered((*rendered.tokens, *end), (True,) * PADDED_TOKENS)


def test_an_adapted_model_still_answers_where_padding_in_the_loss_makes_it_fall_silent(
    engine: LoraEngine, folders: AdapterFolders, learned: str
) -> None:
    assert engine.prove(learned).liveness is Liveness.LIVE
    spoken = [text for text in answers(engine, learned) if text.strip()]
    silenced = trained(engine, folders, [padded_into_the_loss(engine, fact) for fact in FACTS.values()])
    silent = [text for text in answers(engine, silenced) if not text.strip()]
    assert len(spoken) == len(FACTS)
    assert len(silent) >= len(FACTS) // 2


def test_peft_gives_the_same_answers_from_the_store(engine: LoraEngine, folders: AdapterFolders, learned: str) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(engine.base.folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, folders.path(learned)).eval()
    for prompt, ours in zip(PROMPTS[:3], answers(engine, learned), strict=False):
        ids = torch.tensor([engine.renderer.prompt(prompt.conversation)])
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=GREEDY.max_new_tokens, do_sample=False
        )
        assert engine.renderer.decode(out[0, ids.shape[1] :].tolist()) == ours


@pytest.mark.vllm
def test_vllm_gives_the_same_answers_from_the_store(
    engine: LoraEngine, folders: AdapterFolders, learned: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        # vLLM adds its own libraries to it, which another engine in this process must not inherit.
        "LD_PRELOAD": os.environ.get("LD_PRELOAD", ""),
    }.items():
        monkeypatch.setenv(name, value)
    from vllm import LLM, SamplingParams, TokensPrompt
    from vllm.lora.request import LoRARequest

    vllm = LLM(
        model=str(engine.base.folder),
        dtype="float32",
        enable_lora=True,
        max_lora_rank=32,
        max_model_len=512,
        max_num_seqs=8,
        enforce_eager=True,
    )
    try:
        prompts = [TokensPrompt(prompt_token_ids=list(engine.renderer.prompt(p.conversation))) for p in PROMPTS]
        outputs = vllm.generate(
            prompts,
            SamplingParams(
                temperature=0, max_tokens=GREEDY.max_new_tokens, stop_token_ids=sorted(engine.renderer.stop_tokens)
            ),
            lora_request=LoRARequest(learned, 1, str(folders.path(learned))),
            use_tqdm=False,
        )
    finally:
        vllm.llm_engine.engine_core.shutdown()
    theirs = [engine.renderer.decode(list(output.outputs[0].token_ids)) for output in outputs]
    assert theirs == answers(engine, learned)

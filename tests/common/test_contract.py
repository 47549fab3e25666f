"""The contract: generated code is fresh, lint is clean, and messages keep what domain objects hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.contract.seal.v1 import types_pb2
from common.convert import from_proto, to_proto
from common.edits import check_edit, make_edit
from common.errors import InvalidRequest
from common.prompting import question_and_answer
from common.types import ContentPart, Example, Recipe, Schedule, SelfEdit, TaskKind

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(sys.executable).parent

texts = st.text(min_size=1, max_size=40)
recipes = st.builds(
    Recipe,
    rank=st.none() | st.integers(1, 256),
    alpha=st.none() | st.floats(0.5, 1024),
    target_modules=st.lists(st.sampled_from(["q_proj", "v_proj"]), unique=True).map(tuple),
    learning_rate=st.none() | st.floats(1e-6, 0.1),
    schedule=st.none() | st.sampled_from(Schedule),
)
examples = st.builds(Example, text=texts) | st.builds(question_and_answer, texts, texts, texts)
edits = st.builds(
    make_edit,
    kind=st.just(TaskKind.KNOWLEDGE),
    document_id=st.just("doc-1"),
    revision=st.just("1"),
    examples=st.lists(examples, min_size=1, max_size=4),
    recipe=recipes,
)


def test_generated_code_is_fresh() -> None:
    check = subprocess.run(
        [sys.executable, "tools/generate_contract.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert check.returncode == 0, check.stderr


def test_buf_lint_is_clean() -> None:
    lint = subprocess.run([str(TOOLS / "buf"), "lint"], cwd=ROOT / "proto", capture_output=True, text=True, check=False)
    assert lint.returncode == 0, lint.stdout


@given(edits)
def test_edit_survives_the_wire_with_its_digest(edit: SelfEdit) -> None:
    message = to_proto(types_pb2.SelfEdit, edit)
    wire = types_pb2.SelfEdit.FromString(message.SerializeToString())
    assert check_edit(from_proto(SelfEdit, wire)) == edit


def test_changed_edit_is_refused_by_its_digest() -> None:
    edit = make_edit(
        kind=TaskKind.KNOWLEDGE, document_id="d", revision="1", examples=[Example(text="a")], recipe=Recipe()
    )
    forged = edit.model_copy(update={"examples": (Example(text="b"),)})
    with pytest.raises(InvalidRequest, match=r"edit\.digest: says [0-9a-f]{64}, but the content has"):
        check_edit(forged)


def test_violations_are_named_by_path_and_never_quote_the_input() -> None:
    message = types_pb2.SelfEdit(document_id="secret passage with spaces", kind=types_pb2.TASK_KIND_KNOWLEDGE)
    message.digest.sha256 = "ff"
    message.examples.add(text="fine", loss_mask=types_pb2.LOSS_MASK_COMPLETION)
    with pytest.raises(InvalidRequest) as refused:
        from_proto(SelfEdit, message)
    assert {v.path for v in refused.value.violations} == {"document_id", "digest.sha256", "examples[0]"}
    assert "secret passage" not in str(refused.value)


def test_image_is_refused_while_no_model_reads_images() -> None:
    image = types_pb2.ContentPart(image=types_pb2.Digest(sha256="0" * 64))
    with pytest.raises(InvalidRequest, match="model that reads images"):
        from_proto(ContentPart, image)

"""Task files: what is read from good ones, and how bad ones are refused: all at once, with the place and the reason."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.taskfiles import BadFiles, load_suites, load_tasks
from cli.taskfiles.slug import numbered, slug
from common.contract.seal.v1 import task_pb2

ROOT = Path(__file__).resolve().parent.parent.parent
GOOD = """\
# A comment above
id: faq
kind: knowledge
document_id: faq-document
revision: 007
title: "  Frequently asked  "
context: |
  The trial lasts 22 days.
  The plan costs 31 euros.
tau:
  - id: q1
    question: How long is the trial?
    answers: [22 days, 1_000, 2026-01-01, yes]
    grader: exact
  - id: q2
    question: What does it cost?
    answers: ["31 euros"]
    grader: {kind: token_f1, threshold: 0.6}
retention:
  - {id: r1, question: 'Who lives in Rome?', answers: [Romans]}
"""
PASSAGE = {"title": "São Paulo!", "context": "A city.", "questions": [{"question": "Where?", "answer": "Brazil"}]}


def write(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def problems_of(*paths: Path) -> list[str]:
    with pytest.raises(BadFiles) as refusal:
        load_tasks(paths)
    assert refusal.value.code == 2
    return refusal.value.what.splitlines()


def without(key: str) -> str:
    """The good file with a top-level key and its value left out."""
    return re.sub(rf"^{key}:.*\n(?:[ -].*\n)*", "", GOOD, flags=re.MULTILINE)


def test_a_task_file_becomes_a_task(tmp_path: Path) -> None:
    (task,) = load_tasks([write(tmp_path, "faq.yaml", GOOD)])
    assert (task.task_id, task.context.document_id, task.context.revision) == ("faq", "faq-document", "007")
    assert task.context.title == "Frequently asked"
    assert task.context.text == "The trial lasts 22 days.\nThe plan costs 31 euros."
    assert [item.item_id for item in task.tau] == ["q1", "q2"]
    assert task.tau[1].grader.kind == task_pb2.GRADER_KIND_TOKEN_F1
    assert task.tau[1].grader.threshold == pytest.approx(0.6)
    assert task.retention[0].grader.kind == task_pb2.GRADER_KIND_CONTAINS


def test_answers_stay_as_they_are_written(tmp_path: Path) -> None:
    (task,) = load_tasks([write(tmp_path, "faq.yaml", GOOD)])
    assert list(task.tau[0].answers) == ["22 days", "1_000", "2026-01-01", "yes"]


def with_item(text: str) -> str:
    return GOOD.replace("retention:\n", f"  - {{id: q3, question: 'What?', {text}}}\nretention:\n")


def test_every_grader_can_be_written_with_its_settings(tmp_path: Path) -> None:
    items = {
        "grader: {kind: numeric, tolerance: 0.5}, answers: ['1,250.5']": {"tolerance": 0.5},
        "grader: regex, answers: ['^\\W+$']": {},
        "grader: choice, options: [+, '-'], answers: ['-']": {},
        "grader: {kind: judge, name: strict}, answers: [a]": {"name": "strict"},
        "grader: judge, answers: [a]": {},
        "grader: {kind: command, name: tests}": {"name": "tests"},
        "grader: command, answers: ['?']": {},
    }
    for text, settings in items.items():
        (task,) = load_tasks([write(tmp_path, "faq.yaml", with_item(text))])
        item = task.tau[2]
        kind = re.search(r"numeric|regex|choice|judge|command", text)
        assert kind is not None
        assert task_pb2.GraderKind.Name(item.grader.kind) == f"GRADER_KIND_{kind[0].upper()}"
        assert {field.name: value for field, value in item.grader.ListFields() if field.name != "kind"} == settings
        assert list(item.options) == (["+", "-"] if kind[0] == "choice" else [])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("grader: numeric, answers: ['7', 22 days]", "tau[2].answers[1] is no number"),
        ("grader: regex, answers: [(CANARY]", "tau[2].answers[0] is no regular expression"),
        ("grader: choice, answers: [a]", "tau[2].options needs 2 to 64 options for a choice, not 0"),
        ("grader: choice, options: [a, b], answers: [c]", "tau[2].answers[0] is none of the options"),
        ("grader: choice, options: [a, b], answers: [a, b]", "tau[2].answers accepts every option"),
        ("grader: choice, options: [a, a], answers: [a]", "tau[2].options has the same option twice"),
        ("grader: exact, options: [a, b], answers: [a]", "tau[2].options has options, which exact does not use"),
        ("grader: judge", "tau[2].answers is missing"),
        ("grader: {kind: judge, name: a b}, answers: [a]", "tau[2].grader.name may have letters, digits"),
        ("grader: {kind: exact, tolerance: 1}, answers: [a]", "has a tolerance, which exact does not use"),
        ("grader: {kind: numeric, name: x}, answers: ['1']", "has a name, which numeric does not use"),
        (
            "grader: {kind: numeric, tolerance: nan}, answers: ['1']",
            "tau[2].grader.tolerance should be a finite number",
        ),
    ],
)
def test_what_a_grader_cannot_use_is_refused_with_its_path(tmp_path: Path, text: str, reason: str) -> None:
    file = write(tmp_path, "bad.yaml", with_item(text))
    found = problems_of(file)
    assert any(line.startswith(f"{file}:19: ") and reason in line for line in found), found
    assert "CANARY" not in str(found)


def test_a_document_is_named_like_its_task_unless_it_has_a_name(tmp_path: Path) -> None:
    (task,) = load_tasks([write(tmp_path, "faq.yaml", without("document_id"))])
    assert task.context.document_id == "faq"


def test_a_context_may_stand_in_a_file_beside_the_task(tmp_path: Path) -> None:
    write(tmp_path, "texts/faq.txt", "The trial lasts 22 days.\n")
    (task,) = load_tasks([write(tmp_path, "faq.yaml", without("context") + "context_file: texts/faq.txt\n")])
    assert task.context.text == "The trial lasts 22 days."


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    for name in ("c", "a", "b"):
        write(tmp_path, f"{name}.yaml", GOOD.replace("id: faq\n", f"id: {name}\n"))
    write(tmp_path, "README.md", "not a task")
    assert [task.task_id for task in load_tasks([tmp_path])] == ["a", "b", "c"]
    assert [task.task_id for task in load_tasks([tmp_path], limit=2)] == ["a", "b"]


def test_a_list_gives_ids_from_titles_and_numbers(tmp_path: Path) -> None:
    tasks = load_tasks([write(tmp_path, "list.json", json.dumps([PASSAGE, PASSAGE, {**PASSAGE, "title": "東京"}]))])
    assert [task.task_id for task in tasks] == ["sao-paulo-001", "sao-paulo-002", "document-003"]
    assert tasks[0].context.title == "São Paulo!"
    assert [(item.item_id, *item.answers) for item in tasks[0].tau] == [("q01", "Brazil")]


def test_the_examples_of_the_repository_are_sound() -> None:
    tasks = load_tasks([ROOT / "examples" / "support", ROOT / "examples" / "squad"])
    assert len({task.task_id for task in tasks}) == len(tasks) >= 6


def test_the_built_in_suite_has_the_format_of_suite_files() -> None:
    (suite,) = load_suites([ROOT / "auditor" / "suites" / "general.yaml"])
    assert suite.suite_id == "general"
    assert len(suite.items) >= 40


@pytest.mark.parametrize(
    ("content", "place", "reason"),
    [
        ("", "1", "the file is empty"),
        ("id: [faq\ntitle: T\n", "2", "no valid YAML"),
        ("id: faq\n\tkind: knowledge\n", "2", "no valid YAML"),
        ("- id: faq\n", "1", "must be a mapping"),
        ("just words\n", "1", "must be a mapping"),
        (without("title"), "2", "title is missing"),
        (without("context"), "2", "exactly one of context and context_file"),
        (without("tau"), "2", "tau is missing"),
        (GOOD.replace("id: faq\n", "id: my faq\n"), "2", "id may have letters, digits"),
        (GOOD.replace("knowledge", "few_shot"), "3", "kind must be 'knowledge'"),
        (GOOD.replace("title:", "titel:"), "6", "titel is not a known key"),
        (GOOD + "title: again\n", "21", "title occurs twice"),
        (GOOD.replace("    answers: [22 days, 1_000, 2026-01-01, yes]\n", ""), "11", "tau[0].answers is missing"),
        (GOOD.replace("[22 days, 1_000, 2026-01-01, yes]", "[]"), "13", "tau[0].answers needs at least 1"),
        (GOOD.replace("[22 days, 1_000, 2026-01-01, yes]", "['?!']"), "13", "tau[0].answers[0] needs at least one"),
        (GOOD.replace("[22 days, 1_000, 2026-01-01, yes]", "22 days"), "13", "tau[0].answers must be a list"),
        (GOOD.replace("grader: exact", "grader: guess"), "14", "tau[0].grader.kind must be 'exact'"),
        (GOOD.replace("0.6", "0"), "18", "tau[1].grader.threshold should be greater than 0"),
        (GOOD.replace("token_f1", "exact"), "18", "has a threshold, which exact does not use"),
        (GOOD.replace("id: q2", "id: q1"), "15", "tau[1].id q1 is also on line 11"),
        (GOOD.replace("id: r1", "id: q1"), "20", "retention[0].id q1 is also on line 11"),
        (GOOD.replace("How long is the trial?", "''"), "12", "tau[0].question must not be empty"),
        (GOOD.replace("The plan costs", "x" * 65_536), "7", "context is longer than 65536 characters"),
        (without("context") + "context_file: none.txt\n", "18", "none.txt cannot be read"),
        ("a: &a [*a]\n", "1", "an anchor refers to itself"),
        ("a: *b\n", "1", "no valid YAML"),
        ("a: " + "[" * 5_000 + "]" * 5_000, "1", "nested too deeply"),
        (without("context") + 'context_file: "x\\0"\n', "18", "is no path"),
        (b"id: f\xffaq\n", "", "no UTF-8 text (byte 5)"),
    ],
)
def test_a_malformed_task_file_is_refused_with_line_and_reason(
    tmp_path: Path, content: str | bytes, place: str, reason: str
) -> None:
    file = write(tmp_path, "bad.yaml", content)
    where = f"{file}:{place}: " if place else f"{file}: "
    found = problems_of(file)
    assert any(line.startswith(where) and reason in line for line in found), found


@pytest.mark.parametrize(
    ("content", "place", "reason"),
    [
        ('[\n {"title": "T",\n]', ":3", "no valid JSON"),
        ("{}", "", "must be a list"),
        ("[]", "", "the list is empty"),
        ("[" * 100_000, "", "nested too deeply"),
        (json.dumps([PASSAGE, {**PASSAGE, "questions": []}]), ":[1].questions", "needs at least 1"),
        (json.dumps([{**PASSAGE, "context": 3}]), ":[0].context", "must be a text"),
        (json.dumps([{**PASSAGE, "source": "x"}]), ":[0].source", "is not a known key"),
        (
            json.dumps([PASSAGE, {**PASSAGE, "questions": [PASSAGE["questions"][0], {"question": "Q?"}]}]),
            ":[1].questions[1].answer",
            "is missing",
        ),
    ],
)
def test_a_malformed_list_is_refused_with_its_path(tmp_path: Path, content: str, place: str, reason: str) -> None:
    file = write(tmp_path, "bad.json", content)
    found = problems_of(file)
    assert any(line.startswith(f"{file}{place}: ") and reason in line for line in found), found


def test_all_problems_of_all_files_are_listed_at_once(tmp_path: Path) -> None:
    first = write(tmp_path, "a.yaml", GOOD.replace("title:", "titel:").replace("grader: exact", "grader: guess"))
    second = write(tmp_path, "b.json", "[}")
    found = problems_of(tmp_path, tmp_path / "absent.yaml", write(tmp_path / "other", "c.txt", ""))
    assert sum(line.startswith(str(first)) for line in found) == 3
    assert sum(line.startswith(str(second)) for line in found) == 1
    assert any("absent.yaml: no such file" in line for line in found)
    assert any("c.txt: no task file" in line for line in found)


def test_an_id_that_two_files_have_is_named_with_both(tmp_path: Path) -> None:
    first, second = write(tmp_path, "a.yaml", GOOD), write(tmp_path, "b.yaml", GOOD)
    assert problems_of(tmp_path) == [f"{second}:2: id faq is also the id of {first}:2"]


def test_a_folder_without_tasks_is_refused(tmp_path: Path) -> None:
    assert "holds no task file" in problems_of(tmp_path)[0]


def test_reasons_quote_no_answer(tmp_path: Path) -> None:
    secret = "CANARY" * 200
    file = write(tmp_path, "bad.yaml", GOOD.replace("31 euros", secret).replace("Romans", f"{secret}]x"))
    assert not any("CANARY" in line for line in problems_of(file))


@given(st.text(max_size=300))
def test_a_slug_is_an_identifier_whatever_the_title(title: str) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug(title))
    assert re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", numbered(title, 10_000))


@given(st.lists(st.text(max_size=20), max_size=20))
def test_the_entries_of_a_list_never_share_an_id(titles: list[str]) -> None:
    ids = [numbered(title, position) for position, title in enumerate(titles, start=1)]
    assert len(set(ids)) == len(ids)


@given(st.text(max_size=200))
def test_no_text_makes_the_reader_break(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.mktemp("any") / "task.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(BadFiles):
        load_tasks([file])

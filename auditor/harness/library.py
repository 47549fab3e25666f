"""Reads tasks with lm_eval, its own or those of a folder, whose data files may be named relative to their YAML.

lm_eval is imported inside: it takes two seconds and is an optional extra. A task may bring code of its own, which runs
here, as whoever configured the auditor asked for.
"""

from __future__ import annotations

import logging
import os
from functools import cache
from pathlib import Path
from typing import Any

from auditor.harness.config import HarnessTask
from common.errors import InvalidConfig

FEWSHOT_SEED = 1234  # lm_eval's default


def prepare(*, offline: bool) -> str:
    """Imports lm_eval, quietly; its version. Raises InvalidConfig if it is not installed."""
    # Read when the libraries are imported. Progress bars and warnings would print questions beside the log.
    os.environ.setdefault("TQDM_DISABLE", "1")
    if offline:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    for name in ("lm_eval", "datasets"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        import datasets
        import lm_eval
    except ModuleNotFoundError as error:
        raise InvalidConfig(
            f"lm_eval.tasks: {error.name} is not installed; tasks of lm_eval need pip install 'seal-services[lm-eval]'"
        ) from None
    datasets.disable_progress_bars()
    return str(lm_eval.__version__)


def load(name: str, config: HarnessTask) -> dict[str, Any]:
    """The task or group as lm_eval's evaluate takes it, with the configured shots. Raises what lm_eval does."""
    from lm_eval.tasks import TaskManager

    folder = config.include_path
    if folder is not None and not folder.is_dir():
        raise InvalidConfig(f"lm_eval.tasks.{name}.include_path: {folder} is not a folder")
    manager = TaskManager(include_path=str(folder), include_defaults=False) if folder else _own_tasks()
    wanted = config.task or name
    if wanted not in manager.task_index:
        raise InvalidConfig(f"lm_eval.tasks.{name}: no task {wanted} in {folder or 'lm_eval'}")
    if folder is not None:
        for entry in manager.task_index.values():
            _anchor(entry)
    loaded: dict[str, Any] = manager.load([wanted])
    for task in loaded["tasks"].values():
        # As lm_eval itself does: a task that says 0 stays at 0.
        if config.num_fewshot is not None and task.get_config("num_fewshot") != 0:
            task.set_config(key="num_fewshot", value=config.num_fewshot)
        elif task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
    return loaded


@cache
def _own_tasks() -> Any:
    """lm_eval's own, listed once: reading their 10,000 files takes ten seconds."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def evaluate(loaded: dict[str, Any], model: Any, limit: int | None) -> dict[str, Any]:
    """lm_eval's results with one sample a document and filter; the same shots whenever it is called."""
    from lm_eval.evaluator import evaluate as evaluate_tasks

    for task in loaded["tasks"].values():
        task.set_fewshot_seed(seed=FEWSHOT_SEED)
    results: dict[str, Any] = evaluate_tasks(lm=model, task_dict=loaded, limit=limit, bootstrap_iters=0)
    return results


def _anchor(entry: Any) -> None:
    """Lets data files be named relative to their YAML; lm_eval takes them from wherever the process was started."""
    from lm_eval.tasks._index import Kind
    from lm_eval.tasks._yaml_loader import load_yaml

    if entry.kind is not Kind.TASK or entry.yaml_path is None:
        return
    folder = Path(entry.yaml_path).resolve().parent
    content = load_yaml(entry.yaml_path, resolve_func=True)
    chosen = dict(content.get("dataset_kwargs") or {})
    if "data_files" in chosen:
        chosen["data_files"] = _anchored(chosen["data_files"], folder)
        content["dataset_kwargs"] = chosen
    if str(content.get("dataset_path", "")).startswith("."):
        content["dataset_path"] = _anchored(content["dataset_path"], folder)
    entry.cfg, entry.yaml_path = content, None


def _anchored(value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        return {key: _anchored(entry, folder) for key, entry in value.items()}
    if isinstance(value, list):
        return [_anchored(entry, folder) for entry in value]
    return str(folder / value) if (folder / str(value)).exists() else value

"""What the demo was asked for, and where its documents and its data lie."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cli.failure import BadInput
from cli.settings import RunChoices
from cli.taskfiles import load_tasks
from common.contract.seal.v1 import task_pb2

EXAMPLES = Path("examples/support")
ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class DemoChoices:
    """`documents` None: all. `folder` None: a fresh one, removed afterwards unless `keep` or the demo failed."""

    data: Path | None
    documents: int | None
    run: RunChoices
    config: Path | None = None
    settings: Sequence[str] = ()
    folder: Path | None = None
    keep: bool = False
    json_result: bool = False

    def tasks(self) -> list[task_pb2.Task]:
        """Raises BadFiles, or BadInput where there are no examples to be found."""
        return load_tasks([self.data or _examples()], limit=self.documents)


@contextmanager
def data_folder(choices: DemoChoices) -> Iterator[Path]:
    """An empty folder for everything the three services keep. After a failure it stays, for its logs."""
    if choices.folder is not None:
        if choices.folder.exists() and not choices.folder.is_dir():
            raise BadInput(f"--folder {choices.folder}: is a file", "Name a new folder.")
        if choices.folder.exists() and any(choices.folder.iterdir()):
            raise BadInput(f"--folder {choices.folder}: is not empty", "The demo starts from nothing: name a new one.")
        yield choices.folder
        return
    folder = Path(tempfile.mkdtemp(prefix="seal-demo-"))
    yield folder
    if not choices.keep:
        shutil.rmtree(folder, ignore_errors=True)


def _examples() -> Path:
    for base in (Path(), ROOT):
        if (base / EXAMPLES).is_dir():
            return base / EXAMPLES
    raise BadInput(f"{EXAMPLES}: no such folder here", "Name task files with --data, or run it in the repository.")

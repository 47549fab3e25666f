"""Secrets come from files alone: what could hold one inline is refused, and nothing repeats it."""

from __future__ import annotations

from pathlib import Path

import pytest

from auditor.config import AuditorConfig
from auditor.ledger.database import open_engine
from common.config import load_config, resolve
from common.errors import InvalidConfig

SECRET = "hunter2-hunter2"
URLS = [
    f"postgresql+psycopg://seal:{SECRET}@db/seal",
    f"postgresql+psycopg://seal@db/seal?password={SECRET}",
    f"postgresql+psycopg://db/seal?sslmode=require&sslpassword={SECRET}",
]


@pytest.mark.parametrize("url", URLS)
def test_a_password_in_the_databases_url_is_refused_without_being_repeated(
    url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(InvalidConfig, match="database_password_file") as refused:
        open_engine(url)
    assert SECRET not in refused.value.message
    file = tmp_path / "auditor.yaml"
    file.write_text(f"database: {url}\n")
    with pytest.raises(SystemExit) as exit_:
        load_config(AuditorConfig, "auditor", ["--config", str(file), "--print-config"])
    assert exit_.value.code == 2
    printed = capsys.readouterr()
    assert "database_password_file" in printed.err
    assert SECRET not in printed.out + printed.err


@pytest.mark.parametrize("section", ["judges.one", "policy.model"])
@pytest.mark.parametrize("url", [f"https://user:{SECRET}@judge/v1", f"https://judge/v1?api-key={SECRET}"])
def test_a_key_in_an_endpoints_address_is_refused_without_being_repeated(section: str, url: str) -> None:
    settings = [f"{section}.base_url={url}", f"{section}.model=m"]
    with pytest.raises(InvalidConfig, match="api_key_file") as refused:
        resolve(AuditorConfig, "auditor", settings=settings)
    assert SECRET not in refused.value.message
    with pytest.raises(InvalidConfig, match="unknown key") as unknown:
        resolve(AuditorConfig, "auditor", settings=[*settings[1:], f"{section}.api_key={SECRET}"])
    assert SECRET not in unknown.value.message

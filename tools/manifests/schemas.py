"""Whether manifests are what Kubernetes knows: its own kinds by its schemas, the others by custom_kinds.yaml.

Strict: a field that the schema does not know is an error, and so is a kind that no schema knows.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

Manifest = dict[str, Any]
VERSION = "1.37"


def errors(manifests: Iterable[Manifest]) -> Iterator[str]:
    """One line an error."""
    for manifest in manifests:
        name = f"{manifest['kind']} {manifest['metadata'].get('namespace', '')}/{manifest['metadata']['name']}"
        schema = custom().get(f"{manifest['apiVersion']}/{manifest['kind']}")
        found = _of_custom(manifest, schema) if schema is not None else _of_kubernetes(manifest)
        yield from (f"{name}: {error}" for error in found)


@functools.cache
def custom() -> dict[str, Any]:
    """Schemas of the field `spec`, by apiVersion/kind."""
    text = Path(__file__).with_name("custom_kinds.yaml").read_text()
    schemas: dict[str, Any] = yaml.safe_load(text)
    return schemas


def _of_custom(manifest: Manifest, schema: dict[str, Any]) -> Iterator[str]:
    extra = manifest.keys() - {"apiVersion", "kind", "metadata", "spec"}
    yield from (f"unknown field {field}" for field in sorted(extra))
    validator = jsonschema.Draft202012Validator(schema)
    for error in validator.iter_errors(manifest.get("spec", {})):
        yield f"{'.'.join(map(str, ('spec', *error.absolute_path)))}: {error.message}"


def _of_kubernetes(manifest: Manifest) -> Iterator[str]:
    import kubernetes_validate

    try:
        kubernetes_validate.validate(manifest, VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{'.'.join(map(str, error.path))}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError:
        yield "no schema knows this kind; add one to tools/manifests/custom_kinds.yaml"

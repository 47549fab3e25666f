"""An update scaled down: a version on the line between its parent and what training made of it."""

from __future__ import annotations

from common.lora.adapter_format import Adapter


def interpolated(parent: Adapter | None, child: Adapter, scale: float) -> Adapter:
    """The factors A_p + s(A_c - A_p), and B likewise; s = 0 is the parent, s = 1 the child.

    On the bare base (parent None) there are no factors to start from: A stays the child's and B alone is scaled, so
    that the whole update is. Raises ValueError when the two are not of one lineage (rank, alpha, targets).
    """
    if parent is None:
        tensors = {name: tensor * scale if ".lora_B." in name else tensor for name, tensor in child.tensors.items()}
        return Adapter(child.spec, tensors)
    if parent.spec != child.spec:
        raise ValueError("parent and child are not of one lineage: their specifications differ")
    return Adapter(
        child.spec,
        {name: parent.tensors[name].lerp(tensor, scale) for name, tensor in child.tensors.items()},
    )

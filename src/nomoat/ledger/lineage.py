"""What an artifact was made from, as a tree."""

from __future__ import annotations

from sqlalchemy import Connection, select

from nomoat.ledger.rows import LineageNode
from nomoat.ledger.schema import artifact_inputs, artifacts

Edges = dict[str, list[tuple[str, str]]]
"""Artifact -> (role, input) of each of its inputs, by role."""


def read_lineage(connection: Connection, root_id: str, root_kind: str) -> LineageNode:
    """The tree under one artifact, down to outside fingerprints: one query a level."""
    kinds = {root_id: root_kind}
    inputs: Edges = {}
    ask = [root_id]
    while ask:
        inputs.update((known, []) for known in ask)
        edges = connection.execute(
            select(artifact_inputs, artifacts.c.kind)
            .outerjoin(artifacts, artifacts.c.id == artifact_inputs.c.input_id)
            .where(artifact_inputs.c.artifact_id.in_(ask))
            .order_by(artifact_inputs.c.role)
        ).all()
        for edge in edges:
            inputs[edge.artifact_id].append((edge.role, edge.input_id))
            kinds[edge.input_id] = edge.kind or edge.input_id.partition(":")[0]
        ask = sorted({edge.input_id for edge in edges if edge.kind is not None} - inputs.keys())
    return _tree(root_id, "", kinds, inputs, set())


def _tree(node: str, role: str, kinds: dict[str, str], inputs: Edges, shown: set[str]) -> LineageNode:
    below = inputs.get(node, [])
    repeated = bool(below) and node in shown
    shown.add(node)
    children = () if repeated else tuple(_tree(name, part, kinds, inputs, shown) for part, name in below)
    return LineageNode(node, kinds[node], role, children, repeated)

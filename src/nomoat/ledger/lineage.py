"""What an artifact was made from, as a tree."""

from __future__ import annotations

from sqlalchemy import Connection, select

from nomoat.ledger.rows import LineageNode
from nomoat.ledger.schema import artifact_inputs, artifacts

Edge = tuple[str, str]
"""(artifact, role): one input of one artifact."""


def read_lineage(connection: Connection, root_id: str, root_kind: str, *, depth: int) -> LineageNode:
    """The tree under one artifact, `depth` levels down: one query a level.

    What an artifact was made from is shown once, where it is nearest to the root: in a chain of nights,
    where both the adapter and the merged model come from the last one, a full tree doubles with each link.
    """
    kinds = {root_id: root_kind}
    inputs: dict[str, list[tuple[str, str]]] = {}  # artifact -> (role, input) of each, by role
    shown_at: dict[str, Edge] = {root_id: ("", "")}
    ask = [root_id]
    for _ in range(depth):
        if not ask:
            break
        inputs.update((known, []) for known in ask)
        edges = connection.execute(
            select(artifact_inputs, artifacts.c.kind)
            .outerjoin(artifacts, artifacts.c.id == artifact_inputs.c.input_id)
            .where(artifact_inputs.c.artifact_id.in_(ask))
            .order_by(artifact_inputs.c.artifact_id, artifact_inputs.c.role)
        ).all()
        ask = []
        for edge in edges:
            inputs[edge.artifact_id].append((edge.role, edge.input_id))
            kinds[edge.input_id] = edge.kind or edge.input_id.partition(":")[0]
            if edge.kind is not None and edge.input_id not in shown_at:
                shown_at[edge.input_id] = (edge.artifact_id, edge.role)
                ask.append(edge.input_id)

    def tree(node: str, above: Edge) -> LineageNode:
        folded = node in shown_at and (shown_at[node] != above or node not in inputs)
        below = [] if folded else inputs.get(node, [])
        children = tuple(tree(name, (node, role)) for role, name in below)
        return LineageNode(node, kinds[node], above[1], children, folded)

    return tree(root_id, ("", ""))

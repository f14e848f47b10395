"""The first schema: nights, stages, artifacts, generations, scores, samples, and two views to read by eye."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

V_NIGHTS = """
CREATE VIEW v_nights AS
SELECT n.id AS night_id, n.name, n.status, n.started_at, n.ended_at,
       COALESCE(n.seconds, s.seconds) AS seconds,
       COALESCE(n.energy_joules, s.energy_joules) AS energy_joules,
       COALESCE(n.dollars, s.dollars) AS dollars,
       COALESCE(s.stages, 0) AS stages,
       COALESCE(s.stages_reused, 0) AS stages_reused,
       g.generation_id, n.seed, n.code_version, n.error
FROM nights n
LEFT JOIN (
    SELECT night_id, SUM(seconds) AS seconds, SUM(energy_joules) AS energy_joules, SUM(dollars) AS dollars,
           COUNT(*) AS stages, SUM(CASE WHEN status = 'reused' THEN 1 ELSE 0 END) AS stages_reused
    FROM stages GROUP BY night_id
) s ON s.night_id = n.id
LEFT JOIN (SELECT night_id, MAX(id) AS generation_id FROM generations GROUP BY night_id) g
    ON g.night_id = n.id
"""

V_LINEAGE = """
CREATE VIEW v_lineage AS
SELECT a.id AS artifact_id, a.kind, m.night_id AS made_in_night, i.role, i.input_id, p.kind AS input_kind
FROM artifacts a
LEFT JOIN artifact_inputs i ON i.artifact_id = a.id
LEFT JOIN artifacts p ON p.id = i.input_id
LEFT JOIN (
    SELECT artifact_id, MIN(night_id) AS night_id FROM stages WHERE status = 'done' GROUP BY artifact_id
) m ON m.artifact_id = a.id
"""


def upgrade() -> None:
    op.create_table(
        "nights",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("started_at", sa.Text(), nullable=False),
        sa.Column("ended_at", sa.Text()),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("recipe_text", sa.Text(), nullable=False),
        sa.Column("recipe_resolved", sa.JSON(), nullable=False),
        sa.Column("code_version", sa.Text(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("machine", sa.JSON(), nullable=False),
        sa.Column("plan", sa.JSON()),
        sa.Column("verdict", sa.JSON()),
        sa.Column("seconds", sa.Float()),
        sa.Column("energy_joules", sa.Float()),
        sa.Column("dollars", sa.Float()),
        sa.Column("error", sa.Text()),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("process_started", sa.Text()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_nights")),
        sa.CheckConstraint(
            "status IN ('running', 'done', 'failed', 'interrupted')", name=op.f("ck_nights_status")
        ),
    )
    op.create_table(
        "artifacts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("meta", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_artifacts")),
    )
    op.create_table(
        "artifact_inputs",
        sa.Column("artifact_id", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("input_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("artifact_id", "role", name=op.f("pk_artifact_inputs")),
        sa.ForeignKeyConstraint(
            ["artifact_id"], ["artifacts.id"], name=op.f("fk_artifact_inputs_artifact_id_artifacts")
        ),
    )
    op.create_index(op.f("ix_artifact_inputs_input_id"), "artifact_inputs", ["input_id"])
    op.create_table(
        "stages",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("night_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("artifact_id", sa.Text()),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("started_at", sa.Text(), nullable=False),
        sa.Column("ended_at", sa.Text()),
        sa.Column("seconds", sa.Float()),
        sa.Column("energy_joules", sa.Float()),
        sa.Column("dollars", sa.Float()),
        sa.Column("detail", sa.JSON()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stages")),
        sa.ForeignKeyConstraint(["night_id"], ["nights.id"], name=op.f("fk_stages_night_id_nights")),
        sa.ForeignKeyConstraint(
            ["artifact_id"], ["artifacts.id"], name=op.f("fk_stages_artifact_id_artifacts")
        ),
        sa.CheckConstraint(
            "status IN ('running', 'done', 'reused', 'failed', 'interrupted')", name=op.f("ck_stages_status")
        ),
    )
    op.create_index(op.f("ix_stages_night_id"), "stages", ["night_id"])
    op.create_table(
        "generations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("night_id", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("base", sa.Text(), nullable=False),
        sa.Column("adapter_artifact", sa.Text()),
        sa.Column("merged_artifact", sa.Text()),
        sa.Column("gguf_artifact", sa.Text()),
        sa.Column("served_file", sa.Text()),
        sa.Column("verdict", sa.JSON()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_generations")),
        sa.ForeignKeyConstraint(["night_id"], ["nights.id"], name=op.f("fk_generations_night_id_nights")),
        *(
            sa.ForeignKeyConstraint(
                [column], ["artifacts.id"], name=op.f(f"fk_generations_{column}_artifacts")
            )
            for column in ("adapter_artifact", "merged_artifact", "gguf_artifact")
        ),
    )
    op.create_index(op.f("ix_generations_night_id"), "generations", ["night_id"])
    op.create_table(
        "scores",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("night_id", sa.Integer(), nullable=False),
        sa.Column("artifact_id", sa.Text()),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("suite", sa.Text(), nullable=False),
        sa.Column("metric", sa.Text(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.Column("low", sa.Float()),
        sa.Column("high", sa.Float()),
        sa.Column("confidence", sa.Float()),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_scores")),
        sa.ForeignKeyConstraint(["night_id"], ["nights.id"], name=op.f("fk_scores_night_id_nights")),
        sa.ForeignKeyConstraint(
            ["artifact_id"], ["artifacts.id"], name=op.f("fk_scores_artifact_id_artifacts")
        ),
        sa.CheckConstraint("subject IN ('base', 'tuned', 'difference')", name=op.f("ck_scores_subject")),
    )
    op.create_index(op.f("ix_scores_night_id"), "scores", ["night_id"])
    op.create_table(
        "samples",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("night_id", sa.Integer(), nullable=False),
        sa.Column("suite", sa.Text(), nullable=False),
        sa.Column("prompt_id", sa.Text(), nullable=False),
        sa.Column("prompt", sa.JSON(), nullable=False),
        sa.Column("base_answer", sa.Text(), nullable=False),
        sa.Column("tuned_answer", sa.Text(), nullable=False),
        sa.Column("base_passed", sa.Boolean()),
        sa.Column("tuned_passed", sa.Boolean()),
        sa.Column("checks", sa.JSON()),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_samples")),
        sa.ForeignKeyConstraint(["night_id"], ["nights.id"], name=op.f("fk_samples_night_id_nights")),
    )
    op.create_index(op.f("ix_samples_night_id"), "samples", ["night_id"])
    op.create_table(
        "schema_history",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Text(), nullable=False),
        sa.Column("program_version", sa.Text(), nullable=False),
        sa.Column("upgraded_at", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schema_history")),
    )
    op.execute(V_NIGHTS)
    op.execute(V_LINEAGE)

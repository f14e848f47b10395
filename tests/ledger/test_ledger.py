"""What is written down is read back, as frozen rows, with its lineage and cost."""

import dataclasses
import math
import re
from collections.abc import Callable

import pytest
from sqlalchemy.exc import IntegrityError

from nomoat.errors import LedgerError
from nomoat.ledger import rows, schema
from nomoat.ledger.artifacts import Artifact
from nomoat.ledger.process import this_process
from nomoat.ledger.rows import LineageNode, Sample, Score
from nomoat.ledger.store import Ledger

Begin = Callable[..., int]
Make = Callable[..., Artifact]
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.mark.parametrize(
    ("row", "table"),
    [
        (rows.NightRow, schema.nights),
        (rows.StageRow, schema.stages),
        (rows.ArtifactRow, schema.artifacts),
        (rows.GenerationRow, schema.generations),
        (rows.ScoreRow, schema.scores),
        (rows.SampleRow, schema.samples),
    ],
)
def test_a_row_has_the_columns_of_its_table_and_cannot_be_changed(row: type, table: object) -> None:
    columns = {column.name for column in table.columns}  # type: ignore[attr-defined]
    assert {field.name for field in dataclasses.fields(row)} == columns
    assert row.__dataclass_params__.frozen  # type: ignore[attr-defined]


def test_a_night_from_start_to_end(ledger: Ledger, begin: Begin) -> None:
    night_id = begin(seed=2**62)
    night = ledger.night(night_id)
    mark = this_process()
    assert (night.id, night.name, night.status, night.seed) == (1, "story", "running", 2**62)
    assert (night.recipe_text, night.recipe_resolved) == ("name: story\n", {"name": "story"})
    assert (night.pid, night.host, night.process_started) == (mark.pid, mark.host, mark.started)
    assert (night.ended_at, night.plan, night.verdict, night.seconds, night.error) == (None,) * 5
    assert MOMENT.fullmatch(night.started_at)
    assert not night.is_lost()

    ledger.set_plan(night_id, {"steps": 10, "reason": "fits until 07:00"})
    ledger.set_plan(night_id, {"steps": 8})
    ledger.finish_night(
        night_id, status="done", seconds=12.5, energy_joules=300.0, dollars=None, verdict={"better": True}
    )
    night = ledger.night(night_id)
    assert (night.status, night.plan, night.verdict) == ("done", {"steps": 8}, {"better": True})
    assert (night.seconds, night.energy_joules, night.dollars) == (12.5, 300.0, None)
    assert night.ended_at is not None
    assert MOMENT.fullmatch(night.ended_at)
    assert night.ended_at >= night.started_at


def test_nights_come_newest_first(ledger: Ledger, begin: Begin) -> None:
    assert ledger.nights() == ()
    for _ in range(3):
        begin()
    assert [night.id for night in ledger.nights()] == [3, 2, 1]
    assert [night.id for night in ledger.nights(limit=2)] == [3, 2]


def test_a_night_that_is_not_there(ledger: Ledger, begin: Begin) -> None:
    with pytest.raises(LedgerError) as caught:
        ledger.night(7)
    assert str(caught.value) == (
        f"ledger {ledger.place}: has no night 7; it holds no night yet\n  See them all: nomoat log"
    )
    begin()
    with pytest.raises(LedgerError, match=r": has no night 7; the newest is night 1\n"):
        ledger.night(7)


def test_stages_come_in_order_with_what_they_made_and_cost(ledger: Ledger, begin: Begin, make: Make) -> None:
    night_id, artifact = begin(), make()
    second = ledger.start_stage(night_id, name="sft", position=1, key="b")
    first = ledger.start_stage(night_id, name="data", position=0, key="a")
    ledger.add_artifact(artifact)
    ledger.finish_stage(first, status="reused", seconds=0.25)
    ledger.finish_stage(
        second,
        status="done",
        seconds=60.0,
        artifact_id=artifact.id,
        energy_joules=900.0,
        dollars=0.5,
        detail={"steps": 10},
    )
    data, sft = ledger.stages(night_id)
    assert (data.name, data.status, data.seconds, data.artifact_id) == ("data", "reused", 0.25, None)
    assert (sft.name, sft.status, sft.artifact_id) == ("sft", "done", artifact.id)
    assert (sft.seconds, sft.energy_joules, sft.dollars, sft.detail) == (60.0, 900.0, 0.5, {"steps": 10})
    assert sft.ended_at is not None
    assert ledger.stages(99) == ()


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_a_night_that_ends_badly_ends_its_stage_too(ledger: Ledger, begin: Begin, status: str) -> None:
    night_id = begin()
    ledger.finish_stage(
        ledger.start_stage(night_id, name="data", position=0, key="a"), status="done", seconds=1
    )
    ledger.start_stage(night_id, name="sft", position=1, key="b")
    ledger.finish_night(
        night_id,
        status=status,  # type: ignore[arg-type]
        seconds=2.0,
        energy_joules=None,
        dollars=None,
        error="stopped by hand",
    )
    assert [stage.status for stage in ledger.stages(night_id)] == ["done", status]
    assert (ledger.night(night_id).status, ledger.night(night_id).error) == (status, "stopped by hand")


def test_a_night_cannot_end_well_over_a_stage_that_runs(ledger: Ledger, begin: Begin) -> None:
    night_id = begin()
    ledger.start_stage(night_id, name="sft", position=0, key="a")
    with pytest.raises(AssertionError):
        ledger.finish_night(night_id, status="done", seconds=1.0, energy_joules=None, dollars=None)
    assert ledger.night(night_id).status == "running"


def test_what_has_ended_does_not_end_again(ledger: Ledger, begin: Begin) -> None:
    night_id = begin()
    stage_id = ledger.start_stage(night_id, name="sft", position=0, key="a")
    ledger.finish_stage(stage_id, status="done", seconds=1.0)
    with pytest.raises(LedgerError) as caught:
        ledger.finish_stage(stage_id, status="failed", seconds=1.0)
    assert str(caught.value) == f"ledger {ledger.place}: stages has no running row {stage_id}"
    assert ledger.stages(night_id)[0].status == "done"


def test_artifacts_are_added_once_and_keep_their_first_date(ledger: Ledger, make: Make) -> None:
    artifact = make(inputs={"base": "file:cc", "data": "file:dd"})
    ledger.add_artifact(artifact)
    first = ledger.artifact(artifact.id)
    assert (first.id, first.kind, first.key, first.bytes) == (artifact.id, "sft", artifact.key, 1002)
    assert (first.path, first.meta) == (f".nomoat/artifacts/{artifact.id}", {"name": "a"})
    ledger.add_artifact(dataclasses.replace(artifact, bytes=5))
    again = ledger.artifact(artifact.id)
    assert again == dataclasses.replace(first, bytes=5)
    assert [node.role for node in ledger.lineage(artifact.id).inputs] == ["base", "data"]


def test_an_artifact_that_is_not_there(ledger: Ledger) -> None:
    with pytest.raises(LedgerError) as caught:
        ledger.lineage("sft-0000000000000000")
    assert str(caught.value) == f'ledger {ledger.place}: has no artifact "sft-0000000000000000"'


def leaf(artifact_id: str, kind: str, role: str) -> LineageNode:
    return LineageNode(artifact_id, kind, role, (), False)


def test_lineage_is_the_tree_of_what_made_it(ledger: Ledger, make: Make) -> None:
    sft = make("sft", inputs={"base": "file:cc", "data": "hub:dd"})
    merge = make("merge", inputs={"adapter": sft.id, "base": "file:cc"})
    gguf = make("quantize", inputs={"model": merge.id})
    for artifact in (sft, merge, gguf):
        ledger.add_artifact(artifact)
    adapter = LineageNode(
        sft.id, "sft", "adapter", (leaf("file:cc", "file", "base"), leaf("hub:dd", "hub", "data")), False
    )
    model = LineageNode(merge.id, "merge", "model", (adapter, leaf("file:cc", "file", "base")), False)
    assert ledger.lineage(gguf.id) == LineageNode(gguf.id, "quantize", "", (model,), False)
    cut = ledger.lineage(gguf.id, depth=1)
    assert cut.inputs == (LineageNode(merge.id, "merge", "model", (), True),)


def test_a_long_chain_of_nights_is_told_in_linear_size(ledger: Ledger, make: Make) -> None:
    last = make("base", "0")
    ledger.add_artifact(last)
    for number in range(1, 41):
        sft = make("sft", str(number), inputs={"base": last.id})
        last = make("merge", str(number), inputs={"adapter": sft.id, "base": last.id})
        ledger.add_artifact(sft)
        ledger.add_artifact(last)

    def count(node: LineageNode) -> int:
        return 1 + sum(map(count, node.inputs))

    tree = ledger.lineage(last.id)
    assert count(tree) == 1 + 3 * 40  # a full tree would have 2**40
    adapter, base = tree.inputs
    # The last model is shown in full under the merge, where it is nearest, and folded under the adapter.
    assert (base.folded, adapter.inputs[0].folded, adapter.inputs[0].id) == (False, True, base.id)


def test_generations_are_numbered_and_named(ledger: Ledger, begin: Begin, make: Make) -> None:
    with pytest.raises(LedgerError) as caught:
        ledger.generation("latest")
    assert str(caught.value) == f"ledger {ledger.place}: holds no generation yet\n  Make one: nomoat run"
    night_id, artifact = begin(), make()
    ledger.add_artifact(artifact)
    first = ledger.add_generation(
        night_id, base="file:cc", adapter_artifact=artifact.id, served_file="x.gguf"
    )
    with pytest.raises(
        LedgerError, match=r': got "gen-0002"; expected "latest" or a generation of gen-0001$'
    ):
        ledger.generation(2)
    second = ledger.add_generation(night_id, base="file:cc", verdict={"better": False})
    assert (first.id, first.name, first.adapter_artifact, first.served_file) == (
        1,
        "gen-0001",
        artifact.id,
        "x.gguf",
    )
    assert second.verdict == {"better": False}
    assert ledger.generations() == (second, first)
    assert ledger.generation("latest") == ledger.generation(2) == ledger.generation("gen-0002") == second
    with pytest.raises(LedgerError) as caught:
        ledger.generation("gen-7")
    assert str(caught.value) == (
        f'ledger {ledger.place}: got "gen-7"; expected "latest" or a generation of gen-0001 to gen-0002'
    )


def test_scores_and_samples_are_read_back_as_they_were(ledger: Ledger, begin: Begin) -> None:
    night_id = begin()
    found = [
        Score(subject="base", suite="checks", metric="pass_rate", value=0.25, n=200),
        Score(
            subject="difference",
            suite="checks",
            metric="pass_rate",
            value=0.5,
            low=0.4,
            high=0.6,
            confidence=0.95,
            n=200,
        ),
    ]
    answers = [
        Sample(
            suite="checks",
            prompt_id="p1",
            prompt=[{"role": "user", "content": "Ünïcödé 🦊"}],
            base_answer="",
            tuned_answer="once",
            base_passed=False,
            tuned_passed=True,
            checks={"words": [["fox", True]]},
        ),
        Sample(suite="rows", prompt_id="p2", prompt={"text": "x"}, base_answer="a", tuned_answer="b"),
    ]
    ledger.add_scores(night_id, found)
    ledger.add_samples(night_id, iter(answers))
    ledger.add_samples(night_id, [])
    for kept, given in zip(
        (*ledger.scores(night_id), *ledger.samples(night_id)), (*found, *answers), strict=True
    ):
        assert kept.night_id == night_id
        assert {**dataclasses.asdict(given), "id": kept.id, "night_id": night_id} == dataclasses.asdict(kept)
    assert ledger.scores(night_id + 1) == ()


def test_what_the_tables_forbid_is_our_mistake_and_writes_nothing(ledger: Ledger, begin: Begin) -> None:
    night_id = begin()
    good = Score(subject="base", suite="s", metric="m", value=1.0, n=1)
    bad = dataclasses.replace(good, subject="champion")  # type: ignore[arg-type]
    with pytest.raises(IntegrityError, match="ck_scores_subject"):
        ledger.add_scores(night_id, [good, bad])
    assert ledger.scores(night_id) == ()
    with pytest.raises(IntegrityError, match="FOREIGN KEY"):
        ledger.start_stage(99, name="sft", position=0, key="a")
    stage_id = ledger.start_stage(night_id, name="sft", position=0, key="a")
    with pytest.raises(IntegrityError, match="FOREIGN KEY"):
        ledger.finish_stage(stage_id, status="done", seconds=1.0, artifact_id="sft-0000000000000000")
    assert ledger.stages(night_id)[0].status == "running"


def test_a_number_that_is_none_is_refused_with_its_place(ledger: Ledger, begin: Begin) -> None:
    night_id = begin()
    with pytest.raises(ValueError, match=r"^scores\[0\]\.value: got nan; expected a finite number"):
        ledger.add_scores(night_id, [Score(subject="base", suite="s", metric="m", value=math.nan, n=1)])
    with pytest.raises(ValueError, match=r"^nights\.plan\.loss: got inf; expected a finite number"):
        ledger.set_plan(night_id, {"loss": math.inf})

"""Templates that mark what the assistant says with {% generation %}."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from helpers.masks import TWO_TURNS, chatml, refusal, runs
from nomoat.chat.mask import (
    render_trained,
)

MARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t,
        lambda t: t.replace("{% endgeneration %}{{ '\n' }}", "{{ '\n' }}{% endgeneration %}"),
        lambda t: t.replace(
            "{{ m['content'] + '<|im_end|>' }}",
            "{{ m['content'] }}{% endgeneration %}{% generation %}{{ '<|im_end|>' }}",
        ),
    ],
    ids=["exact", "with-line-break", "in-two-pieces"],
)
def test_generation_marks_that_agree(change: Callable[[str], str]) -> None:
    template = chatml(change(MARKED))
    assert template.has_generation_marks
    rendered = render_trained(template, TWO_TURNS)
    assert runs(template, rendered) == ["A fox.<|im_end|>", "Still a fox.<|im_end|>"]
    assert rendered == render_trained(chatml(), TWO_TURNS)


@pytest.mark.parametrize(
    ("old", "new", "held"),
    [
        (
            "{{ m['content'] + '<|im_end|>' }}{% endgeneration %}",
            "{{ m['content'] }}{% endgeneration %}{{ '<|im_end|>' }}",
            "'A fox.'",
        ),
        (
            "{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}{% generation %}",
            "{% if m['role'] == 'user' %}{{ '<|im_start|>user\n' }}{% endif %}"
            "{% if m['role'] == 'assistant' %}{% generation %}{{ '<|im_start|>assistant\n' }}",
            "'<|im_start|>assistant\\nA fox.<|im_end|>'",
        ),
        ("{% if m['role'] == 'assistant' %}", "{% if m['role'] == 'nobody' %}", "''"),
    ],
    ids=["stop-left-out", "header-too", "nothing"],
)
def test_generation_marks_that_disagree_are_refused(old: str, new: str, held: str) -> None:
    assert old in MARKED
    assert refusal(chatml(MARKED.replace(old, new)), TWO_TURNS) == (
        f"messages[1]: the {{% generation %}} marks of the chat template (tokenizer) hold {held}, but "
        f"serving has "
        "the model produce 'A fox.<|im_end|>'."
    )

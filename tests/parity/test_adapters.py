"""Our adapter opens in PEFT, our merged folder in transformers, with the same logits (fp32: 1e-4)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.families import FAMILIES, save_tiny
from nomoat.errors import ModelError
from nomoat.model.adapters import add_lora, load_adapter, save_adapter
from nomoat.model.load import Machine, fingerprint, load_model, load_tokenizer
from nomoat.model.merge import check_saved, probe_logits, save_model

CPU = Machine("cpu", torch.float32)
IDS = torch.tensor([[5, 9, 2, 33, 17, 8, 40, 21]])
ROW = (IDS[0].numpy().astype("uint32"), IDS[0].numpy() > -1)


def trained_adapter(base: Path, folder: Path, *, method: str | list[str] = "all-linear") -> Any:
    """An adapter whose weights are not zero, saved; returns the adapted model."""
    model = add_lora(
        load_model(base, CPU), lora_r=4, lora_alpha=8.0, lora_dropout=0.0, target_modules=method, seed=0
    )
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    folder.mkdir()
    save_adapter(model, folder, base="my/base", base_sha256=fingerprint(base))
    return model.eval()


def plain_logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits[0]


def our_logits(model: Any) -> torch.Tensor:
    return probe_logits(model, [ROW], "cpu")


@pytest.mark.parametrize("family", FAMILIES)
def test_peft_and_transformers_read_what_we_write(family: str, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = save_tiny(family, tmp_path / "base")
    adapted = trained_adapter(base, tmp_path / "adapter")
    ours = our_logits(adapted)
    untouched = our_logits(load_model(base, CPU).eval())
    assert (ours - untouched).abs().max() > 0.01  # the adapter does something

    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    by_peft = PeftModel.from_pretrained(plain, str(tmp_path / "adapter")).eval()
    torch.testing.assert_close(plain_logits(by_peft), ours, atol=1e-4, rtol=0)

    save_model(adapted.merge_and_unload(), load_tokenizer(base), tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(
        tmp_path / "merged", dtype=torch.float32, attn_implementation="eager"
    )
    torch.testing.assert_close(plain_logits(merged.eval()), ours, atol=1e-4, rtol=0)


def test_the_same_adapter_is_the_same_bytes(tmp_path: Path) -> None:
    base = save_tiny("llama", tmp_path / "base")
    names = [f"adapter {n}" for n in range(8)]  # a hash map's order is right by chance once in a while
    for name in names:
        trained_adapter(base, tmp_path / name)
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        assert len({(tmp_path / name / file).read_bytes() for name in names}) == 1, file
    config = json.loads((tmp_path / names[0] / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "my/base"
    assert config["target_modules"] == sorted(config["target_modules"])


def test_an_adapter_goes_on_its_own_base_only(tmp_path: Path) -> None:
    base = save_tiny("llama", tmp_path / "base")
    other = save_tiny("llama", tmp_path / "other", seed=9)
    adapted = trained_adapter(base, tmp_path / "adapter")
    again = load_adapter(load_model(base, CPU), tmp_path / "adapter", base_sha256=fingerprint(base))
    torch.testing.assert_close(our_logits(again), our_logits(adapted), atol=0, rtol=0)
    with pytest.raises(ModelError, match="this adapter was trained on another base"):
        load_adapter(load_model(other, CPU), tmp_path / "adapter", base_sha256=fingerprint(other))


def test_unknown_target_modules_are_named_with_those_there_are(tmp_path: Path) -> None:
    base = save_tiny("llama", tmp_path / "base")
    with pytest.raises(
        ModelError, match=r"sft.lora_target_modules: \['w_q'\] is not in this model"
    ) as caught:
        trained_adapter(base, tmp_path / "adapter", method=["w_q"])
    assert "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in str(caught.value.hint)


def test_a_merge_that_lost_its_adapter_is_refused(tmp_path: Path) -> None:
    base = save_tiny("llama", tmp_path / "base")
    adapted = our_logits(trained_adapter(base, tmp_path / "adapter"))
    untouched = our_logits(load_model(base, CPU).eval())
    against = (base, [ROW], CPU, torch.float32)  # as if the base had been saved for the merged model
    assert check_saved(untouched, *against) == 0.0
    with pytest.raises(ModelError, match="the saved model is not the trained one: logits differ by up to"):
        check_saved(adapted, *against)
    with pytest.raises(ModelError, match="differ by up to nan"):
        check_saved(torch.full_like(adapted, float("nan")), *against)

"""What a night reads from outside: files of the owner or the starter data, each with its fingerprint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nomoat.data.readers.hub import is_hub_id
from nomoat.data.readers.read import known_suffix
from nomoat.errors import DataError, RecipeError
from nomoat.ledger.files import hash_file
from nomoat.recipe import Recipe
from nomoat.recipe_training import Reward

STARTER = Path(__file__).parent.parent / "assets" / "starter"


@dataclass(frozen=True)
class RewardSpec:
    """A source of rewards: its kind, its weight, the file (of a reward model: the folder) it needs, and the rest of its
    keys."""

    kind: str
    weight: float
    file: Path | None
    keys: dict[str, Any]


@dataclass(frozen=True)
class Sources:
    """Paths as the readers take them, and `file:<sha256>` (or `hub:<id>`) of each, in the same order. `prefer` are
    files of judged answers, `asked` prompts whose answers are yet to be made and judged: one of the two is empty;
    `compared` are files of judged answers for the reward model."""

    train: tuple[str, ...]
    prefer: tuple[str, ...]
    compared: tuple[str, ...]
    asked: tuple[Path, ...]
    prompts: tuple[Path, ...]
    reinforce: tuple[Path, ...]
    rewards: tuple[RewardSpec, ...]
    pretrain: tuple[str, ...]
    chat_template: Path | None

    @property
    def judged(self) -> tuple[str, ...]:
        """All files of judged answers, each once."""
        return tuple(dict.fromkeys((*self.prefer, *self.compared)))

    @property
    def answered(self) -> tuple[Path, ...]:
        """All files of prompts that the model itself answers, each once."""
        return tuple(dict.fromkeys((*self.asked, *self.reinforce)))

    def fingerprints(self, names: tuple[str, ...]) -> dict[str, str]:
        """role -> fingerprint for these files, in order."""
        return {f"file {index}": _fingerprint(name) for index, name in enumerate(names)}


def find_sources(recipe: Recipe, folder: Path) -> Sources:
    """The recipe's files, relative to its folder; the starter data where it names none.

    Raises DataError or RecipeError where one is not there, before anything else is done.
    """
    template = recipe.data.chat_template
    return Sources(
        train=_train(recipe, folder),
        prefer=_judged(recipe, folder),
        compared=_compared(recipe, folder),
        asked=_asked(recipe, folder),
        prompts=held_out_files(recipe, folder),
        reinforce=_reinforced(recipe, folder),
        rewards=_rewards(recipe, folder),
        pretrain=_files(folder, recipe.pretrain.train, "pretrain.train") if recipe.pretrain else (),
        chat_template=None if template is None else _template(folder, template),
    )


def held_out_files(recipe: Recipe, folder: Path) -> tuple[Path, ...]:
    """The files of held-out prompts. Raises DataError where one is not there."""
    prompts = tuple(_existing(folder, name, "evaluate.prompts") for name in recipe.evaluate.prompts)
    if not prompts and _learns_from_starter(recipe):
        return (STARTER / "heldout.jsonl",)
    return prompts


def _train(recipe: Recipe, folder: Path) -> tuple[str, ...]:
    if recipe.sft is None:
        return ()
    return (
        _files(folder, recipe.data.train, "data.train")
        if recipe.data.train
        else (str(STARTER / "train.jsonl"),)
    )


def _judged(recipe: Recipe, folder: Path) -> tuple[str, ...]:
    """The files of `prefer`, which are those of `data` where it names none."""
    if recipe.prefer is None or _asks(recipe) or _votes_only(recipe):
        return ()
    key = "prefer.train" if recipe.prefer.train else "data.train"
    return _files(folder, recipe.prefer.train or recipe.data.train, key)


def _compared(recipe: Recipe, folder: Path) -> tuple[str, ...]:
    """The files of `reward`, which are those of `prefer` or of `data` where it names none."""
    if recipe.reward is None:
        return ()
    preferred = recipe.prefer.train if recipe.prefer else []
    named = {"reward": recipe.reward.train, "prefer": preferred, "data": recipe.data.train}
    for section, names in named.items():
        if names:
            return _files(folder, names, f"{section}.train")
    raise RecipeError(
        "reward: names no judged answers to learn from",
        hint='Name files of pairs: reward.train: [pairs.jsonl], a line such as {"prompt": "...", "chosen": "...", '
        '"rejected": "..."}',
    )


def _learns_from_starter(recipe: Recipe) -> bool:
    """Whether the starter data teaches in `sft`, or in `prefer` by its prompts, or by the votes on its stories."""
    return not recipe.data.train and (recipe.sft is not None or _asks(recipe) or _votes_only(recipe))


def _asks(recipe: Recipe) -> bool:
    """Whether `prefer` learns from answers that the model is yet to write: to given prompts, or where no file at all is
    named, to those of the starter data."""
    prefer = recipe.prefer
    if prefer is None or _votes_only(recipe):
        return False
    return bool(prefer.prompts) or not (prefer.train or recipe.data.train)


def _votes_only(recipe: Recipe) -> bool:
    return recipe.prefer is not None and recipe.prefer.votes == "only"


def _asked(recipe: Recipe, folder: Path) -> tuple[Path, ...]:
    if recipe.prefer is None or not _asks(recipe):
        return ()
    names = recipe.prefer.prompts
    return tuple(_existing(folder, name, "prefer.prompts") for name in names) or (STARTER / "prompts.jsonl",)


def _reinforced(recipe: Recipe, folder: Path) -> tuple[Path, ...]:
    if recipe.reinforce is None:
        return ()
    if not recipe.reinforce.prompts and _learns_from_starter(recipe):
        return (STARTER / "prompts.jsonl",)
    if not recipe.reinforce.prompts:
        raise RecipeError(
            "reinforce: names no prompts to answer",
            hint="Name JSONL files of prompts with checks: reinforce.prompts: [prompts.jsonl], a line such as "
            '{"messages": [{"role": "user", "content": "..."}], "checks": [{"kind": "words", "max": 50}]}',
        )
    return tuple(_existing(folder, name, "reinforce.prompts") for name in recipe.reinforce.prompts)


def _rewards(recipe: Recipe, folder: Path) -> tuple[RewardSpec, ...]:
    """The sources of rewards with their files, which are looked for now."""
    if recipe.reinforce is None:
        return ()
    found = []
    for index, reward in enumerate(recipe.reinforce.rewards or [Reward(kind="checks")]):
        key, file = f"reinforce.rewards[{index}]", None
        if reward.schema_file is not None:
            file = _existing(folder, reward.schema_file, f"{key}.schema_file")
        if reward.function is not None:
            file = _existing(folder, reward.function.rpartition(":")[0], f"{key}.function")
        if reward.path is not None:
            file = _folder(folder, reward.path, f"{key}.path")
        said = {k: v for k, v in reward.model_dump().items() if v is not None and k not in ("kind", "weight")}
        found.append(RewardSpec(reward.kind, reward.weight, file, said))
    return tuple(found)


def _files(folder: Path, names: list[str], key: str) -> tuple[str, ...]:
    return tuple(name if _is_hub(folder, name) else str(_existing(folder, name, key)) for name in names)


def _is_hub(folder: Path, name: str) -> bool:
    """A name such as owner/name that is no file here and does not end like a data file."""
    return is_hub_id(name) and not (folder / name).exists() and known_suffix(name) is None


def _existing(folder: Path, name: str, key: str) -> Path:
    path = (folder / Path(name).expanduser()).resolve()
    if not path.exists():
        raise DataError(f"{key}: {name} is not there", hint=f"Looked for {path}.")
    if path.is_dir():
        raise DataError(f"{key}: {name} is a folder; expected a file")
    return path


def _folder(folder: Path, name: str, key: str) -> Path:
    path = (folder / Path(name).expanduser()).resolve()
    if not (path / "config.json").is_file():
        raise DataError(
            f"{key}: {name} is no model folder; expected one with a config.json", hint=f"Looked for {path}."
        )
    return path


def _template(folder: Path, name: str) -> Path:
    path = (folder / name).resolve()
    if not path.is_file():
        raise RecipeError(f"data.chat_template: {name} is not there", hint="Expected a Jinja file.")
    return path


def _fingerprint(name: str) -> str:
    path = Path(name)
    if not path.is_file():
        return f"hub:{name}@{_revision(name)}"
    # the ending chooses the reader, so the same bytes under another ending are other rows
    return f"file:{hash_file(path)}{known_suffix(name) or ''}"


def _revision(name: str) -> str:
    """The commit a Hub data set stands at, so that a changed one is read again; 'unknown' offline."""
    from huggingface_hub import HfApi

    try:
        return HfApi().dataset_info(name.split("@")[0].split(":")[0]).sha or "unknown"
    except Exception:  # the http library's own errors are no OSError; reading the rows says what is wrong
        return "unknown"


def licences_of(base: Path, sources: Sources) -> tuple[str, ...]:
    """The licence of the base as its model card states it, and of the starter data; what nobody stated is
    said to be unknown, never guessed."""
    found = [f"base: {_card_licence(base / 'README.md')}"]
    for name in dict.fromkeys(
        (*sources.train, *sources.prefer, *sources.compared, *map(str, (*sources.asked, *sources.reinforce)))
    ):
        own = Path(name).parent == STARTER
        found.append(
            f"{Path(name).name}: {_card_licence(STARTER / 'README.md') if own else 'yours; not stated'}"
        )
    return tuple(found)


def _card_licence(card: Path) -> str:
    """`license:` of the YAML head of a model or data card."""
    if card.is_file():
        for line in card.read_text(encoding="utf-8", errors="replace").splitlines()[:60]:
            if line.startswith("license:"):
                return line.removeprefix("license:").strip()
    return "not stated"

"""Recipes: TOML files that say which experiment to do, and with what settings.

Python reads TOML itself from 3.11 on, and otgen supports 3.10 and adds no dependency for this. So recipes keep to the
part of TOML that is JSON as well: `key = value` on one line with a string, number, truth value or array, `[table]`, and
comments. What this module reads, any reader of TOML reads alike; what it does not, it refuses with the line's number.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "recipes"

KEY = re.compile(r"([A-Za-z0-9_-]+)\s*=\s*")
TABLE = re.compile(r"\[([A-Za-z0-9_-]+)\]")

WANTED: dict[str, type] = {"title": str, "experiment": str, "claim": str, "seed": int, "settings": dict, "fast": dict}
"""Keys of a recipe, all of which must be there, and their types."""


@dataclass(frozen=True)
class Recipe:
    """An experiment and its settings.

    Attributes:
        name: Of the file, without its ending.
        title: For headings.
        experiment: Which of `EXPERIMENTS`.
        claim: What the lecture says, in its own order of things.
        seed: Decides everything that is random.
        settings: At full size.
        fast: What differs where two cores have minutes.
    """

    name: str
    title: str
    experiment: str
    claim: str
    seed: int
    settings: dict[str, Any]
    fast: dict[str, Any]

    def sized(self, fast: bool) -> dict[str, Any]:
        """The settings at full size, or the fast ones."""
        return self.settings | self.fast if fast else self.settings


def names() -> list[str]:
    """Names of the recipes that otgen brings, in the order of the lecture's claims."""
    return [path.stem.split("_", 1)[1] for path in sorted(FOLDER.glob("*.toml"))]


def load(name: str) -> Recipe:
    """Read a recipe.

    Args:
        name: One of `names()`, or the path of a .toml file.

    Raises:
        OSError: The file cannot be opened.
        ValueError: There is no such recipe, or something is wrong in it.
    """
    if name.endswith(".toml"):
        path, name = Path(name), Path(name).stem
    elif name in names():
        (path,) = FOLDER.glob(f"*_{name}.toml")
    else:
        raise ValueError(f"recipe must be one of {', '.join(names())}, all, or a .toml file, got {name!r}")
    try:
        values = parse(path.read_text(encoding="utf-8"))
        return Recipe(name, **_checked(values))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def check_settings(recipe: Recipe) -> None:
    """Check the settings of a recipe against those of otgen's own recipes of the same experiment.

    Raises:
        ValueError: A setting is missing, of another type, an empty list, or a whole number below 1.
    """
    for own in filter(lambda own: own.experiment == recipe.experiment, map(load, names())):
        missing = sorted(own.settings.keys() - recipe.settings.keys())
        if missing:
            raise ValueError(f"{recipe.name}: [settings] must have {', '.join(own.settings)}, got no {missing[0]}")
        for key, like in own.settings.items():
            for given in (recipe.settings[key], recipe.sized(True)[key]):
                if not _alike(given, like):
                    example = like[:1] if isinstance(like, list) else like
                    least = " and at least 1" if isinstance(example, int) else ""
                    raise ValueError(f"{recipe.name}: {key} must be like {example!r}{least}, got {given!r}")


def _alike(given: Any, like: Any) -> bool:
    """Whether a setting is of the same kind as another; a list has one item at least, and a whole number is one."""
    if isinstance(like, list):
        return isinstance(given, list) and bool(given) and all(_alike(item, like[0]) for item in given)
    if type(like) is int:
        return type(given) is int and given > 0
    return type(given) is type(like) or (isinstance(like, float) and type(given) is int)


def parse(text: str) -> dict[str, Any]:
    """Read the part of TOML that recipes keep to.

    Raises:
        ValueError: A line is not of that part; the message has its number.
    """
    result: dict[str, Any] = {}
    table = result
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if not line or line.startswith("#"):
            continue
        header = TABLE.match(line)
        key = KEY.match(line)
        try:
            if header:
                table, rest = _new(result, header[1], {}), line[header.end() :]
            elif key:
                value, end = json.JSONDecoder(parse_constant=_refuse).raw_decode(line, key.end())
                rest = line[end:]
                _new(table, key[1], _plain(value))
            else:
                raise ValueError("wanted key = value or [table]")
            if rest.strip() and not rest.strip().startswith("#"):
                raise ValueError(f"wanted nothing but a comment after the value, got {rest.strip()!r}")
        except ValueError as error:
            raise ValueError(f"line {number}: {error}, in {line!r}") from error
    return result


def _new(table: dict[str, Any], key: str, value: Any) -> Any:
    if key in table:
        raise ValueError(f"{key} is there already")
    table[key] = value
    return value


def _plain(value: Any) -> Any:
    """Refuse what JSON has and TOML writes otherwise."""
    if value is None or isinstance(value, dict):
        raise ValueError("a value must be a string, number, truth value or array")
    for item in value if isinstance(value, list) else ():
        _plain(item)
    return value


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is no value of a recipe")


def _checked(values: dict[str, Any]) -> dict[str, Any]:
    """Check that all keys are there and no others, and their types."""
    wrong = sorted(values.keys() ^ WANTED.keys())
    if wrong:
        raise ValueError(f"the keys must be {', '.join(WANTED)}, got {', '.join(values) or 'none'}")
    for key, kind in WANTED.items():
        if not isinstance(values[key], kind) or isinstance(values[key], bool):
            raise ValueError(f"{key} must be {kind.__name__}, got {type(values[key]).__name__}")
    strange = sorted(values["fast"].keys() - values["settings"].keys())
    if strange:
        raise ValueError(f"[fast] must change settings that [settings] has, got {', '.join(strange)}")
    if values["seed"] < 0:
        raise ValueError(f"seed must be at least 0, got {values['seed']}")
    return values

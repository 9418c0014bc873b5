"""Feed one decoder what a fuzzer makes up, guided by the branches that are taken; any finding ends it.

    python -m tests.fuzz exchange --seconds 300           # until a finding, or for so long
    python -m tests.fuzz all --runs 5000 --seed 1         # the same inputs each time
    python -m tests.fuzz journal --input FILE             # one input again: what a finding has left
    python -m tests.fuzz http ws --runs 5000 --broken     # with decoders made worse, which must be found

A run begins with the seeds of `tests.fuzz.seeds`, or with what is in --corpus, where it also leaves what has
reached a new branch. libFuzzer ends the process by itself, so each target has a child of its own, one after
the other. Behind what that says stands a line: its name, and 0 if nothing was found.
"""

import argparse
import json
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType

from scripts import caches

DECODERS = ("gateway.", "engine.follow.decode", "engine.journal.reader")  # modules by their first letters
MEMORY_MAX_MB = 2048  # of the process, in which nothing grows with what was fed before
VALUES = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 1.5, "", "0", "-1", "BTC", "NaN", [], {}, "\ud800",
]  # fmt: skip


def main() -> int:
    names = ["exchange", "info", "session", "http", "ws", "node", "journal"]
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument(
        "targets", nargs="+", choices=[*names, "all"], metavar="TARGET", help=", ".join(names)
    )
    parser.add_argument("--runs", type=int, default=-1, help="how many inputs of each; -1: any number")
    parser.add_argument("--seconds", type=int, default=0, help="for how long, each; 0: for ever")
    parser.add_argument("--seed", type=int, default=0, help="of chance; 0: another one each time")
    parser.add_argument("--corpus", type=Path, help="a directory of directories of inputs, which grow")
    parser.add_argument(
        "--found", type=Path, default=Path(tempfile.gettempdir()), help="where findings are left"
    )
    parser.add_argument("--input", type=Path, help="feed this file alone")
    parser.add_argument("--broken", action="store_true", help="with decoders that are worse than ours")
    asked = parser.parse_args()
    wanted = names if "all" in asked.targets else asked.targets
    caches.settle()  # before numba is imported
    from tests.fuzz import seeds, targets

    if asked.input:
        targets.TARGETS[wanted[0]]().feed(asked.input.read_bytes())
        return 0
    import atheris

    for function in functions():
        atheris.instrument_func(function)
    assert seeds.SEEDS.keys() == targets.TARGETS.keys() == {*names}
    statuses = [in_a_child(name, asked) for name in wanted]
    return int(any(statuses))


def in_a_child(name: str, asked: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as directory:
        child = os.fork()
        if not child:
            fuzz(name, asked, Path(directory))
        _, waited = os.waitpid(child, 0)
    status = os.waitstatus_to_exitcode(waited)
    print(name, status, flush=True)
    return status


def fuzz(name: str, asked: argparse.Namespace, directory: Path) -> None:
    """Does not return."""
    import atheris

    from tests.fuzz import seeds, targets

    if asked.broken:
        targets.break_decoder(name)
    target = targets.TARGETS[name]()
    corpus = (asked.corpus or directory) / name
    corpus.mkdir(exist_ok=True, parents=True)
    for place, text in enumerate(seeds.SEEDS[name]):
        (corpus / f"seed-{place:03d}").write_bytes(text)
    words = directory / "words"
    words.write_text("".join(f'"{escaped(word)}"\n' for word in seeds.WORDS[name]))
    options = {
        "runs": asked.runs,
        "max_total_time": asked.seconds,
        "seed": asked.seed,
        "dict": words,
        "max_len": target.BYTES_MAX,
        "rss_limit_mb": MEMORY_MAX_MB,
        "artifact_prefix": f"{asked.found}{os.sep}{name}-",
        "print_final_stats": 1,
    }
    arguments = [sys.argv[0], *(f"-{option}={value}" for option, value in options.items()), str(corpus)]
    # `Mutate` is another function once `Fuzz` was called, so it is looked up each time.
    mutators = {"custom_mutator": Mutator(lambda *given: atheris.Mutate(*given))} if target.IS_JSON else {}
    atheris.Setup(arguments, target.feed, **mutators)
    atheris.Fuzz()


def functions() -> Iterator[FunctionType]:
    """All plain functions of the decoders' modules. Kernels are none: what numba compiles stays as it is."""
    for name in sorted(name for name in sys.modules if name.startswith(DECODERS)):
        module = vars(sys.modules[name])
        classes = [it for it in module.values() if isinstance(it, type) and it.__module__ == name]
        for found in [*module.values(), *(each for it in classes for each in vars(it).values())]:
            found = getattr(found, "fget", None) or getattr(found, "__func__", found)
            if isinstance(found, FunctionType) and found.__module__ == name:
                yield found


def escaped(word: bytes) -> str:
    """A word as a dictionary of libFuzzer has it."""
    return "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\x{byte:02x}" for byte in word
    )


class Mutator:
    """At times the fuzzer's own wounds, which know no JSON; else one of the values is another.

    Inputs of several lines are several texts.
    """

    def __init__(self, mutate):
        self._mutate = mutate

    def __call__(self, data: bytes, bytes_max: int, seed: int) -> bytes:
        chance = random.Random(seed)
        lines = bytes(data).split(b"\n")
        place = chance.choice([place for place, line in enumerate(lines) if line] or [0])
        try:
            value = json.loads(lines[place])
            if chance.random() < 0.3 or not isinstance(value, dict | list):
                return self._mutate(data, bytes_max)
            self._change(chance, value)
            lines[place] = json.dumps(value, ensure_ascii=chance.random() < 0.5).encode(
                errors="surrogatepass"
            )
        except (ValueError, RecursionError):
            return self._mutate(data, bytes_max)
        if chance.random() < 0.1:
            lines.insert(place, chance.choice(lines))
        return b"\n".join(lines)[:bytes_max]

    def _change(self, chance: random.Random, value: dict | list) -> None:
        """Change something, in here or further in."""
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = chance.choice(keys)
        if isinstance(value[key], dict | list) and chance.random() < 0.8:
            return self._change(chance, value[key])
        what = chance.randrange(4)
        if what == 0:
            del value[key]
        elif what == 1:
            value[key] = chance.choice(VALUES)
        elif what == 2:
            value[key] = value[chance.choice(keys)]
        elif isinstance(value[key], str):
            wounded = self._mutate(value[key].encode(errors="surrogatepass"), len(value[key]) + 8)
            value[key] = wounded.decode(errors="replace")
        elif isinstance(value[key], int):
            value[key] = chance.choice(
                [value[key] + 1, -value[key], value[key] * 10**9, float(value[key] % 2**40)]
            )


if __name__ == "__main__":
    sys.exit(main())

"""An installation is the same one everywhere: every package pinned, with digests, and no place named."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = {
    "requirements.lock": PROJECT["project"]["dependencies"],
    "requirements-dev.lock": PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["dev"],
    "requirements-parquet.lock": PROJECT["project"]["optional-dependencies"]["parquet"],
}
PINNED = re.compile(
    r"(?P<name>[a-z0-9-]+)==(?P<version>[0-9][0-9a-z.]*)(?P<marker> ; [^\\]+)?"
    r"(?P<hashes>( \\\n    --hash=sha256:[0-9a-f]{64})+)"
)


def entries(lock):
    """The file without comments, one item for each package, which begins at the left margin."""
    lines = [line for line in (ROOT / lock).read_text().splitlines() if not line.lstrip().startswith("#")]
    return re.split(r"\n(?=\S)", "\n".join(lines).strip())


def pins(lock):
    """Give the versions of each package of a lock file: more than one if it depends on the Python."""
    versions: dict[str, set[str]] = {}
    for pin in map(PINNED.fullmatch, entries(lock)):
        if pin:
            versions.setdefault(pin["name"], set()).add(pin["version"])
    return versions


@pytest.mark.parametrize("lock", LOCKS)
def test_every_entry_is_one_pinned_package_with_digests(lock):
    assert [entry for entry in entries(lock) if not PINNED.fullmatch(entry)] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_no_place_is_named(lock):
    text = (ROOT / lock).read_text()
    assert re.findall(r".*(?:://| @ |index|find.links|^-).*", text, re.MULTILINE) == []


@pytest.mark.parametrize("lock", LOCKS)
def test_all_that_the_project_asks_for_is_there_in_the_version_it_asks_for(lock):
    pinned = pins(lock)
    for requirement in map(Requirement, LOCKS[lock]):
        assert all(map(requirement.specifier.contains, pinned[requirement.name])), requirement


def test_the_tests_run_what_is_run():
    dev = pins("requirements-dev.lock")
    differing = {name for name, pinned in pins("requirements.lock").items() if dev.get(name) != pinned}
    assert differing == set()

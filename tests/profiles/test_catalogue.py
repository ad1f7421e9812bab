from pathlib import Path

import pytest

from profiles.catalogue import (
    DEFAULT_PROFILE,
    REFERENCE_PROFILE,
    catalogue_names,
    catalogue_profile,
    load_profile,
)
from profiles.errors import ProfileError, UnknownNameError


@pytest.mark.parametrize("name", catalogue_names())
def test_every_shipped_profile_is_named_after_its_file(name: str) -> None:
    assert catalogue_profile(name).name == name
    assert load_profile(name) is catalogue_profile(name)


def test_the_default_is_shipped() -> None:
    assert DEFAULT_PROFILE in catalogue_names()


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    own = catalogue_profile(DEFAULT_PROFILE).model_copy(update={"name": "own"})
    own.save(path)
    assert load_profile(str(path)) == own


@pytest.mark.parametrize("name", ["nobody", "absent/file.json", "", "x" * 5000, "a\0b"])
def test_unknown_names_get_the_known_ones_and_a_hint(name: str) -> None:
    with pytest.raises(UnknownNameError, match=rf"{REFERENCE_PROFILE}, .*nor is there such a file"):
        load_profile(name)


def test_what_exists_but_is_no_profile(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="cannot be read"):
        load_profile(str(tmp_path))
    path = tmp_path / "empty.json"
    path.touch()
    with pytest.raises(ProfileError, match=r"empty\.json: not valid JSON"):
        load_profile(str(path))


def test_the_catalogue_never_opens_a_path(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    catalogue_profile(DEFAULT_PROFILE).save(path)
    for name in (str(path), f"../models/{DEFAULT_PROFILE}"):
        with pytest.raises(UnknownNameError):
            catalogue_profile(name)

import pytest
from pydantic import ValidationError

from profiles.architecture import Architecture

GQA = Architecture(layers=2, query_heads=8, kv_heads=2, head_dim=64, hidden_size=512)


def test_query_heads_of_a_group_are_neighbours() -> None:
    assert GQA.group_size == 4
    assert [GQA.kv_head(head) for head in range(8)] == [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize(("dtype", "size"), [("bfloat16", 2), ("float16", 2), ("float32", 4)])
def test_item_bytes(dtype: str, size: int) -> None:
    assert Architecture.model_validate(GQA.model_dump() | {"dtype": dtype}).item_bytes == size


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("layers", 0),
        ("layers", 10**9),
        ("query_heads", -8),
        ("head_dim", 0),
        ("hidden_size", float("nan")),
        ("dtype", "int3"),
        ("unheard_of", 1),
    ],
)
def test_wrong_fields_are_named(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        Architecture.model_validate(GQA.model_dump() | {field: value})


def test_groups_must_be_whole() -> None:
    with pytest.raises(ValidationError, match=r"query_heads \(8\) must be a multiple of kv_heads"):
        Architecture.model_validate(GQA.model_dump() | {"kv_heads": 3})


def test_windows_are_of_every_layer_and_left_out_where_there_are_none() -> None:
    hybrid = GQA.model_copy(update={"windows": (64, None)})
    assert Architecture.model_validate_json(hybrid.model_dump_json()) == hybrid
    assert hybrid.reaches(100) == [64, 100]
    assert hybrid.reaches(32) == [32, 32]
    assert GQA.reaches(100) == [100] * GQA.layers
    assert "windows" not in GQA.model_dump()
    assert Architecture.model_validate(GQA.model_dump() | {"windows": (None, None)}) == GQA
    with pytest.raises(ValidationError, match="windows: 1 of them for 2 layers"):
        Architecture.model_validate(GQA.model_dump() | {"windows": (64,)})
    with pytest.raises(ValidationError, match=r"windows\.1"):
        Architecture.model_validate(GQA.model_dump() | {"windows": (64, 0)})

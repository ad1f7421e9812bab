"""Traces of requests: Mooncake's, Azure's, lengths alone; classes between powers of two."""

from pathlib import Path

import pytest

from profiles.errors import ProfileError
from profiles.traffic import Traffic, read_traffic

MOONCAKE = (
    '{"timestamp": 0, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47]}\n'
    '{"timestamp": 3, "input_length": 9, "output_length": 0, "hash_ids": []}\n'
)
AZURE = (
    "\ufeffTIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    "2023-11-16 18:15:46.68,6955,52\r\n2023-11-16 18:15:50.99,9,0\r\n"
)


def read(text: str, folder: Path) -> Traffic:
    path = folder / "trace"
    path.write_bytes(text.encode())
    return read_traffic(path)


@pytest.mark.parametrize("text", [MOONCAKE, AZURE])
def test_published_columns_are_read(text: str, tmp_path: Path) -> None:
    found = read(text, tmp_path)
    assert found.prompt_tokens.tolist() == [6955, 9]
    assert found.output_tokens is not None
    assert found.output_tokens.tolist() == [52, 0]


@pytest.mark.parametrize(
    "text", ["100\n2000\n", "100\r\n\r\n2000", "TIMESTAMP,ContextTokens\n1,100\n2,2000\n"]
)
def test_lengths_alone_say_nothing_of_outputs(text: str, tmp_path: Path) -> None:
    found = read(text, tmp_path)
    assert found.prompt_tokens.tolist() == [100, 2000]
    assert found.output_tokens is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no requests"),
        ("\n \n", "no requests"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "no requests"),
        ("a,b\n1,2\n", "line 1: no column of prompt lengths"),
        ('{"length": 3}\n', "line 1: no column of prompt lengths"),
        ('{"input_length": 3}\n[4]\n', "line 2: must be an object"),
        ('{"input_length": 3}\n{"input_length": 3,\n', "line 2"),
        ('{"input_length": true}\n', "line 1: True is not a number of tokens"),
        ('{"input_length": 1.5}\n', "line 1: 1.5 is not a number of tokens"),
        ("100\n0\n", "line 2: 0 is not a number of tokens"),
        ("100\nmany\n", "line 2: 'many' is not a number of tokens"),
        ("ContextTokens,GeneratedTokens\n5,-1\n", "line 2: '-1' is not a number of tokens"),
        ("ContextTokens,GeneratedTokens\n5,1\n6\n", "1 of 2 requests say"),
        ("ContextTokens,GeneratedTokens\n,1\n", "line 2: '' is not a number of tokens"),
        ("100\n20000000\n", "line 2: 20000000 is not a number of tokens, 1 to 16,777,216"),
        ("ContextTokens,GeneratedTokens\n16777215,2\n", "line 2: 16,777,215 tokens and 2 made"),
        (
            f"100\n{'9' * 5000}\n",
            "line 2: '999999999999...9999999999999' is not a number of tokens",
        ),
        (f"ContextTokens,b\n1,2\n{'x' * 200_000},2\n", "line 3: field larger than field limit"),
        (f"ContextTokens,{'b' * 200_000}\n1,2\n", "line 1: field larger than field limit"),
    ],
)
def test_what_is_no_trace_is_refused_by_its_line(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ProfileError) as refused:
        read(text, tmp_path)
    assert said in str(refused.value)


def test_requests_between_two_powers_of_two_are_a_class(tmp_path: Path) -> None:
    rows = [(1, 10), (1024, 20), (1025, 1), (2048, 2), (2049, 0)]
    text = "ContextTokens,GeneratedTokens\n" + "".join(f"{p},{o}\n" for p, o in rows)
    assert list(read(text, tmp_path).classes()) == [(2, 512, 30), (2, 1536, 3), (1, 2049, 0)]
    assert list(read("5\n3000\n", tmp_path).classes()) == [(1, 5, None), (1, 3000, None)]

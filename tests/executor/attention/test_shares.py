from dataclasses import replace

import numpy as np
import pytest

from executor.attention.shares import HeadShare, check_shares
from executor.errors import AttentionError
from executor.kernels.batch import Chunk
from executor.kernels.patterns import Rule, Sampled, VerticalSlash

PROMPT, DECODE = Chunk(0, 64), Chunk(63, 1, decodes=True)


@pytest.mark.parametrize(
    ("share", "message"),
    [
        (HeadShare(-1, 0, 16), r"shares\[1\].head: -1 must be a whole number, at least 0"),
        (HeadShare(0, True, 16), r"shares\[1\].group: True must be a whole number"),
        (HeadShare(0, 0, 0), r"budget_tokens: 0 must be a whole number, at least 1"),
        (HeadShare(0, 0, 2.5), r"budget_tokens: 2.5"),
        (HeadShare(0, 0, 16, sequence=2), r"shares\[1\].sequence: 2 is not in 0..1"),
        (HeadShare(0, 0, 16, (0.5, 0.5)), r"rows: \(0.5, 0.5\) must be two cumulative shares"),
        (HeadShare(0, 0, 16, (0.5, 0.2)), r"rows"),
        (HeadShare(0, 0, 16, (-0.1, 0.2)), r"rows"),
        (HeadShare(0, 0, 16, (0.0, 1.1)), r"rows"),
        (HeadShare(0, 0, 16, (0.0, float("nan"))), r"rows"),
        (HeadShare(0, 0, 16, (0.0, 0.5, 1.0)), r"rows"),
        (HeadShare(0, 0, 16, ("0", "1")), r"rows"),
        (HeadShare(0, 0, 16, pattern=None), r"pattern: None is no pattern of kernels.patterns"),
        (
            HeadShare(0, 0, 16, pattern=Rule.strided(2, 0)),
            r"pattern.stride: 0 must be .* at least 1",
        ),
        (
            HeadShare(0, 0, 16, pattern=Rule.sink_local(-1)),
            r"pattern.sink_pieces: -1 .* at least 0",
        ),
        (HeadShare(0, 0, 16, pattern=VerticalSlash(0)), r"pattern.scored_rows: 0"),
        (HeadShare(0, 0, 16, pattern=Sampled(0)), r"pattern.rows: 0"),
        (HeadShare(1, 0, 16, (0.2, 0.6)), r"head 1 of sequence 0 is also shares\[0\]'s: .*overlap"),
        (HeadShare(1, 0, 16), r"overlap"),
    ],
)
def test_bad_shares_are_named(share, message):
    with pytest.raises(AttentionError, match=message):
        check_shares([HeadShare(1, 0, 16, (0.0, 0.5)), share], [PROMPT, DECODE])


@pytest.mark.parametrize("edge", [0.5 + 1e-10, 0.5 - 1e-10])
@pytest.mark.parametrize("turned", [False, True])
def test_ranges_meet_up_to_the_rounding_of_their_sums(edge, turned):
    shares = [HeadShare(0, 0, np.int64(16), (0.0, edge)), HeadShare(0, 0, 16, (0.5, 1.0))]
    check_shares(shares[::-1] if turned else shares, [PROMPT])


def test_ranges_of_a_prompt_may_meet_but_a_decoding_head_has_one_part():
    first, second = HeadShare(0, 0, 16, (0.0, 0.5)), HeadShare(0, 0, 16, (0.5, 1.0))
    check_shares([first, second], [PROMPT, DECODE])
    decodes = [replace(share, sequence=1) for share in (first, second)]
    with pytest.raises(AttentionError, match="a decoding head has one part on a device"):
        check_shares(decodes, [PROMPT, DECODE])

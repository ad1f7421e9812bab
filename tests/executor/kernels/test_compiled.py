"""How the CPU's own code comes to be there, what happens where it cannot, and that it says what
PyTorch says."""

import math
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from executor.attention.lists import lay_out
from executor.kernels.batch import Chunk
from executor.kernels.bounds import page_bounds
from executor.kernels.decode_layout import DecodeHeads, lay_out_decode
from executor.kernels.layout import HeadBlocks
from executor.kernels.patterns import Sampled
from executor.kernels.select import select
from executor.kernels.select_decode import select_decode
from executor.kernels.torch import compiled

from .cpu_cases import DTYPES, by_products, threads
from .reference import contexts, random_cache, random_q

load = compiled.library.__wrapped__


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """One that notes its calls and gives what was compiled before; an empty cache folder."""
    if compiled.library() is None:
        pytest.skip("no C++ compiler here")
    script = tmp_path / "c++"
    script.write_text(
        f"#!/bin/sh\necho >> {tmp_path}/calls\n"
        f'for last; do :; done\ncp {compiled.library()._name} "$last"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    monkeypatch.setenv("HPLB_CACHE", str(tmp_path / "cache"))
    return script


def calls(compiler):
    return len((compiler.parent / "calls").read_text().splitlines())


def test_a_machine_with_a_compiler_has_the_code():
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler here")
    assert compiled.library() is not None


def test_it_is_compiled_once_a_machine(compiler):
    assert load() is not None
    assert load() is not None
    assert calls(compiler) == 1
    (kept,) = (compiler.parent / "cache" / "kernels").iterdir()
    assert kept.suffix == ".so"


def test_another_source_or_processor_is_compiled_anew(compiler, monkeypatch):
    load()
    monkeypatch.setattr(compiled, "_features", lambda: "flags: another")
    load()
    monkeypatch.setattr(compiled, "FLAGS", ("-O1",))
    load()
    assert calls(compiler) == 3


@pytest.mark.usefixtures("compiler")
def test_many_may_compile_it_at_once(compiler):
    with ThreadPoolExecutor(8) as pool:
        assert None not in list(pool.map(lambda _: load(), range(8)))
    (kept,) = (compiler.parent / "cache" / "kernels").iterdir()
    assert kept.suffix == ".so"


def test_a_compiler_that_fails_is_named_with_what_it_says(compiler):
    compiler.write_text("#!/bin/sh\necho 'no such option: -O3' >&2\nexit 1\n")
    with pytest.warns(RuntimeWarning, match=r"c\+\+ does not compile .*no such option: -O3"):
        assert load() is None
    assert not list((compiler.parent / "cache" / "kernels").iterdir())


def test_what_is_no_library_is_refused(compiler):
    compiler.write_text('#!/bin/sh\nfor last; do :; done\necho nothing > "$last"\n')
    with pytest.warns(RuntimeWarning, match="does not compile"):
        assert load() is None


def test_a_folder_that_cannot_be_written_is_said(compiler, monkeypatch):
    monkeypatch.setenv("HPLB_CACHE", str(compiler))
    with pytest.warns(RuntimeWarning, match="Not a directory"):
        assert load() is None


@pytest.mark.filterwarnings("error")
def test_nothing_is_said_where_none_is_wanted_or_there(compiler, monkeypatch):
    monkeypatch.setenv("HPLB_COMPILE", "0")
    assert load() is None
    monkeypatch.delenv("HPLB_COMPILE")
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(compiler.parent / "nothing"))
    assert load() is None


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("dtype", DTYPES)
def test_it_is_what_decodes(dtype):
    """Not PyTorch's operations, which would say the same."""
    chunks, context = (Chunk(79, 1),), contexts((Chunk(79, 1),))
    q, cache = (make(chunks, 2, 16, dtype=dtype) for make in (random_q, cached))
    layout = lay_out_decode([DecodeHeads(0, 0, 0, (0, 1), 5)], 10, 8)
    bounds, out = page_bounds(cache, context), torch.empty_like(q)
    lists = select_decode(q, bounds, cache, layout, context)
    chosen = torch.full_like(lists.indices, -1)
    entries = torch.zeros(1, dtype=torch.int32)
    assert compiled.choose(q, bounds, cache, layout, entries, context, chosen)
    assert torch.equal(chosen, lists.indices)
    assert compiled.attend(q, cache, layout, lists, context, out, None)
    assert out.isfinite().all()


def cached(chunks, groups, head_dim, *, dtype):
    return random_cache(chunks, groups, head_dim, 8, paged=True, dtype=dtype)


@pytest.mark.usefixtures("compiler")
def test_of_equal_scores_the_first_pieces_are_taken():
    chunks = (Chunk(79, 1),)
    q, cache = random_q(chunks, 1, 16), random_cache(chunks, 1, 16, 8, paged=True)
    cache.keys.fill_(1.0)
    layout = lay_out_decode([DecodeHeads(0, 0, 0, (0,), 5)], 10, 8)
    found = select_decode(q, page_bounds(cache, contexts(chunks)), cache, layout, contexts(chunks))
    assert torch.equal(found.indices, torch.tensor([0, 1, 2, 3, 9]))


def every_head(chunks, block, rows):
    """Three heads of every sequence in two groups, of unlike budgets, the last divided."""
    ends = [(c.cached_tokens // block, -(-c.total_tokens // block)) for c in chunks]
    return [
        HeadBlocks(head, head // 2, budget, first, last, sequence, Sampled(rows))
        for sequence, (begin, end) in enumerate(ends)
        for head, budget, (first, last) in (
            (0, 3, (begin, end)),
            (1, 6, (begin, end)),
            (2, 5, (begin, (begin + end) // 2)),
            (2, 5, ((begin + end) // 2, end)),
        )
    ]


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("block", "piece", "rows", "dim"),
    [(64, 16, 8, 64), (64, 64, 2, 40), (16, 16, 1, 5), (32, 16, 32, 16), (48, 48, 3, 64)],
)
def test_sampled_rows_choose_what_pytorch_makes_of_them(block, piece, rows, dim, dtype, count):
    """Prompts, a chunk that begins within a block, a single row; in pages and not."""
    chunks = (Chunk(0, 700), Chunk(431, 300), Chunk(0, 1), Chunk(300, 3))
    heads = every_head(chunks, block, rows)
    for page in (0, 2 * piece):
        cache = random_cache(chunks, 2, dim, page, paged=page > 0, dtype=dtype)
        q = random_q(chunks, 3, dim, dtype=dtype)
        layout = lay_out(heads, chunks, block, piece_tokens=piece)
        with threads(count):
            found = select(q, cache, layout)
            with by_products():
                wanted = select(q, cache, layout)
        assert torch.equal(found, wanted)


@pytest.mark.parametrize(("scale", "computed"), [(1.0, True), (400.0, False), (math.nan, False)])
def test_scores_whose_powers_are_lost_are_left_to_pytorch(scale, computed):
    if compiled.library() is None:
        pytest.skip("no C++ compiler here")
    chunks = (Chunk(0, 128),)
    q, cache = random_q(chunks, 3, 16) * scale, random_cache(chunks, 2, 16, 0)
    layout = lay_out(every_head(chunks, 16, 2)[:2], chunks, 16)
    indices = torch.empty(layout.stored, dtype=torch.int32)
    lists = range(layout.lists)
    assert compiled.choose_sampled(q, cache.keys[0], layout, lists, 2, indices) is computed
    with by_products():
        wanted = select(q, cache, layout)
    assert torch.equal(select(q, cache, layout), wanted)
    assert torch.equal(indices, wanted) or not computed


def test_pieces_of_other_sizes_are_left_to_pytorch():
    chunks = (Chunk(0, 128),)
    q, cache = random_q(chunks, 3, 16), random_cache(chunks, 2, 16, 0)
    layout = lay_out(every_head(chunks, 8, 2)[:2], chunks, 8)
    indices = torch.empty(layout.stored, dtype=torch.int32)
    lists = range(layout.lists)
    assert not compiled.choose_sampled(q, cache.keys[0], layout, lists, 2, indices)

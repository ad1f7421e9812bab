"""How the CPU's own code comes to be there, and what happens where it cannot."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from executor.kernels.batch import Chunk
from executor.kernels.bounds import page_bounds
from executor.kernels.decode_layout import DecodeHeads, lay_out_decode
from executor.kernels.select_decode import select_decode
from executor.kernels.torch import compiled

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
def test_of_equal_scores_the_first_pieces_are_taken():
    chunks = (Chunk(79, 1),)
    q, cache = random_q(chunks, 1, 16), random_cache(chunks, 1, 16, 8, paged=True)
    cache.keys.fill_(1.0)
    layout = lay_out_decode([DecodeHeads(0, 0, 0, (0,), 5)], 10, 8)
    found = select_decode(q, page_bounds(cache, contexts(chunks)), cache, layout, contexts(chunks))
    assert torch.equal(found.indices, torch.tensor([0, 1, 2, 3, 9]))

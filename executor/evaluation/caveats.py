"""Where an evaluation is unlike what its profile was measured with: the figures say less then."""

from executor.evaluation.runner import Options
from profiles.heads import CurvesForm
from profiles.measuring.loading import Loaded
from profiles.model import ModelProfile


def caveats(loaded: Loaded, profile: ModelProfile, options: Options) -> list[str]:
    """A note for each of contexts, weights, block size and selection that differs."""
    notes = []
    heads, measured = profile.heads, profile.measurement
    if isinstance(heads, CurvesForm):
        least, most = heads.context_tokens[0], heads.context_tokens[-1]
        beyond = [str(n) for n in options.contexts if not least <= n <= most]
        if beyond:
            notes.append(
                f"{', '.join(beyond)} tokens are outside the contexts of profile {profile.name}, "
                f"{least} to {most}: heads get the shares of the nearest"
            )
        followed = heads.selected_recovery is not None and options.curve != "oracle"
        if followed and profile.selection != options.selection:
            notes.append(
                f"budgets follow curves of the selection {profile.selection.kind!r}, and blocks "
                f"are chosen by {options.selection.kind!r}"
            )
    if measured is not None and measured.weights_sha256 != loaded.weights_sha256:
        notes.append(
            f"profile {profile.name} was measured on other weights ({measured.model}, "
            f"{measured.weights_sha256[:12]}) than the model's ({loaded.weights_sha256[:12]})"
        )
    sizes = options.block_tokens, options.piece_tokens
    if measured is not None and (measured.block_tokens, measured.piece_tokens) != sizes:
        notes.append(
            f"profile {profile.name} was measured in blocks of {measured.block_tokens} tokens and "
            f"pieces of {measured.piece_tokens}, not of {sizes[0]} and {sizes[1]}"
        )
    return notes

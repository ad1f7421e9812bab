"""The reference model's tokenizer: every word of the tasks is one token, text is word pieces."""

from collections.abc import Iterator

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from profiles.tasks.haystack import sentences
from profiles.tasks.words import NAMES, NUMBERS, SYLLABLES

TEXT_PIECES = 900
SPECIAL = ("[PAD]", "[BOS]", "[EOS]", "[UNK]")
TASK_WORDS = (
    *("number", "numbers", "all", "label", "code", "let", "equal", "common", "frequent", "words"),
    *("lives", "in", "works", "with", "likes", "partner", "of"),
)


def _corpus() -> Iterator[str]:
    yield from sentences("train")


def build() -> PreTrainedTokenizerFast:
    """Word pieces of the training text, joined with the task's own words."""
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=TEXT_PIECES, special_tokens=list(SPECIAL))
    learner.train_from_iterator(_corpus(), trainer)
    pieces = sorted(learner.get_vocab(), key=learner.get_vocab().__getitem__)
    digits = [f"##{digit}" for digit in range(10)] + [str(digit) for digit in range(10)]
    words = dict.fromkeys([*pieces, *digits, *TASK_WORDS, *NAMES, *SYLLABLES, *NUMBERS])
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A", special_tokens=[("[BOS]", vocabulary["[BOS]"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        bos_token="[BOS]",
        eos_token="[EOS]",
        unk_token="[UNK]",
        clean_up_tokenization_spaces=False,
    )

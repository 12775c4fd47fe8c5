"""The mask of a caption is that of the longest one of its batch."""

from tests.kit_faults.fault import MOCHI, Fault

FAULT = Fault(
    MOCHI,
    (
        (
            "adapter.py",
            "pad_text(embeddings, self.folder.text_length, lengths)",
            "pad_text(embeddings, self.folder.text_length, None)",
        ),
    ),
    checks=("test_a_caption_reads_the_same_beside_a_longer_one",),
    says="mask by text_embedding_length",
)

"""Loading and saving without the progress bars of diffusers and transformers, and what they say of files fit to be shown."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from fastvideo_core.launch.stdio import PrintableFormatter

# Pipelines of image-to-video bring CLIP's image processor, also where no image is asked for; it does the same with PIL.
logging.getLogger("transformers.utils.import_utils").addFilter(
    lambda record: "requires torchvision" not in record.getMessage()
)


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Switches both libraries' bars off, and afterwards back to what they were. Their messages quote what files hold."""
    for library in (diffusers_logging, transformers_logging):
        for handler in library.get_logger().handlers:
            handler.setFormatter(PrintableFormatter("%(message)s"))
    libraries = [library for library in (diffusers_logging, transformers_logging) if library.is_progress_bar_enabled()]
    for library in libraries:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in libraries:
            library.enable_progress_bar()

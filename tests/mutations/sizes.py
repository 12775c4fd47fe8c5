"""Mistakes in what preprocess makes of videos of many sizes, of images, and in several processes."""

from __future__ import annotations

from tests.mutations.mutation import Mutation

DATA = "plugins/fastvideo-data/src/fastvideo_data"
BUCKETS = "plugins/fastvideo-data/tests/test_buckets.py"
SHARES = "plugins/fastvideo-data/tests/test_shares.py"
IMAGES = "plugins/fastvideo-data/tests/test_raw_folders.py::test_images_are_seen_as_their_files_want_them_seen"

SIZES: tuple[Mutation, ...] = (
    Mutation(
        "the nearest aspect ratio by difference",
        f"{DATA}/preprocessing/buckets.py",
        "abs(math.log(one * height / width))",
        "abs(one - width / height)",
        (f"{BUCKETS}::test_the_nearest_aspect_ratio_is_the_one_of_least_cropping",),
    ),
    Mutation(
        "width and height of an area exchanged",
        f"{DATA}/preprocessing/buckets.py",
        "(area / aspect, area * aspect)",
        "(area * aspect, area / aspect)",
        (
            f"{BUCKETS}::test_sizes_of_an_area_in_several_aspect_ratios",
            f"{BUCKETS}::test_every_clip_goes_into_the_folder_of_its_size",
        ),
    ),
    Mutation(
        "the smallest area of those that do not enlarge",
        f"{DATA}/preprocessing/buckets.py",
        "kept[-1] if kept else",
        "kept[0] if kept else",
        (f"{BUCKETS}::test_of_several_areas_the_largest_that_does_not_enlarge_much",),
    ),
    Mutation(
        "frames rounded up to the next bucket",
        f"{DATA}/preprocessing/clips.py",
        "if least <= length <= len(self._rest)",
        "if least <= length <= len(self._rest) + 1",
        (f"{BUCKETS}::test_every_clip_goes_into_the_folder_of_its_size",),
    ),
    Mutation(
        "a video whose last clip is stored taken as whole",
        f"{DATA}/preprocessing/part_files.py",
        "return record if whole else None",
        "return record",
        (f"{BUCKETS}::test_a_clip_that_was_lost_is_made_again_though_the_end_of_its_video_is_there",),
    ),
    Mutation(
        "mirrored and turned images as they are stored",
        f"{DATA}/images.py",
        "ImageOps.exif_transpose(image).convert",
        "image.convert",
        (IMAGES,),
    ),
    Mutation("what is transparent black", f"{DATA}/images.py", '"white")', '"black")', (IMAGES,)),
    Mutation(
        "a share that takes those of the next ones, too",
        f"{DATA}/preprocessing/share_account.py",
        "% self.count == self.index",
        "% self.count >= self.index",
        (f"{SHARES}::test_the_shares_together_are_the_data_set_of_one_process",),
    ),
    Mutation(
        "a share that removes what another is writing",
        f"{DATA}/preprocessing/part_files.py",
        "f\".{self._prefix if share else ''}*.partial\"",
        '".*.partial"',
        (f"{SHARES}::test_a_share_leaves_what_another_is_writing",),
    ),
    Mutation(
        "processes of another call let in",
        f"{DATA}/preprocessing/siblings.py",
        "elif not self._is_ours():",
        "elif False:",
        (f"{SHARES}::test_siblings_of_one_call_are_let_in_and_nobody_else",),
    ),
)

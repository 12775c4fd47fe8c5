"""An option has no description."""

from tests.kit_faults.fault import CALLBACK, Fault

FAULT = Fault(
    CALLBACK,
    (("config.py", ', description="Log the count every so many steps."', ""),),
    checks=("test_every_option_says_what_it_means",),
    says="has options without a meaning: every; declare them with Field",
)

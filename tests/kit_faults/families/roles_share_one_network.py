"""Roles of the same path are given the same network."""

from tests.kit_faults.fault import FAMILY, Fault

FAULT = Fault(
    FAMILY,
    (
        (
            "family.py",
            "        roles = {}\n",
            "        roles, networks = {}, {}\n",
        ),
        (
            "family.py",
            'network = load_network(role.path, f"roles.{name}.path").to(context.device())',
            ('network = networks.setdefault(role.path, load_network(role.path, f"roles.{name}.path"))'),
        ),
    ),
    checks=("test_the_handle_says_which_network_runs",),
    says="the student's output after the teacher ran.*each role has networks of its own",
)

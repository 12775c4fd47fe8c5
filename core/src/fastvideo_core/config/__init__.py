"""run.yaml as typed, immutable data; dispatch/load_run_config.py reads a file with what is here.

`run` and `training` are core's sections, `base` has the classes of plug-ins' sections. `document` reads YAML and knows every
value's line, `check` finds settings that contradict each other, `problems` and `describe` word what is wrong and what is allowed.
"""

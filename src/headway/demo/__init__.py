"""A believable fleet to look around in: ``headway up --demo``.

``fleet`` is the table of what there is, ``behaviours`` what may become of a run, ``platforms`` how each platform speaks
of it, ``plan`` turns a pipeline's slots into observations, ``loading`` writes them through the one writer of runs. A
run is a pure function of its slot and of the fleet's first load, so that loading again adds only what is new
(``tests/test_demo.py``).
"""

from headway.demo.loading import load

__all__ = ["load"]

"""`cr.compile`: a step of training as one program.

The road of a compiled function: `face` is called, `trace` calls the function once and writes down
what it does as a graph (`ir`), `state` finds the graph's inputs at each call and puts its results
in place. Between, the graph becomes a program: `passes` simplify it, `fuse` cuts it into kernels,
`schedule` orders them, `plan` gives each value its place, `native` writes the code, and `build`
leads through all of these.
"""

from chainrule.compiler.face import Compiled, compile

__all__ = ["Compiled", "compile"]

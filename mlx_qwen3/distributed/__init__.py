"""One model over several machines with mx.distributed: who has which part, and how all stay in step.

Rank 0 has the conversations and samples. The others follow its stream of plain values and compute their part
of each pass.
"""

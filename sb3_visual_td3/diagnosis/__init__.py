"""Judge a run from its logged series: apply criteria, find causes, give a verdict. Nothing here imports torch.

The report judges a whole run. The live alerts apply the rules to its last updates.
"""
